//! Finding offsets: which segment holds one, and which one is the first of a timestamp.

use std::ops::Range;

use duramen_types::batch::Batch;
use duramen_types::{Index, Offset, StreamId};

use super::stream::{batches_of, created};
use super::{History, HistoryError, Result};
use crate::{BlockBatch, ShardView, ViewRow};

impl History {
    /// A log index at or before the segment that holds `offset` of `stream`, and not before the one that precedes it.
    ///
    /// A binary search over the segments that may hold the stream: about one request for each halving, none for
    /// segments whose directories are cached.
    pub(super) async fn position_of(
        &self,
        view: &ShardView,
        stream: StreamId,
        offset: Offset,
    ) -> Result<Index> {
        let (mut from, mut to) = (created(stream), view.tip().end);
        let mut position = from;
        while offset > Offset::ZERO && from < to {
            let middle = from.plus(to.since(from) / 2);
            match self.first_with(view, stream, middle..to).await? {
                Some((row, first)) if first <= offset => {
                    position = row.visible.start;
                    from = row.visible.end;
                }
                Some((row, _)) => to = middle.min(row.visible.start),
                None => to = middle,
            }
        }
        Ok(position)
    }

    /// The first segment of `range` that holds records of the stream, and the offset of the first of them there.
    async fn first_with(
        &self,
        view: &ShardView,
        stream: StreamId,
        range: Range<Index>,
    ) -> Result<Option<(ViewRow, Offset)>> {
        let mut cursor = view.cursor(range.start, Some(stream));
        while let Some(row) = cursor.next().await? {
            if row.visible.start >= range.end {
                break;
            }
            let reader = self.open(&row).await?;
            let rows = self.stream_rows(&row, &reader, stream, Offset::ZERO).await?;
            if let Some(first) = rows.first() {
                return Ok(Some((row, first.first)));
            }
        }
        Ok(None)
    }

    /// The first offset in `range` whose record has a timestamp of at least `timestamp` (ms since 1970), or `None`.
    ///
    /// Records need not be in the order of their timestamps. Segments and blocks whose largest timestamp is smaller
    /// are not read.
    pub async fn offset_at_timestamp(
        &self,
        view: &ShardView,
        stream: StreamId,
        range: Range<Offset>,
        timestamp: i64,
    ) -> Result<Option<Offset>> {
        if range.is_empty() {
            return Ok(None);
        }
        let start = self.position_of(view, stream, range.start).await?;
        let mut cursor = view.cursor(start, Some(stream));
        while let Some(row) = cursor.next().await? {
            if row.row.record_times.is_none_or(|(_, max)| max < timestamp) {
                continue;
            }
            let reader = self.open(&row).await?;
            let rows = self.stream_rows(&row, &reader, stream, range.start).await?;
            for stream_row in rows.iter().filter(|row| row.max_timestamp >= timestamp) {
                if stream_row.first >= range.end {
                    return Ok(None);
                }
                let blocks = self.blocks(&row, &reader, [stream_row.block]).await?;
                for block in &blocks {
                    let batches = batches_of(&reader, stream_row, block)?;
                    let in_view = batches.iter().filter(|batch| row.visible.contains(&batch.index));
                    for batch in in_view {
                        if let Some(offset) = first_at(batch, timestamp, &range)? {
                            return Ok(Some(offset));
                        }
                    }
                }
            }
        }
        Ok(None)
    }
}

fn first_at(found: &BlockBatch, timestamp: i64, range: &Range<Offset>) -> Result<Option<Offset>> {
    let broken = |error: duramen_types::batch::Error| HistoryError::Batch {
        stream: found.stream,
        offset: found.base,
        reason: error.to_string(),
    };
    let batch = Batch::from_trusted(found.batch.clone()).map_err(broken)?;
    if batch.max_timestamp() < timestamp || found.end() <= range.start || found.base >= range.end {
        return Ok(None);
    }
    for record in batch.records(found.base).map_err(broken)?.iter() {
        let record = record.map_err(broken)?;
        if record.timestamp >= timestamp && range.contains(&record.offset) {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}
