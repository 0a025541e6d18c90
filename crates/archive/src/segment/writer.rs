//! Makes an archived segment from entries in index order.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use bytes::Bytes;
use duramen_state::BatchOutcome;
use duramen_types::{
    ChainValue, Compression, DecodeError, Entry, EntryId, Hash, HybridTime, Index, StreamId, Term,
};

use super::block;
use super::directory::EntryPageEntry;
use super::entries::{self, Fate};
use super::format::{LEAD, SegmentIdentity, TARGET_BLOCK, TARGET_ENTRY_PAGE};
use super::part::Part;
use super::streams;
use super::trailer::Trailer;
use crate::{SegmentRow, StreamFilter};

mod layout;

/// What a segment is made for, and how.
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    pub identity: SegmentIdentity,
    /// The index of the first entry that will come.
    pub first: Index,
    /// The chain value before it.
    pub chain_before: ChainValue,
    /// The largest object to make, in bytes; one entry is taken whatever its size.
    pub max_bytes: u64,
    /// The zstd level of blocks and pages.
    pub compression_level: i32,
    /// How many threads compress at once in [`SegmentWriter::finish`].
    pub threads: NonZeroUsize,
}

/// Entries that can't become a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("entry {found} was given where {expected} comes next")]
    NotNext { expected: Index, found: EntryId },
    #[error("entry {id} has {batches} batches and {outcomes} outcomes")]
    Outcomes { id: EntryId, batches: usize, outcomes: usize },
    #[error("the segment is full: entry {id} would make it larger than {limit} bytes")]
    Full { id: EntryId, limit: u64 },
    #[error("a segment needs at least one entry")]
    Empty,
    /// The log gave bytes that are not the batch that was acknowledged.
    #[error(
        "batch {batch} of entry {index} does not have the hash that its header states: the log is damaged there"
    )]
    Hash { index: Index, batch: usize },
    #[error(transparent)]
    Encode(#[from] DecodeError),
}

/// A finished segment: its bytes, and what its manifest row says of it.
#[derive(Debug, Clone)]
pub struct SegmentObject {
    /// The object's bytes, to be stored one after the other.
    pub chunks: Vec<Bytes>,
    pub facts: SegmentFacts,
}

/// What a segment's manifest row says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFacts {
    pub identity: SegmentIdentity,
    pub first: Index,
    pub end: Index,
    /// The effective times of the first and the last entry.
    pub first_time: HybridTime,
    pub last_time: HybridTime,
    /// The term of the last entry.
    pub last_term: Term,
    /// Whether users caused one of the entries.
    pub has_user_entries: bool,
    /// The object's size.
    pub bytes: u64,
    /// Batches of all fates, and the records in those that were appended.
    pub batches: u64,
    pub records: u64,
    /// The smallest and the largest record timestamp, ms since 1970, of the appended batches; `None` without any.
    pub timestamps: Option<(i64, i64)>,
    pub chain_before: ChainValue,
    pub chain_after: ChainValue,
    /// BLAKE3 of the object.
    pub hash: Hash,
    /// The streams that the segment has appended batches of, in order.
    pub streams: Vec<StreamId>,
}

impl SegmentObject {
    /// The object in one piece, as a single create-only PUT wants it; gives up each chunk once it is copied.
    pub fn into_bytes(self) -> Bytes {
        let length = self.chunks.iter().map(Bytes::len).sum();
        let mut whole = Vec::with_capacity(length);
        for chunk in self.chunks {
            whole.extend_from_slice(&chunk);
        }
        whole.into()
    }
}

impl SegmentFacts {
    /// The manifest's row of the segment.
    pub fn row(&self) -> SegmentRow {
        SegmentRow {
            id: self.identity.segment,
            first: self.first,
            end: self.end,
            first_time: self.first_time,
            last_time: self.last_time,
            last_term: self.last_term,
            bytes: self.bytes,
            records: self.records,
            record_times: self.timestamps,
            has_user_entries: self.has_user_entries,
            chain_before: self.chain_before,
            chain_after: self.chain_after,
            streams: StreamFilter::of(self.streams.iter().copied()),
            hash: self.hash,
            level: 0,
        }
    }
}

/// Collects entries, then lays them out as a segment.
///
/// Memory: what the entries hold, which is shared with the caller and not copied, plus about 200 bytes for each
/// entry and batch; and in [`SegmentWriter::finish`] the object itself.
#[derive(Debug)]
pub struct SegmentWriter {
    options: SegmentOptions,
    entries: Vec<PendingEntry>,
    batches: Vec<PendingBatch>,
    /// Where each entry page begins, and its directory row but for the part.
    pages: Vec<PendingPage>,
    streams: BTreeSet<StreamId>,
    chain: ChainValue,
    page_bytes: usize,
    raw_bytes: u64,
    has_user_entries: bool,
}

#[derive(Debug)]
struct PendingEntry {
    id: EntryId,
    time: HybridTime,
    head: Bytes,
    batches: usize,
}

#[derive(Debug)]
struct PendingBatch {
    entry: usize,
    /// As its block has it.
    stream: StreamId,
    records: u32,
    timestamps: (i64, i64),
    hash: Hash,
    fate: Fate,
    batch: Bytes,
}

