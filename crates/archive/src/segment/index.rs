//! Where everything in a segment is: its trailer and directories.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::ops::Range;

use bytes::Bytes;
use duramen_types::{DecodeError, HybridTime, Index, Offset, StreamId};

use super::block::Block;
use super::directory::{
    BlockEntry, BlockKind, DirectoryRow, EntryPageEntry, StreamPageEntry, decode_directory,
};
use super::entries::{self, EntryRow};
use super::error::SegmentError;
use super::format::{LEAD, SegmentIdentity};
use super::part::{Part, length};
use super::source::RangeSource;
use super::streams::StreamRow;
use super::trailer::{Extent, Trailer};

/// What is read first of an object: the trailer, most often all directories, and the last pages.
const TAIL: u64 = 64 << 10;

/// The trailer and the directories of a segment, checked: where everything in it is.
#[derive(Debug)]
pub struct SegmentIndex {
    name: String,
    trailer: Trailer,
    blocks: Vec<BlockEntry>,
    entry_pages: Vec<EntryPageEntry>,
    stream_pages: Vec<StreamPageEntry>,
    /// The end of the object as it was read, with the parts that happen to be there; each was checked.
    tail: Bytes,
}

impl SegmentIndex {
    /// Reads them from an object of `length` bytes that must be the segment `identity`.
    ///
    /// One read of 64 KiB for a segment whose directories fit there, as they do below about 500 blocks.
    pub async fn load(
        source: &dyn RangeSource,
        length: u64,
        identity: &SegmentIdentity,
    ) -> Result<Self, SegmentError> {
        let object = source.name();
        let tail_start = length.saturating_sub(TAIL);
        let tail = source.read(tail_start..length).await?;
        let trailer_at = tail.len().saturating_sub(Trailer::LEN);
        let trailer = Trailer::decode(tail.get(trailer_at..).unwrap_or_default())
            .map_err(|cause| damaged(object, "trailer", cause))?;
        check_identity(object, &trailer, length, identity)?;
        let directories = trailer.blocks.position..length.saturating_sub(trailer_len());
        let bytes = match slice(&tail, tail_start, &directories) {
            Some(bytes) => bytes,
            None => source.read(directories.clone()).await?,
        };
        let lists = Lists::decode(&trailer, directories, &bytes)
            .map_err(|cause| damaged(object, "directory", cause))?;
        // What is kept here is kept for long. Damage on its way from the store must not be: without it the next reader asks
        // the store again.
        let checked = lists.parts().all(|part| match slice(&tail, tail_start, &part.range()) {
            Some(bytes) => part.is(&bytes),
            None => true,
        });
        Ok(Self {
            name: object.to_owned(),
            trailer,
            blocks: lists.blocks,
            entry_pages: lists.entries,
            stream_pages: lists.streams,
            tail: if checked { tail } else { Bytes::new() },
        })
    }

    pub const fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The object's key or path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// About how many bytes of memory this takes.
    pub fn weight(&self) -> usize {
        let lists = size_of_val(self.blocks.as_slice())
            .saturating_add(size_of_val(self.entry_pages.as_slice()))
            .saturating_add(size_of_val(self.stream_pages.as_slice()));
        lists.saturating_add(self.tail.len()).saturating_add(size_of::<Self>())
    }

    pub const fn entry_pages(&self) -> usize {
        self.entry_pages.len()
    }

    pub const fn stream_pages(&self) -> usize {
        self.stream_pages.len()
    }

    pub const fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The entry page that holds `index`, which is in the segment.
    pub fn entry_page_of(&self, index: Index) -> usize {
        self.entry_pages.partition_point(|page| page.first <= index).saturating_sub(1)
    }

    /// The entry page in which the first entry later than `time` is, or the last one.
    pub fn entry_page_at(&self, time: HybridTime) -> usize {
        self.entry_pages.partition_point(|page| page.first_time <= time).saturating_sub(1)
    }

    /// The first stream page that can hold `offset` of `stream`.
    pub fn stream_page_of(&self, stream: StreamId, offset: Offset) -> usize {
        self.stream_pages
            .partition_point(|page| (page.stream, page.first) <= (stream, offset))
            .saturating_sub(1)
    }

    /// Where blocks lie: the bytes of the object that hold all of `numbers`.
    pub fn block_range(&self, numbers: Range<u32>) -> Range<u64> {
        let part = |number: u32| self.blocks.get(usize::try_from(number).ok()?).map(|block| block.part);
        match (part(numbers.start), numbers.end.checked_sub(1).and_then(part)) {
            (Some(first), Some(last)) => first.position..last.end(),
            _ => 0..0,
        }
    }

