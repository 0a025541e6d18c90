//! Which local segments may go, now that the archive has them.

use std::collections::BTreeMap;

use duramen_failpoint::Point;
use duramen_types::{EntryId, Index, ShardId};
use duramen_wal::SegmentInfo;

use super::trouble::Part;
use super::{Opened, Shared};

impl Shared {
    /// Purges archived entries beyond `local_retention`, whole segments at a time, oldest first.
    ///
    /// Nothing goes before the manifest that names it was read back from the store.
    pub(super) async fn retain(&self, opened: &Opened) {
        self.unpin(opened).await;
        let disposable = self.disposable();
        for (handle, archiver) in self.shards.iter().zip(&opened.archivers) {
            let (shard, part) = (handle.id, Part::Retention(handle.id));
            let Some(end) = disposable.get(&shard).copied() else {
                self.troubles.clear(part);
                continue;
            };
            let confirmed = match archiver.lock().await.confirm().await {
                Ok(confirmed) => confirmed,
                Err(error) => {
                    self.failed(part, error.to_string());
                    continue;
                }
            };
            self.succeeded(part);
            let end = end.min(confirmed);
            let Some(last) = end.previous() else { continue };
            if self.wal.log_state(shard).purged.is_some_and(|purged| purged.index >= last) {
                continue;
            }
            let Some(term) = self.wal.term_of(shard, last) else { continue };
            duramen_failpoint::reached(Point::PurgeConfirmed);
            if let Err(error) = handle.purge(EntryId { index: last, term }).await {
                tracing::error!(%shard, %error, "local segments can't be purged");
            }
            duramen_failpoint::reached(Point::PurgeNoted);
        }
    }

    /// Archives what no user caused in the segments that are beyond retention, of shards that are idle otherwise: their
    /// ticks would keep those segments.
    async fn unpin(&self, opened: &Opened) {
        for (shard, end) in ends(&self.beyond_retention()) {
            let Some(shard) = self.shards.get(usize::from(shard.get())) else { continue };
            let archived = super::archived(shard);
            if archived < end && shard.view.progress().user_end <= archived {
                self.cut(opened, shard, end, true).await;
            }
        }
    }

    /// For each shard, the end of what the oldest disposable segments hold.
    fn disposable(&self) -> BTreeMap<ShardId, Index> {
        let mut segments = self.beyond_retention();
        let kept = segments.iter().position(|segment| {
            !segment.ranges.iter().all(|(shard, range)| {
                let shard = self.shards.get(usize::from(shard.get()));
                shard.is_some_and(|shard| super::archived(shard) >= range.end)
            })
        });
        segments.truncate(kept.unwrap_or(segments.len()));
        ends(&segments)
    }

    /// The sealed segments that `local_retention` does not keep, oldest first.
    fn beyond_retention(&self) -> Vec<SegmentInfo> {
        let retention = &self.settings.local_retention;
        let mut segments = self.wal.segments();
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let now = self.clock.wall().now();
        segments.retain(|segment| segment.sealed);
        let mut beyond = 0;
        for (at, segment) in segments.iter().enumerate() {
            // A segment's newest record is about as old as the segment that follows it.
            let closed = segments.get(at + 1).map_or(now, |next| next.created);
            let too_old = retention.age.is_some_and(|age| closed < now.before(age));
            if bytes <= retention.bytes.as_u64() && !too_old {
                break;
            }
            bytes = bytes.saturating_sub(segment.bytes);
            beyond = at + 1;
        }
        segments.truncate(beyond);
        segments
    }
}

/// For each shard, the end of what the segments hold.
fn ends(segments: &[SegmentInfo]) -> BTreeMap<ShardId, Index> {
    let mut ends = BTreeMap::new();
    for (shard, range) in segments.iter().flat_map(|segment| &segment.ranges) {
        let end = ends.entry(*shard).or_insert(Index::ZERO);
        *end = range.end.max(*end);
    }
    ends
}
