//! Looking rows up: by index, by time, by stream, in order; pages are loaded as they are needed.

use std::fmt;
use std::sync::Arc;

use duramen_types::{BranchName, HybridTime, Index, StreamId};

use super::filter::{StreamFilter, StreamQuery};
use super::format::PageRef;
use super::log::ManifestLog;
use super::row::{SegmentRow, SnapshotRow};
use super::state::{HistoryPoint, State, rows_from};
use crate::Result;

/// What a manifest log said at one moment. Cheap to clone; it never changes.
#[derive(Clone)]
pub struct Rows {
    log: ManifestLog,
    state: Arc<State>,
}

impl Rows {
    pub(super) const fn new(log: ManifestLog, state: Arc<State>) -> Self {
        Self { log, state }
    }

    /// The branch whose own part of the history this is.
    pub fn branch(&self) -> &BranchName {
        self.log.branch()
    }

    /// Where the branch begins.
    pub fn start(&self) -> HistoryPoint {
        self.log.start()
    }

    /// Where the archived history ends.
    pub fn tip(&self) -> HistoryPoint {
        self.state.tip
    }

    /// How many segments there are.
    pub fn count(&self) -> u64 {
        let paged = self.state.pages.iter().fold(0_u64, |sum, page| sum.saturating_add(page.rows));
        paged.saturating_add(u64::try_from(self.state.tail.len()).unwrap_or(u64::MAX))
    }

    /// The size of all segments together, in bytes.
    pub fn bytes(&self) -> u64 {
        let paged = self.state.pages.iter().fold(0_u64, |sum, page| sum.saturating_add(page.segment_bytes));
        self.state.tail.iter().fold(paged, |sum, row| sum.saturating_add(row.bytes))
    }

    /// The row whose segment holds `index`, or `None` outside of `start..end`.
    pub async fn containing(&self, index: Index) -> Result<Option<Arc<SegmentRow>>> {
        let row = self.cursor(index, None).next().await?;
        Ok(row.filter(|row| row.first <= index))
    }

    /// The first row that may hold an entry with a time later than `time`; all rows before it end at or before it.
    pub async fn first_after(&self, time: HybridTime) -> Result<Option<Arc<SegmentRow>>> {
        let later = self.state.pages.partition_point(|page| page.last_time <= time);
        if let Some(page) = self.state.pages.get(later) {
            let page = self.log.load_page(page).await?;
            return Ok(page.rows.get(page.rows.partition_point(|row| row.last_time <= time)).cloned());
        }
        Ok(self.state.tail.get(self.state.tail.partition_point(|row| row.last_time <= time)).cloned())
    }

    /// The rows from the one that holds `from`, in order; with `stream`, only those that may have records of it.
    pub fn cursor(&self, from: Index, stream: Option<StreamId>) -> RowCursor {
        RowCursor { rows: self.clone(), position: from, query: stream.map(StreamQuery::from) }
    }

    /// The latest snapshot at or before `index`.
    pub async fn snapshot_at(&self, index: Index) -> Result<Option<SnapshotRow>> {
        let best = |rows: &[SnapshotRow]| {
            rows.iter().filter(|row| row.index <= index).max_by_key(|row| row.index).cloned()
        };
        let mut found = best(&self.state.snapshots);
        for page in self.state.pages.iter().rev() {
            let Some((first, last)) = page.snapshots else { continue };
            let beaten = found.as_ref().is_some_and(|found| found.index >= last.min(index));
            if first <= index && !beaten {
                let page = self.log.load_page(page).await?;
                found = best(&page.snapshots).into_iter().chain(found).max_by_key(|row| row.index);
            }
        }
        Ok(found)
    }

    /// Every snapshot, by index; loads each page that has one.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        let mut found = self.state.snapshots.clone();
        for page in self.state.pages.iter().filter(|page| page.snapshots.is_some()) {
            found.extend(self.log.load_page(page).await?.snapshots.iter().cloned());
        }
        found.sort_by_key(|row| row.index);
        Ok(found)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("log", &self.log).field("count", &self.count()).finish()
    }
}

/// A position among rows; see [`Rows::cursor`].
#[derive(Debug, Clone)]
pub struct RowCursor {
    rows: Rows,
    position: Index,
    query: Option<StreamQuery>,
}

impl RowCursor {
    /// Every entry before this index is in a row that was given, or skipped for want of the stream.
    pub const fn position(&self) -> Index {
        self.position
    }

    /// The next row; `None` at the end. Cancel-safe; after an error it may be called again.
    pub async fn next(&mut self) -> Result<Option<Arc<SegmentRow>>> {
        let state = Arc::clone(&self.rows.state);
        while let Some(page) = state.page_at(self.position) {
            if let Some(row) = self.next_in_page(page).await? {
                self.position = row.end;
                return Ok(Some(row));
            }
            self.position = page.end;
        }
        let found = state.tail_from(self.position).iter().find(|row| self.wants(&row.streams)).cloned();
        self.position = match &found {
            Some(row) => row.end,
            None => self.position.max(state.tip.end),
        };
        Ok(found)
    }

    async fn next_in_page(&self, page: &PageRef) -> Result<Option<Arc<SegmentRow>>> {
        if !self.wants(&page.streams) {
            return Ok(None);
        }
        let page = self.rows.log.load_page(page).await?;
        Ok(rows_from(&page.rows, self.position).iter().find(|row| self.wants(&row.streams)).cloned())
    }

    fn wants(&self, streams: &StreamFilter) -> bool {
        self.query.is_none_or(|query| streams.may_contain(query))
    }
}
