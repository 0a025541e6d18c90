//! When shards are cut, and how far they are closed.
//!
//! A shard is cut when it has a segment's worth of bytes, when somebody waits for the archive, and in rounds: one
//! round begins `archive.segment_age` after the first user entry that is not archived. In a round every shard commits
//! a tick, shards with user entries are cut through it, and one closed object says so for all of them. Without user
//! entries there is no round: an idle node writes one closed object after its last change, then nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duramen_archive::{Closed, ClosedShard};
use duramen_types::{HybridTime, Index};
use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{Instrument as _, field};

use super::open::identify;
use super::trouble::Part;
use super::{Opened, Shared, lag, remembered, schedule};
use crate::shard::{Job, Shard, Waiting};
use crate::telemetry::{number, traced};

/// Cuts on request are at least this far apart for one shard: at most two a second.
const REQUEST_PAUSE: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Archives until it is told to stop.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    // What is not archived counts whether the archive can be opened or not.
    for shard in &shared.shards {
        tasks.spawn(lag::watch(Arc::clone(&shared), Arc::clone(shard)));
    }
    let opened = tokio::select! {
        opened = shared.open() => opened,
        () = shared.stopping.cancelled() => return,
    };
    for shard in &shared.shards {
        tasks.spawn(serve_requests(Arc::clone(&shared), Arc::clone(&opened), Arc::clone(shard)));
    }
    tasks.spawn(remembered::keep(Arc::clone(&shared)));
    tasks.spawn(rounds(Arc::clone(&shared), Arc::clone(&opened)));
    schedule::run(Arc::clone(&shared), opened).await;
    shared.stopping.cancelled().await;
    tasks.shutdown().await;
}

/// Cuts the shard whenever that is asked for.
async fn serve_requests(shared: Arc<Shared>, opened: Arc<Opened>, shard: Arc<Shard>) {
    let Some(pending) = shared.pending.get(usize::from(shard.id.get())) else { return };
    loop {
        pending.request.notified().await;
        let cut = shared.cut(&opened, &shard, shard.view.progress().end, false);
        cut.instrument(traced!(parent: None, "requested_cut")).await;
        tokio::time::sleep(REQUEST_PAUSE).await;
    }
}

async fn rounds(shared: Arc<Shared>, opened: Arc<Opened>) {
    // What was archived before the node stopped may still have to be closed: the first round comes by itself.
    shared.activity.notify_one();
    loop {
        shared.activity.notified().await;
        tokio::time::sleep(shared.settings.archive.segment_age).await;
        let ends = shared.user_ends();
        let closed = *shared.closed_ends.lock() == ends;
        if !closed {
            if shared.round(&opened).instrument(traced!(parent: None, "round")).await {
                *shared.closed_ends.lock() = ends;
            } else {
                shared.activity.notify_one();
            }
        }
        if shared.has_rival() {
            // For good: somebody has to decide which of the two goes on.
            return;
        }
        shared.retain(&opened).await;
    }
}

impl Shared {
    /// One round; whether it closed every shard.
    pub(super) async fn round(&self, opened: &Opened) -> bool {
        // A flush comes between two rounds: closed objects are written in the order of their times.
        let _one_at_a_time = self.rounds.lock().await;
        if self.has_rival() {
            return false;
        }
        // A closed object in another archive, put in this one's place meanwhile, would lie about that one's shards.
        if let Some(archive) = self.settings.id
            && let Err(error) = identify(&self.store, archive).await
        {
            self.failed(Part::Store, error.to_string());
            return false;
        }
        let ticks = join_all(self.shards.iter().map(tick)).await.into_iter().collect::<Option<Vec<_>>>();
        let Some(ticks) = ticks else {
            // A full disk takes no tick, and archiving is what frees it: cut all the same, and close nothing.
            let cuts =
                self.shards.iter().map(|shard| self.cut(opened, shard, shard.view.progress().end, false));
            join_all(cuts).await;
            return false;
        };
        let mut closed = Vec::with_capacity(ticks.len());
        for (shard, (end, time)) in self.shards.iter().zip(ticks) {
            closed.push((shard, end, time));
        }
        let cuts = closed.iter().map(|(shard, end, _)| self.cut(opened, shard, *end, false));
        let all = join_all(cuts).await.into_iter().all(|done| done);
        let items =
            closed.iter().map(|(shard, end, time)| ClosedShard { shard: shard.id, end: *end, closed: *time });
        // An item whose shard could not be cut counts as soon as the archive reaches its end.
        // A tick that a crash could take back closes nothing.
        let items: Vec<ClosedShard> = items
            .filter(|item| self.wal.log_state(item.shard).flushed >= item.end)
            .map(|item| ClosedShard { end: item.end.min(self.user_end(item.shard, item.end)), ..item })
            .collect();
        // What another writes the shards of, this node can't close.
        if items.is_empty() || self.has_rival() {
            return false;
        }
        let previous = *self.last_closed.lock();
        let closed = Closed::new(self.settings.node, items, previous);
        match closed.write(&self.store, &self.settings.branch).instrument(traced!("close")).await {
            Ok(()) => {
                self.succeeded(Part::Closing);
                let mut last = self.last_closed.lock();
                *last = (*last).max(Some(closed.time));
                drop(last);
                if all {
                    *self.closed_through.lock() = closed.shards.iter().map(|item| item.closed).min();
                }
                all
            }
            Err(error) => {
                self.metrics.upload_failed();
                self.failed(Part::Closing, error.to_string());
                false
            }
        }
    }

