//! A shard: one Raft group on the node's WAL, its sequencer, and the state that readers see.

mod checkpoint;
mod log_store;
mod machine;
mod network;
mod raft;
mod sequencer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use duramen_archive::Blocking;
use duramen_state::ShardState;
use duramen_types::{EntryId, Index, NodeId, ShardId};
use duramen_wal::{Disk, LogState, Record, Wal};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{mpsc, watch};

pub use checkpoint::Checkpoint;
pub use machine::{Machine, Progress, View};
pub use raft::{NotProposed, Outcome, Waiting};
pub use sequencer::Job;

use self::checkpoint::Checkpoints;
use self::log_store::LogStore;
use self::network::SoleVoter;
use self::raft::{ShardRaft, io_error, seeded_vote, sole_voter};
use self::sequencer::Sequencer;
use crate::index::{HotIndex, PageCache};
use crate::telemetry::Metrics;
use crate::time::HybridClock;

/// Where a shard keeps what is its own, and what it shares with the node's other shards.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub disk: Arc<dyn Disk>,
    pub wal: Wal,
    pub clock: Arc<HybridClock>,
    pub checkpoints: PathBuf,
    pub index: PathBuf,
    pub pages: PageCache,
    pub metrics: Arc<Metrics>,
    /// Bytes of applied entries of one shard after which it is due for a checkpoint.
    pub checkpoint_bytes: u64,
    pub blocking: Blocking,
}

/// A running shard.
pub struct Shard {
    pub id: ShardId,
    pub view: Arc<View>,
    raft: openraft::Raft<ShardRaft, Machine>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Where the log ended when the shard started: what a disk that was rolled back lacks can't be added later.
    pub recovered_end: Index,
    /// The end of the archived log; zero without an archive.
    pub archived: watch::Sender<Index>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("id", &self.id).field("progress", &self.view.progress()).finish()
    }
}

impl Shard {
    /// Recovers the shard from its checkpoint and the WAL, and leads it.
    ///
    /// When it returns, the term's first entry is applied: the state holds everything that was ever acknowledged.
    pub async fn start(id: ShardId, around: &Surroundings) -> io::Result<Self> {
        let log = around.wal.log_state(id);
        let checkpoint = match Checkpoint::load(&*around.disk, &around.checkpoints, id) {
            Err(error) if log.purged.is_none() => {
                tracing::warn!(shard = %id, %error, "the checkpoint is not used: the whole log is here and is replayed");
                None
            }
            loaded => loaded?,
        };
        let (state, membership) = match checkpoint {
            Some(checkpoint) => (checkpoint.state, checkpoint.membership),
            None => (ShardState::new(id), sole_voter(around.node.get(), None)),
        };
        check_recoverable(&state, log.purged, log.last)?;

        let open_index = |end| {
            HotIndex::open(Arc::clone(&around.disk), &around.index, id, end, around.pages.clone())
                .map_err(io_error)
        };
        let mut index = open_index(state.end())?;
        let first = first_of(log.purged);
        let (state, membership) = match index.first() {
            covered if covered <= first => (state, membership),
            covered if log.purged.is_none() => {
                tracing::warn!(
                    shard = %id,
                    "index files of entries before {covered} are missing: the whole log is here and is replayed"
                );
                index = open_index(Index::ZERO)?;
                (ShardState::new(id), sole_voter(around.node.get(), None))
            }
            covered => {
                tracing::warn!(
                    shard = %id,
                    "index files of entries {first} to before {covered} are missing: they are read from the archive, those that \
                     are not archived yet as soon as they are"
                );
                (state, membership)
            }
        };
        let view = Arc::new(View::new(state, index));
        let store = LogStore::new(id, around.wal.clone());
        let checkpoints = Checkpoints::new(
            Arc::clone(&around.disk),
            around.checkpoints.clone(),
            around.checkpoint_bytes,
            around.blocking,
        );
        let machine = Machine::new(
            Arc::clone(&view),
            membership,
            store.unapplied(),
            checkpoints,
            Arc::clone(&around.metrics),
        );
        let node = around.node.get();
        let raft = openraft::Raft::new(node, Arc::new(config()?), SoleVoter, store, machine)
            .await
            .map_err(io_error)?;
        // The group is born with its one voter, so a crash during the first start leaves nothing half initialised. And
        // alone there is nobody to wait for: without this, the election timeout would delay every start.
        raft.trigger().elect(false).await.map_err(io_error)?;
        lead(&raft).await?;
        // A sole voter has nobody to send heartbeats to; ticks would wake the process for nothing.
        raft.runtime_config().tick(false);

        around.clock.recover(view.progress().time);
        let (jobs, queue) = mpsc::unbounded_channel();
        let sequencer = Sequencer {
            shard: id,
            raft: raft.clone(),
            view: Arc::clone(&view),
            clock: Arc::clone(&around.clock),
            wal: around.wal.clone(),
            jobs: queue,
        };
        tokio::spawn(sequencer.run());
        let recovered_end = log.end;
        Ok(Self { id, view, raft, jobs, recovered_end, archived: watch::Sender::new(Index::ZERO) })
    }

