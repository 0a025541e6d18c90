//! The file of a sealed chunk, read page by page: finding a row takes a few pages, however large the file is.
//!
//! `{shard:04}-{first:020}-{end:020}.index`, little-endian:
//!
//! ```text
//! magic "DURINDEX" | version u32 | shard u16 | 0 u16 | first u64 | end u64                     (32 bytes)
//! page of rows …    = row (48 bytes), up to 256 of them | crc32 u32
//! page of streams … = stream (48 bytes), up to 256 of them | crc32 u32
//! first stream u64, of each page of streams
//! rows u32 | streams u32 | crc32 u32 (of the header and of everything since the last page)
//!
//! row    = base u64 | index u64 | item u32 | records u32 | time u64 | max timestamp i64 | before u64
//! stream = stream u64 | next u64 | bytes u64 | last time u64 | max timestamp i64 | first row u32 | rows u32
//! ```
//!
//! Rows are grouped by stream, in the order of the streams' ids, and by offset within a stream. There is a stream for
//! each one with rows here and for each one alive at the end; `next`, `bytes` and `last time` are all ones where it was
//! deleted before. Every page but the last of its kind is full. A page's CRC is seeded with its place: first entry, kind
//! (0 rows, 1 streams) and number. A damaged page is never believed.

use std::io;
use std::sync::Arc;

use duramen_types::{DecodeError, HybridTime, Index, Offset, Reader, ShardId, StreamId, Writer};
use duramen_wal::File;

use super::chunk::{Chunk, Row, StreamEnd, StreamItem};

const WHAT: &str = "hot index file";
const MAGIC: &[u8; 8] = b"DURINDEX";
const VERSION: u32 = 2;
const HEADER: usize = 32;
const TRAILER: usize = 12;
/// Rows and streams have the same size, and so have their pages.
const ITEM: usize = 48;
const CRC: usize = 4;
pub const ITEMS_PER_PAGE: usize = 256;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Rows,
    Streams,
}

/// Where everything in a file is.
#[derive(Debug, PartialEq, Eq)]
pub struct Directory {
    shard: ShardId,
    first: Index,
    end: Index,
    rows: u32,
    /// The first stream of each page of streams.
    pages: Vec<StreamId>,
    streams: u32,
}

/// Why a part of a file could not be had.
#[derive(Debug)]
pub enum Unread {
    Io(io::Error),
    Damaged(DecodeError),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        // A file that ends where its own counts say that there is more was cut off.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Damaged(DecodeError::Truncated { what: WHAT, at: 0, needed: 1 });
        }
        Self::Io(error)
    }
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        Self::Damaged(error)
    }
}

/// The file of a sealed chunk.
pub fn encode(chunk: &Chunk) -> Vec<u8> {
    let items = chunk.items();
    let mut out = Writer::with_capacity((chunk.len() + items.len()) * (ITEM + 1) + 256);
    out.put(MAGIC).u32(VERSION).u16(chunk.shard.get()).u16(0);
    out.u64(chunk.entries.start.get()).u64(chunk.entries.end.get());
    let header = out.into_bytes();
    let mut bytes = header.clone();
    let rows = chunk.all().map(|row| {
        let mut out = Writer::with_capacity(ITEM);
        out.u64(row.base.get()).u64(row.index.get()).u32(row.item).u32(row.records);
        out.u64(row.time.as_micros()).i64(row.max_timestamp).u64(row.before);
        out.into_bytes()
    });
    put_pages(&mut bytes, chunk.entries.start, Kind::Rows, rows);
    let streams = items.iter().map(|item| {
        let mut out = Writer::with_capacity(ITEM);
        out.u64(item.stream.get()).u64(item.end.next.get()).u64(item.end.bytes);
        out.u64(item.end.last.as_micros()).i64(item.max_timestamp).u32(item.first).u32(item.rows);
        out.into_bytes()
    });
    put_pages(&mut bytes, chunk.entries.start, Kind::Streams, streams);
    let mut out = Writer::new();
    for page in items.chunks(ITEMS_PER_PAGE) {
        out.u64(page.first().map_or(0, |item| item.stream.get()));
    }
    out.count(chunk.len()).count(items.len());
    let directory = out.into_bytes();
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(&directory_crc(&header, &directory).to_le_bytes());
    bytes
}

fn put_pages(bytes: &mut Vec<u8>, first: Index, kind: Kind, items: impl Iterator<Item = Vec<u8>>) {
    let (mut page, mut number) = (Vec::with_capacity(ITEM * ITEMS_PER_PAGE), 0);
    let mut put = |page: &mut Vec<u8>| {
        bytes.extend_from_slice(page);
        bytes.extend_from_slice(&page_crc(first, kind, number, page).to_le_bytes());
        page.clear();
        number += 1;
    };
    for item in items {
        page.extend_from_slice(&item);
        if page.len() == ITEM * ITEMS_PER_PAGE {
            put(&mut page);
        }
    }
    if !page.is_empty() {
        put(&mut page);
    }
}

