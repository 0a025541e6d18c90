//! Starting and stopping a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duramen_types::batch::Limits;
use duramen_types::{
    BranchName, Compression, ControlOp, NodeId, SegmentId, ShardId, TenantName, TimestampPolicy,
};
use duramen_wal::datadir::{self, DataDir};
use duramen_wal::{Disk, Fsync, Wal, WalOptions};
use futures::future::try_join_all;
use tokio::sync::{Semaphore, oneshot};

use super::binding::{bind, enter_history};
use super::damage::Damages;
use super::{Environment, Inner, Node, Settings};
use crate::archive::{self, ArchiveTask};
use crate::config::{self, Config};
use crate::index::page_cache;
use crate::shard::{Job, NotProposed, Shard, Surroundings, Waiting};
use crate::telemetry::Metrics;
use crate::time::HybridClock;

/// How long a start waits for what the archive says: it must not be ahead of the log.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How often a failure of the log is looked for.
const FAILURE_CHECK: Duration = Duration::from_millis(100);
/// Memory for loaded index files of sealed ranges.
const INDEX_CACHE: usize = 32 << 20;

/// Why a node could not start; nothing that was there before is lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Directory(#[from] datadir::Error),
    #[error(transparent)]
    Log(#[from] duramen_wal::Error),
    #[error("the archive: {0}")]
    Archive(#[from] duramen_archive::Error),
    #[error("the archive: {0}")]
    History(#[from] duramen_archive::HistoryError),
    #[error(transparent)]
    Claim(#[from] archive::ClaimError),
    #[error(
        "the data directory belongs to an archive: set archive.url to {0}'s, its older records are only there"
    )]
    NeedsArchive(duramen_types::ArchiveId),
    #[error(
        "the data directory belongs to branch {bound}, the configuration names {wanted}: leave archive.branch out, or use an empty data directory"
    )]
    OtherBranch { bound: BranchName, wanted: BranchName },
    #[error(
        "the disk with {} is full, {available} bytes are free: {cause}. Nothing is lost: free some space and start again",
        dir.display()
    )]
    DiskFull { dir: PathBuf, available: u64, cause: String },
    #[error(
        "the disk with {} has {available} bytes free, and wal.reserve keeps {reserve}: a new node can't begin there. \
         Free space, choose a directory on another disk (--data), or set a smaller wal.reserve",
        dir.display()
    )]
    NoRoom { dir: PathBuf, available: u64, reserve: u64 },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// Why a running node can't go on: nothing it was asked can be acknowledged any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// What the disk holds is unknown until the process restarts and recovers.
    #[error("the log failed: {0}; the node ends, its restart recovers")]
    Log(duramen_wal::Error),
    #[error("shard {shard} has stopped: {reason}; the node ends, its restart recovers")]
    Shard { shard: ShardId, reason: String },
    /// What it acknowledges could never be archived, and would have offsets that are taken.
    #[error("{0}")]
    Outdated(String),
}

impl StartError {
    /// Says what to do where the disk is full, however deep below that was found.
    fn explained(self, disk: &dyn Disk, dir: &Path) -> Self {
        let full = match &self {
            Self::Log(error) => error.is_disk_full(),
            Self::Io(error) => is_full(error),
            Self::Directory(error) => is_full(error),
            _ => false,
        };
        if !full {
            return match &self {
                Self::Log(error @ duramen_wal::Error::Io { action: "read", .. }) => {
                    Self::Other(super::unread(error))
                }
                _ => self,
            };
        }
        let mut cause = self.to_string();
        let mut source = std::error::Error::source(&self);
        while let Some(error) = source {
            let text = error.to_string();
            if !cause.contains(&text) {
                cause = format!("{cause}: {text}");
            }
            source = error.source();
        }
        Self::DiskFull { dir: dir.to_owned(), available: disk.available(dir).unwrap_or(0), cause }
    }
}

