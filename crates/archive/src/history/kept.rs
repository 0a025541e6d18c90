//! Where a stream's retention begins: the first batch that is late enough, or among the newest so many bytes.

use std::ops::Range;

use duramen_types::{EntryBody, HybridTime, Offset, StreamId};

use super::stream::batches_of;
use super::{History, Result};
use crate::{Fate, ShardView, ViewRow};

/// A place between two batches of a stream, and the bytes that the stream was given before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesBefore {
    pub offset: Offset,
    pub bytes: u64,
}

/// A batch as its entry's head states it.
#[derive(Debug, Clone, Copy)]
struct Size {
    base: Offset,
    end: Offset,
    bytes: u64,
}

impl History {
    /// The base of the stream's first batch in `range` that was appended later than `time`, or `None`.
    ///
    /// Segments that end before are told by their manifests; of the others it takes one page and one block.
    pub async fn first_later(
        &self,
        view: &ShardView,
        stream: StreamId,
        range: Range<Offset>,
        time: HybridTime,
    ) -> Result<Option<Offset>> {
        let Some(first) = view.first_after(time).await? else { return Ok(None) };
        let mut cursor = view.cursor(first.visible.start, Some(stream));
        while let Some(row) = cursor.next().await? {
            let reader = self.open(&row).await?;
            let rows = self.stream_rows(&row, &reader, stream, range.start).await?;
            for stream_row in rows.iter().filter(|row| row.last_time > time) {
                if stream_row.first >= range.end {
                    return Ok(None);
                }
                for block in &self.blocks(&row, &reader, [stream_row.block]).await? {
                    let batches = batches_of(&reader, stream_row, block)?.iter();
                    let mut later = batches.filter(|batch| {
                        row.visible.contains(&batch.index) && batch.time > time && batch.end() > range.start
                    });
                    if let Some(batch) = later.next() {
                        return Ok((batch.base < range.end).then(|| batch.base.max(range.start)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The stream's first batch at or after `from` before which it was given at least `bytes` bytes; `end` where that is
    /// none before `end`. Reads the entry tables between, and no batch.
    pub async fn forward_to_bytes(
        &self,
        view: &ShardView,
        stream: StreamId,
        from: BytesBefore,
        end: Offset,
        bytes: u64,
    ) -> Result<BytesBefore> {
        let mut at = from;
        let start = self.position_of(view, stream, from.offset).await?;
        let mut cursor = view.cursor(start, Some(stream));
        while at.bytes < bytes
            && at.offset < end
            && let Some(row) = cursor.next().await?
        {
            for size in self.sizes(view, &row, stream).await? {
                if size.base >= end || at.bytes >= bytes {
                    break;
                }
                if size.base >= at.offset {
                    at = BytesBefore { offset: size.end, bytes: at.bytes.saturating_add(size.bytes) };
                }
            }
        }
        Ok(at)
    }

    /// The same, going backward from `from` and not beyond `begin`: for a place whose bytes are known only behind it.
    pub async fn back_to_bytes(
        &self,
        view: &ShardView,
        stream: StreamId,
        begin: Offset,
        from: BytesBefore,
        bytes: u64,
    ) -> Result<BytesBefore> {
        let start = self.position_of(view, stream, begin).await?;
        let end = self.position_of(view, stream, from.offset).await?;
        let mut cursor = view.cursor(start, Some(stream));
        let mut rows = Vec::new();
        while let Some(row) = cursor.next().await? {
            let last = row.visible.start > end;
            rows.push(row);
            if last {
                break;
            }
        }
        let mut at = from;
        for row in rows.iter().rev() {
            let sizes = self.sizes(view, row, stream).await?;
            for size in sizes.iter().rev().filter(|size| size.end <= from.offset) {
                let before = at.bytes.saturating_sub(size.bytes);
                if size.base < begin || before < bytes {
                    return Ok(at);
                }
                at = BytesBefore { offset: size.base, bytes: before };
            }
        }
        Ok(at)
    }

    /// The stream's batches in one segment, in order.
    async fn sizes(&self, view: &ShardView, row: &ViewRow, stream: StreamId) -> Result<Vec<Size>> {
        let mut pages = self.pages(view, row.visible.clone());
        let mut sizes = Vec::new();
        while let Some(pages) = pages.next().await? {
            for entry in &pages.entries {
                let (EntryBody::Append(headers) | EntryBody::Rescue { batches: headers, .. }) =
                    &entry.head.body
                else {
                    continue;
                };
                for (header, batch) in headers.iter().zip(&entry.batches) {
                    let (into, base) = match batch.fate {
                        Fate::Appended { base } => (header.stream, base),
                        Fate::Rescued { stream, base } => (stream, base),
                        _ => continue,
                    };
                    if into == stream {
                        let end = base.plus(header.records.into());
                        sizes.push(Size { base, end, bytes: header.bytes.into() });
                    }
                }
            }
        }
        Ok(sizes)
    }
}
