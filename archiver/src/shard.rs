//! One shard's archived history, from the side that writes it.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use duramen_archive::{
    Blocking, BranchView, Committer, Edit, History, ManifestLog, Owner, SegmentIdentity, SegmentRow,
    Snapshot, StreamFilter, Trailer,
};
use duramen_failpoint::Point;
use duramen_state::ShardState;
use duramen_types::{ArchiveId, Compression, Index, ManifestNumber, SegmentId, ShardId};
use duramen_wal::Wal;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::build::{Built, Recipe, build};
use crate::{Error, Result, check_own};

/// A span for traces only, which a node sends where a collector is configured.
macro_rules! traced {
    ($($rest:tt)*) => { tracing::trace_span!(target: "duramen::trace", $($rest)*) };
}

/// A snapshot is due after this many segments.
const SEGMENTS_PER_SNAPSHOT: u64 = 256;

/// How a shard is archived.
#[derive(Debug, Clone)]
pub struct Settings {
    pub archive: ArchiveId,
    pub committer: Committer,
    /// The largest segment object, in bytes.
    pub segment_bytes: u64,
    /// For streams that say nothing else.
    pub compression: Compression,
    /// The zstd level.
    pub level: i32,
    /// Threads that compress one segment.
    pub threads: NonZeroUsize,
    /// Where segments are built and snapshots encoded.
    pub blocking: Blocking,
    /// Bounds the segments that are being built or uploaded at once, over all shards; each is held in memory.
    pub uploads: Arc<Semaphore>,
}

/// What one [`ShardArchiver::cut`] added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    pub segments: u64,
    pub bytes: u64,
    pub entries: u64,
    pub records: u64,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshotted {
    pub index: Index,
    pub bytes: u64,
}

/// Archives one shard: cuts its log into segments and commits them in order.
///
/// Only one exists for a shard of a branch at a time; should two work at once, one manifest wins and the other
/// archiver gets an error, after which it is opened anew.
#[derive(Debug)]
pub struct ShardArchiver {
    shard: ShardId,
    log: ManifestLog,
    /// The state exactly at the end of the archived history.
    boundary: Arc<ShardState>,
    settings: Settings,
    /// Segments committed since the last snapshot.
    since_snapshot: u64,
    last_snapshot: Option<Index>,
}

/// A segment on its way into the store.
struct Upload {
    task: JoinHandle<Result<SegmentRow>>,
    state: Arc<ShardState>,
}

impl ShardArchiver {
    /// `boundary` is the state at the end of `log`; another one is refused.
    pub async fn new(log: ManifestLog, boundary: ShardState, settings: Settings) -> Result<Self> {
        let shard = log.shard();
        let tip = log.tip();
        if boundary.end() != tip.end || boundary.chain() != tip.chain {
            return Err(Error::Cancelled {
                shard,
                reason: format!(
                    "the state at index {} is not the one at the archive's end {}",
                    boundary.end(),
                    tip.end
                ),
            });
        }
        let snapshots = log.rows().snapshots().await.map_err(|source| Error::Archive { shard, source })?;
        let last_snapshot = snapshots.last().map(|row| row.index);
        let boundary = Arc::new(boundary);
        Ok(Self { shard, log, boundary, settings, since_snapshot: 0, last_snapshot })
    }

    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The end of the archived history.
    pub fn end(&self) -> Index {
        self.boundary.end()
    }

    /// The state at the end of the archived history.
    pub const fn boundary(&self) -> &Arc<ShardState> {
        &self.boundary
    }

    /// The number of the latest manifest.
    pub fn manifest(&self) -> Option<ManifestNumber> {
        self.log.next_number().previous()
    }

    /// The index of the latest snapshot that this branch has.
    pub const fn last_snapshot(&self) -> Option<Index> {
        self.last_snapshot
    }

