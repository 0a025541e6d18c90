//! Reading the history: streams, whole entries, and the state of a shard at any cut.
//!
//! [`History`] joins what the manifests say ([`ShardView`](crate::ShardView)) with what the segments hold, from the object store or
//! from a local copy of it, through one [`SegmentCache`].

mod entries;
mod error;
mod kept;
mod pages;
mod pipeline;
mod replay;
mod search;
mod source;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use duramen_types::ArchiveId;

use crate::{Blocking, SegmentCache, SegmentIdentity, SegmentIndex, SegmentReader, Store, ViewRow};

pub use entries::Entries;
pub use error::HistoryError;
pub use kept::BytesBefore;
pub use stream::StreamReader;

/// The result of reading history.
type Result<T, E = HistoryError> = std::result::Result<T, E>;

/// How history is read.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// A folder with copies of the archive's objects under their keys; each is used instead of the remote one.
    pub mirror: Option<PathBuf>,
    /// How many requests are under way ahead of what is being used.
    pub read_ahead: usize,
    /// The most that one request for neighbouring blocks or pages fetches, in bytes as stored.
    pub request_bytes: u64,
    /// The most that [`Entries`] keeps of decoded blocks, in bytes.
    pub entries_bytes: usize,
    /// Where blocks are checked and decompressed, and files of the mirror are read.
    pub blocking: Blocking,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            mirror: None,
            read_ahead: 4,
            request_bytes: 4 << 20,
            entries_bytes: 128 << 20,
            blocking: Blocking::Threads,
        }
    }
}

/// A reader of one archive's histories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    archive: ArchiveId,
    cache: SegmentCache,
    options: HistoryOptions,
}

impl History {
    /// Reads the archive `archive` at `store`; `cache` may be shared with others.
    pub fn new(store: Store, archive: ArchiveId, cache: SegmentCache, options: HistoryOptions) -> Self {
        Self { inner: Arc::new(Inner { store, archive, cache, options }) }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn cache(&self) -> &SegmentCache {
        &self.inner.cache
    }

    /// A reader of the row's segment, whose trailer was found to be the one that the manifest speaks of.
    ///
    /// At most one request if the directories are at the object's end, none if they are cached.
    pub async fn open(&self, row: &ViewRow) -> Result<SegmentReader> {
        let source = source::open(&self.inner, &row.key())?;
        let segment = row.row.id;
        if let Some(index) = self.inner.cache.index(segment) {
            return Ok(SegmentReader::new(source, index));
        }
        let identity = SegmentIdentity {
            archive: self.inner.archive,
            branch: row.branch.clone(),
            shard: row.shard,
            segment,
        };
        let index = SegmentIndex::load(source.as_ref(), row.row.bytes, &identity).await?;
        let trailer = index.trailer();
        let stated = (row.row.first, row.row.end, row.row.chain_before, row.row.chain_after);
        if stated != (trailer.first, trailer.end, trailer.chain_before, trailer.chain_after) {
            let reason = "its trailer's range or chain values are not those of its manifest".to_owned();
            return Err(HistoryError::Inconsistent { object: index.name().to_owned(), reason });
        }
        let index = Arc::new(index);
        self.inner.cache.put_index(segment, Arc::clone(&index));
        Ok(SegmentReader::new(source, index))
    }
}

#[cfg(test)]
mod tests;