#[derive(Debug)]
struct PendingPage {
    entry: usize,
    batch: usize,
    chain_before: ChainValue,
}

impl SegmentWriter {
    pub fn new(options: SegmentOptions) -> Self {
        Self {
            chain: options.chain_before,
            options,
            entries: Vec::new(),
            batches: Vec::new(),
            pages: Vec::new(),
            streams: BTreeSet::new(),
            page_bytes: 0,
            raw_bytes: 0,
            has_user_entries: false,
        }
    }

    /// Takes the next entry with its effective time and one outcome for each of its batches.
    ///
    /// After an error the writer is as it was before; [`WriteError::Full`] says to finish and begin another.
    pub fn push(
        &mut self,
        id: EntryId,
        time: HybridTime,
        entry: &Entry,
        outcomes: &[BatchOutcome],
    ) -> Result<(), WriteError> {
        let headers = entry.body().batches();
        if id.index != self.end() {
            return Err(WriteError::NotNext { expected: self.end(), found: id });
        }
        if headers.len() != outcomes.len() {
            return Err(WriteError::Outcomes { id, batches: headers.len(), outcomes: outcomes.len() });
        }
        let limit = self.options.max_bytes;
        if !self.entries.is_empty() && self.size_bound_with(entry) > limit {
            return Err(WriteError::Full { id, limit });
        }
        let head = entry.head_bytes();
        let fates: Vec<Fate> = outcomes.iter().map(Fate::from).collect();
        self.begin_page(entries::encoded_len(head.len(), &fates));
        self.chain = self.chain.extend(&entry.leaf(id, time));
        let at = self.entries.len();
        self.raw_bytes += raw_size(entry);
        self.has_user_entries |= entry.body().is_user();
        self.entries.push(PendingEntry { id, time, head, batches: fates.len() });
        for ((header, batch), fate) in entry.batches().zip(fates) {
            if let Some((stream, _)) = fate.place(header.stream) {
                self.streams.insert(stream);
            }
            self.batches.push(PendingBatch {
                entry: at,
                stream: fate.block_place(header.stream).0,
                records: header.records,
                timestamps: (header.base_timestamp.min(header.max_timestamp), header.max_timestamp),
                hash: header.hash,
                fate,
                batch,
            });
        }
        Ok(())
    }

    fn begin_page(&mut self, encoded: usize) {
        if self.pages.is_empty() || self.page_bytes + encoded > TARGET_ENTRY_PAGE {
            let (entry, batch) = (self.entries.len(), self.batches.len());
            self.pages.push(PendingPage { entry, batch, chain_before: self.chain });
            self.page_bytes = 0;
        }
        self.page_bytes += encoded;
    }

    /// The index after the last entry.
    pub fn end(&self) -> Index {
        self.entries.last().map_or(self.options.first, |entry| entry.id.index.next())
    }

    /// The chain value after the last entry.
    pub const fn chain(&self) -> ChainValue {
        self.chain
    }

    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// No object made from the entries so far and `entry` is larger than this.
    pub fn size_bound_with(&self, entry: &Entry) -> u64 {
        let streams = (self.streams.len() + entry.body().batches().len()) as u64;
        let raw = self.raw_bytes + raw_size(entry);
        // A part is closed before it exceeds its target, so two neighbours exceed it together; a stream with
        // another compression closes one early.
        let blocks = 2 * raw / TARGET_BLOCK as u64 + 2 * streams + 2;
        let pages = 2 * raw / TARGET_ENTRY_PAGE as u64 + 1;
        let rows = streams + blocks;
        raw + blocks * (4 + Part::ENCODED as u64 + 5)
            + pages * (Part::ENCODED as u64 + 52)
            + rows * (streams::ROW as u64 + 1)
            + (LEAD.len() + Trailer::LEN + 12 + Part::ENCODED + 20) as u64
    }

    /// Lays the object out; `compression` says how a stream's blocks are stored.
    ///
    /// Blocks this thread and `threads - 1` others while it hashes and compresses, so not for an async thread.
    pub fn finish(
        self,
        compression: &(dyn Fn(StreamId) -> Compression + Sync),
    ) -> Result<SegmentObject, WriteError> {
        if self.is_empty() {
            return Err(WriteError::Empty);
        }
        layout::lay_out(self, compression)
    }

    fn page_row(&self, page: &PendingPage, entries: usize, part: Part) -> EntryPageEntry {
        let first = self.entries.get(page.entry);
        EntryPageEntry {
            part,
            first: first.map_or(self.options.first, |entry| entry.id.index),
            entries: u32::try_from(entries).expect("a page is too small for 2^32 entries"),
            first_time: first.map_or(HybridTime::ZERO, |entry| entry.time),
            chain_before: page.chain_before,
        }
    }
}

/// What an entry takes in pages and blocks before compression.
fn raw_size(entry: &Entry) -> u64 {
    let batches = entry.body().batches().len();
    (entry.payload().len() + 28 + batches * (entries::LARGEST_FATE + block::ROW)) as u64
}
