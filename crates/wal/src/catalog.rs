//! What the written log holds, and in which segment: the fold of all records that reached the disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use duramen_types::{EntryId, Index, ShardId, Term};

use crate::disk::File;
use crate::format::{RECORD_HEAD_BYTES, RecordView, Row, Run, SegmentHeader, ShardSummary, Summary};
use crate::table::SegmentTable;

/// The segments and, per shard, which of them holds what.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) shards: BTreeMap<ShardId, ShardLog>,
}

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// The file's length.
    pub(crate) bytes: u64,
    /// The sequence number behind its last frame.
    pub(crate) end_frame: u64,
    pub(crate) index: SegmentIndex,
}

/// Where a segment's records are.
#[derive(Debug)]
pub(crate) enum SegmentIndex {
    Open(SegmentTable),
    Sealed(Summary),
}

/// Where an entry's record is to be found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Row(Row),
    /// In the row page of this run.
    Page(Run),
}

impl Segment {
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.index, SegmentIndex::Sealed(_))
    }

    pub(crate) fn place(&self, shard: ShardId, id: EntryId) -> Option<Place> {
        match &self.index {
            SegmentIndex::Open(table) => table.row(shard, id).map(Place::Row),
            SegmentIndex::Sealed(summary) => {
                let summary = summary.0.get(&shard)?;
                if let Some(run) = run_of(&summary.runs, id) {
                    return Some(Place::Page(run));
                }
                let displaced = summary.displaced.iter().find(|displaced| displaced.id == id)?;
                displaced.row.map(Place::Row)
            }
        }
    }

    /// The sum of the payloads' lengths of the entries of one term in `range`; and, of runs that are only partly in it, which
    /// rows of their pages are.
    pub(crate) fn payload_bytes(
        &self,
        shard: ShardId,
        term: Term,
        range: &Range<Index>,
    ) -> (u64, Vec<(Run, Range<usize>)>) {
        let (mut bytes, mut parts) = (0_u64, Vec::new());
        let summary = match &self.index {
            SegmentIndex::Open(table) => return (table.payload_bytes(shard, term, range), parts),
            SegmentIndex::Sealed(summary) => summary.0.get(&shard),
        };
        for run in summary.into_iter().flat_map(|summary| &summary.runs).filter(|run| run.term == term) {
            let (start, end) = (range.start.max(run.first), range.end.min(run.end()));
            let row = |index: Index| usize::try_from(index.since(run.first)).unwrap_or(usize::MAX);
            if start >= end {
                continue;
            }
            if start == run.first && end == run.end() {
                bytes = bytes.saturating_add(run.bytes);
            } else {
                parts.push((*run, row(start)..row(end)));
            }
        }
        (bytes, parts)
    }

    /// Per shard, the average bytes of an entry's record in a sealed segment.
    pub(crate) fn average_payloads(&self) -> BTreeMap<ShardId, u64> {
        let SegmentIndex::Sealed(summary) = &self.index else { return BTreeMap::new() };
        let mut averages = BTreeMap::new();
        for (shard, summary) in &summary.0 {
            let bytes: u64 = summary.runs.iter().map(|run| run.bytes).fold(0, u64::saturating_add);
            let count: u64 = summary.runs.iter().map(|run| u64::from(run.count)).sum();
            averages.insert(*shard, bytes / count.max(1) + RECORD_HEAD_BYTES as u64);
        }
        averages
    }

    /// Per shard, the half-open range of indexes from the first to the last entry that was written here.
    pub(crate) fn ranges(&self) -> BTreeMap<ShardId, Range<Index>> {
        match &self.index {
            SegmentIndex::Open(table) => table.ranges(),
            SegmentIndex::Sealed(summary) => summary
                .0
                .iter()
                .filter_map(|(shard, summary)| {
                    Some((*shard, summary.runs.first()?.first..summary.runs.last()?.end()))
                })
                .collect(),
        }
    }
}

fn run_of(runs: &[Run], id: EntryId) -> Option<Run> {
    let behind = runs.partition_point(|run| run.first <= id.index);
    let run = runs.get(behind.checked_sub(1)?)?;
    (run.term == id.term && id.index < run.end()).then_some(*run)
}

/// One shard's written log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardLog {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    /// By first index.
    pub(crate) pieces: BTreeMap<Index, Piece>,
    /// The segment that holds a displaced entry.
    pub(crate) displaced: BTreeMap<EntryId, u64>,
}

/// Entries with dense indexes and one term that lie in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) end: Index,
    pub(crate) term: Term,
    pub(crate) segment: u64,
}

