//! Data blocks: batches behind a table that says whose they are.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use duramen_types::{DecodeError, HybridTime, Index, Offset, Reader, StreamId, Writer};

use super::part::length;

const WHAT: &str = "data block";
/// The encoded size of a row.
pub(super) const ROW: usize = 40;

/// A batch as a block holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockBatch {
    pub stream: StreamId,
    /// The entry that carried the batch.
    pub index: Index,
    /// That entry's effective time.
    pub time: HybridTime,
    /// The offset of the batch's first record; for a batch that got none, see the format.
    pub base: Offset,
    pub records: u32,
    /// The normalised batch, as it was in the log.
    pub batch: Bytes,
}

impl BlockBatch {
    /// The offset after the batch's last record.
    pub fn end(&self) -> Offset {
        self.base.plus(self.records.into())
    }
}

/// A decoded block: its batches share one buffer.
#[derive(Debug, Clone)]
pub struct Block {
    batches: Vec<BlockBatch>,
    size: usize,
}

impl Block {
    /// Reads a raw block; the batches are slices of it.
    pub(super) fn decode(raw: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, raw);
        let count = reader.count(ROW)?;
        let mut batches = Vec::with_capacity(count);
        let mut at = count.saturating_mul(ROW).saturating_add(4);
        for _ in 0..count {
            let stream = StreamId::new(reader.u64()?);
            let index = Index::new(reader.u64()?);
            let time = HybridTime::from_micros(reader.u64()?);
            let base = Offset::new(reader.u64()?);
            let records = reader.u32()?;
            let end = at.saturating_add(length(reader.u32()?));
            if end > raw.len() {
                let needed = end.saturating_sub(raw.len());
                return Err(DecodeError::Truncated { what: WHAT, at, needed });
            }
            batches.push(BlockBatch { stream, index, time, base, records, batch: raw.slice(at..end) });
            at = end;
        }
        if at != raw.len() {
            return Err(DecodeError::Trailing { what: WHAT, extra: raw.len().saturating_sub(at) });
        }
        Ok(Self { batches, size: raw.len() })
    }

    pub(super) fn encode(batches: &[BlockBatch]) -> Vec<u8> {
        let data: usize = batches.iter().map(|batch| batch.batch.len()).fold(0, usize::saturating_add);
        let rows = batches.len().saturating_mul(ROW);
        let mut out = Writer::with_capacity(rows.saturating_add(data).saturating_add(4));
        out.count(batches.len());
        for batch in batches {
            out.u64(batch.stream.get()).u64(batch.index.get()).u64(batch.time.as_micros());
            out.u64(batch.base.get()).u32(batch.records).count(batch.batch.len());
        }
        for batch in batches {
            out.put(&batch.batch);
        }
        out.into_bytes()
    }

    /// The batches in the order of the block.
    pub fn batches(&self) -> &[BlockBatch] {
        &self.batches
    }

    /// About how many bytes of memory the block takes.
    pub fn weight(&self) -> usize {
        self.size.saturating_add(self.batches.len().saturating_mul(size_of::<BlockBatch>()))
    }
}