    /// Queues a job; its order among the shard's jobs is fixed from now on.
    pub fn submit(&self, job: Job) {
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(job) {
            job.refuse(NotProposed::ShuttingDown);
        }
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// Whether this node leads the shard.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Why the group has stopped for good, if it has: nothing of it can be acknowledged any more.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let running = &metrics.borrow_watched().running_state;
        running.as_ref().err().map(ToString::to_string)
    }

    /// Lets the log forget entries through `through`; they must be archived.
    pub async fn purge(&self, through: EntryId) -> io::Result<()> {
        let end = through.index.next();
        // First a checkpoint that reaches beyond: a restart must not need what is about to go.
        self.raft
            .with_state_machine(move |machine: &mut Machine| {
                Box::pin(async move { machine.checkpoint_beyond(end).await })
            })
            .await
            .map_err(io_error)??;
        // The library purges no further than its snapshot, which here is only a reference to what is applied.
        self.raft.trigger().snapshot().await.map_err(io_error)?;
        self.raft
            .wait(Some(std::time::Duration::from_secs(10)))
            .metrics(
                |metrics| metrics.snapshot.as_ref().is_some_and(|id| id.index() >= through.index.get()),
                "a snapshot reference at the purge position",
            )
            .await
            .map_err(io_error)?;
        self.raft.trigger().purge_log(through.index.get()).await.map_err(io_error)?;
        self.raft
            .wait(Some(std::time::Duration::from_secs(10)))
            .metrics(
                |metrics| metrics.purged.as_ref().is_some_and(|id| id.index() >= through.index.get()),
                "the log is purged",
            )
            .await
            .map_err(io_error)?;
        self.view.index.purge(through.index.next()).map_err(io_error)
    }

    /// Stops the group after a checkpoint of everything applied, if the disk takes one.
    pub async fn stop(&self) -> io::Result<()> {
        self.raft
            .with_state_machine(|machine: &mut Machine| Box::pin(async move { machine.checkpoint().await }))
            .await
            .map_err(io_error)?;
        self.raft.shutdown().await.map_err(io_error)
    }
}

/// Gives a shard a checkpoint of `state`, and the records that its log lacks so that it begins after it, in a later term.
///
/// The checkpoint is durable when it returns; the records are the caller's to submit.
pub fn seed(around: &Surroundings, state: ShardState, log: &LogState) -> io::Result<Vec<Record>> {
    let Some(last) = state.applied() else { return Ok(Vec::new()) };
    let shard = state.shard();
    let membership = sole_voter(around.node.get(), Some(last));
    Checkpoint { state, membership }.save(&*around.disk, &around.checkpoints)?;
    let mut records = Vec::new();
    if log.purged.is_none() {
        records.push(Record::Purged { shard, id: last });
    }
    if log.vote.is_none() {
        let term = log.last.map_or(last.term, |entry| entry.term);
        records.push(Record::Vote { shard, bytes: seeded_vote(around.node.get(), term) });
    }
    Ok(records)
}

/// Where a log begins.
fn first_of(purged: Option<EntryId>) -> Index {
    purged.map_or(Index::ZERO, |id| id.index.next())
}

/// Refuses a checkpoint and a log that do not meet.
pub(crate) fn check_recoverable(
    state: &ShardState,
    purged: Option<EntryId>,
    last: Option<EntryId>,
) -> io::Result<()> {
    let shard = state.shard();
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    let end = last.max(purged).map_or(Index::ZERO, |id| id.index.next());
    let first = first_of(purged);
    if state.end() > end {
        return refuse(format!(
            "shard {shard}: its checkpoint ends at index {}, its log already at {end}: the log has lost entries. Run \
             `duramen-restore repair --data DIR --archive URL`. Where that finds nothing damaged, the end of the log went with a \
             frame that looks like one that a power cut tore: `duramen-archiver run --data DIR` archives what is left, and \
             `duramen-restore hydrate --latest` rebuilds the node in another directory",
            state.end()
        ));
    }
    if state.end() < first {
        return refuse(format!(
            "shard {shard}: its log begins at index {first} and its checkpoint ends at {}: entries between are not \
             here. Run `duramen-restore repair --data DIR --archive URL`",
            state.end()
        ));
    }
    Ok(())
}

fn config() -> io::Result<Config> {
    Config {
        cluster_name: "duramen".to_owned(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 500,
        snapshot_policy: SnapshotPolicy::Never,
        // Logs are purged by `Shard::purge` only. By itself the library would purge everything that a snapshot covers, and a
        // snapshot here is a reference to what is applied: further than what is archived.
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A leader that resumed its old term after a crash could give an id that a follower holds to another entry.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
    .validate()
    .map_err(io_error)
}

/// Waits until this node leads and the first entry of its term is applied.
async fn lead(raft: &openraft::Raft<ShardRaft, Machine>) -> io::Result<()> {
    raft.wait(Some(std::time::Duration::from_secs(60)))
        .metrics(
            |metrics| {
                metrics.state == openraft::ServerState::Leader
                    && metrics.last_applied.as_ref().is_some_and(|id| {
                        id.committed_leader_id().term == metrics.current_term
                            && Some(id.index()) >= metrics.last_log_index
                    })
            },
            "this node leads and has applied its term's first entry",
        )
        .await
        .map(|_| ())
        .map_err(io_error)
}
