//! Applies committed entries, and shares what comes of it with readers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use duramen_state::{Applied, ShardState};
use duramen_types::{Entry, EntryId, HybridTime, Index, StreamId};
use futures::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{EntryPayload, StoredMembership};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::checkpoint::Checkpoints;
use super::log_store::Unapplied;
use super::raft::{RaftLogId, RaftMembership, ShardRaft, entry_id, io_error, log_id, to_log};
use crate::index::{HotIndex, Row, StreamEnd};
use crate::telemetry::Metrics;

/// How far a shard is; what the archiver and the operators' pages watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The end of the applied log.
    pub end: Index,
    /// The index after the last entry that users caused.
    pub user_end: Index,
    /// The effective time of the last applied entry.
    pub time: HybridTime,
    /// Bytes of entries applied since the node started.
    pub bytes: u64,
}

/// A shard's committed and applied side, shared by everyone who reads.
#[derive(Debug)]
pub struct View {
    pub state: RwLock<ShardState>,
    pub index: HotIndex,
    progress: watch::Sender<Progress>,
    followers: Mutex<HashMap<StreamId, Arc<Notify>>>,
}

impl View {
    pub fn new(state: ShardState, index: HotIndex) -> Self {
        let progress =
            Progress { end: state.end(), user_end: state.user_end(), time: state.time(), bytes: 0 };
        Self {
            state: RwLock::new(state),
            index,
            progress: watch::Sender::new(progress),
            followers: Mutex::new(HashMap::new()),
        }
    }

    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether the hot index has rows enough for a file.
    pub fn index_is_full(&self) -> bool {
        self.index.is_full(self.state.read().streams().len())
    }

    /// Closes the open chunk of the hot index at the state's end; for the one who applies.
    pub fn seal_index(&self) {
        let state = self.state.read();
        let ends = state.streams().map(|(id, stream)| {
            let end = StreamEnd { next: stream.next, bytes: stream.appended_bytes, last: stream.last_append };
            (id, end)
        });
        self.index.seal(ends);
    }

    /// Wakes those who hold it whenever the stream changes. Hold it, look at the state, then wait.
    pub fn follow(&self, stream: StreamId) -> Arc<Notify> {
        let mut followers = self.followers.lock();
        // Followers that went away left their entry behind; drop such entries as the map grows.
        if followers.len() >= 64 && followers.len().is_power_of_two() {
            followers.retain(|_, notify| Arc::strong_count(notify) > 1);
        }
        Arc::clone(followers.entry(stream).or_default())
    }

    fn wake(&self, streams: impl Iterator<Item = StreamId>) {
        let followers = self.followers.lock();
        if followers.is_empty() {
            return;
        }
        for stream in streams {
            if let Some(notify) = followers.get(&stream) {
                notify.notify_waiters();
            }
        }
    }

    /// Wakes every follower: a control entry may have changed any stream.
    fn wake_all(&self) {
        self.followers.lock().values().for_each(|notify| notify.notify_waiters());
    }

    fn apply(&self, id: EntryId, entry: &Entry) -> io::Result<Arc<Applied>> {
        let applied = {
            let mut state = self.state.write();
            let applied = state.apply(id, entry.head(), &entry.head_bytes()).map_err(io_error)?;
            // Before the new tail is visible: who sees the tail finds what lies before it.
            self.index.push(id.index, rows(id, entry, &applied, &state));
            applied
        };
        let user = entry.body().is_user();
        self.progress.send_modify(|progress| {
            progress.end = id.index.next();
            progress.time = applied.time;
            progress.bytes += u64::try_from(entry.payload().len()).unwrap_or(u64::MAX);
            if user {
                progress.user_end = id.index.next();
            }
        });
        if applied.control.is_some() {
            self.wake_all();
        } else {
            let places = entry.body().batches().iter().zip(&applied.batches);
            self.wake(places.filter_map(|(header, outcome)| Some(outcome.place(header.stream)?.0)));
        }
        Ok(Arc::new(applied))
    }
}

