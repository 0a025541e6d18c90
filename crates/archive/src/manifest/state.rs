//! The state that manifests add up to, and the rules by which they do.

use std::sync::Arc;

use duramen_types::{ChainValue, HybridTime, Index, ManifestNumber, ShardId, Term, genesis};
use serde::{Deserialize, Serialize};

use super::filter::StreamFilter;
use super::format::{Checkpoint, Manifest, Page, PageRef};
use super::row::{SegmentRow, SnapshotRow};

/// A point of a shard's history: what lies before the index `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryPoint {
    pub end: Index,
    /// The chain value after the last entry before `end`.
    pub chain: ChainValue,
    /// The term and the effective time of that entry; zero where there is none.
    pub term: Term,
    pub time: HybridTime,
}

impl HistoryPoint {
    /// The point before a shard's first entry.
    pub fn genesis(shard: ShardId) -> Self {
        Self { end: Index::ZERO, chain: genesis(shard), term: Term::ZERO, time: HybridTime::ZERO }
    }

    /// The point after a segment.
    pub const fn after(row: &SegmentRow) -> Self {
        Self { end: row.end, chain: row.chain_after, term: row.last_term, time: row.last_time }
    }

    /// The point after `row`, if it may follow this one; else why it may not.
    pub(super) fn join(self, row: &SegmentRow) -> Result<Self, String> {
        if row.first != self.end {
            return Err(format!("segment {}..{} does not begin at the end {}", row.first, row.end, self.end));
        }
        if row.chain_before != self.chain {
            let (found, expected) = (row.chain_before, self.chain);
            return Err(format!(
                "segment {}..{} begins at chain {found}, not at {expected}",
                row.first, row.end
            ));
        }
        if row.first_time < self.time || row.last_term < self.term || row.first >= row.end {
            return Err(format!("segment {}..{} goes back in time or term", row.first, row.end));
        }
        Ok(Self::after(row))
    }
}

/// Everything a manifest log says after some manifest; readers share it, so it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub next: ManifestNumber,
    /// The first manifest that no checkpoint covers.
    pub uncovered: ManifestNumber,
    pub pages: Vec<Arc<PageRef>>,
    pub tail: Vec<Arc<SegmentRow>>,
    /// Those that are in no page.
    pub snapshots: Vec<SnapshotRow>,
    pub tip: HistoryPoint,
}

impl State {
    pub(super) fn new(start: HistoryPoint) -> Self {
        let zero = ManifestNumber::ZERO;
        Self { next: zero, uncovered: zero, pages: vec![], tail: vec![], snapshots: vec![], tip: start }
    }

    /// Adds the next manifest; on an error, which says why it may not follow, the state is unchanged.
    pub(super) fn apply(&mut self, manifest: &Manifest) -> Result<(), String> {
        if manifest.number != self.next {
            return Err(format!("it says that it is manifest {}, not {}", manifest.number, self.next));
        }
        if manifest.previous_end != self.tip.end || manifest.previous_chain != self.tip.chain {
            let (found, expected) = (manifest.previous_end, self.tip.end);
            return Err(format!(
                "it follows index {found}, where the history ends at {expected} or has another chain"
            ));
        }
        let mut tip = self.tip;
        for row in &manifest.rows {
            tip = tip.join(row)?;
        }
        for snapshot in &manifest.snapshots {
            let joins =
                snapshot.index < tip.end || (snapshot.index == tip.end && snapshot.chain == tip.chain);
            if !joins {
                return Err(format!(
                    "the snapshot at {} is not of this history, which ends at {}",
                    snapshot.index, tip.end
                ));
            }
        }
        self.tip = tip;
        self.next = self.next.next();
        self.tail.extend(manifest.rows.iter().cloned());
        self.snapshots.extend(manifest.snapshots.iter().cloned());
        Ok(())
    }

    /// The state that a checkpoint says, from the branch's start; an error says why it cannot be one.
    pub(super) fn from_checkpoint(start: HistoryPoint, checkpoint: Checkpoint) -> Result<Self, String> {
        let mut tip = start;
        for page in &checkpoint.pages {
            if page.first != tip.end || page.chain_before != tip.chain || page.first_time < tip.time {
                return Err(format!("page {} does not join index {}", page.id, tip.end));
            }
            tip = page.point_after();
        }
        for row in &checkpoint.tail {
            tip = tip.join(row)?;
        }
        let next = checkpoint.number.next();
        let Checkpoint { pages, tail, snapshots, .. } = checkpoint;
        Ok(Self { next, uncovered: next, pages, tail, snapshots, tip })
    }

    pub(super) fn to_checkpoint(&self, number: ManifestNumber) -> Checkpoint {
        let Self { pages, tail, snapshots, .. } = self.clone();
        Checkpoint { number, pages, tail, snapshots }
    }

    /// The page that holds `index`, or the first one after it.
    pub(super) fn page_at(&self, index: Index) -> Option<&Arc<PageRef>> {
        self.pages.get(self.pages.partition_point(|page| page.end <= index))
    }

    /// The rows of the tail from the one that holds `index`.
    pub(super) fn tail_from(&self, index: Index) -> &[Arc<SegmentRow>] {
        rows_from(&self.tail, index)
    }
}

/// The rows from the one that holds `index`.
pub(super) fn rows_from(rows: &[Arc<SegmentRow>], index: Index) -> &[Arc<SegmentRow>] {
    rows.get(rows.partition_point(|row| row.end <= index)..).unwrap_or_default()
}

impl PageRef {
    pub(super) const fn point_after(&self) -> HistoryPoint {
        HistoryPoint { end: self.end, chain: self.chain_after, term: self.last_term, time: self.last_time }
    }

    /// The summary of a page that has rows, from its encoding's hash and size.
    pub(crate) fn of(page: &Page, hash: duramen_types::Hash, bytes: u64) -> Option<Self> {
        let (first, last) = (page.rows.first()?, page.rows.last()?);
        let mut id = [0; 16];
        id.copy_from_slice(hash.as_bytes().first_chunk::<16>()?);
        let indexes = || page.snapshots.iter().map(|snapshot| snapshot.index);
        Some(Self {
            id: duramen_types::SegmentId::from_bytes(id),
            hash,
            bytes,
            rows: u64::try_from(page.rows.len()).ok()?,
            first: first.first,
            end: last.end,
            first_time: first.first_time,
            last_time: last.last_time,
            last_term: last.last_term,
            chain_before: first.chain_before,
            chain_after: last.chain_after,
            streams: StreamFilter::union(page.rows.iter().map(|row| &row.streams)),
            snapshots: indexes().min().zip(indexes().max()),
            segment_bytes: page.rows.iter().fold(0, |sum, row| sum.saturating_add(row.bytes)),
            records: page.rows.iter().fold(0, |sum, row| sum.saturating_add(row.records)),
        })
    }
}
