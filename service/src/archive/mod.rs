//! The node's side of its archive: it archives its shards in the background, and reads what is no longer local.

mod lag;
mod open;
mod remembered;
mod retention;
mod rounds;
mod schedule;
mod status;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use duramen_archive::{
    Blocking, BranchView, BytesBefore, History, HistoryError, ShardView, Store, StreamReader, Verdict,
};
use duramen_archiver::ShardArchiver;
use duramen_state::ShardState;
use duramen_types::batch::Batch;
use duramen_types::{ArchiveId, BranchName, ClusterId, HybridTime, Index, NodeId, Offset, ShardId, StreamId};
use duramen_wal::{Disk, Wal};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Code, Error, Result, StreamRef};
use crate::config;
use crate::shard::Shard;
use crate::telemetry::Metrics;
use crate::time::HybridClock;

pub(crate) use remembered::archived_ends;

pub use open::{ClaimError, claim, open_history, store_options};

/// How long an operation waits for an archive that is being opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stop waits for the tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one step of a read waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many segments are replayed in one step.
const SEGMENTS_PER_STEP: usize = 16;

/// How long a check of the store may take; a store that answers needs a second or two.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a flush waits for the store.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Whose archive it is, and how it is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// The archive that the data directory belongs to.
    pub id: Option<ArchiveId>,
    pub branch: BranchName,
    /// Where a restore put archived segments, to be read instead of the store's.
    pub hydrated: PathBuf,
    pub archive: config::Archive,
    pub local_retention: config::LocalRetention,
    /// Where the node notes up to where it is archived.
    pub note: PathBuf,
    /// The disk that the note is on.
    pub disk: Arc<dyn Disk>,
    /// Where segments are built and checked.
    pub blocking: Blocking,
}

/// An opened archive.
#[derive(Debug)]
struct Opened {
    view: BranchView,
    history: History,
    /// By shard. One that is archiving is locked, for as long as the store is down.
    archivers: Vec<tokio::sync::Mutex<ShardArchiver>>,
    /// By shard: the state at the end of its archived history, for readers, who must not wait for the archiver.
    boundaries: Vec<ArcSwap<ShardState>>,
}

impl Opened {
    /// Notes up to where a shard is archived.
    fn reached(&self, shard: &Shard, boundary: &Arc<ShardState>) {
        if let Some(held) = self.boundaries.get(usize::from(shard.id.get())) {
            held.store(Arc::clone(boundary));
        }
        // Behind the state: who is told of the end finds the state at it.
        shard.archived.send_replace(boundary.end());
    }
}

/// What a shard still has to archive.
#[derive(Debug, Default)]
struct Pending {
    /// Wakes the shard's cutter.
    request: Notify,
    /// As it was last counted; `None` before the first time.
    backlog: Mutex<Option<lag::Backlog>>,
}

/// What the tasks of one archive share.
#[derive(Debug)]
struct Shared {
    store: Store,
    settings: Settings,
    wal: Wal,
    shards: Vec<Arc<Shard>>,
    clock: Arc<HybridClock>,
    metrics: Arc<Metrics>,
    opened: watch::Sender<Option<Arc<Opened>>>,
    pending: Vec<Pending>,
    remembered: remembered::Remembered,
    /// Wakes who notes up to where the shards are archived.
    more_to_remember: Notify,
    /// Wakes the rounds: some shard has something to archive.
    activity: Notify,
    /// Cancelled when the tasks are to end.
    stopping: CancellationToken,
    troubles: trouble::Troubles,
    /// Another node was found to archive the branch.
    rival: AtomicBool,
    /// When the store was last asked whether it answers; monotonic.
    probed: tokio::sync::Mutex<Option<Duration>>,
    closed_through: Mutex<Option<HybridTime>>,
    /// Whether the archive was opened, or could not be, once.
    attempted: watch::Sender<bool>,
    /// Why this node must not go on, where its archive is ahead of it.
    outdated: Mutex<Option<String>>,
    /// The time of the closed object that the node wrote last: the next one names it.
    last_closed: Mutex<Option<HybridTime>>,
    /// Held during a round.
    rounds: tokio::sync::Mutex<()>,
    /// The ends of the shards' user entries when a round last closed them all.
    closed_ends: Mutex<Vec<Index>>,
    /// The verdicts that were read, by id.
    verdicts: tokio::sync::Mutex<BTreeMap<uuid::Uuid, Verdict>>,
    /// What the schedule's runs found.
    schedule: Mutex<schedule::Outcome>,
    /// `archive.snapshot_schedule`, which may change while the node runs.
    snapshot_schedule: watch::Sender<String>,
}

