//! The node: its parts put together, and the operations that every interface calls.

mod append;
mod binding;
mod catalogue;
mod damage;
mod environment;
mod operator;
mod past;
mod read;
mod retention;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duramen_archive::Blocking;
use duramen_state::{Rejection, ShardState};
use duramen_types::batch::Limits;
use duramen_types::{
    Acknowledgement, Compression, HybridTime, Offset, ShardId, StreamId, TimestampPolicy, shard_of,
};
use duramen_wal::datadir::{DataDir, NodeDescription};
use duramen_wal::{Disk, Wal};
use tokio::sync::Semaphore;

use self::damage::Damages;
use crate::api::{Code, Error, More, Result, StreamRef};
use crate::archive::{ArchiveTask, ColdReader};
use crate::shard::{NotProposed, Shard};
use crate::telemetry::Metrics;
use crate::time::HybridClock;

pub use append::{NO_TIMESTAMP, PendingAppend};
pub use environment::{Environment, LogDriver};
pub use read::ReadSession;
pub use start::{Failure, StartError};

/// The settings that operations look at.
#[derive(Debug, Clone)]
struct Settings {
    limits: Limits,
    acknowledgement: Acknowledgement,
    compression: Compression,
    timestamps: TimestampPolicy,
    auto_create_streams: bool,
    append_timeout: Duration,
    byte_budget: usize,
    recovery_window: Duration,
    segment_age: Duration,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    description: NodeDescription,
    root: PathBuf,
    checkpoints: PathBuf,
    /// Locks the directory; given back at the end of a shutdown, even while clones of the node are still around.
    directory: parking_lot::Mutex<Option<DataDir>>,
    disk: Arc<dyn Disk>,
    wal: Wal,
    blocking: Blocking,
    clock: Arc<HybridClock>,
    started: Duration,
    /// By shard id: meta first.
    shards: Vec<Arc<Shard>>,
    budget: Arc<Semaphore>,
    archive: Option<ArchiveTask>,
    metrics: Arc<Metrics>,
    damages: Damages,
}