    /// Checks and decodes block `number` from its stored bytes; takes about 2 ms for a block of 1 MiB.
    pub fn decode_block(&self, number: u32, stored: Bytes) -> Result<Block, SegmentError> {
        let part = format_args!("block {number}").to_string();
        let entry = usize::try_from(number).ok().and_then(|at| self.blocks.get(at));
        let Some(entry) = entry else {
            return Err(self.altered(part, format!("the segment has {} blocks", self.blocks.len())));
        };
        let decoded = entry.part.open("data block", stored).and_then(|raw| Block::decode(&raw));
        let block = decoded.map_err(|cause| damaged(&self.name, &part, cause))?;
        if u32::try_from(block.batches().len()).ok() != Some(entry.batches) {
            let reason = format!("it holds {} batches, {} are stated", block.batches().len(), entry.batches);
            return Err(self.altered(part, reason));
        }
        Ok(block)
    }

    /// The size of a decoded block, without its rows.
    pub(crate) fn block_size(&self, number: u32) -> usize {
        self.blocks.get(length(number)).map_or(0, |block| length(block.part.raw))
    }

    /// Neighbouring blocks of `numbers`, together as far as `limit` stored bytes go.
    pub(crate) fn block_runs(&self, numbers: impl IntoIterator<Item = u32>, limit: u64) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for number in numbers {
            let end = number.saturating_add(1);
            match runs.last_mut() {
                Some(run) if run.end == number && span(&self.block_range(run.start..end)) <= limit => {
                    run.end = end
                }
                Some(_) | None => runs.push(number..end),
            }
        }
        runs
    }

    /// Decodes neighbouring blocks, which were read together.
    pub(crate) fn decode_blocks(
        &self,
        numbers: Range<u32>,
        stored: &Bytes,
    ) -> Result<Vec<(u32, Block)>, SegmentError> {
        let start = self.block_range(numbers.clone()).start;
        numbers
            .map(|number| {
                let range = self.block_range(number..number.saturating_add(1));
                let bytes = slice(stored, start, &range).unwrap_or_default();
                self.decode_block(number, bytes).map(|block| (number, block))
            })
            .collect()
    }

    /// Entry pages of `numbers`, together as far as `limit` stored bytes go.
    pub(crate) fn entry_page_runs(&self, numbers: Range<usize>, limit: u64) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for number in numbers {
            let end = number.saturating_add(1);
            match runs.last_mut() {
                Some(run) if span(&self.entry_page_range(run.start..end)) <= limit => run.end = end,
                Some(_) | None => runs.push(number..end),
            }
        }
        runs
    }

    pub(super) fn entry_page_range(&self, numbers: Range<usize>) -> Range<u64> {
        let pages = self.entry_pages.get(numbers).unwrap_or_default();
        match (pages.first(), pages.last()) {
            (Some(first), Some(last)) => first.part.position..last.part.end(),
            _ => 0..0,
        }
    }

    /// Decodes neighbouring entry pages, which were read together.
    pub(crate) fn decode_entry_pages(
        &self,
        numbers: Range<usize>,
        stored: &Bytes,
    ) -> Result<Vec<EntryRow>, SegmentError> {
        let start = self.entry_page_range(numbers.clone()).start;
        let mut entries = Vec::new();
        for number in numbers {
            let range = self.entry_pages.get(number).map(|page| page.part.range()).unwrap_or_default();
            entries.extend(self.decode_entry_page(number, slice(stored, start, &range).unwrap_or_default())?);
        }
        Ok(entries)
    }

    pub(super) fn decode_entry_page(
        &self,
        number: usize,
        stored: Bytes,
    ) -> Result<Vec<EntryRow>, SegmentError> {
        let part = format!("entry page {number}");
        let Some(page) = self.entry_pages.get(number) else {
            return Err(self.altered(part, "there is no such page"));
        };
        let raw = page.part.open("entry page", stored);
        let rows = raw.and_then(|raw| entries::decode_page(&raw, page.first, page.entries));
        rows.map_err(|cause| damaged(&self.name, &part, cause))
    }

    pub(super) fn stream_page_range(&self, number: usize) -> Range<u64> {
        self.stream_pages.get(number).map(|page| page.part.range()).unwrap_or_default()
    }

    pub(super) fn decode_stream_page(
        &self,
        number: usize,
        stored: Bytes,
    ) -> Result<Vec<StreamRow>, SegmentError> {
        let part = format!("stream page {number}");
        let Some(page) = self.stream_pages.get(number) else {
            return Err(self.altered(part, "there is no such page"));
        };
        let raw = page.part.open("stream page", stored);
        let rows = raw.and_then(|raw| StreamRow::decode_page(&raw, page.rows));
        let rows = rows.map_err(|cause| damaged(&self.name, &part, cause))?;
        let in_place = rows.first().is_some_and(|row| (row.stream, row.first) == (page.stream, page.first));
        let known = rows.iter().all(|row| {
            let end = u64::from(row.slot).saturating_add(row.batches.into());
            let block = self.blocks.get(length(row.block));
            block.is_some_and(|block| block.kind == BlockKind::Streams && end <= u64::from(block.batches))
        });
        if !in_place || !known {
            return Err(self.altered(part, "its rows do not fit its directory or the segment's blocks"));
        }
        Ok(rows)
    }

    pub(super) fn block_entries(&self) -> &[BlockEntry] {
        &self.blocks
    }

    pub(super) fn entry_page_entries(&self) -> &[EntryPageEntry] {
        &self.entry_pages
    }

    pub(super) fn altered(&self, part: impl Into<String>, reason: impl Into<String>) -> SegmentError {
        SegmentError::Altered { object: self.name.clone(), part: part.into(), reason: reason.into() }
    }

    /// The bytes of `range` if the tail has them.
    pub(super) fn in_tail(&self, range: &Range<u64>) -> Option<Bytes> {
        let len = u64::try_from(self.tail.len()).ok()?;
        slice(&self.tail, self.trailer.object.checked_sub(len)?, range)
    }
}

