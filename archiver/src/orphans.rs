//! Segments that were uploaded and never committed.

use std::collections::BTreeSet;

use duramen_archive::{BranchView, ObjectKey, paths::ShardFolder};
use duramen_failpoint::Point;
use duramen_types::{Index, ShardId};
use futures::TryStreamExt;

use crate::{Error, Result};

/// What [`collect_orphans`] found, and removed unless it was a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    pub keys: Vec<String>,
    pub bytes: u64,
}

/// Finds the segments of a shard that no manifest names, and removes them unless `dry_run`.
///
/// An object may belong to a commit that is still on its way, so only those are orphans that end before the archived
/// history does by now: their range has been committed as another object.
pub async fn collect_orphans(view: &BranchView, shard: ShardId, dry_run: bool) -> Result<Orphans> {
    let archive = |source| Error::Archive { shard, source };
    view.log(shard).await.map_err(archive)?.refresh().await.map_err(archive)?;
    let rows = view.log(shard).await.map_err(archive)?.rows();
    let branch = view.branch().name.clone();
    let mut named = BTreeSet::new();
    let mut cursor = rows.cursor(Index::ZERO, None);
    while let Some(row) = cursor.next().await.map_err(archive)? {
        named.insert(row.key(&branch, shard).to_string());
    }
    let end = rows.tip().end;
    let mut orphans = Orphans::default();
    let mut listed = view.store().list(&ShardFolder::Segments.prefix(&branch, shard), None);
    while let Some(object) = listed.try_next().await.map_err(archive)? {
        let Some(key @ ObjectKey::Segment { end: object_end, .. }) = object.key else { continue };
        if object_end <= end && !named.contains(&object.path) {
            if !dry_run {
                view.store().delete(&key).await.map_err(archive)?;
                duramen_failpoint::reached(Point::OrphanDeleted);
            }
            orphans.keys.push(object.path);
            orphans.bytes += object.bytes;
        }
    }
    Ok(orphans)
}
