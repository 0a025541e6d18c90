//! The rows of one shard across a branch and its ancestors.

use std::ops::Range;
use std::sync::Arc;

use duramen_types::{BranchName, HybridTime, Index, ShardId, StreamId};

use crate::{Error, HistoryPoint, ObjectKey, Result, RowCursor, Rows, SegmentRow, SnapshotRow};

/// One shard's whole history on a branch, as it was known at one moment. Cheap to clone; it never changes.
#[derive(Debug, Clone)]
pub struct ShardView {
    shard: ShardId,
    /// Oldest first, contiguous, none of them empty but perhaps the last.
    parts: Arc<[Part]>,
}

#[derive(Debug)]
struct Part {
    rows: Rows,
    branch: BranchName,
    /// What the view has of these rows.
    range: Range<Index>,
}

/// A segment, and the part of it that belongs to the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewRow {
    pub shard: ShardId,
    /// The branch that wrote the segment.
    pub branch: BranchName,
    pub row: Arc<SegmentRow>,
    /// The entries of the segment that belong to the view: all of them, or those before a cut within the segment.
    pub visible: Range<Index>,
}

impl ViewRow {
    /// The key of the segment's object.
    pub fn key(&self) -> ObjectKey {
        self.row.key(&self.branch, self.shard)
    }

    /// Whether a cut lies within the segment.
    pub fn is_clipped(&self) -> bool {
        self.visible.end < self.row.end
    }
}

/// A snapshot, and the branch that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSnapshot {
    pub shard: ShardId,
    pub branch: BranchName,
    pub row: SnapshotRow,
}

impl ViewSnapshot {
    /// The key of the snapshot's object.
    pub fn key(&self) -> ObjectKey {
        self.row.key(&self.branch, self.shard)
    }
}

impl ShardView {
    /// Joins parts, each with its beginning and end; an ancestor that does not reach its end is a gap.
    pub(super) fn new(shard: ShardId, parts: Vec<(Rows, Index, Option<Index>)>) -> Result<Self> {
        let parts = parts.into_iter().map(|(rows, from, end)| {
            let tip = rows.tip().end;
            let branch = rows.branch().clone();
            let (start, end) = (rows.start().end, end.unwrap_or(tip));
            if tip < end || start > from {
                let reason = format!("it holds {start}..{tip}, and {from}..{end} is needed of it");
                return Err(Error::Gap { branch, shard, reason });
            }
            Ok(Part { rows, branch, range: from..end })
        });
        Ok(Self { shard, parts: parts.collect::<Result<_>>()? })
    }

    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// Where the archived history ends.
    pub fn tip(&self) -> HistoryPoint {
        self.parts.last().map_or_else(|| HistoryPoint::genesis(self.shard), |part| part.rows.tip())
    }

    /// The branches that the history is in, oldest first, each with its part.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&BranchName, &Range<Index>)> {
        self.parts.iter().map(|part| (&part.branch, &part.range))
    }

    /// The segment that holds `index`, or `None` beyond the end.
    pub async fn containing(&self, index: Index) -> Result<Option<ViewRow>> {
        let row = self.cursor(index, None).next().await?;
        Ok(row.filter(|row| row.visible.contains(&index)))
    }

    /// The first segment that may hold an entry with a time later than `time`; all before it end at or before it.
    pub async fn first_after(&self, time: HybridTime) -> Result<Option<ViewRow>> {
        for part in self.parts.iter() {
            if let Some(row) = part.rows.first_after(time).await?
                && row.first < part.range.end
            {
                // The rows of an ancestor before its part belong to its own ancestors: there are none by layout.
                return Ok(Some(part.view(self.shard, row)));
            }
        }
        Ok(None)
    }

    /// The segments from the one that holds `from`, in order; with `stream`, only those that may have records of it.
    pub fn cursor(&self, from: Index, stream: Option<StreamId>) -> ViewCursor {
        ViewCursor { view: self.clone(), part: 0, within: None, position: from, stream }
    }

    /// The latest snapshot at or before `index`.
    pub async fn snapshot_at(&self, index: Index) -> Result<Option<ViewSnapshot>> {
        for part in self.parts.iter().rev() {
            let found = part.rows.snapshot_at(index.min(part.range.end)).await?;
            if let Some(row) = found {
                return Ok(Some(ViewSnapshot { shard: self.shard, branch: part.branch.clone(), row }));
            }
        }
        Ok(None)
    }

    /// Every snapshot that the view has, by index.
    pub async fn snapshots(&self) -> Result<Vec<ViewSnapshot>> {
        let mut found = Vec::new();
        for part in self.parts.iter() {
            let rows = part.rows.snapshots().await?.into_iter().filter(|row| row.index <= part.range.end);
            found.extend(rows.map(|row| ViewSnapshot {
                shard: self.shard,
                branch: part.branch.clone(),
                row,
            }));
        }
        Ok(found)
    }
}

impl Part {
    fn view(&self, shard: ShardId, row: Arc<SegmentRow>) -> ViewRow {
        let visible = row.first.max(self.range.start)..row.end.min(self.range.end);
        ViewRow { shard, branch: self.branch.clone(), row, visible }
    }
}

/// A position among the segments of a view; see [`ShardView::cursor`].
#[derive(Debug, Clone)]
pub struct ViewCursor {
    view: ShardView,
    part: usize,
    within: Option<RowCursor>,
    position: Index,
    stream: Option<StreamId>,
}

impl ViewCursor {
    /// Every entry before this index is in a segment that was given, or skipped for want of the stream.
    pub const fn position(&self) -> Index {
        self.position
    }

    /// The next segment; `None` at the end. Cancel-safe; after an error it may be called again.
    pub async fn next(&mut self) -> Result<Option<ViewRow>> {
        while let Some(part) = self.view.parts.get(self.part) {
            if self.position < part.range.end {
                let within = self.within.get_or_insert_with(|| part.rows.cursor(self.position, self.stream));
                let row = within.next().await?.filter(|row| row.first < part.range.end);
                if let Some(row) = row {
                    let row = part.view(self.view.shard, row);
                    self.position = row.visible.end;
                    return Ok(Some(row));
                }
                self.position = part.range.end;
            }
            self.within = None;
            self.part = self.part.saturating_add(1);
        }
        Ok(None)
    }
}