    /// Archives every committed entry before `through`, in as many segments as it takes.
    ///
    /// Segments are built and uploaded several at a time, and committed in order; `committed` is given the state at
    /// the end of the archived history after each commit. When the future is dropped or fails, what was committed stays and
    /// [`ShardArchiver::end`] says up to where; objects without a manifest are left for [`crate::collect_orphans`].
    pub async fn cut(
        &mut self,
        wal: &Wal,
        through: Index,
        committed: impl Fn(&Arc<ShardState>) + Send,
    ) -> Result<Cut> {
        let mut cut = Cut::default();
        if self.boundary.end() < through {
            // Also before anything is uploaded: each attempt would leave its segments where they do not belong.
            self.check_store().await.map_err(|source| Error::Archive { shard: self.shard, source })?;
        }
        let mut uploads: VecDeque<Upload> = VecDeque::new();
        let mut ahead = Arc::clone(&self.boundary);
        while ahead.end() < through || !uploads.is_empty() {
            // Build the next segment while earlier ones travel; commit the first when there is no room for more.
            let permit = if ahead.end() < through {
                match Arc::clone(&self.settings.uploads).try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    // Others have all places: wait only if nothing of this shard is under way.
                    Err(_) if uploads.is_empty() => {
                        let permit = Arc::clone(&self.settings.uploads).acquire_owned().await;
                        Some(permit.expect("the semaphore is never closed"))
                    }
                    Err(_) => None,
                }
            } else {
                None
            };
            if let Some(permit) = permit {
                let (recipe, wal, state) = (self.recipe(), wal.clone(), ahead);
                let (shard, blocking) = (self.shard, self.settings.blocking);
                let work = move || build(&wal, ShardState::clone(&state), through, &recipe);
                let built = blocking.run(work).instrument(traced!("build")).await;
                let built =
                    built.map_err(|error| Error::Cancelled { shard, reason: error.to_string() })??;
                duramen_failpoint::reached(Point::CutBuilt);
                ahead = Arc::clone(&built.state);
                let log = self.log.clone();
                let state = Arc::clone(&built.state);
                let facts = &built.object.facts;
                let bytes = i64::try_from(facts.bytes).unwrap_or(i64::MAX);
                let span = traced!("upload", segment = %facts.identity.segment, bytes);
                let work = async move {
                    let row = upload(&log, built).await;
                    drop(permit);
                    row
                };
                let task = tokio::spawn(work.instrument(span));
                uploads.push_back(Upload { task, state });
                continue;
            }
            if let Some(first) = uploads.pop_front() {
                self.commit(first, &mut cut).await?;
                committed(&self.boundary);
            }
        }
        if self.since_snapshot >= SEGMENTS_PER_SNAPSHOT {
            self.snapshot().await?;
        }
        Ok(cut)
    }

    fn recipe(&self) -> Recipe {
        let settings = &self.settings;
        Recipe {
            identity: SegmentIdentity {
                archive: settings.archive,
                branch: self.log.branch().clone(),
                shard: self.shard,
                segment: SegmentId::from_random(self.log.store().random().bytes16()),
            },
            max_bytes: settings.segment_bytes,
            compression: settings.compression,
            level: settings.level,
            threads: settings.threads,
        }
    }

    async fn commit(&mut self, upload: Upload, cut: &mut Cut) -> Result<()> {
        let shard = self.shard;
        let row =
            upload.task.await.map_err(|error| Error::Cancelled { shard, reason: error.to_string() })??;
        cut.segments += 1;
        cut.bytes += row.bytes;
        cut.entries += row.end.since(row.first);
        cut.records += row.records;
        let edit = Edit { rows: vec![row], snapshots: Vec::new() };
        let manifest = i64::try_from(self.log.next_number().get()).unwrap_or(i64::MAX);
        self.commit_next(edit)
            .instrument(traced!("manifest", manifest))
            .await
            .map_err(|source| Error::Archive { shard, source })?;
        self.boundary = upload.state;
        self.since_snapshot += 1;
        Ok(())
    }

    /// Commits the next manifest, if the store still holds what it goes on from.
    async fn commit_next(&self, edit: Edit) -> duramen_archive::Result<()> {
        self.check_store().await?;
        self.log.commit(self.settings.committer, edit).await.map(drop)
    }

    /// Makes sure that the store still holds what this archiver goes on from: in one that was emptied, or that another was put
    /// in place of, a manifest would prove nothing, and what it names would count as archived.
    async fn check_store(&self) -> duramen_archive::Result<()> {
        if self.manifest().is_some() {
            return self.log.check_end().await;
        }
        let (store, branch) = (self.log.store(), self.log.branch());
        let reason = match Owner::read(store, branch).await? {
            Some(owner) if owner.cluster == self.settings.committer.cluster => return Ok(()),
            Some(owner) => format!(
                "the branch is written by cluster {}: another archive took this one's place",
                owner.cluster
            ),
            None => "the branch's owner was there and is gone: the store was emptied, or is another one"
                .to_owned(),
        };
        Err(duramen_archive::Error::Gap { branch: branch.clone(), shard: self.shard, reason })
    }

    /// Writes a snapshot of the state at the archived end and commits it; `None` if the last one is as good.
    pub async fn snapshot(&mut self) -> Result<Option<Snapshotted>> {
        let shard = self.shard;
        let archive = |source| Error::Archive { shard, source };
        let index = self.end();
        if index == Index::ZERO || self.last_snapshot == Some(index) {
            return Ok(None);
        }
        let snapshot = Snapshot {
            archive: self.settings.archive,
            branch: self.log.branch().clone(),
            state: ShardState::clone(&self.boundary),
        };
        self.check_store().await.map_err(archive)?;
        let key = snapshot.key();
        let encode = move || {
            let bytes = snapshot.encode();
            (snapshot.row(&bytes), bytes)
        };
        let blocking = self.settings.blocking;
        let (row, object) = blocking
            .run(encode)
            .await
            .map_err(|error| Error::Cancelled { shard, reason: error.to_string() })?;
        // The same state gives the same bytes, so a snapshot whose manifest was lost is simply found there.
        self.log.store().create(&key, object).await.map_err(archive)?;
        duramen_failpoint::reached(Point::SnapshotCreated);
        let bytes = row.bytes;
        let edit = Edit { rows: Vec::new(), snapshots: vec![row] };
        self.commit_next(edit).await.map_err(archive)?;
        duramen_failpoint::reached(Point::SnapshotCommitted);
        self.since_snapshot = 0;
        self.last_snapshot = Some(index);
        Ok(Some(Snapshotted { index, bytes }))
    }

    /// Begins again from what the store says: after another writer's manifest won, or a commit whose outcome is
    /// unknown. [`Error::Rival`] where what the store says is not `wal`'s history; this archiver stays as it was then.
    pub async fn reload(&mut self, wal: &Wal, view: &BranchView, history: &History) -> Result<()> {
        let shard = self.shard;
        let archive = |source| Error::Archive { shard, source };
        self.log.refresh().await.map_err(archive)?;
        check_own(wal, self.log.branch(), shard, self.log.tip())?;
        let shard_view = view.shard(shard).await.map_err(archive)?;
        let boundary = history.state_at(&shard_view, shard_view.tip().end).await;
        let boundary = boundary.map_err(|source| Error::History { shard, source })?;
        *self = Self::new(self.log.clone(), boundary, self.settings.clone()).await?;
        Ok(())
    }

    /// Reads the latest manifest back: everything before the returned index may be purged locally.
    pub async fn confirm(&self) -> Result<Index> {
        match self.manifest() {
            Some(number) => {
                self.log.confirm(number).await.map_err(|source| Error::Archive { shard: self.shard, source })
            }
            None => Ok(self.log.start().end),
        }
    }
}

/// Puts a segment into the store and reads its end back; then a manifest may name it.
async fn upload(log: &ManifestLog, built: Built) -> Result<SegmentRow> {
    let shard = log.shard();
    let Built { object, last_term, has_user_entries, .. } = built;
    let facts = object.facts;
    let row = SegmentRow {
        id: facts.identity.segment,
        first: facts.first,
        end: facts.end,
        first_time: facts.first_time,
        last_time: facts.last_time,
        last_term,
        bytes: facts.bytes,
        records: facts.records,
        record_times: facts.timestamps,
        has_user_entries,
        chain_before: facts.chain_before,
        chain_after: facts.chain_after,
        streams: StreamFilter::of(facts.streams.iter().copied()),
        hash: facts.hash,
        level: 0,
    };
    let key = row.key(log.branch(), shard);
    log.store()
        .create_verified(&key, joined(object.chunks), Trailer::LEN)
        .await
        .map_err(|source| Error::Archive { shard, source })?;
    duramen_failpoint::reached(Point::UploadVerified);
    Ok(row)
}

fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    let mut bytes = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes.freeze()
}
