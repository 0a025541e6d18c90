//! How far the archive is, for people and metrics.

use std::time::Duration;

use duramen_types::HybridTime;

use super::lag::Lag;
use super::{ArchiveTask, Shared, archived};
use crate::status::{ArchiveStatus, ArchivedShard};
use crate::telemetry::{ArchiveUse, Observed};

impl ArchiveTask {
    /// The present state; contacts nothing.
    pub fn status(&self) -> ArchiveStatus {
        self.shared.status()
    }

    /// Sets the metrics of the archive; contacts nothing.
    pub fn observe(&self, observed: &Observed) {
        let shared = &self.shared;
        let opened = shared.opened.borrow().clone();
        let seconds = |time: Option<HybridTime>| {
            time.map_or(0.0, |time| Duration::from_micros(time.as_micros()).as_secs_f64())
        };
        let (cache_hits, cache_misses) = opened.as_ref().map_or((0, 0), |o| o.history.cache().lookups());
        let schedule = shared.schedule.lock().clone();
        observed.archive(&ArchiveUse {
            failing: opened.is_none() || !shared.troubles.is_empty(),
            segment_age_seconds: shared.settings.archive.segment_age.as_secs_f64(),
            recovery_window_seconds: shared.settings.archive.recovery_window.as_secs_f64(),
            closed_through: seconds(*shared.closed_through.lock()),
            snapshots: seconds(schedule.snapshots),
            verified: seconds(schedule.verified),
            findings: schedule.findings,
            cache_hits,
            cache_misses,
        });
        for (operation, count) in shared.store.requests() {
            observed.archive_requests(operation.name(), count.answered, count.failed, count.retried);
        }
    }
}

impl Shared {
    fn status(&self) -> ArchiveStatus {
        let opened = self.opened.borrow().clone();
        let mut lag = Lag::default();
        let mut shards = Vec::with_capacity(self.shards.len());
        for (shard, pending) in self.shards.iter().zip(&self.pending) {
            let progress = shard.view.progress();
            lag = lag.and(self.lag(shard, pending));
            // A shard that is being cut right now shows its numbers after the cut.
            let archiver =
                opened.as_ref().and_then(|opened| opened.archivers.get(usize::from(shard.id.get())));
            let archiver = archiver.and_then(|archiver| archiver.try_lock().ok());
            shards.push(ArchivedShard {
                shard: shard.id.get(),
                archived: opened.as_ref().map(|_| archived(shard).get()),
                committed: progress.end.get(),
                manifest: archiver.as_ref().and_then(|a| a.manifest()).map(|number| number.get()),
                snapshot: archiver.as_ref().and_then(|a| a.last_snapshot()).map(|index| index.get()),
            });
        }
        ArchiveStatus {
            url: self.store.url().to_string(),
            branch: self.settings.branch.to_string(),
            reachable: opened.is_some() && self.troubles.is_empty(),
            troubles: self.troubles.list(),
            lag_entries: lag.entries,
            lag_bytes: lag.bytes,
            lag_seconds: lag.age.as_secs_f64(),
            closed_through: self.closed_through.lock().map(|time| time.as_micros()),
            shards,
        }
    }
}
