//! Stream pages: for each stream, which blocks hold which of its offsets.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{DecodeError, HybridTime, Offset, Reader, StreamId, Writer};

use super::block::BlockBatch;

const WHAT: &str = "stream page";
/// The encoded size of a row.
pub(super) const ROW: usize = 68;

/// The batches of one stream in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRow {
    pub stream: StreamId,
    /// The offsets in the block.
    pub first: Offset,
    pub end: Offset,
    /// The block's number in the segment.
    pub block: u32,
    /// The first of the stream's batches in the block, and how many follow each other.
    pub slot: u32,
    pub batches: u32,
    /// Record timestamps, ms since 1970, both inclusive.
    pub min_timestamp: i64,
    pub max_timestamp: i64,
    /// The hybrid times of the first and the last batch.
    pub first_time: HybridTime,
    pub last_time: HybridTime,
}

impl StreamRow {
    /// The row of one batch; `timestamps` are those of its header.
    pub(super) fn new(batch: &BlockBatch, block: u32, slot: u32, timestamps: (i64, i64)) -> Self {
        Self {
            stream: batch.stream,
            first: batch.base,
            end: batch.end(),
            block,
            slot,
            batches: 1,
            min_timestamp: timestamps.0,
            max_timestamp: timestamps.1,
            first_time: batch.time,
            last_time: batch.time,
        }
    }

    /// Adds the next batch of the same stream and block.
    pub(super) fn extend(&mut self, batch: &BlockBatch, timestamps: (i64, i64)) {
        self.end = batch.end();
        self.batches = self.batches.saturating_add(1);
        self.min_timestamp = self.min_timestamp.min(timestamps.0);
        self.max_timestamp = self.max_timestamp.max(timestamps.1);
        self.last_time = batch.time;
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u64(self.stream.get()).u64(self.first.get()).u64(self.end.get());
        out.u32(self.block).u32(self.slot).u32(self.batches);
        out.i64(self.min_timestamp).i64(self.max_timestamp);
        out.u64(self.first_time.as_micros()).u64(self.last_time.as_micros());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let row = Self {
            stream: StreamId::new(reader.u64()?),
            first: Offset::new(reader.u64()?),
            end: Offset::new(reader.u64()?),
            block: reader.u32()?,
            slot: reader.u32()?,
            batches: reader.u32()?,
            min_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            first_time: HybridTime::from_micros(reader.u64()?),
            last_time: HybridTime::from_micros(reader.u64()?),
        };
        if row.first >= row.end || row.batches == 0 {
            return reader.invalid(format!("stream {} has offsets {}..{}", row.stream, row.first, row.end));
        }
        Ok(row)
    }

    /// Reads a raw page of `rows` rows, which must be in order.
    pub(super) fn decode_page(raw: &[u8], rows: u32) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(WHAT, raw);
        let mut page: Vec<Self> = Vec::with_capacity(raw.len().checked_div(ROW).unwrap_or_default());
        while reader.remaining() > 0 {
            let row = Self::decode(&mut reader)?;
            if page.last().is_some_and(|last| !last.precedes(&row)) {
                return reader.invalid(format!("stream {} offset {} is out of order", row.stream, row.first));
            }
            page.push(row);
        }
        if u32::try_from(page.len()).ok() != Some(rows) {
            return reader.invalid(format!("it has {} rows, its directory states {rows}", page.len()));
        }
        Ok(page)
    }

    /// Whether `next` may follow in the index.
    pub(super) fn precedes(&self, next: &Self) -> bool {
        self.stream < next.stream || (self.stream == next.stream && self.end <= next.first)
    }
}