/// Where the batches went that the entry appended, in their order.
fn rows(id: EntryId, entry: &Entry, applied: &Applied, state: &ShardState) -> Vec<(StreamId, Row)> {
    let batches = entry.body().batches().iter().zip(&applied.batches).enumerate();
    // The state has each stream's bytes after the entry; going backwards gives them before each batch.
    let mut after: HashMap<StreamId, u64> = HashMap::new();
    let mut rows: Vec<(StreamId, Row)> = Vec::with_capacity(applied.batches.len());
    for (item, (header, outcome)) in batches.rev() {
        let Some((stream, base)) = outcome.place(header.stream) else { continue };
        let end = state.stream(stream).map_or(0, |stream| stream.appended_bytes);
        let after = after.entry(stream).or_insert(end);
        *after = after.saturating_sub(u64::from(header.bytes));
        let row = Row {
            base,
            records: header.records,
            index: id.index,
            item: u32::try_from(item).expect("an entry's batches are counted in 32 bits"),
            time: applied.time,
            max_timestamp: header.max_timestamp,
            before: *after,
        };
        rows.push((stream, row));
    }
    rows.reverse();
    rows
}

/// The consensus library's state machine of a shard.
#[derive(Debug)]
pub struct Machine {
    view: Arc<View>,
    membership: RaftMembership,
    unapplied: Arc<Unapplied>,
    checkpoints: Checkpoints,
    metrics: Arc<Metrics>,
    snapshot: Option<SnapshotMetaOf<ShardRaft>>,
}

impl Machine {
    pub const fn new(
        view: Arc<View>,
        membership: RaftMembership,
        unapplied: Arc<Unapplied>,
        checkpoints: Checkpoints,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { view, membership, unapplied, checkpoints, metrics, snapshot: None }
    }

    /// Saves a checkpoint of everything applied, for a short restart after a graceful shutdown.
    pub async fn checkpoint(&mut self) {
        if let Err(error) = self.checkpoints.save_now(&self.view, &self.membership).await {
            self.checkpoint_failed(&error);
        }
    }

    /// A checkpoint and index files only shorten a restart: the log has everything. So a full disk must not stop the
    /// shard; until one succeeds, nothing is purged that a restart needs.
    fn checkpoint_failed(&mut self, error: &io::Error) {
        let shard = self.view.state.read().shard();
        tracing::error!(%shard, %error, "no checkpoint could be written, the next restart takes longer; it is tried again");
        self.metrics.checkpoint_failed();
        self.checkpoints.retry_soon(&self.view);
    }

    /// Makes sure that a restart needs no entry before `end`.
    pub async fn checkpoint_beyond(&mut self, end: Index) -> io::Result<()> {
        self.checkpoints.save_beyond(&self.view, &self.membership, end).await
    }

    fn applied(&self) -> Option<RaftLogId> {
        self.view.state.read().applied().map(log_id)
    }

    /// A snapshot of this system is a reference: the applied position. Its content is in the archive.
    fn reference(&self) -> SnapshotMetaOf<ShardRaft> {
        SnapshotMeta { last_log_id: self.applied(), last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<ShardRaft> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Reference;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftMembership), io::Error> {
        Ok((self.applied(), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<ShardRaft>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry_id(&entry.log_id);
            let applied = self.view.apply(id, &to_log(&entry))?;
            self.unapplied.applied(id.index);
            match &entry.payload {
                EntryPayload::Normal(proposal) => proposal.resolve(id, &applied),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
                EntryPayload::Blank => {}
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        if let Err(error) = self.checkpoints.save_if_due(&self.view, &self.membership).await {
            self.checkpoint_failed(&error);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Reference {
        let reference = self.reference();
        self.snapshot = Some(reference.clone());
        Reference(reference)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<ShardRaft>, (): ()) -> Result<(), io::Error> {
        let at = meta.last_log_id.as_ref().map(entry_id);
        Err(io::Error::other(format!(
            "a group with one voter is never sent a snapshot, yet one came for {at:?}"
        )))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<ShardRaft, ()>>, io::Error> {
        Ok(self.snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

/// Gives the reference that [`Machine`] took.
#[derive(Debug)]
pub struct Reference(SnapshotMetaOf<ShardRaft>);

impl RaftSnapshotBuilder<ShardRaft> for Reference {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<ShardRaft, ()>, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: () })
    }
}

#[cfg(test)]
mod tests;