/// A running node. Cheap to clone; all clones are the same node.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    /// What this machine's clock shows.
    pub fn wall_time(&self) -> HybridTime {
        self.0.clock.wall().now()
    }

    /// The highest hybrid time that this node has stamped or seen: every response carries it.
    pub fn latest_time(&self) -> HybridTime {
        self.0.clock.latest()
    }

    /// Merges a time that a client has seen; one too far ahead is refused with [`Code::ClockRefused`].
    pub fn observe_time(&self, seen: HybridTime) -> Result<()> {
        self.0.clock.observe(seen).map_err(|ahead| {
            Error::new(
                Code::ClockRefused,
                format!(
                    "the time that the request has seen is {ahead:?} ahead of this node: check the clocks of the \
                     client and of this machine"
                ),
            )
        })
    }

    /// What the node counts and measures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// The acknowledgement level of appends to streams that set none.
    pub fn default_acknowledgement(&self) -> Acknowledgement {
        self.0.settings.acknowledgement
    }

    fn damages(&self) -> &Damages {
        &self.0.damages
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn description(&self) -> &NodeDescription {
        &self.0.description
    }

    pub(crate) fn clock(&self) -> &HybridClock {
        &self.0.clock
    }

    fn uptime(&self) -> Duration {
        self.0.clock.wall().monotonic().saturating_sub(self.0.started)
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    fn data(&self) -> &Path {
        &self.0.root
    }

    fn checkpoints(&self) -> &Path {
        &self.0.checkpoints
    }

    fn blocking(&self) -> Blocking {
        self.0.blocking
    }

    fn wal(&self) -> &Wal {
        &self.0.wal
    }

    fn budget(&self) -> &Arc<Semaphore> {
        &self.0.budget
    }

    fn shards(&self) -> &[Arc<Shard>] {
        &self.0.shards
    }

    fn data_shards(&self) -> &[Arc<Shard>] {
        self.0.shards.get(1..).unwrap_or(&[])
    }

    fn shard(&self, id: ShardId) -> &Arc<Shard> {
        self.0.shards.get(usize::from(id.get())).expect("a node runs every shard of its cluster")
    }

    fn shard_of(&self, stream: &StreamRef) -> &Arc<Shard> {
        let shards = u16::try_from(self.data_shards().len()).expect("a cluster has at most 256 shards");
        self.shard(shard_of(&stream.tenant, &stream.name, shards))
    }
}

/// What the node asks of its archive, where it has one.
impl Node {
    fn has_archive(&self) -> bool {
        self.0.archive.is_some()
    }

    fn archive_url(&self) -> Option<String> {
        self.0.archive.as_ref().map(ArchiveTask::url)
    }

    fn request_cut(&self, shard: ShardId) {
        if let Some(archive) = &self.0.archive {
            archive.request_cut(shard);
        }
    }

    fn archive_status_now(&self) -> Option<crate::status::ArchiveStatus> {
        self.0.archive.as_ref().map(ArchiveTask::status)
    }

    #[cfg(test)]
    pub(crate) fn archive_task(&self) -> &ArchiveTask {
        self.0.archive.as_ref().expect("the test gave it an archive")
    }

    fn archive(&self) -> Result<&ArchiveTask> {
        self.0.archive.as_ref().ok_or_else(|| {
            Error::new(Code::InvalidArgument, "this node has no archive: set archive.url and restart it")
        })
    }

    /// How far the archive is, and whether its store answers.
    pub async fn archive_status(&self) -> Result<crate::status::ArchiveStatus> {
        let archive = self.archive()?;
        archive.probe().await;
        Ok(archive.status())
    }

    /// Proves what the store can do; the report has a line for each probe.
    pub async fn archive_check(&self) -> Result<serde_json::Value> {
        self.archive()?.check().await
    }

    /// Writes a snapshot of every shard at its archived end now; gives the shards and indexes.
    pub async fn snapshot(&self) -> Result<serde_json::Value> {
        self.archive()?.snapshot().await
    }

    async fn archived_state(&self, shard: &Shard, time: HybridTime) -> Result<Option<Arc<ShardState>>> {
        match &self.0.archive {
            Some(archive) => archive.state_as_of(shard.id, time).await,
            None => Ok(None),
        }
    }

    async fn archive_boundary(&self, shard: ShardId) -> Result<Option<Arc<ShardState>>> {
        match &self.0.archive {
            Some(archive) => archive.boundary(shard).await.map(Some),
            None => Ok(None),
        }
    }

    async fn cold_reader(
        &self,
        shard: &Shard,
        name: &StreamRef,
        stream: StreamId,
        from: Offset,
        end: Offset,
    ) -> Result<ColdReader> {
        match &self.0.archive {
            Some(archive) => archive.reader(shard.id, name, stream, from, end).await,
            None => Err(Error::new(
                Code::Corruption,
                format!(
                    "stream {name}: offset {from} is not in the local segments and there is no archive; run \
                     `duramen doctor --data {}`",
                    self.data().display()
                ),
            )),
        }
    }

    async fn cold_timestamp(
        &self,
        shard: &Shard,
        stream: StreamId,
        from: Offset,
        end: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>> {
        match &self.0.archive {
            Some(archive) => archive.find_timestamp(shard.id, stream, from, end, timestamp).await,
            None => Ok(None),
        }
    }
}

fn rejected(stream: &StreamRef, rejection: &Rejection) -> Error {
    append::rejection_error(stream, rejection)
}

/// Refuses what users may not do with the system's own streams: create them and append to them.
fn users_only(stream: &StreamRef) -> Result<()> {
    if !stream.name.is_system() {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidArgument,
        format!(
            "stream {stream}: a name with '~' belongs to the system, which creates the stream and appends to it; it can \
             be read, trimmed and deleted, and have cursors. Choose a name without '~'"
        ),
    ))
}

/// A rejection of an operation on the meta shard.
fn rejected_what(what: &str, rejection: &Rejection) -> Error {
    let code = match rejection {
        Rejection::TenantExists => Code::TenantExists,
        Rejection::RestorePointExists(_) => Code::RestorePointExists,
        Rejection::UnknownRestorePoint => Code::UnknownRestorePoint,
        Rejection::TooMany { .. } => Code::LimitReached,
        _ => Code::Internal,
    };
    let refused = match rejection {
        Rejection::RestorePointExists(time) => {
            let time = crate::time::rfc3339(*time);
            Error::new(
                code,
                format!("restore point {what} exists already, it names {time}: choose another name"),
            )
        }
        _ => Error::new(code, format!("{what}: {rejection}")),
    };
    match rejection {
        Rejection::TooMany { limit, .. } => {
            refused.with_more(More { limit: u64::try_from(*limit).ok(), ..More::default() })
        }
        Rejection::RestorePointExists(time) => {
            refused.with_more(More { time: Some(*time), ..More::default() })
        }
        _ => refused,
    }
}

/// The operation never reached the log.
fn not_proposed(what: impl std::fmt::Display, reason: &NotProposed) -> Error {
    let code = match reason {
        NotProposed::NotLeader(_) | NotProposed::ShuttingDown => Code::Unavailable,
        NotProposed::Log(error) if matches!(**error, duramen_wal::Error::DiskFull { .. }) => Code::DiskFull,
        NotProposed::Log(_) => Code::Unavailable,
    };
    Error::new(code, format!("{what}: {reason}"))
}

/// The log can't be read: what it says, with the disk's own words where it is the disk that fails.
fn unread(error: &duramen_wal::Error) -> String {
    match error {
        duramen_wal::Error::Io { source, .. } => format!(
            "{error}: {source}; check the disk. If it can't read this file any more, stop the node and run `duramen-restore \
             repair --data DIR`"
        ),
        error => error.to_string(),
    }
}

fn corrupt(what: impl std::fmt::Display, error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Corruption, format!("{what}: {error}"))
}
