//! The records of one stream, from an offset on.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use duramen_types::{Index, Offset, StreamId};

use super::pipeline::{Pipeline, compute};
use super::{History, HistoryError, Result};
use crate::{Block, BlockBatch, SegmentReader, ShardView, StreamRow, ViewRow};

/// The batches of a stream in order; see [`History::stream`].
#[derive(Debug)]
pub struct StreamReader {
    stream: StreamId,
    range: Range<Offset>,
    batches: Pipeline<VecDeque<BlockBatch>>,
    ready: VecDeque<BlockBatch>,
}

/// The most blocks that one step of a read looks at.
const MAX_STEP: usize = 8;

impl History {
    /// The batches that hold the offsets `range` of `stream`: whole batches, so that the first may begin before it
    /// and the last end after it.
    ///
    /// Reads ahead: little at first, more the longer the read goes on. Begins at once; dropping it stops it.
    pub fn stream(&self, view: &ShardView, stream: StreamId, range: Range<Offset>) -> StreamReader {
        let (history, view, wanted) = (self.clone(), view.clone(), range.clone());
        let ahead = self.inner.options.read_ahead;
        let batches = Pipeline::spawn(ahead, move |feeder| async move {
            if wanted.is_empty() {
                return Ok(());
            }
            let start = history.position_of(&view, stream, wanted.start).await?;
            let mut cursor = view.cursor(start, Some(stream));
            let mut step = 1;
            while let Some(row) = cursor.next().await? {
                let reader = history.open(&row).await?;
                let rows = history.stream_rows(&row, &reader, stream, wanted.start).await?;
                let beyond = rows.last().is_some_and(|row| row.end >= wanted.end) && !row.is_clipped();
                let mut rows = rows.as_slice();
                while !rows.is_empty() {
                    let (now, later) = rows.split_at(step.min(rows.len()));
                    let work =
                        history.clone().read_rows(row.clone(), reader.clone(), now.to_vec(), wanted.clone());
                    if !feeder.submit(work).await {
                        return Ok(());
                    }
                    rows = later;
                    step = (step * 2).min(MAX_STEP);
                }
                if beyond {
                    break;
                }
            }
            Ok(())
        });
        StreamReader { stream, range, batches, ready: VecDeque::new() }
    }

    /// The stream's rows in one segment that end after `from`, through the cache.
    pub(super) async fn stream_rows(
        &self,
        row: &ViewRow,
        reader: &SegmentReader,
        stream: StreamId,
        from: Offset,
    ) -> Result<Vec<StreamRow>> {
        let (segment, index) = (row.row.id, reader.index());
        let mut found = Vec::new();
        for number in index.stream_page_of(stream, from)..index.stream_pages() {
            let page = match self.inner.cache.stream_page(segment, number) {
                Some(page) => page,
                None => {
                    let page: Arc<[StreamRow]> = reader.stream_page(number).await?.into();
                    self.inner.cache.put_stream_page(segment, number, Arc::clone(&page));
                    page
                }
            };
            found.extend(page.iter().filter(|row| row.stream == stream && row.end > from));
            if page.last().is_some_and(|last| last.stream > stream) {
                break;
            }
        }
        Ok(found)
    }

    /// The batches of neighbouring rows that belong to the view and reach into `wanted`.
    async fn read_rows(
        self,
        row: ViewRow,
        reader: SegmentReader,
        rows: Vec<StreamRow>,
        wanted: Range<Offset>,
    ) -> Result<VecDeque<BlockBatch>> {
        let rows: Vec<StreamRow> = rows.into_iter().filter(|row| row.first < wanted.end).collect();
        let blocks = self.blocks(&row, &reader, rows.iter().map(|row| row.block)).await?;
        let mut found = VecDeque::new();
        for (stream_row, block) in rows.iter().zip(blocks) {
            let batches = batches_of(&reader, stream_row, &block)?;
            let in_view = batches.iter().filter(|batch| row.visible.contains(&batch.index));
            found.extend(
                in_view.filter(|batch| batch.base < wanted.end && batch.end() > wanted.start).cloned(),
            );
        }
        Ok(found)
    }

    /// Blocks in ascending order, from the cache, or neighbours in one request.
    pub(super) async fn blocks(
        &self,
        row: &ViewRow,
        reader: &SegmentReader,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<Arc<Block>>> {
        let (cache, segment) = (&self.inner.cache, row.row.id);
        let held: Vec<_> = numbers.into_iter().map(|number| (number, cache.block(segment, number))).collect();
        let missing = held.iter().filter(|(_, block)| block.is_none()).map(|(number, _)| *number);
        let mut read = VecDeque::new();
        for run in reader.index().block_runs(missing, self.inner.options.request_bytes) {
            let stored = reader.source().read(reader.index().block_range(run.clone())).await?;
            let index = Arc::clone(reader.index());
            let decode = move || Ok(index.decode_blocks(run, &stored)?);
            for (number, block) in compute(self.inner.options.blocking, decode).await? {
                let block = Arc::new(block);
                cache.put_block(segment, number, Arc::clone(&block));
                read.push_back(block);
            }
        }
        let blocks = held.into_iter().map(|(_, block)| block.or_else(|| read.pop_front()));
        Ok(blocks.map(|block| block.expect("each block is in the cache or was read")).collect())
    }
}

/// The batches that a stream's row speaks of.
pub(super) fn batches_of<'a>(
    reader: &SegmentReader,
    row: &StreamRow,
    block: &'a Block,
) -> Result<&'a [BlockBatch]> {
    let slot = usize::try_from(row.slot).unwrap_or(usize::MAX);
    let end = slot.saturating_add(usize::try_from(row.batches).unwrap_or(usize::MAX));
    let batches = block.batches().get(slot..end).unwrap_or_default();
    let bounds = (batches.first().map(|batch| batch.base), batches.last().map(BlockBatch::end));
    if bounds != (Some(row.first), Some(row.end)) || batches.iter().any(|batch| batch.stream != row.stream) {
        let object = reader.index().name().to_owned();
        let reason = format!("block {} does not hold what its stream index says", row.block);
        return Err(HistoryError::Inconsistent { object, reason });
    }
    Ok(batches)
}

impl StreamReader {
    /// The next batch, with its entry's index and hybrid time; `None` at the end of the range or of the archive, which
    /// [`StreamReader::position`] tells apart. Cancel-safe.
    ///
    /// Batches follow each other without a gap; one is [`HistoryError::Gap`].
    pub async fn next(&mut self) -> Result<Option<BlockBatch>> {
        loop {
            if self.range.is_empty() {
                return Ok(None);
            }
            let Some(batch) = self.ready.pop_front() else {
                match self.batches.next().await? {
                    Some(batches) => self.ready = batches,
                    None => return Ok(None),
                }
                continue;
            };
            let (stream, expected) = (self.stream, self.range.start);
            if batch.base > expected {
                return Err(HistoryError::Gap { stream, expected, found: batch.base });
            }
            if batch.end() > expected {
                self.range.start = batch.end();
                return Ok(Some(batch));
            }
        }
    }

    /// The offset after the last batch that was given.
    pub const fn position(&self) -> Offset {
        self.range.start
    }
}

/// Where in the log a search may begin: no entry before a stream's creation holds records of it.
pub(super) const fn created(stream: StreamId) -> Index {
    Index::new(stream.get())
}
