//! Which local segments may go, now that the archive has them.

use std::collections::BTreeMap;

use duramen_types::{EntryId, Index, ShardId};

use super::{Opened, Shared};

impl Shared {
    /// Purges archived entries beyond `local_retention`, whole segments at a time, oldest first.
    ///
    /// Nothing goes before the manifest that names it was read back from the store.
    pub(super) async fn retain(&self, opened: &Opened) {
        self.unpin_oldest(opened).await;
        for (shard, end) in self.disposable() {
            let Some(handle) = self.shards.get(usize::from(shard.get())) else { continue };
            let Some(archiver) = opened.archivers.get(usize::from(shard.get())) else { continue };
            let confirmed = match archiver.lock().await.confirm().await {
                Ok(confirmed) => confirmed,
                Err(error) => {
                    self.failed(&error.to_string());
                    continue;
                }
            };
            let end = end.min(confirmed);
            let Some(last) = end.previous() else { continue };
            if self.wal.log_state(shard).purged.is_some_and(|purged| purged.index >= last) {
                continue;
            }
            let Some(term) = self.wal.term_of(shard, last) else { continue };
            if let Err(error) = handle.purge(EntryId { index: last, term }).await {
                tracing::error!(%shard, %error, "local segments can't be purged");
            }
        }
    }

    /// Archives what no user caused in the oldest sealed segment of shards that are idle otherwise: their ticks would keep
    /// it, and with it every later one.
    async fn unpin_oldest(&self, opened: &Opened) {
        let retention = &self.settings.local_retention;
        let segments = self.wal.segments();
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        if bytes <= retention.bytes.as_u64() && retention.age.is_none() {
            return;
        }
        let Some(oldest) = segments.into_iter().find(|segment| segment.sealed) else { return };
        for (shard, range) in oldest.ranges {
            let Some(shard) = self.shards.get(usize::from(shard.get())) else { continue };
            let end = super::archived(shard);
            if end < range.end && shard.view.progress().user_end <= end {
                self.cut(opened, shard, range.end, true).await;
            }
        }
    }

    /// For each shard, the end of what the oldest disposable segments hold.
    fn disposable(&self) -> BTreeMap<ShardId, Index> {
        let retention = &self.settings.local_retention;
        let segments = self.wal.segments();
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let now = self.clock.wall().now();
        let mut ends = BTreeMap::new();
        let sealed: Vec<_> = segments.iter().filter(|segment| segment.sealed).collect();
        for (at, segment) in sealed.iter().enumerate() {
            // A segment's newest record is about as old as the segment that follows it.
            let closed = sealed.get(at + 1).map_or(now, |next| next.created);
            let too_old = retention.age.is_some_and(|age| closed < now.before(age));
            let archived = segment.ranges.iter().all(|(shard, range)| {
                let shard = self.shards.get(usize::from(shard.get()));
                shard.is_some_and(|shard| super::archived(shard) >= range.end)
            });
            if !archived || (bytes <= retention.bytes.as_u64() && !too_old) {
                break;
            }
            bytes = bytes.saturating_sub(segment.bytes);
            for (shard, range) in &segment.ranges {
                let end = ends.entry(*shard).or_insert(Index::ZERO);
                *end = range.end.max(*end);
            }
        }
        ends
    }
}
