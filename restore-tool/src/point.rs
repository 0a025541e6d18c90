//! Exact points of a shard's history: which entry comes first after an instant, and the chain before an index.
//!
//! Costs the entry table of the one segment that the point lies in, however long the history is.

use std::sync::Arc;

use duramen_archive::{BranchView, EntryRow, HistoryPoint, SegmentError, ShardView, ViewRow};
use duramen_types::{HybridTime, Index, leaf};

use crate::object::{StoreSource, open_segment};
use crate::{Error, Result};

/// The point before the first entry that is later than `time`.
pub(crate) async fn at_time(view: &BranchView, shard: &ShardView, time: HybridTime) -> Result<HistoryPoint> {
    if let Some(first) = shard.first_after(time).await? {
        let mut cursor = shard.cursor(first.visible.start, None);
        while let Some(row) = cursor.next().await? {
            if row.row.last_time <= time {
                continue;
            }
            // A segment that is clipped at an ancestor's cut may hold nothing visible that is later.
            let is_later = |entry: &EntryRow| entry.time > time && row.visible.contains(&entry.id.index);
            match scan(view, &row, is_later).await? {
                Scan::Stopped(Some(point)) => return Ok(point),
                Scan::Stopped(None) => return at_index(view, shard, row.visible.start).await,
                Scan::Exhausted => {}
            }
        }
    }
    at_index(view, shard, shard.tip().end).await
}

/// The point before `index`, which is at most the end of what is archived.
pub(crate) async fn at_index(view: &BranchView, shard: &ShardView, index: Index) -> Result<HistoryPoint> {
    let Some(last) = index.previous() else { return Ok(HistoryPoint::genesis(shard.shard())) };
    let tip = shard.tip();
    if index == tip.end {
        return Ok(tip);
    }
    let Some(row) = shard.containing(last).await? else {
        let (branch, end) = (view.branch().name.clone(), tip.end);
        return Err(Error::BeyondEnd { branch, shard: shard.shard(), asked: index, end });
    };
    if row.row.end == index {
        return Ok(HistoryPoint::after(&row.row));
    }
    match scan(view, &row, |entry| entry.id.index == index).await? {
        Scan::Stopped(Some(point)) => Ok(point),
        // The segment begins before `index` and ends after it.
        Scan::Stopped(None) | Scan::Exhausted => {
            let reason = format!("segment {} does not hold index {index}", row.key());
            Err(Error::Gap { branch: row.branch.clone(), shard: shard.shard(), reason })
        }
    }
}

/// The time of the first entry that has one.
pub(crate) async fn first_time(view: &BranchView, shard: &ShardView) -> Result<Option<HybridTime>> {
    let Some(first) = shard.first_after(HybridTime::ZERO).await? else { return Ok(None) };
    let mut cursor = shard.cursor(first.visible.start, None);
    while let Some(row) = cursor.next().await? {
        if row.row.first_time > HybridTime::ZERO {
            return Ok(Some(row.row.first_time));
        }
        let source = Arc::new(StoreSource::new(view.store(), row.key()));
        let reader = open_segment(source, view.identity().archive, &row).await?;
        for number in 0..reader.index().entry_pages() {
            let page = reader.entry_page(number).await?;
            let timed = page.iter().find(|entry| entry.time > HybridTime::ZERO);
            if let Some(found) = timed.filter(|entry| row.visible.contains(&entry.id.index)) {
                return Ok(Some(found.time));
            }
        }
    }
    Ok(None)
}

enum Scan {
    /// An entry was found; the point before it, or `None` if it is the segment's first.
    Stopped(Option<HistoryPoint>),
    /// No visible entry was found.
    Exhausted,
}

/// Reads a segment's whole entry table, proves its chain from end to end, and finds the first entry that is `wanted`.
async fn scan(view: &BranchView, row: &ViewRow, wanted: impl Fn(&EntryRow) -> bool) -> Result<Scan> {
    let source = Arc::new(StoreSource::new(view.store(), row.key()));
    let reader = open_segment(source, view.identity().archive, row).await?;
    let mut chain = row.row.chain_before;
    let mut before = None;
    let mut found = Scan::Exhausted;
    for number in 0..reader.index().entry_pages() {
        for entry in reader.entry_page(number).await? {
            if matches!(found, Scan::Exhausted) && wanted(&entry) {
                found = Scan::Stopped(before);
            }
            chain = chain.extend(&leaf(entry.id, entry.time, &entry.head_bytes));
            let (end, term, time) = (entry.id.index.next(), entry.id.term, entry.time);
            before = Some(HistoryPoint { end, chain, term, time });
        }
    }
    if chain == row.row.chain_after {
        return Ok(found);
    }
    Err(SegmentError::Altered {
        object: row.key().to_string(),
        part: "entry table".to_owned(),
        reason: "its history chain does not end in its manifest's value".to_owned(),
    }
    .into())
}
