//! The three directories: where blocks, entry pages and stream pages lie.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{ChainValue, DecodeError, Hash, HybridTime, Index, Offset, Reader, StreamId, Writer};

use super::part::Part;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BlockKind {
    /// Appended batches by stream and offset.
    Streams,
    /// Duplicates and rejected batches by index.
    Aside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub part: Part,
    pub kind: BlockKind,
    pub batches: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryPageEntry {
    pub part: Part,
    pub first: Index,
    pub entries: u32,
    pub first_time: HybridTime,
    pub chain_before: ChainValue,
}

impl EntryPageEntry {
    pub(crate) fn end(&self) -> Index {
        self.first.plus(self.entries.into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPageEntry {
    pub part: Part,
    pub stream: StreamId,
    pub first: Offset,
    pub rows: u32,
}

/// A row of a directory.
pub(crate) trait DirectoryRow: Sized {
    const WHAT: &'static str;
    const ENCODED: usize;
    fn part(&self) -> &Part;
    fn part_mut(&mut self) -> &mut Part;
    fn encode(&self, out: &mut Writer);
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl DirectoryRow for BlockEntry {
    const WHAT: &'static str = "block directory";
    const ENCODED: usize = Part::ENCODED.saturating_add(5);

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn encode(&self, out: &mut Writer) {
        self.part.encode(out);
        out.u8(match self.kind {
            BlockKind::Streams => 0,
            BlockKind::Aside => 1,
        });
        out.u32(self.batches);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let part = Part::decode(reader)?;
        let kind = match reader.u8()? {
            0 => BlockKind::Streams,
            1 => BlockKind::Aside,
            other => return reader.invalid(format!("block kind {other} is unknown")),
        };
        Ok(Self { part, kind, batches: reader.u32()? })
    }
}

impl DirectoryRow for EntryPageEntry {
    const WHAT: &'static str = "entry directory";
    const ENCODED: usize = Part::ENCODED.saturating_add(52);

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn encode(&self, out: &mut Writer) {
        self.part.encode(out);
        out.u64(self.first.get()).u32(self.entries).u64(self.first_time.as_micros());
        out.put(self.chain_before.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            part: Part::decode(reader)?,
            first: Index::new(reader.u64()?),
            entries: reader.u32()?,
            first_time: HybridTime::from_micros(reader.u64()?),
            chain_before: Hash::from_bytes(reader.array()?),
        })
    }
}

impl DirectoryRow for StreamPageEntry {
    const WHAT: &'static str = "stream directory";
    const ENCODED: usize = Part::ENCODED.saturating_add(20);

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn encode(&self, out: &mut Writer) {
        self.part.encode(out);
        out.u64(self.stream.get()).u64(self.first.get()).u32(self.rows);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            part: Part::decode(reader)?,
            stream: StreamId::new(reader.u64()?),
            first: Offset::new(reader.u64()?),
            rows: reader.u32()?,
        })
    }
}

pub(crate) fn encode_directory<R: DirectoryRow>(rows: &[R]) -> Vec<u8> {
    let mut out = Writer::with_capacity(rows.len().saturating_mul(R::ENCODED).saturating_add(4));
    out.count(rows.len());
    for row in rows {
        row.encode(&mut out);
    }
    out.into_bytes()
}

/// Reads a directory whose parts must follow each other without a gap from `at` on; gives where they end.
pub(crate) fn decode_directory<R: DirectoryRow>(bytes: &[u8], at: &mut u64) -> Result<Vec<R>, DecodeError> {
    let mut reader = Reader::new(R::WHAT, bytes);
    let count = reader.count(R::ENCODED)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let row = R::decode(&mut reader)?;
        if row.part().position != *at {
            return reader.invalid(format!("a part lies at {}, {at} was expected", row.part().position));
        }
        *at = row.part().end();
        rows.push(row);
    }
    reader.finish()?;
    Ok(rows)
}