fn page_crc(first: Index, kind: Kind, number: u32, page: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&first.get().to_le_bytes());
    crc.update(&[match kind {
        Kind::Rows => 0,
        Kind::Streams => 1,
    }]);
    crc.update(&number.to_le_bytes());
    crc.update(page);
    crc.finalize()
}

fn directory_crc(header: &[u8], directory: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(directory);
    crc.finalize()
}

const fn pages(items: u32) -> u32 {
    items.div_ceil(ITEMS_PER_PAGE as u32)
}

/// What the pages of so many items take in the file.
const fn length(items: u32) -> u64 {
    items as u64 * ITEM as u64 + pages(items) as u64 * CRC as u64
}

impl Directory {
    /// Reads the directory of the file of `shard` that begins with entry `first`.
    pub fn read(file: &File, shard: ShardId, first: Index) -> Result<Self, Unread> {
        let len = file.len()?;
        let invalid = |why: String| Unread::Damaged(DecodeError::invalid(WHAT, why));
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let mut reader = Reader::new(WHAT, &header);
        if reader.array()? != *MAGIC {
            return Err(invalid("it does not begin with DURINDEX".to_owned()));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION }.into());
        }
        let found = ShardId::new(reader.u16()?);
        reader.u16()?;
        let (begin, end) = (Index::new(reader.u64()?), Index::new(reader.u64()?));
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, len.saturating_sub(TRAILER as u64))?;
        let mut reader = Reader::new(WHAT, &trailer);
        let (rows, streams, stored) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let start = HEADER as u64 + length(rows) + length(streams);
        let listed = u64::from(pages(streams)) * 8;
        if start + listed + TRAILER as u64 != len {
            return Err(invalid(format!("its {len} bytes can't hold {rows} rows and {streams} streams")));
        }
        // As long as the file says, which was just compared with what it is.
        let mut directory = vec![0; usize::try_from(listed).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut directory, start)?;
        directory.extend_from_slice(trailer.get(..8).unwrap_or_default());
        let computed = directory_crc(&header, &directory);
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed }.into());
        }
        if (found, begin) != (shard, first) {
            return Err(invalid(format!("it holds shard {found} from entry {begin}")));
        }
        let mut reader = Reader::new(WHAT, &directory);
        let firsts = (0..pages(streams)).map(|_| Ok(StreamId::new(reader.u64()?)));
        let pages = firsts.collect::<Result<Vec<StreamId>, DecodeError>>()?;
        Ok(Self { shard, first, end, rows, pages, streams })
    }

    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.pages.len() * 8
    }

    /// The page of streams that has `stream`, if any has.
    pub fn page_of(&self, stream: StreamId) -> Option<u32> {
        let after = self.pages.partition_point(|first| *first <= stream);
        after.checked_sub(1).and_then(|page| u32::try_from(page).ok())
    }

    fn page(&self, file: &File, kind: Kind, number: u32) -> Result<Vec<u8>, Unread> {
        let (items, start) = match kind {
            Kind::Rows => (self.rows, HEADER as u64),
            Kind::Streams => (self.streams, HEADER as u64 + length(self.rows)),
        };
        let per_page = ITEMS_PER_PAGE as u32;
        let held = items.saturating_sub(number.saturating_mul(per_page)).min(per_page);
        if held == 0 {
            return Err(DecodeError::invalid(WHAT, format!("it has no page {number} of {kind:?}")).into());
        }
        let at = start + u64::from(number) * (ITEM * ITEMS_PER_PAGE + CRC) as u64;
        let mut bytes = vec![0; usize::try_from(held).unwrap_or(ITEMS_PER_PAGE) * ITEM + CRC];
        file.read_exact_at(&mut bytes, at)?;
        let crc = bytes.split_off(bytes.len() - CRC);
        let stored = Reader::new(WHAT, &crc).u32()?;
        let computed = page_crc(self.first, kind, number, &bytes);
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed }.into());
        }
        Ok(bytes)
    }

    /// Reads every page.
    pub fn check(&self, file: &File) -> Result<(), Unread> {
        (0..pages(self.rows)).try_for_each(|number| self.rows(file, number).map(drop))?;
        (0..pages(self.streams)).try_for_each(|number| self.streams(file, number).map(drop))
    }

    /// Reads one page of rows.
    pub fn rows(&self, file: &File, number: u32) -> Result<Arc<[Row]>, Unread> {
        let bytes = self.page(file, Kind::Rows, number)?;
        let mut reader = Reader::new(WHAT, &bytes);
        let mut rows = Vec::with_capacity(bytes.len() / ITEM);
        while reader.remaining() > 0 {
            rows.push(Row {
                base: Offset::new(reader.u64()?),
                index: Index::new(reader.u64()?),
                item: reader.u32()?,
                records: reader.u32()?,
                time: HybridTime::from_micros(reader.u64()?),
                max_timestamp: reader.i64()?,
                before: reader.u64()?,
            });
        }
        Ok(rows.into())
    }

    /// Reads one page of streams.
    pub fn streams(&self, file: &File, number: u32) -> Result<Arc<[StreamItem]>, Unread> {
        let bytes = self.page(file, Kind::Streams, number)?;
        let mut reader = Reader::new(WHAT, &bytes);
        let mut streams = Vec::with_capacity(bytes.len() / ITEM);
        while reader.remaining() > 0 {
            let stream = StreamId::new(reader.u64()?);
            let end = StreamEnd {
                next: Offset::new(reader.u64()?),
                bytes: reader.u64()?,
                last: HybridTime::from_micros(reader.u64()?),
            };
            let max_timestamp = reader.i64()?;
            streams.push(StreamItem {
                stream,
                end,
                max_timestamp,
                first: reader.u32()?,
                rows: reader.u32()?,
            });
        }
        Ok(streams.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use duramen_golden::assert_resists_damage;
    use duramen_wal::sim::SimDisk;
    use duramen_wal::{Disk, durable};

    use super::*;
    use crate::golden::GOLDEN;

    const SHARD: ShardId = ShardId::new(3);
    const FIRST: Index = Index::new(10);

    fn chunk() -> Chunk {
        let mut chunk = Chunk::new(SHARD, FIRST);
        for n in 0..600u64 {
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
        let end = StreamEnd { next: Offset::new(1), bytes: 2, last: HybridTime::from_micros(3) };
        chunk.seal([1, 4, 7].into_iter().map(|id| (StreamId::new(id), end)));
        chunk
    }

    /// All that a file says, read page by page.
    fn decode(bytes: &[u8]) -> Result<(Index, Vec<Row>, Vec<StreamItem>), Unread> {
        let disk = SimDisk::new(1);
        let path = Path::new("/i/file");
        disk.create_dir(Path::new("/i"))?;
        durable::write_file(&disk, path, bytes)?;
        let file = disk.open_read(path)?;
        let directory = Directory::read(&file, SHARD, FIRST)?;
        let (mut rows, mut streams) = (Vec::new(), Vec::new());
        for page in 0..pages(directory.rows) {
            rows.extend_from_slice(&directory.rows(&file, page)?);
        }
        for page in 0..pages(directory.streams) {
            streams.extend_from_slice(&directory.streams(&file, page)?);
        }
        Ok((directory.end, rows, streams))
    }

    #[test]
    fn an_index_file_is_the_golden_one() {
        let mut chunk = Chunk::new(SHARD, FIRST);
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
        let end = StreamEnd { next: Offset::new(50), bytes: 2000, last: HybridTime::from_micros(1019) };
        chunk.seal([1, 9].into_iter().map(|id| (StreamId::new(id), end)));
        let bytes = GOLDEN.assert_golden("0003.index", &encode(&chunk));
        let (end, rows, streams) = assert_resists_damage(&bytes, decode);
        assert_eq!(end, chunk.entries.end);
        assert_eq!(rows, chunk.all().copied().collect::<Vec<_>>());
        assert_eq!(streams, chunk.items());
    }

    #[test]
    fn a_chunk_survives_its_file() {
        let chunk = chunk();
        let (end, rows, streams) = decode(&encode(&chunk)).unwrap();
        assert_eq!(end, chunk.entries.end);
        assert_eq!(rows, chunk.all().copied().collect::<Vec<_>>());
        assert_eq!(streams, chunk.items());
        assert_eq!(streams.first().unwrap().end, StreamEnd::DELETED, "stream 0 is not alive at the end");
    }

    #[test]
    fn a_damaged_file_is_never_believed() {
        let bytes = encode(&chunk());
        for len in (0..bytes.len()).step_by(7) {
            assert!(decode(&bytes[..len]).is_err(), "truncated to {len}");
        }
        for at in (0..bytes.len() * 8).step_by(13) {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(decode(&bytes).is_err(), "bit {at}");
        }
    }

    #[test]
    fn pages_that_changed_places_are_not_believed() {
        let mut bytes = encode(&chunk());
        let page = ITEM * ITEMS_PER_PAGE + CRC;
        let (one, other) = bytes[HEADER..HEADER + 2 * page].split_at_mut(page);
        one.swap_with_slice(other);
        assert!(matches!(decode(&bytes), Err(Unread::Damaged(DecodeError::Checksum { .. }))));
    }
}