/// Whether the error, or what caused it, is that the disk is full.
pub(super) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(wal) = error.downcast_ref::<duramen_wal::Error>()
            && wal.is_disk_full()
        {
            return true;
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                return true;
            }
            // What an I/O error wraps is not among its sources.
            if io.get_ref().is_some_and(|inner| is_full(inner)) {
                return true;
            }
        }
        next = error.source();
    }
    false
}

impl Node {
    /// Recovers the node in its data directory, or makes a new one there, and leads all its shards.
    ///
    /// A node that is new to its archive needs the store to be reachable; one that has been there before starts
    /// without it and archives once it is back.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_in(Environment::machine(), config).await
    }

    /// Like [`Node::start`], on something else than this machine.
    pub async fn start_in(environment: Environment, config: &Config) -> Result<Self, StartError> {
        let disk = Arc::clone(&environment.disk);
        let started = Self::start_on(environment, config).await;
        started.map_err(|error| error.explained(&*disk, &config.node.data))
    }

    async fn start_on(environment: Environment, config: &Config) -> Result<Self, StartError> {
        let blocking = environment.blocking();
        let Environment { disk, clock, random, store, driver } = environment;
        let directory = DataDir::open(Arc::clone(&disk), &config.node.data)?;
        let (description, binding) = bind(config, &directory, store, &clock, &random).await?;
        let hybrid = Arc::new(HybridClock::new(Arc::clone(&clock)));
        // A clock that was set back must not write before the cut. Its time may be later than its last entry.
        if let Some(cut) = description.cut {
            hybrid.recover(cut);
        }
        let metrics = Arc::new(Metrics::new());
        let (wal, report) = Wal::open(
            Arc::clone(&disk),
            &directory.wal(),
            wal_options(&config.wal, description.node, Arc::clone(&metrics)),
            Arc::clone(&clock),
            Box::new({
                let random = random.clone();
                move || SegmentId::from_random(random.bytes16())
            }),
        )?;
        if let Some(cut) = &report.cut {
            tracing::warn!(
                file = %cut.file.display(), offset = cut.offset, reason = cut.reason,
                "the unsynced end of the log was cut off; nothing acknowledged was in it"
            );
        }
        match driver {
            None => wal.spawn_writer()?,
            Some(drive) => drop(tokio::spawn(drive(wal.clone()))),
        }
        for folder in [directory.index(), directory.checkpoint()] {
            disk.create_dir(&folder)?;
        }
        let around = Surroundings {
            node: description.node,
            disk: Arc::clone(&disk),
            wal: wal.clone(),
            clock: Arc::clone(&hybrid),
            checkpoints: directory.checkpoint(),
            index: directory.index(),
            pages: page_cache(INDEX_CACHE),
            metrics: Arc::clone(&metrics),
            checkpoint_bytes: config.wal.checkpoint_bytes.as_u64(),
            blocking,
        };
        let lead = async {
            if let Some(binding) = &binding {
                enter_history(binding, &around, directory.hydrated(), config).await?;
            }
            let ids = (0..=description.shards).map(ShardId::new);
            Ok::<_, StartError>(try_join_all(ids.map(|id| Shard::start(id, &around))).await?)
        };
        let shards = tokio::select! {
            shards = lead => shards?,
            // A running node waits for space. One that can't even be elected had better say so.
            full = blocked(&wal) => return Err(full.into()),
        };
        let shards: Vec<Arc<Shard>> = shards.into_iter().map(Arc::new).collect();
        let archive = binding.map(|binding| {
            let settings = archive::Settings {
                node: description.node,
                cluster: description.cluster,
                id: binding.description.archive,
                branch: binding.branch,
                hydrated: directory.hydrated(),
                note: directory.archived(),
                disk: Arc::clone(&disk),
                archive: config.archive.clone(),
                local_retention: config.local_retention.clone(),
                blocking,
            };
            ArchiveTask::spawn(
                binding.store,
                settings,
                wal.clone(),
                shards.clone(),
                Arc::clone(&hybrid),
                Arc::clone(&metrics),
            )
        });
        let byte_budget = usize::try_from(config.log.byte_budget.as_u64()).unwrap_or(usize::MAX);
        let node = Self(Arc::new(Inner {
            settings: settings(config, byte_budget),
            description,
            root: directory.root().to_owned(),
            checkpoints: directory.checkpoint(),
            directory: parking_lot::Mutex::new(Some(directory)),
            disk,
            wal,
            blocking,
            clock: hybrid,
            started: clock.monotonic(),
            shards,
            budget: Arc::new(Semaphore::new(byte_budget.min(Semaphore::MAX_PERMITS))),
            archive,
            metrics,
            damages: Damages::default(),
        }));
        node.create_default_tenant().await?;
        if let Some(archive) = &node.0.archive {
            // A node that finds out later ends then, as far as the store lets it find out.
            archive.attempted(FIRST_LOOK).await;
            if let Some(reason) = archive.outdated() {
                return Err(StartError::Other(reason));
            }
        }
        tokio::spawn(super::retention::run(Arc::downgrade(&node.0)));
        tokio::spawn(super::operator::keep_gauges(Arc::downgrade(&node.0)));
        Ok(node)
    }

    /// Waits for a failure after which nothing can be acknowledged any more: an fsync that failed, a shard whose group
    /// has stopped, or an archive that turns out to be ahead of the log. The process must end then.
    pub async fn failed(&self) -> Failure {
        loop {
            if let Some(error) = self.wal().failure() {
                return Failure::Log(error);
            }
            if let Some(failure) = self.dead_shard() {
                return failure;
            }
            if let Some(reason) = self.outdated() {
                return Failure::Outdated(reason);
            }
            tokio::time::sleep(FAILURE_CHECK).await;
        }
    }

    fn outdated(&self) -> Option<String> {
        self.0.archive.as_ref()?.outdated()
    }

    /// The first shard whose group has stopped for good.
    pub(super) fn dead_shard(&self) -> Option<Failure> {
        let dead = self.shards().iter().find_map(|shard| Some((shard.id, shard.failure()?)));
        dead.map(|(shard, reason)| Failure::Shard { shard, reason })
    }

    async fn create_default_tenant(&self) -> Result<(), StartError> {
        let tenant = TenantName::parse("default").expect("the default tenant keeps the rule of names");
        let meta = self.shard(ShardId::META);
        if meta.view.state.read().has_tenant(&tenant) {
            return Ok(());
        }
        let (sender, outcome) = oneshot::channel();
        meta.submit(Job::Control(
            ControlOp::CreateTenant { tenant },
            Waiting { outcome: sender, budget: None },
        ));
        match outcome.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(NotProposed::Log(error))) => Err(match &*error {
                duramen_wal::Error::DiskFull { dir, available, reserve } => {
                    StartError::NoRoom { dir: dir.clone(), available: *available, reserve: *reserve }
                }
                error => StartError::Other(format!("creating tenant `default`: {error}")),
            }),
            Ok(Err(reason)) => Err(StartError::Other(format!("creating tenant `default`: {reason}"))),
            Err(_) => Err(StartError::Other("creating tenant `default`: the meta shard stopped".to_owned())),
        }
    }

    /// Stops the node: archives what is committed within `timeout`, saves checkpoints, seals the log.
    ///
    /// What is not archived by then stays on the local disk and is archived after the next start. New operations fail
    /// from the moment of the call.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), StartError> {
        if let Some(archive) = &self.0.archive {
            archive.stop(timeout).await;
        }
        let stops = self.shards().iter().map(|shard| shard.stop());
        try_join_all(stops).await?;
        let wal = self.wal().clone();
        let blocking = self.blocking();
        let sealed = blocking
            .run(move || wal.shutdown())
            .await
            .map_err(|error| StartError::Other(format!("sealing the log: {error}")))?;
        match sealed {
            Err(error) if error.is_disk_full() => {
                tracing::warn!(%error, "the log could not be sealed; the next start reads its last segment");
            }
            sealed => sealed?,
        }
        self.0.directory.lock().take();
        Ok(())
    }
}

