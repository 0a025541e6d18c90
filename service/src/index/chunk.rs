//! One chunk of the hot index in memory: where the batches of a range of a shard's entries are, by stream and offset.

use std::collections::BTreeMap;
use std::ops::Range;

use duramen_types::{HybridTime, Index, Offset, ShardId, StreamId};

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

/// How far a stream is at the end of a chunk, whether the chunk has rows of it or not.
///
/// It is what makes a search among many chunks possible: one without rows of a stream says all the same on which side
/// of it an offset lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// The offset that the next record gets.
    pub next: Offset,
    /// Bytes of all batches that the stream was given.
    pub bytes: u64,
    /// When the last batch was appended, or the stream created.
    pub last: HybridTime,
}

impl StreamEnd {
    /// The end of a stream that was deleted before the end of the chunk: nothing of it follows.
    pub const DELETED: Self = Self { next: Offset::MAX, bytes: u64::MAX, last: HybridTime::MAX };
}

/// What a sealed chunk has of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamItem {
    pub stream: StreamId,
    pub end: StreamEnd,
    /// The largest record timestamp of its rows here, milliseconds since 1970.
    pub max_timestamp: i64,
    /// Its rows here: the first one's place among all rows of the chunk, and how many there are.
    pub first: u32,
    pub rows: u32,
}

/// The rows of one range of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub shard: ShardId,
    pub entries: Range<Index>,
    streams: BTreeMap<StreamId, Vec<Row>>,
    rows: usize,
    /// Every stream alive at the chunk's end, and every one with rows here; by stream. Empty while the chunk is open.
    items: Vec<StreamItem>,
}

impl Chunk {
    pub const fn new(shard: ShardId, first: Index) -> Self {
        Self { shard, entries: first..first, streams: BTreeMap::new(), rows: 0, items: Vec::new() }
    }

    /// Adds a batch that follows everything that the chunk has of its stream.
    pub fn push(&mut self, stream: StreamId, row: Row) {
        self.streams.entry(stream).or_default().push(row);
        self.rows += 1;
    }

    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Closes the chunk; `ends` are those of every stream alive now, by stream.
    pub fn seal(&mut self, ends: impl Iterator<Item = (StreamId, StreamEnd)>) {
        let mut items = BTreeMap::new();
        let mut first = 0;
        for (stream, rows) in &self.streams {
            let count = u32::try_from(rows.len()).expect("a chunk is sealed far below 2^32 rows");
            let max_timestamp = rows.iter().map(|row| row.max_timestamp).max().unwrap_or(i64::MIN);
            let item =
                StreamItem { stream: *stream, end: StreamEnd::DELETED, max_timestamp, first, rows: count };
            items.insert(*stream, item);
            first += count;
        }
        for (stream, end) in ends {
            let none = StreamItem { stream, end, max_timestamp: i64::MIN, first: 0, rows: 0 };
            items.entry(stream).or_insert(none).end = end;
        }
        self.items = items.into_values().collect();
    }

    pub fn items(&self) -> &[StreamItem] {
        &self.items
    }

    /// Every row, by stream and offset.
    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.streams.values().flatten()
    }

    pub fn item(&self, stream: StreamId) -> Option<StreamItem> {
        let at = self.items.partition_point(|item| item.stream < stream);
        self.items.get(at).filter(|item| item.stream == stream).copied()
    }

    pub fn stream(&self, stream: StreamId) -> &[Row] {
        self.streams.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// The rows of a stream from the one that holds `offset`, or from the first after it; empty if there is none.
    pub fn rows_from(&self, stream: StreamId, offset: Offset) -> &[Row] {
        let rows = self.stream(stream);
        rows.get(rows.partition_point(|row| row.end() <= offset)..).unwrap_or(&[])
    }
}
