//! Reading entries: from memory where they are, else from their files, with their checksums verified.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{EntryId, Index, ShardId, Term};

use crate::catalog::Place;
use crate::disk::File;
use crate::format::{RecordView, Row, Run, decode_page, decode_record};
use crate::shared::Shared;
use crate::stats::add;
use crate::{Error, segment};

/// The most bytes that one read from a file takes when it reads for several entries.
const MAX_READ: u64 = 4 * 1024 * 1024;
/// The most foreign bytes between two entries that are read along rather than skipped.
const MAX_GAP: u64 = 64 * 1024;

/// Entries of one term that lie in one segment.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) shard: ShardId,
    pub(crate) term: Term,
    pub(crate) range: Range<Index>,
    pub(crate) max_bytes: u64,
}

/// A segment's file, pinned: it keeps its bytes while this lives.
#[derive(Debug, Clone)]
struct Pinned {
    sequence: u64,
    path: PathBuf,
    file: File,
}

enum Step {
    Cached(Vec<(EntryId, Bytes)>),
    File { sequence: u64, wanted: Wanted },
    End,
}

enum Rows {
    Known(Vec<Row>),
    Page(Run),
}

impl Shared {
    /// The entries of `range` from its start on, until the next one would exceed `max_bytes`; at least one if any.
    pub(crate) fn entries(
        &self,
        shard: ShardId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<(EntryId, Bytes)>, Error> {
        let mut entries: Vec<(EntryId, Bytes)> = Vec::new();
        let mut bytes = 0_u64;
        let mut next = range.start;
        loop {
            let left = max_bytes.saturating_sub(bytes);
            let step = match self.step(shard, next..range.end, left, entries.is_empty()) {
                // What was read before a purge overtook the reader is still true.
                Err(Error::Purged { .. }) if !entries.is_empty() => return Ok(entries),
                step => step?,
            };
            let more = match step {
                Step::End => return Ok(entries),
                Step::Cached(more) => {
                    add(&self.counters.cache_hits, more.len() as u64);
                    more
                }
                Step::File { sequence, wanted } => {
                    let more = match self.read_segment(sequence, &wanted) {
                        Ok(more) => more,
                        // It was reclaimed between the two looks at the catalogue: look again.
                        Err(Error::Incomplete { .. }) if !self.is_current(sequence) => continue,
                        Err(error) => return Err(error),
                    };
                    add(&self.counters.file_reads, more.len() as u64);
                    more
                }
            };
            for (id, payload) in more {
                let len = payload.len() as u64;
                if !entries.is_empty() && bytes.saturating_add(len) > max_bytes {
                    return Ok(entries);
                }
                bytes = bytes.saturating_add(len);
                next = id.index.next();
                entries.push((id, payload));
            }
        }
    }

    /// The entries of `range` from its start on that are in memory; `None` if the first one is only in a file.
    pub(crate) fn entries_in_memory(
        &self,
        shard: ShardId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Option<Vec<(EntryId, Bytes)>>, Error> {
        Ok(match self.step(shard, range, max_bytes, true)? {
            Step::Cached(entries) => {
                add(&self.counters.cache_hits, entries.len() as u64);
                Some(entries)
            }
            Step::End => Some(Vec::new()),
            Step::File { .. } => None,
        })
    }

    /// The sum of the lengths of the payloads of `range`.
    pub(crate) fn payload_bytes(&self, shard: ShardId, range: Range<Index>) -> Result<u64, Error> {
        let (mut bytes, mut begun) = (0_u64, Vec::new());
        {
            let state = self.state.lock();
            let cached_from = state.tails.cached_from(shard);
            bytes = bytes.saturating_add(state.tails.cached_payload_bytes(shard, &range));
            let written = range.start..range.end.min(cached_from);
            let pieces = state.catalog.shards.get(&shard).map(|log| log.pieces_of(&written));
            for (part, piece) in pieces.into_iter().flatten() {
                let Some(segment) = state.catalog.segments.get(&piece.segment) else { continue };
                let (whole, parts) = segment.payload_bytes(shard, piece.term, &part);
                bytes = bytes.saturating_add(whole);
                let pinned = || Pinned {
                    sequence: piece.segment,
                    path: segment.path.clone(),
                    file: segment.file.clone(),
                };
                begun.extend(parts.into_iter().map(|(run, rows)| (pinned(), run, rows)));
            }
        }
        for (pinned, run, rows) in begun {
            let page = self.page(&pinned, &run)?;
            let rows = page.get(rows).unwrap_or_default();
            bytes = rows.iter().fold(bytes, |sum, row| sum.saturating_add(row.length.into()));
        }
        Ok(bytes)
    }

    fn is_current(&self, sequence: u64) -> bool {
        self.state.lock().catalog.segments.contains_key(&sequence)
    }

    fn step(&self, shard: ShardId, range: Range<Index>, left: u64, first: bool) -> Result<Step, Error> {
        let state = self.state.lock();
        let log = state.tails.state(shard);
        if range.start < log.first && range.start < range.end {
            return Err(Error::Purged { shard, asked: range.start, first: log.first });
        }
        let end = range.end.min(log.end);
        if range.start >= end || (left == 0 && !first) {
            return Ok(Step::End);
        }
        let cached_from = state.tails.cached_from(shard);
        if range.start >= cached_from {
            let mut cached = Vec::new();
            let (mut next, mut bytes) = (range.start, 0_u64);
            while next < end
                && let (Some(payload), Some(term)) =
                    (state.tails.cached(shard, next), state.tails.term(shard, next))
            {
                bytes = bytes.saturating_add(payload.len() as u64);
                if bytes > left && !(first && cached.is_empty()) {
                    break;
                }
                cached.push((EntryId { index: next, term }, payload));
                next = next.next();
            }
            return Ok(if cached.is_empty() { Step::End } else { Step::Cached(cached) });
        }
        let missing = || Error::Incomplete {
            dir: self.dir.clone(),
            reason: format!("shard {shard}: entry {} is in no segment", range.start),
        };
        let (_, piece) =
            state.catalog.shards.get(&shard).and_then(|log| log.piece(range.start)).ok_or_else(missing)?;
        let wanted = Wanted {
            shard,
            term: piece.term,
            range: range.start..end.min(piece.end).min(cached_from),
            max_bytes: left.max(1),
        };
        Ok(Step::File { sequence: piece.segment, wanted })
    }

    /// Reads entries from one segment: at least the first, and as many more as one row page and the limit allow.
    pub(crate) fn read_segment(
        &self,
        sequence: u64,
        wanted: &Wanted,
    ) -> Result<Vec<(EntryId, Bytes)>, Error> {
        let first = EntryId { index: wanted.range.start, term: wanted.term };
        let (pinned, rows) = {
            let state = self.state.lock();
            let segment =
                state.catalog.segments.get(&sequence).ok_or_else(|| self.not_there(wanted.shard, first))?;
            let pinned = Pinned { sequence, path: segment.path.clone(), file: segment.file.clone() };
            let rows = match &segment.index {
                crate::catalog::SegmentIndex::Open(table) => Rows::Known(table.rows(
                    wanted.shard,
                    wanted.term,
                    wanted.range.start,
                    wanted.range.end,
                    crate::format::RUN_ROWS,
                )),
                crate::catalog::SegmentIndex::Sealed(_) => match segment.place(wanted.shard, first) {
                    Some(Place::Page(run)) => Rows::Page(run),
                    Some(Place::Row(row)) => Rows::Known(vec![row]),
                    None => return Err(self.not_there(wanted.shard, first)),
                },
            };
            (pinned, rows)
        };
        match rows {
            Rows::Known(rows) if rows.is_empty() => Err(self.not_there(wanted.shard, first)),
            Rows::Known(rows) => pinned.read(&rows, wanted),
            Rows::Page(run) => {
                let page = self.page(&pinned, &run)?;
                let skip = usize::try_from(wanted.range.start.since(run.first)).unwrap_or(usize::MAX);
                let take = usize::try_from(wanted.range.end.since(wanted.range.start)).unwrap_or(usize::MAX);
                let rows = page.get(skip..).unwrap_or_default();
                pinned.read(&rows[..rows.len().min(take)], wanted)
            }
        }
    }

    /// Reads one entry, in the log or displaced, from one segment.
    pub(crate) fn read_one(&self, sequence: u64, shard: ShardId, id: EntryId) -> Result<Bytes, Error> {
        let (pinned, place) = {
            let state = self.state.lock();
            let segment = state.catalog.segments.get(&sequence).ok_or_else(|| self.not_there(shard, id))?;
            let pinned = Pinned { sequence, path: segment.path.clone(), file: segment.file.clone() };
            (pinned, segment.place(shard, id).ok_or_else(|| self.not_there(shard, id))?)
        };
        let row = match place {
            Place::Row(row) => Some(row),
            Place::Page(run) => {
                let at = usize::try_from(id.index.since(run.first)).unwrap_or(usize::MAX);
                self.page(&pinned, &run)?.get(at).copied()
            }
        };
        let row = row.ok_or_else(|| self.not_there(shard, id))?;
        let wanted = Wanted { shard, term: id.term, range: id.index..id.index.next(), max_bytes: u64::MAX };
        let read = pinned.read(&[row], &wanted)?;
        read.into_iter().next().map(|(_, payload)| payload).ok_or_else(|| self.not_there(shard, id))
    }

    fn not_there(&self, shard: ShardId, id: EntryId) -> Error {
        let reason = format!("shard {shard}: entry {id} is not in the segment that should hold it");
        Error::Incomplete { dir: self.dir.clone(), reason }
    }

    fn page(&self, pinned: &Pinned, run: &Run) -> Result<Arc<[Row]>, Error> {
        let key = (pinned.sequence, run.page_at);
        if let Some(page) = self.pages.lock().get(key) {
            return Ok(page);
        }
        let mut bytes = vec![0; usize::try_from(run.page_len).unwrap_or(usize::MAX)];
        segment::read(&pinned.file, &pinned.path, &mut bytes, run.page_at)?;
        let rows = decode_page(&bytes, run)
            .map_err(|cause| Error::undecodable(&pinned.path, run.page_at, &cause))?;
        let page: Arc<[Row]> = rows.into();
        self.pages.lock().insert(key, page.clone());
        Ok(page)
    }
}

impl Pinned {
    /// Reads the records at `rows`, neighbours with one call, as far as the limits go.
    fn read(&self, rows: &[Row], wanted: &Wanted) -> Result<Vec<(EntryId, Bytes)>, Error> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let (start, mut end) = (first.position, first.end());
        let (mut count, mut payloads) = (1, u64::from(first.length));
        for row in rows.iter().skip(1) {
            payloads = payloads.saturating_add(row.length.into());
            let near = row.position >= end && row.position - end <= MAX_GAP;
            if !near || payloads > wanted.max_bytes || row.end() - start > MAX_READ {
                break;
            }
            end = row.end();
            count += 1;
        }
        // A page's checksum held, so this is the length of records that were written: far below the file's.
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        let file_len = self.file.len().map_err(|source| Error::io("look at", &self.path, source))?;
        if end > file_len {
            return Err(Error::corrupt(
                &self.path,
                start,
                format!("the file ends at byte {file_len}, inside a record"),
            ));
        }
        let mut bytes = vec![0; len];
        segment::read(&self.file, &self.path, &mut bytes, start)?;
        let bytes = Bytes::from(bytes);
        let mut entries = Vec::with_capacity(count);
        for (row, n) in rows.iter().take(count).zip(0_u64..) {
            let at = usize::try_from(row.position - start).unwrap_or(usize::MAX);
            let id = EntryId { index: wanted.range.start.plus(n), term: wanted.term };
            entries.push((id, self.decode(&bytes, at, row, wanted.shard, id)?));
        }
        Ok(entries)
    }

    fn decode(
        &self,
        bytes: &Bytes,
        at: usize,
        row: &Row,
        shard: ShardId,
        id: EntryId,
    ) -> Result<Bytes, Error> {
        let record = bytes.get(at..at.saturating_add(segment::record_len(row.length))).unwrap_or_default();
        let (record, _) =
            decode_record(record).map_err(|cause| Error::undecodable(&self.path, row.position, &cause))?;
        match record {
            RecordView::Entry { shard: found_shard, id: found, payload }
            | RecordView::DisplacedCopy { shard: found_shard, id: found, payload }
                if found_shard == shard && found == id =>
            {
                Ok(bytes.slice_ref(payload))
            }
            _ => Err(Error::corrupt(
                &self.path,
                row.position,
                format!("another record is where entry {id} of shard {shard} belongs"),
            )),
        }
    }
}