/// Waits until the log can't go on for want of disk space.
async fn blocked(wal: &Wal) -> duramen_wal::Error {
    loop {
        if let Some(error) = wal.blocked() {
            return error;
        }
        tokio::time::sleep(FAILURE_CHECK).await;
    }
}

fn settings(config: &Config, byte_budget: usize) -> Settings {
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    Settings {
        limits: Limits {
            max_batch_bytes: bytes(config.log.batch_limit),
            max_record_bytes: bytes(config.log.record_limit),
            ..Limits::default()
        },
        acknowledgement: config.log.default_acknowledgement,
        compression: Compression::Zstd,
        timestamps: TimestampPolicy::ClientPreferred,
        auto_create_streams: config.log.auto_create_streams,
        append_timeout: config.log.append_timeout,
        byte_budget,
        recovery_window: config.archive.recovery_window,
        segment_age: config.archive.segment_age,
    }
}

fn wal_options(config: &config::Wal, node: NodeId, metrics: Arc<Metrics>) -> WalOptions {
    let segment_bytes = config.segment_size.as_u64();
    WalOptions {
        segment_bytes,
        max_frame_bytes: WalOptions::new(node).max_frame_bytes.min(segment_bytes / 2),
        cache_bytes: config.cache.as_u64(),
        reserve_bytes: config.reserve.as_u64(),
        fsync: match config.fsync {
            config::Fsync::Always => Fsync::Always,
            config::Fsync::Interval => Fsync::Interval(config.fsync_interval),
        },
        on_frame: Some(Arc::new(move |frame| {
            if let Some(sync) = frame.sync {
                metrics.wal_synced(sync.as_secs_f64(), frame.records, frame.bytes);
            }
        })),
        ..WalOptions::new(node)
    }
}

