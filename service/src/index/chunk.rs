//! One chunk of the hot index: where the batches of a range of a shard's entries are, by stream and offset.
//!
//! A sealed chunk is one file, `{shard:04}-{first:020}-{end:020}.index`, little-endian:
//!
//! ```text
//! magic "DURINDEX" | version u32 | shard u16 | 0 u16 | first u64 | end u64
//! row …        = base u64 | index u64 | item u32 | records u32 | time u64 | max timestamp i64 | before u64  (48 bytes)
//! stream …     = stream u64 | first row u32 | rows u32                                            (16 bytes)
//! rows u32 | streams u32 | crc32 u32 (of everything before it)
//! ```
//!
//! Rows are grouped by stream, in the order of the streams' ids, and by offset within a stream. The file can be
//! rebuilt from the log, so it is written without ceremony; a damaged one is never believed.

use std::collections::BTreeMap;
use std::ops::Range;

use duramen_types::{DecodeError, HybridTime, Index, Offset, Reader, ShardId, StreamId, Writer};

const WHAT: &str = "hot index file";
const MAGIC: &[u8; 8] = b"DURINDEX";
const VERSION: u32 = 1;
const ROW: usize = 48;
const STREAM: usize = 16;

/// Where one batch is and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The offset of the batch's first record.
    pub base: Offset,
    pub records: u32,
    /// The log entry that carries the batch.
    pub index: Index,
    /// The batch's place among the entry's batches.
    pub item: u32,
    /// The entry's hybrid time.
    pub time: HybridTime,
    /// The largest record timestamp, milliseconds since 1970.
    pub max_timestamp: i64,
    /// Bytes of all batches that the stream was given before this one.
    pub before: u64,
}

impl Row {
    /// The offset after the batch's last record.
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.records))
    }
}

/// The rows of one range of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub shard: ShardId,
    pub entries: Range<Index>,
    streams: BTreeMap<StreamId, Vec<Row>>,
    rows: usize,
}

impl Chunk {
    pub const fn new(shard: ShardId, first: Index) -> Self {
        Self { shard, entries: first..first, streams: BTreeMap::new(), rows: 0 }
    }

    /// Adds a batch that follows everything that the chunk has of its stream.
    pub fn push(&mut self, stream: StreamId, row: Row) {
        self.streams.entry(stream).or_default().push(row);
        self.rows += 1;
    }

    pub const fn len(&self) -> usize {
        self.rows
    }

    /// What the chunk takes in memory, roughly.
    pub fn weight(&self) -> usize {
        self.rows * ROW + self.streams.len() * 64 + 64
    }

    pub fn stream(&self, stream: StreamId) -> &[Row] {
        self.streams.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// The rows of a stream from the one that holds `offset`, or from the first after it; empty if there is none.
    pub fn rows_from(&self, stream: StreamId, offset: Offset) -> &[Row] {
        let rows = self.stream(stream);
        rows.get(rows.partition_point(|row| row.end() <= offset)..).unwrap_or(&[])
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + self.rows * ROW + self.streams.len() * STREAM);
        out.put(MAGIC).u32(VERSION).u16(self.shard.get()).u16(0);
        out.u64(self.entries.start.get()).u64(self.entries.end.get());
        for row in self.streams.values().flatten() {
            out.u64(row.base.get()).u64(row.index.get()).u32(row.item).u32(row.records);
            out.u64(row.time.as_micros()).i64(row.max_timestamp).u64(row.before);
        }
        let mut first = 0usize;
        for (stream, rows) in &self.streams {
            out.u64(stream.get()).count(first).count(rows.len());
            first += rows.len();
        }
        out.count(self.rows).count(self.streams.len());
        let mut bytes = out.into_bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError::Truncated { what: WHAT, at: 0, needed: 12 };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| truncated.clone())?;
        let stored = u32::from_le_bytes(*crc);
        let computed = crc32fast::hash(body);
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        let (body, counts) = body.split_last_chunk::<8>().ok_or(truncated)?;
        let mut counts = Reader::new(WHAT, counts);
        let (row_count, stream_count) = (counts.u32()?, counts.u32()?);

        let mut reader = Reader::new(WHAT, body);
        if reader.array()? != *MAGIC {
            return reader.invalid("it does not begin with DURINDEX");
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let shard = ShardId::new(reader.u16()?);
        reader.u16()?;
        let entries = Index::new(reader.u64()?)..Index::new(reader.u64()?);
        let row_bytes = usize::try_from(row_count).unwrap_or(usize::MAX).saturating_mul(ROW);
        let mut rows = Reader::new(WHAT, reader.take(row_bytes)?);
        let mut chunk = Self { shard, entries, streams: BTreeMap::new(), rows: 0 };
        for _ in 0..stream_count {
            let stream = StreamId::new(reader.u64()?);
            let (first, count) = (reader.u32()?, reader.u32()?);
            if usize::try_from(first).ok() != Some(chunk.rows) {
                return reader
                    .invalid(format!("the rows of stream {stream} begin at {first}, not {}", chunk.rows));
            }
            for _ in 0..count {
                chunk.push(stream, decode_row(&mut rows)?);
            }
        }
        rows.finish()?;
        reader.finish()?;
        Ok(chunk)
    }
}

fn decode_row(reader: &mut Reader<'_>) -> Result<Row, DecodeError> {
    Ok(Row {
        base: Offset::new(reader.u64()?),
        index: Index::new(reader.u64()?),
        item: reader.u32()?,
        records: reader.u32()?,
        time: HybridTime::from_micros(reader.u64()?),
        max_timestamp: reader.i64()?,
        before: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use duramen_golden::{assert_resists_damage, assert_total_behind_checksums};

    use super::*;
    use crate::golden::{GOLDEN, mend};

    fn chunk() -> Chunk {
        let mut chunk = Chunk::new(ShardId::new(3), Index::new(10));
        for n in 0..20u64 {
            let row = Row {
                base: Offset::new(n / 2 * 5),
                records: 5,
                index: Index::new(10 + n),
                item: 0,
                time: HybridTime::from_micros(1000 + n),
                max_timestamp: 7,
                before: n * 100,
            };
            chunk.push(StreamId::new(n % 2), row);
            chunk.entries.end = Index::new(11 + n);
        }
        chunk
    }

    #[test]
    fn an_index_file_is_the_golden_one() {
        let bytes = GOLDEN.assert_golden("0003.index", &chunk().encode());
        assert_eq!(assert_resists_damage(&bytes, Chunk::decode), chunk());
        assert_total_behind_checksums(&bytes, mend, Chunk::decode);
    }

    #[test]
    fn a_stream_is_found_from_any_offset() {
        let chunk = chunk();
        let stream = StreamId::new(1);
        assert_eq!(chunk.rows_from(stream, Offset::new(0)).len(), 10);
        assert_eq!(chunk.rows_from(stream, Offset::new(4)).len(), 10);
        assert_eq!(chunk.rows_from(stream, Offset::new(5)).len(), 9);
        assert_eq!(chunk.rows_from(stream, Offset::new(50)).len(), 0);
        assert_eq!(chunk.rows_from(StreamId::new(9), Offset::ZERO).len(), 0);
    }
}