/// The decoded directories.
struct Lists {
    blocks: Vec<BlockEntry>,
    entries: Vec<EntryPageEntry>,
    streams: Vec<StreamPageEntry>,
}

impl Lists {
    /// Every part of the segment.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        let blocks = self.blocks.iter().map(|block| &block.part);
        let entries = self.entries.iter().map(|page| &page.part);
        blocks.chain(entries).chain(self.streams.iter().map(|page| &page.part))
    }

    /// `bytes` are those of `range`: everything between the last part and the trailer.
    fn decode(trailer: &Trailer, range: Range<u64>, bytes: &Bytes) -> Result<Self, DecodeError> {
        const WHAT: &str = "segment trailer";
        let directory = |what, extent: &Extent, begin: u64| {
            let found = slice(bytes, range.start, &(extent.position..extent.end()));
            match found {
                Some(found) if extent.position == begin => extent.check(what, &found).map(|()| found),
                _ => Err(DecodeError::invalid(
                    WHAT,
                    format!("its {what} does not lie where the format wants it"),
                )),
            }
        };
        let mut at = u64::try_from(LEAD.len()).unwrap_or(u64::MAX);
        let blocks = directory(BlockEntry::WHAT, &trailer.blocks, range.start)?;
        let blocks: Vec<BlockEntry> = decode_directory(&blocks, &mut at)?;
        let entries = directory(EntryPageEntry::WHAT, &trailer.entries, trailer.blocks.end())?;
        let entries: Vec<EntryPageEntry> = decode_directory(&entries, &mut at)?;
        let streams = directory(StreamPageEntry::WHAT, &trailer.streams, trailer.entries.end())?;
        let streams: Vec<StreamPageEntry> = decode_directory(&streams, &mut at)?;
        if at != range.start || trailer.streams.end() != range.end {
            return Err(DecodeError::invalid(WHAT, "bytes of the object belong to no part of it"));
        }
        if !blocks.is_sorted_by_key(|block| block.kind) {
            return Err(DecodeError::invalid(BlockEntry::WHAT, "blocks of both kinds are mixed"));
        }
        let mut next = trailer.first;
        for page in &entries {
            if page.first != next || page.entries == 0 {
                return Err(DecodeError::invalid(
                    EntryPageEntry::WHAT,
                    format!("no page begins with entry {next}"),
                ));
            }
            next = page.end();
        }
        if next != trailer.end {
            return Err(DecodeError::invalid(EntryPageEntry::WHAT, format!("the pages end at entry {next}")));
        }
        Ok(Self { blocks, entries, streams })
    }
}

const fn span(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

fn trailer_len() -> u64 {
    u64::try_from(Trailer::LEN).unwrap_or(u64::MAX)
}

/// The bytes of `range` out of `bytes`, which begin at `start`.
fn slice(bytes: &Bytes, start: u64, range: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

pub(super) fn damaged(object: &str, part: &str, cause: DecodeError) -> SegmentError {
    SegmentError::Damaged { object: object.to_owned(), part: part.to_owned(), cause }
}

fn check_identity(
    object: &str,
    trailer: &Trailer,
    length: u64,
    expected: &SegmentIdentity,
) -> Result<(), SegmentError> {
    if trailer.encryption != 0 {
        return Err(SegmentError::Encrypted { object: object.to_owned() });
    }
    let found = &trailer.identity;
    let swapped = |field, expected: &dyn ToString, found: &dyn ToString| {
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected == found {
            return Ok(());
        }
        Err(SegmentError::Swapped { object: object.to_owned(), field, expected, found })
    };
    swapped("archive", &expected.archive, &found.archive)?;
    swapped("branch", &expected.branch, &found.branch)?;
    swapped("shard", &expected.shard, &found.shard)?;
    swapped("segment id", &expected.segment, &found.segment)?;
    swapped("length", &length, &trailer.object)
}