#[cfg(test)]
mod tests {
    use duramen_wal::sim::SimDisk;

    use super::*;

    async fn node() -> Node {
        let mut config = Config::default();
        config.node.data = PathBuf::from("/data");
        config.cluster.shards = Some(1);
        config.wal.segment_size = bytesize::ByteSize::mib(1);
        let environment = Environment { disk: Arc::new(SimDisk::new(1)), ..Environment::machine() };
        Node::start_in(environment, &config).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_purge_takes_what_it_was_told_and_nothing_of_what_follows() {
        let node = node().await;
        let meta = node.shard(ShardId::META);
        for _ in 0..20 {
            node.tick(meta).await.unwrap();
        }
        let through = duramen_types::Index::new(5);
        let term = node.wal().term_of(ShardId::META, through).unwrap();
        meta.purge(duramen_types::EntryId { index: through, term }).await.unwrap();
        let purged = || node.wal().log_state(ShardId::META).purged.map(|id| id.index);
        let wait = async {
            while purged().is_none_or(|purged| purged < through) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
        assert_eq!(purged(), Some(through), "what follows is not archived yet");
        // Whatever the library does of its own accord when it takes a reference, it has done by then.
        node.tick(meta).await.unwrap();
        assert_eq!(purged(), Some(through));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shard_that_stops_ends_the_node() {
        let node = node().await;
        let quiet = tokio::time::timeout(FAILURE_CHECK * 3, node.failed()).await;
        assert!(quiet.is_err(), "a node that is well does not end");

        let meta = node.shard(ShardId::META);
        let last = meta.view.state.read().applied().unwrap();
        // The library takes no refusal of its log. No user can bring one about; a bug could.
        node.wal().shutdown().unwrap();
        // The purge is asked for, and done later: only the group learns of the refusal.
        let _ = meta.purge(last).await;
        let failure = tokio::time::timeout(Duration::from_secs(60), node.failed()).await.unwrap();
        assert!(matches!(failure, Failure::Shard { shard: ShardId::META, .. }), "{failure}");
    }
}
