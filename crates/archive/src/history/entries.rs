//! Whole entries in index order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use duramen_types::{Entry, EntryId, HybridTime, Index, SegmentId};
use futures::{StreamExt, TryStreamExt, stream};

use super::pages::Pages;
use super::pipeline::{Pipeline, compute};
use super::{History, Result};
use crate::{Block, EntryRow, SegmentReader, ShardView};

/// Every entry of a range as it was in the log; see [`History::entries`].
#[derive(Debug)]
pub struct Entries {
    history: History,
    pages: Pipeline<Pages>,
    current: Option<Pages>,
    blocks: HeldBlocks,
}

/// The decoded blocks of the segment that is being read.
#[derive(Debug, Default)]
struct HeldBlocks {
    segment: Option<SegmentId>,
    blocks: BTreeMap<u32, Arc<Block>>,
    weight: usize,
}

/// How many entries are looked at to find which blocks are needed next.
const BLOCKS_FOR: usize = 512;

impl History {
    /// The entries of `range` in index order, with their batches.
    ///
    /// Batches lie in the order of streams, so a segment's blocks are held while its entries are gone through, up to
    /// [`HistoryOptions::entries_bytes`](super::HistoryOptions::entries_bytes); beyond that they are read again.
    pub fn entries(&self, view: &ShardView, range: Range<Index>) -> Entries {
        let pages = self.pages(view, range);
        Entries { history: self.clone(), pages, current: None, blocks: HeldBlocks::default() }
    }
}

impl Entries {
    /// The next entry with its id and effective time; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<(EntryId, HybridTime, Entry)>> {
        loop {
            if self.current.as_ref().is_none_or(|pages| pages.entries.is_empty()) {
                self.current = self.pages.next().await?;
            }
            let Some(pages) = &mut self.current else { return Ok(None) };
            let Some(row) = pages.entries.front() else { continue };
            let segment = pages.row.row.id;
            if !self.blocks.has_all(segment, row) {
                let ahead = pages.entries.iter().take(BLOCKS_FOR);
                self.blocks.load(&self.history, &pages.reader, segment, ahead).await?;
            }
            let entry = pages.reader.rebuild(row, |location| {
                let block = self.blocks.blocks.get(&location.block)?;
                Some(block.batches().get(usize::try_from(location.slot).ok()?)?.batch.clone())
            })?;
            let found = (row.id, row.time, entry);
            pages.entries.pop_front();
            return Ok(Some(found));
        }
    }
}

impl HeldBlocks {
    fn has_all(&self, segment: SegmentId, row: &EntryRow) -> bool {
        let mut wanted = row.batches.iter().filter_map(|batch| batch.location);
        self.segment == Some(segment) && wanted.all(|location| self.blocks.contains_key(&location.block))
    }

    /// Holds what the first of `rows` needs, and as much as fits of what the others do.
    async fn load<'a>(
        &mut self,
        history: &History,
        reader: &SegmentReader,
        segment: SegmentId,
        rows: impl Iterator<Item = &'a EntryRow>,
    ) -> Result<()> {
        let options = &history.inner.options;
        if self.segment != Some(segment) || self.weight > options.entries_bytes {
            *self = Self { segment: Some(segment), ..Self::default() };
        }
        let mut wanted = BTreeSet::new();
        let mut room = options.entries_bytes.saturating_sub(self.weight);
        for (at, row) in rows.enumerate() {
            for location in row.batches.iter().filter_map(|batch| batch.location) {
                if !self.blocks.contains_key(&location.block) && wanted.insert(location.block) {
                    room = room.saturating_sub(reader.index().block_size(location.block));
                }
            }
            if at > 0 && room == 0 {
                break;
            }
        }
        let runs = reader.index().block_runs(wanted, options.request_bytes);
        let blocking = options.blocking;
        let read = |run: Range<u32>| {
            let reader = reader.clone();
            async move {
                let stored = reader.source().read(reader.index().block_range(run.clone())).await?;
                compute(blocking, move || Ok(reader.index().decode_blocks(run, &stored)?)).await
            }
        };
        let mut done = stream::iter(runs).map(read).buffered(options.read_ahead.max(1));
        while let Some(blocks) = done.try_next().await? {
            for (number, block) in blocks {
                self.weight = self.weight.saturating_add(block.weight());
                self.blocks.insert(number, Arc::new(block));
            }
        }
        Ok(())
    }
}