/// The running archive of a node.
#[derive(Debug)]
pub struct ArchiveTask {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ArchiveTask {
    /// Starts archiving; the archive is opened in the background, again and again until that succeeds.
    pub fn spawn(
        store: Store,
        settings: Settings,
        wal: Wal,
        shards: Vec<Arc<Shard>>,
        clock: Arc<HybridClock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            snapshot_schedule: watch::Sender::new(settings.archive.snapshot_schedule.clone()),
            remembered: remembered::Remembered::load(
                Arc::clone(&settings.disk),
                settings.note.clone(),
                settings.id,
                settings.branch.clone(),
            ),
            more_to_remember: Notify::new(),
            settings,
            wal,
            pending: shards.iter().map(|_| Pending::default()).collect(),
            shards,
            troubles: trouble::Troubles::new(Arc::clone(&clock)),
            rival: AtomicBool::new(false),
            probed: tokio::sync::Mutex::new(None),
            clock,
            metrics,
            opened: watch::Sender::new(None),
            activity: Notify::new(),
            stopping: CancellationToken::new(),
            closed_through: Mutex::new(None),
            attempted: watch::Sender::new(false),
            outdated: Mutex::new(None),
            last_closed: Mutex::new(None),
            rounds: tokio::sync::Mutex::new(()),
            closed_ends: Mutex::new(Vec::new()),
            verdicts: tokio::sync::Mutex::default(),
            schedule: Mutex::default(),
        });
        let task = tokio::spawn(rounds::run(Arc::clone(&shared)));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// Waits until the archive was looked at once, whatever came of it, for at most `limit`.
    pub async fn attempted(&self, limit: Duration) {
        let mut attempted = self.shared.attempted.subscribe();
        // The sender is held here.
        let _ = tokio::time::timeout(limit, attempted.wait_for(|attempted| *attempted)).await;
    }

    /// Why the node must not go on: its archive holds what this log does not.
    pub fn outdated(&self) -> Option<String> {
        self.shared.outdated.lock().clone()
    }

    /// The archive's address, without secrets.
    pub fn url(&self) -> String {
        self.shared.store.url().to_string()
    }

    /// Takes snapshots on another schedule from now on; it must be one.
    pub fn reschedule_snapshots(&self, schedule: &str) {
        self.shared.snapshot_schedule.send_if_modified(|running| {
            let other = running != schedule;
            schedule.clone_into(running);
            other
        });
    }

    /// Asks for a cut of `shard` as soon as possible.
    pub fn request_cut(&self, shard: ShardId) {
        if let Some(pending) = self.shared.pending.get(usize::from(shard.get())) {
            pending.request.notify_one();
        }
    }

    /// Archives everything committed before the call, and closes every shard through it.
    pub async fn flush(&self) -> Result<()> {
        let opened = self.opened().await?;
        match tokio::time::timeout(FLUSH_TIMEOUT, self.shared.round(&opened)).await {
            Ok(true) => Ok(()),
            _ => {
                let why = self.shared.troubles.sentence().unwrap_or_else(|| "it takes too long".to_owned());
                let message =
                    format!("the archive at {} could not be flushed: {why}; it goes on trying", self.url());
                Err(Error::new(Code::Unavailable, message))
            }
        }
    }

