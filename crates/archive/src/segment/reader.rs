//! Reads archived segments part by part.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{Entry, Index, Offset, StreamId};

use super::block::Block;
use super::entries::{EntryRow, Location};
use super::error::SegmentError;
use super::format::SegmentIdentity;
use super::index::{SegmentIndex, damaged};
use super::source::RangeSource;
use super::streams::StreamRow;

/// Reads the parts of one segment.
#[derive(Debug, Clone)]
pub struct SegmentReader {
    source: Arc<dyn RangeSource>,
    index: Arc<SegmentIndex>,
}

impl SegmentReader {
    /// Opens an object of `length` bytes that must be the segment `identity`.
    pub async fn open(
        source: Arc<dyn RangeSource>,
        length: u64,
        identity: &SegmentIdentity,
    ) -> Result<Self, SegmentError> {
        let index = Arc::new(SegmentIndex::load(source.as_ref(), length, identity).await?);
        Ok(Self { source, index })
    }

    /// A reader whose index is at hand.
    pub const fn new(source: Arc<dyn RangeSource>, index: Arc<SegmentIndex>) -> Self {
        Self { source, index }
    }

    pub const fn index(&self) -> &Arc<SegmentIndex> {
        &self.index
    }

    pub const fn source(&self) -> &Arc<dyn RangeSource> {
        &self.source
    }

    /// Reads entry page `number`: about 128 KiB of entries in index order.
    pub async fn entry_page(&self, number: usize) -> Result<Vec<EntryRow>, SegmentError> {
        let stored = self.read_entry_pages(number..number.saturating_add(1)).await?;
        self.index.decode_entry_page(number, stored)
    }

    /// The stored bytes of neighbouring entry pages.
    pub(crate) async fn read_entry_pages(&self, numbers: Range<usize>) -> Result<Bytes, SegmentError> {
        self.stored(self.index.entry_page_range(numbers)).await
    }

    /// Reads stream page `number`: about 480 rows by stream and offset.
    pub async fn stream_page(&self, number: usize) -> Result<Vec<StreamRow>, SegmentError> {
        let stored = self.stored(self.index.stream_page_range(number)).await?;
        self.index.decode_stream_page(number, stored)
    }

    /// Reads block `number`.
    pub async fn block(&self, number: u32) -> Result<Block, SegmentError> {
        let stored = self.source.read(self.index.block_range(number..number.saturating_add(1))).await?;
        self.index.decode_block(number, stored)
    }

    /// The rows of a stream's batches that end after `from`, in order.
    pub async fn stream_rows(&self, stream: StreamId, from: Offset) -> Result<Vec<StreamRow>, SegmentError> {
        let mut found = Vec::new();
        let mut page = self.index.stream_page_of(stream, from);
        while page < self.index.stream_pages() {
            let rows = self.stream_page(page).await?;
            let beyond = rows.last().is_some_and(|last| last.stream > stream);
            found.extend(rows.into_iter().filter(|row| row.stream == stream && row.end > from));
            page = if beyond { usize::MAX } else { page.saturating_add(1) };
        }
        Ok(found)
    }

    /// Reads one entry, as it was in the log.
    pub async fn read_entry(&self, index: Index) -> Result<Entry, SegmentError> {
        let object = || self.index.name().to_owned();
        let rows = self.entry_page(self.index.entry_page_of(index)).await?;
        let Some(row) = rows.iter().find(|row| row.id.index == index) else {
            return Err(SegmentError::NotHeld { object: object(), index });
        };
        let mut blocks: Vec<(u32, Block)> = Vec::new();
        for location in row.batches.iter().filter_map(|batch| batch.location) {
            if !blocks.iter().any(|(number, _)| *number == location.block) {
                blocks.push((location.block, self.block(location.block).await?));
            }
        }
        self.rebuild(row, |location| {
            let (_, block) = blocks.iter().find(|(number, _)| *number == location.block)?;
            block.batches().get(usize::try_from(location.slot).ok()?).map(|batch| batch.batch.clone())
        })
    }

    /// Puts an entry together from its row and the batches that `batch` finds.
    pub(crate) fn rebuild(
        &self,
        row: &EntryRow,
        batch: impl Fn(Location) -> Option<Bytes>,
    ) -> Result<Entry, SegmentError> {
        let index = row.id.index;
        let mut data = Vec::new();
        for stated in &row.batches {
            let Some(location) = stated.location else {
                return Err(SegmentError::Dropped { object: self.index.name().to_owned(), index });
            };
            let Some(bytes) = batch(location) else {
                let part = format!("entry {index}");
                return Err(self.index.altered(part, format!("block {} lacks its batch", location.block)));
            };
            data.extend_from_slice(&bytes);
        }
        Entry::from_parts(&row.head_bytes, &data)
            .map_err(|cause| damaged(self.index.name(), &format!("entry {index}"), cause))
    }

    async fn stored(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        match self.index.in_tail(&range) {
            Some(bytes) => Ok(bytes),
            None => self.source.read(range).await,
        }
    }
}