    /// A last round before the node stops.
    pub(super) async fn final_round(&self) {
        let Some(opened) = self.opened.borrow().clone() else { return };
        // Also where a cut on request archived everything and no round has closed it yet.
        if *self.closed_ends.lock() != self.user_ends() {
            self.round(&opened).await;
        }
    }

    /// Archives the shard's entries before `through` if users caused any that are not archived, or if `force` is set;
    /// tries until it succeeds. False where that can't succeed any more.
    pub(super) async fn cut(&self, opened: &Opened, shard: &Shard, through: Index, force: bool) -> bool {
        let at = usize::from(shard.id.get());
        let Some(archiver) = opened.archivers.get(at) else { return false };
        if !self.sync(shard.id, through).await {
            return false;
        }
        let mut archiver = archiver.lock().await;
        if self.has_rival() {
            return false;
        }
        let part = Part::Shard(shard.id);
        let mut pause = FIRST_RETRY;
        loop {
            let progress = shard.view.progress();
            let wanted = if force { through } else { progress.user_end.min(through) };
            if wanted <= archiver.end() {
                // Nothing is left of what went wrong before.
                self.troubles.clear(part);
                return true;
            }
            let begun = self.clock.wall().monotonic();
            let span = traced!(
                "cut",
                shard = i64::from(shard.id.get()),
                through = number(through.get()),
                segments = field::Empty,
                bytes = field::Empty
            );
            let cut = archiver.cut(&self.wal, through, |boundary| opened.reached(shard, boundary));
            let cut = cut.instrument(span.clone()).await;
            match cut {
                Ok(cut) => {
                    span.record("segments", number(cut.segments)).record("bytes", number(cut.bytes));
                    let took = self.clock.wall().monotonic().saturating_sub(begun);
                    self.metrics.uploaded(cut.bytes, took.as_secs_f64());
                    self.succeeded(part);
                    tracing::debug!(
                        shard = %shard.id, end = %archiver.end(), segments = cut.segments, bytes = cut.bytes,
                        "archived"
                    );
                    return true;
                }
                Err(error) => {
                    self.metrics.upload_failed();
                    self.failed(part, error.to_string());
                    // After a lost race, or a commit of unknown outcome, only the store knows where the history ends.
                    let reopened = self.reopen(opened, shard, &mut archiver, &error).await;
                    if self.has_rival() || !reopened && !error.is_retryable() {
                        return false;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Whether another node archives the branch, which ends this one's archiving until it is started anew.
    pub(super) fn has_rival(&self) -> bool {
        self.rival.load(Ordering::Acquire)
    }

    /// Makes what is to be archived durable here first: with `fsync = "interval"` a crash could take it back, and then the
    /// archive would hold a history that this node's log does not continue. False where the log has failed.
    async fn sync(&self, shard: duramen_types::ShardId, through: Index) -> bool {
        if self.wal.log_state(shard).flushed >= through {
            return true;
        }
        let wal = self.wal.clone();
        matches!(self.settings.blocking.run(move || wal.sync()).await, Ok(Ok(())))
    }

    /// After another writer's manifest won, or a commit whose outcome is unknown: begins again from the new end.
    async fn reopen(
        &self,
        opened: &Opened,
        shard: &Shard,
        archiver: &mut duramen_archiver::ShardArchiver,
        why: &duramen_archiver::Error,
    ) -> bool {
        match archiver.reload(&self.wal, &opened.view, &opened.history).await {
            Ok(()) => {
                opened.reached(shard, archiver.boundary());
                true
            }
            Err(error @ duramen_archiver::Error::Rival { .. }) => {
                self.failed(Part::Shard(shard.id), error.to_string());
                // Nothing of this node's history belongs into the archive any more, of no shard.
                self.rival.store(true, Ordering::Release);
                false
            }
            Err(error) => {
                // What was wrong first may be the cause of both.
                self.failed(Part::Shard(shard.id), format!("{why}; and beginning again: {error}"));
                error.is_retryable()
            }
        }
    }

    /// For each shard, the end of what users caused.
    fn user_ends(&self) -> Vec<Index> {
        self.shards.iter().map(|shard| shard.view.progress().user_end).collect()
    }

    fn user_end(&self, shard: duramen_types::ShardId, end: Index) -> Index {
        let shard = self.shards.get(usize::from(shard.get()));
        shard.map_or(end, |shard| shard.view.progress().user_end)
    }

    pub(super) fn failed(&self, part: Part, error: String) {
        let shard = part.shard().map(tracing::field::display);
        tracing::error!(%part, shard, error, "archiving failed; it is tried again");
        self.troubles.set(part, error);
    }

    /// Notes that the store took what `part` wrote.
    pub(super) fn succeeded(&self, part: Part) {
        self.troubles.clear(part);
        self.troubles.clear(Part::Store);
    }
}

/// Commits a tick; gives the end of the log with it, and its time. `None` when the shard stops.
async fn tick(shard: &Arc<Shard>) -> Option<(Index, HybridTime)> {
    let (sender, outcome) = oneshot::channel();
    shard.submit(Job::Tick(Waiting { outcome: sender, budget: None }));
    let outcome = outcome.await.ok()?.ok()?;
    Some((outcome.id.index.next(), outcome.applied.time))
}
