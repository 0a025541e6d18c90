//! The block cache: decoded parts of archived segments in bounded memory, shared by all readers of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_types::SegmentId;
use foyer::{Cache, CacheBuilder};

use crate::{Block, SegmentIndex, StreamRow};

/// A bounded cache of blocks, stream pages and directories. Cheap to clone; all clones are the same cache.
///
/// Weighted by bytes of memory. What a reader holds stays alive after it was evicted, beyond the capacity.
#[derive(Clone)]
pub struct SegmentCache {
    parts: Cache<Key, CachedPart>,
    lookups: Arc<Lookups>,
}

#[derive(Debug, Default)]
struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    segment: SegmentId,
    part: PartKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PartKey {
    Index,
    StreamPage(usize),
    Block(u32),
}

#[derive(Debug, Clone)]
enum CachedPart {
    Index(Arc<SegmentIndex>),
    StreamPage(Arc<[StreamRow]>),
    Block(Arc<Block>),
}

/// Below this a cache is not divided, so that one block does not fill a division.
const DIVIDED_FROM: usize = 64 << 20;

impl SegmentCache {
    /// A cache of about `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let divisions = if capacity < DIVIDED_FROM { 1 } else { 8 };
        let parts = CacheBuilder::new(capacity)
            .with_name("archive blocks")
            .with_shards(divisions)
            .with_weighter(|_: &Key, part: &CachedPart| part.weight())
            .build();
        Self { parts, lookups: Arc::default() }
    }

    /// The bytes in use.
    pub fn usage(&self) -> usize {
        self.parts.usage()
    }

    pub fn capacity(&self) -> usize {
        self.parts.capacity()
    }

    /// How many parts were looked for and found, and how many were not there.
    pub fn lookups(&self) -> (u64, u64) {
        let Lookups { hits, misses } = &*self.lookups;
        (hits.load(Ordering::Relaxed), misses.load(Ordering::Relaxed))
    }

    pub(crate) fn index(&self, segment: SegmentId) -> Option<Arc<SegmentIndex>> {
        match self.get(segment, PartKey::Index)? {
            CachedPart::Index(index) => Some(index),
            CachedPart::StreamPage(_) | CachedPart::Block(_) => None,
        }
    }

    pub(crate) fn put_index(&self, segment: SegmentId, index: Arc<SegmentIndex>) {
        self.put(segment, PartKey::Index, CachedPart::Index(index));
    }

    pub(crate) fn stream_page(&self, segment: SegmentId, number: usize) -> Option<Arc<[StreamRow]>> {
        match self.get(segment, PartKey::StreamPage(number))? {
            CachedPart::StreamPage(page) => Some(page),
            CachedPart::Index(_) | CachedPart::Block(_) => None,
        }
    }

    pub(crate) fn put_stream_page(&self, segment: SegmentId, number: usize, page: Arc<[StreamRow]>) {
        self.put(segment, PartKey::StreamPage(number), CachedPart::StreamPage(page));
    }

    pub(crate) fn block(&self, segment: SegmentId, number: u32) -> Option<Arc<Block>> {
        match self.get(segment, PartKey::Block(number))? {
            CachedPart::Block(block) => Some(block),
            CachedPart::Index(_) | CachedPart::StreamPage(_) => None,
        }
    }

    pub(crate) fn put_block(&self, segment: SegmentId, number: u32, block: Arc<Block>) {
        self.put(segment, PartKey::Block(number), CachedPart::Block(block));
    }

    fn get(&self, segment: SegmentId, part: PartKey) -> Option<CachedPart> {
        let found = self.parts.get(&Key { segment, part }).map(|entry| entry.value().clone());
        let counter = if found.is_some() { &self.lookups.hits } else { &self.lookups.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn put(&self, segment: SegmentId, part: PartKey, cached: CachedPart) {
        self.parts.insert(Key { segment, part }, cached);
    }
}

impl std::fmt::Debug for SegmentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentCache")
            .field("usage", &self.usage())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl CachedPart {
    fn weight(&self) -> usize {
        match self {
            Self::Index(index) => index.weight(),
            Self::StreamPage(page) => size_of_val(&**page),
            Self::Block(block) => block.weight(),
        }
    }
}
