//! What happens on `archive.snapshot_schedule`: snapshots of shards that changed, and a look at the last verification.

use std::sync::Arc;

use duramen_archive::Verdict;
use duramen_types::HybridTime;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::trouble::Part;
use super::{Opened, Shared};

/// What the runs so far came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// When a run last left every changed shard with a snapshot; before the first, when the archive was opened.
    pub(super) snapshots: Option<HybridTime>,
    /// When the branch was last verified in full, by whoever did it.
    pub(super) verified: Option<HybridTime>,
    /// The objects that were found altered or missing, and not found right since by a verification as deep.
    pub(super) findings: u64,
}

/// Works on the schedule until the tasks are to end.
pub(super) async fn run(shared: Arc<Shared>, opened: Arc<Opened>) {
    shared.schedule.lock().snapshots = Some(shared.clock.wall().now());
    shared.look_at_verification().await;
    if let Err(error) = follow(&shared, &opened).await {
        tracing::error!(%error, "snapshots can't be scheduled");
        shared.troubles.set(Part::Schedule, error.to_string());
    }
}

/// Keeps to the schedule, also when it changes.
async fn follow(shared: &Arc<Shared>, opened: &Arc<Opened>) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    scheduler.start().await?;
    let mut schedule = shared.snapshot_schedule.subscribe();
    // The scheduler starts a job again while its last run still works: one at a time is enough.
    let running = Arc::new(tokio::sync::Mutex::new(()));
    loop {
        let wanted = schedule.borrow_and_update().clone();
        let id = scheduler.add(job(shared, opened, &running, &wanted)?).await?;
        let changed = tokio::select! {
            changed = schedule.changed() => changed.is_ok(),
            () = shared.stopping.cancelled() => false,
        };
        if !changed {
            // It ticks in tasks of its own, which its handle does not end.
            return scheduler.shutdown().await;
        }
        scheduler.remove(&id).await?;
    }
}

fn job(
    shared: &Arc<Shared>,
    opened: &Arc<Opened>,
    running: &Arc<tokio::sync::Mutex<()>>,
    schedule: &str,
) -> Result<Job, JobSchedulerError> {
    let (shared, opened, running) = (Arc::clone(shared), Arc::clone(opened), Arc::clone(running));
    Job::new_async(schedule, move |_, _| {
        let (shared, opened, running) = (Arc::clone(&shared), Arc::clone(&opened), Arc::clone(&running));
        Box::pin(async move {
            let Ok(_one_at_a_time) = running.try_lock() else { return };
            shared.take_snapshots(&opened).await;
            shared.look_at_verification().await;
        })
    })
}

impl Shared {
    async fn take_snapshots(&self, opened: &Opened) {
        if self.has_rival() {
            return;
        }
        let mut complete = true;
        for archiver in &opened.archivers {
            let mut archiver = archiver.lock().await;
            let changed = archiver.last_snapshot().is_none_or(|last| last < archiver.boundary().user_end());
            if !changed {
                continue;
            }
            let part = Part::Snapshots(archiver.shard());
            match archiver.snapshot().await {
                Ok(_) => self.succeeded(part),
                Err(error) => {
                    self.metrics.upload_failed();
                    self.failed(part, error.to_string());
                    complete = false;
                }
            }
        }
        if complete {
            self.schedule.lock().snapshots = Some(self.clock.wall().now());
        }
    }

    /// Reads what the branch's verifications come to; one listing, and the verdicts that are new since the last full one.
    pub(super) async fn look_at_verification(&self) {
        let mut known = self.verdicts.lock().await;
        match Verdict::standing(&self.store, &self.settings.branch, &mut known).await {
            Ok(standing) => {
                let mut outcome = self.schedule.lock();
                outcome.verified = standing.full;
                outcome.findings = u64::try_from(standing.findings.len()).unwrap_or(u64::MAX);
            }
            Err(error) => tracing::warn!(%error, "the last verification can't be looked up"),
        }
    }
}