impl Catalog {
    /// Applies a record that was written to `segment`.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>, segment: u64) -> Result<(), String> {
        match *record {
            RecordView::Entry { shard, id, .. } => {
                let log = self.shards.entry(shard).or_default();
                log.insert(id.index..id.index.next(), id.term, segment)
                    .map_err(|why| format!("shard {shard}: {why}"))?;
            }
            RecordView::Truncate { shard, from } => self.shard(shard).truncate(from),
            RecordView::Displaced { shard, id } => self.shard(shard).displace(id, None),
            RecordView::DisplacedCopy { shard, id, .. } => self.shard(shard).displace(id, Some(segment)),
            RecordView::Released { shard, id } => {
                self.shard(shard).displaced.remove(&id);
            }
            RecordView::Vote { shard, bytes } => {
                let log = self.shard(shard);
                if log.vote.as_deref() != Some(bytes) {
                    log.vote = Some(Bytes::copy_from_slice(bytes));
                }
            }
            RecordView::Committed { shard, id } => self.shard(shard).committed = Some(id),
            RecordView::Purged { shard, id } => self.shard(shard).purge(id),
        }
        Ok(())
    }

    /// Applies all that a segment does to the log, as [`Catalog::apply`] of its records would.
    pub(crate) fn apply_summary(&mut self, summary: &Summary, segment: u64) -> Result<(), String> {
        for (shard, summary) in &summary.0 {
            self.shard(*shard)
                .apply_summary(summary, segment)
                .map_err(|why| format!("shard {shard}: {why}"))?;
        }
        Ok(())
    }

    /// Checks that no entry is missing between what was purged and the last one.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (shard, log) in &self.shards {
            let mut expected = log.first();
            for (first, piece) in &log.pieces {
                if *first != expected {
                    return Err(format!("shard {shard} has no entries {expected} to {first}"));
                }
                expected = piece.end;
            }
        }
        Ok(())
    }

    pub(crate) fn shard(&mut self, shard: ShardId) -> &mut ShardLog {
        self.shards.entry(shard).or_default()
    }
}

impl ShardLog {
    /// The first index that is, or would be, in the log.
    pub(crate) fn first(&self) -> Index {
        self.purged.map_or(Index::ZERO, |purged| purged.index.next())
    }

    /// The index behind the last entry.
    pub(crate) fn end(&self) -> Index {
        self.pieces.last_key_value().map_or(self.first(), |(_, piece)| piece.end)
    }

    /// The piece that holds an index, and its first index.
    pub(crate) fn piece(&self, index: Index) -> Option<(Index, Piece)> {
        let (first, piece) = self.pieces.range(..=index).next_back()?;
        (index < piece.end).then_some((*first, *piece))
    }

    /// The pieces that hold entries of `range`, each with its part of it.
    pub(crate) fn pieces_of(&self, range: &Range<Index>) -> Vec<(Range<Index>, Piece)> {
        let before_end = self.pieces.range(..range.end).rev();
        before_end
            .take_while(|(_, piece)| piece.end > range.start)
            .map(|(first, piece)| ((*first).max(range.start)..piece.end.min(range.end), *piece))
            .collect()
    }

    /// Adds entries, or moves those that are there already under the same ids.
    pub(crate) fn insert(&mut self, range: Range<Index>, term: Term, segment: u64) -> Result<(), String> {
        if let Some(mut last) = self.pieces.last_entry() {
            let piece = last.get_mut();
            if piece.end == range.start && piece.term == term && piece.segment == segment {
                piece.end = range.end;
                return Ok(());
            }
        }
        self.carve(&range, term)?;
        self.pieces.insert(range.start, Piece { end: range.end, term, segment });
        Ok(())
    }

    /// Makes room for `range` among the pieces; they must have its term.
    fn carve(&mut self, range: &Range<Index>, term: Term) -> Result<(), String> {
        let overlapping: Vec<(Index, Piece)> = self
            .pieces
            .range(..range.end)
            .rev()
            .take_while(|(_, piece)| piece.end > range.start)
            .map(|(first, piece)| (*first, *piece))
            .collect();
        if let Some((first, piece)) = overlapping.iter().find(|(_, piece)| piece.term != term) {
            return Err(format!(
                "entries {}..{} of term {term} meet {first}..{} of term {}",
                range.start, range.end, piece.end, piece.term
            ));
        }
        for (first, piece) in overlapping {
            self.pieces.remove(&first);
            if first < range.start {
                self.pieces.insert(first, Piece { end: range.start, ..piece });
            }
            if range.end < piece.end {
                self.pieces.insert(range.end, piece);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, from: Index) {
        self.pieces.split_off(&from);
        if let Some(mut last) = self.pieces.last_entry() {
            let piece = last.get_mut();
            piece.end = piece.end.min(from);
        }
    }

    fn purge(&mut self, through: EntryId) {
        if self.purged.is_some_and(|purged| purged.index > through.index) {
            return;
        }
        self.purged = Some(through);
        let first = through.index.next();
        while let Some(piece) = self.pieces.first_entry() {
            if *piece.key() >= first {
                break;
            }
            let piece = piece.remove();
            if piece.end > first {
                self.pieces.insert(first, piece);
                break;
            }
        }
    }

    fn displace(&mut self, id: EntryId, segment: Option<u64>) {
        let held = segment.or_else(|| {
            self.piece(id.index).filter(|(_, piece)| piece.term == id.term).map(|(_, piece)| piece.segment)
        });
        // Without a place there is nothing to keep: the entry was displaced before, or never written.
        if let Some(held) = held {
            self.displaced.insert(id, held);
        }
    }

    fn apply_summary(&mut self, summary: &ShardSummary, segment: u64) -> Result<(), String> {
        for displaced in &summary.displaced {
            self.displace(displaced.id, displaced.row.map(|_| segment));
        }
        if let Some(from) = summary.truncated_from {
            self.truncate(from);
        }
        for run in &summary.runs {
            self.insert(run.first..run.end(), run.term, segment)?;
        }
        for id in &summary.released {
            self.displaced.remove(id);
        }
        if let Some(purged) = summary.purged {
            self.purge(purged);
        }
        if summary.committed.is_some() {
            self.committed = summary.committed;
        }
        if summary.vote.is_some() {
            self.vote.clone_from(&summary.vote);
        }
        Ok(())
    }
}