    /// Archives what is committed, as far as `timeout` allows, and ends the tasks.
    pub async fn stop(&self, timeout: Duration) {
        if tokio::time::timeout(timeout, self.shared.final_round()).await.is_err() {
            tracing::warn!(
                ?timeout,
                "not everything could be archived in time; the rest follows after the next start"
            );
        }
        self.shared.remember().await;
        self.shared.stopping.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It ends by itself; a store that never answers must not hold the shutdown up.
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// Proves what the store can do.
    pub async fn check(&self) -> Result<serde_json::Value> {
        // Each probe is bounded by its retries; a store that never answers would take all of them.
        let report = tokio::time::timeout(CHECK_TIMEOUT, self.shared.store.check()).await.map_err(|_| {
            let message = format!(
                "the check of {} was not over within {CHECK_TIMEOUT:?}: the store does not answer",
                self.url()
            );
            Error::new(Code::Unavailable, message)
        })?;
        serde_json::to_value(report).map_err(|error| Error::new(Code::Internal, error.to_string()))
    }

    /// Writes a snapshot of every shard at its archived end.
    pub async fn snapshot(&self) -> Result<serde_json::Value> {
        let opened = self.opened().await?;
        let mut written = Vec::new();
        for archiver in &opened.archivers {
            // A shard that is being archived while the store is down is locked until it is back.
            let Ok(mut archiver) = tokio::time::timeout(STORE_TIMEOUT, archiver.lock()).await else {
                return Err(self.no_answer());
            };
            let shard = archiver.shard();
            if self.shared.has_rival() {
                let why = self.shared.troubles.sentence().unwrap_or_default();
                return Err(Error::new(Code::Unavailable, why));
            }
            match self.bounded(async { Ok(archiver.snapshot().await) }).await? {
                Ok(Some(snapshot)) => written.push(serde_json::json!({
                    "shard": shard, "index": snapshot.index, "bytes": snapshot.bytes,
                })),
                Ok(None) => {}
                Err(error) => return Err(Error::new(Code::Unavailable, error.to_string())),
            }
        }
        Ok(serde_json::json!({ "snapshots": written }))
    }

    /// The shard's state at `time`, if the archive reaches beyond it; `None` where the local log must be replayed.
    pub async fn state_as_of(&self, shard: ShardId, time: HybridTime) -> Result<Option<Arc<ShardState>>> {
        let opened = self.opened().await?;
        let view = self.view(&opened, shard).await?;
        if view.tip().time <= time {
            return Ok(None);
        }
        let history = &opened.history;
        let cut = self.bounded(history.cut_at_time(&view, time)).await?;
        // What history::state_at does, in steps: a long replay is no outage.
        let base = async {
            Ok(match view.snapshot_at(cut).await? {
                Some(snapshot) => history.snapshot(&snapshot).await?,
                None => ShardState::new(shard),
            })
        };
        let mut state = self.bounded(base).await?;
        let mut segments = view.cursor(state.end(), None);
        while state.end() < cut {
            let step = async {
                let mut end = state.end();
                for _ in 0..SEGMENTS_PER_STEP {
                    let Some(row) = segments.next().await? else { break };
                    end = row.visible.end;
                }
                // At the end of the archive the rest is asked for, and the answer is what is missing.
                let end = if end > state.end() { end.min(cut) } else { cut };
                history.advance(&view, &mut state, end).await?;
                Ok(())
            };
            self.bounded(step).await?;
        }
        Ok(Some(Arc::new(state)))
    }

    /// A shard's archived history as it is known now.
    async fn view(&self, opened: &Opened, shard: ShardId) -> Result<ShardView> {
        self.bounded(async { Ok(opened.view.shard(shard).await?) }).await
    }

    /// Gives up waiting for the store after a while; whoever asked may ask again.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = std::result::Result<T, HistoryError>>,
    ) -> Result<T> {
        match tokio::time::timeout(STORE_TIMEOUT, work).await {
            Ok(done) => done.map_err(|error| archive_error(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Error {
        no_answer(self.shared.store.url())
    }

    /// The state at the end of the shard's archived history, where a replay of the local log begins.
    pub async fn boundary(&self, shard: ShardId) -> Result<Arc<ShardState>> {
        let opened = self.opened().await?;
        let boundary = opened.boundaries.get(usize::from(shard.get()));
        let boundary = boundary.ok_or_else(|| Error::new(Code::Internal, format!("no shard {shard}")))?;
        Ok(boundary.load_full())
    }

    /// A reader of one stream's archived batches from `from` to before `end`.
    pub async fn reader(
        &self,
        shard: ShardId,
        name: &StreamRef,
        stream: StreamId,
        from: Offset,
        end: Offset,
    ) -> Result<ColdReader> {
        let opened = self.opened().await?;
        let view = self.view(&opened, shard).await?;
        let reader = opened.history.stream(&view, stream, from..end);
        Ok(ColdReader { reader, name: name.clone(), position: from, url: self.url() })
    }

    /// The first archived offset in `from..end` whose record has a timestamp of at least `timestamp` (milliseconds).
    pub async fn find_timestamp(
        &self,
        shard: ShardId,
        stream: StreamId,
        from: Offset,
        end: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>> {
        let opened = self.opened().await?;
        let view = self.view(&opened, shard).await?;
        let found = opened.history.offset_at_timestamp(&view, stream, from..end, timestamp);
        self.bounded(found).await
    }

    /// The base of the stream's first archived batch in `range` that was appended later than `time`.
    pub async fn first_later(
        &self,
        shard: ShardId,
        stream: StreamId,
        range: Range<Offset>,
        time: HybridTime,
    ) -> Result<Option<Offset>> {
        let opened = self.opened().await?;
        let view = self.view(&opened, shard).await?;
        self.bounded(opened.history.first_later(&view, stream, range, time)).await
    }

    /// The stream's first archived batch at or after `begin` before which it was given at least `bytes` bytes: looked for
    /// from a place `known` to be before, or else backward from one `behind`; `behind` where that is none.
    pub async fn first_within(
        &self,
        shard: ShardId,
        stream: StreamId,
        begin: Offset,
        known: Option<BytesBefore>,
        behind: BytesBefore,
        bytes: u64,
    ) -> Result<BytesBefore> {
        let opened = self.opened().await?;
        let view = self.view(&opened, shard).await?;
        let history = &opened.history;
        let find = async {
            match known {
                Some(known) => history.forward_to_bytes(&view, stream, known, behind.offset, bytes).await,
                None => history.back_to_bytes(&view, stream, begin, behind, bytes).await,
            }
        };
        // The first look may have far to go, in the background: only each of its requests is bounded.
        tokio::select! {
            found = find => found.map_err(|error| archive_error(&error)),
            () = self.shared.stopping.cancelled() => Err(self.no_answer()),
        }
    }

    /// The opened archive; waits for a moment where the node has only just started.
    async fn opened(&self) -> Result<Arc<Opened>> {
        let mut opened = self.shared.opened.subscribe();
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opened.wait_for(Option::is_some)).await;
        if let Ok(Ok(opened)) = opened
            && let Some(opened) = opened.as_ref()
        {
            return Ok(Arc::clone(opened));
        }
        let why = self.shared.troubles.sentence().unwrap_or_else(|| "it is being opened".to_owned());
        Err(Error::new(Code::Unavailable, format!("the archive at {} is not open: {why}", self.url())))
    }
}

/// Reads a stream's batches from the archive, in order.
#[derive(Debug)]
pub struct ColdReader {
    reader: StreamReader,
    name: StreamRef,
    position: Offset,
    url: String,
}

impl ColdReader {
    /// The next offset that it gives.
    pub const fn position(&self) -> Offset {
        self.position
    }

    /// The next batch with its base offset and the hybrid time of its append; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Offset, Batch, HybridTime)>> {
        let next = tokio::time::timeout(STORE_TIMEOUT, self.reader.next()).await;
        let found = next.map_err(|_| no_answer(&self.url))?.map_err(|error| {
            let mut error = archive_error(&error);
            error.message = format!("stream {}, offset {}: {}", self.name, self.position, error.message);
            error
        })?;
        let Some(found) = found else { return Ok(None) };
        let batch = Batch::from_trusted(found.batch.clone()).map_err(|error| {
            let message =
                format!("stream {}, offset {}: {error}; run `duramen-restore verify`", self.name, found.base);
            Error::new(Code::Corruption, message)
        })?;
        self.position = found.end();
        Ok(Some((found.base, batch, found.time)))
    }
}

fn no_answer(url: &str) -> Error {
    let message = format!("the archive at {url} gave no answer within {STORE_TIMEOUT:?}; try again");
    Error::new(Code::Unavailable, message)
}

fn archive_error(error: &HistoryError) -> Error {
    // A store that refuses, or has no such bucket, says nothing of what it holds.
    let code = if error.is_damage() { Code::Corruption } else { Code::Unavailable };
    Error::new(code, error.to_string())
}

/// The shard's archived end as its watchers know it.
fn archived(shard: &Shard) -> Index {
    *shard.archived.borrow()
}
