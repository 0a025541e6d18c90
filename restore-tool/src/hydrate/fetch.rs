//! Downloading: verified as it lands, renamed into place only when all of it is what the manifests say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duramen_archive::{BranchView, ObjectKey, SegmentError, ShardView, Store, ViewRow, ViewSnapshot};
use duramen_failpoint::Point;
use duramen_types::{ArchiveId, Hash, Index, counted};
use duramen_wal::datadir::DataDir;
use duramen_wal::durable::Staged;
use duramen_wal::{Disk, File};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::{Details, HydrateOptions, MAX_PARALLELISM};
use crate::object::{DiskSource, open_segment};
use crate::{Error, Plan, Reach, Result, Step};

/// What one request brings.
const PIECE: u64 = 8 << 20;
/// What one call writes. A whole piece at once makes the kernel look for memory in large parts, which it has to fetch and clear
/// first: on a virtual machine that took longer than all the rest.
const WRITE: usize = 128 << 10;
/// How often `restore.json` is written anew.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// What was brought, and what was there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fetched {
    pub fetched: Reach,
    pub present: Reach,
}

/// An object to have.
enum Wanted {
    Segment(ViewRow),
    Snapshot(ViewSnapshot),
}

impl Wanted {
    fn key(&self) -> ObjectKey {
        match self {
            Self::Segment(row) => row.key(),
            Self::Snapshot(snapshot) => snapshot.key(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Segment(row) => row.row.bytes,
            Self::Snapshot(snapshot) => snapshot.row.bytes,
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Self::Segment(row) => row.row.hash,
            Self::Snapshot(snapshot) => snapshot.row.hash,
        }
    }

    fn reach(&self) -> Reach {
        let (segments, snapshots) = match self {
            Self::Segment(_) => (1, 0),
            Self::Snapshot(_) => (0, 1),
        };
        Reach { segments, snapshots, bytes: self.bytes() }
    }
}

/// Brings every object that the branch reaches into `hydrated/`.
pub(super) async fn fetch(
    view: &BranchView,
    dir: &DataDir,
    details: &Details,
    options: &HydrateOptions,
) -> Result<Fetched> {
    let total = details.plan.reach.unwrap_or_default();
    options.observer.tell(Step::Planned { objects: total.objects(), bytes: total.bytes });
    let work = Work {
        store: view.store().clone(),
        archive: view.identity().archive,
        disk: Arc::clone(dir.disk()),
        hydrated: dir.hydrated(),
        options,
        dir,
        details,
        progress: Mutex::new((Fetched::default(), view.store().clock().monotonic())),
    };
    let wanted = wanted(view, &details.plan).await?;
    let parallelism = options.parallelism.clamp(1, MAX_PARALLELISM);
    wanted.try_for_each_concurrent(parallelism, |wanted| work.have(wanted)).await?;
    let (fetched, _) = work.progress.into_inner();
    Ok(fetched)
}

/// Counts what [`fetch`] would bring into `hydrated`, and what is there; changes nothing.
pub(super) async fn count(
    view: &BranchView,
    disk: &Arc<dyn Disk>,
    hydrated: &Path,
    plan: &Plan,
) -> Result<Fetched> {
    let mut counted = Fetched::default();
    let mut wanted = std::pin::pin!(wanted(view, plan).await?);
    while let Some(wanted) = wanted.try_next().await? {
        let path = hydrated.join(wanted.key().to_string());
        let there = is_present(disk, &path, wanted.bytes()).await?;
        let side = if there { &mut counted.present } else { &mut counted.fetched };
        *side = side.plus(wanted.reach());
    }
    Ok(counted)
}

/// The objects that hold the history up to the plan's cut, shard by shard.
async fn wanted(view: &BranchView, plan: &Plan) -> Result<impl futures::Stream<Item = Result<Wanted>>> {
    let mut shards = Vec::new();
    for shard in view.shard_ids() {
        let planned = plan.shards.iter().find(|planned| planned.shard == shard);
        let end = planned.map(|planned| planned.cut.end).unwrap_or_default();
        shards.push((end, view.shard(shard).await?));
    }
    let shards = stream::iter(shards.into_iter().map(Ok));
    Ok(shards.and_then(async |(end, rows)| objects(rows, end).await).try_flatten())
}

/// The objects of one shard that hold its history before `end`, in order; one manifest page in memory.
async fn objects(rows: ShardView, end: Index) -> Result<impl futures::Stream<Item = Result<Wanted>>> {
    let snapshot = rows.snapshot_at(end).await?.map(|snapshot| Ok(Wanted::Snapshot(snapshot)));
    let cursor = rows.cursor(Index::ZERO, None);
    let segments = stream::try_unfold(cursor, move |mut cursor| async move {
        let row = cursor.next().await?.filter(|row| row.visible.start < end);
        Ok(row.map(|row| (Wanted::Segment(row), cursor)))
    });
    Ok(stream::iter(snapshot).chain(segments))
}

struct Work<'a> {
    store: Store,
    archive: ArchiveId,
    disk: Arc<dyn Disk>,
    hydrated: PathBuf,
    options: &'a HydrateOptions,
    dir: &'a DataDir,
    details: &'a Details,
    progress: Mutex<(Fetched, Duration)>,
}

impl Work<'_> {
    /// Makes sure that the object is there under its name, which it gets only when it is whole and verified.
    async fn have(&self, wanted: Wanted) -> Result<()> {
        let path = self.hydrated.join(wanted.key().to_string());
        if is_present(&self.disk, &path, wanted.bytes()).await? {
            self.options.observer.tell(Step::Done { objects: 1, bytes: wanted.bytes() });
            return self.count(&wanted, false).await;
        }
        let staged = self.stage(&path).await?;
        let hash = self.download(&wanted, staged.file()).await?;
        if hash != wanted.hash() {
            return Err(Error::Altered {
                key: wanted.key().to_string(),
                url: Arc::clone(self.store.url()),
                reason: format!("its hash is {hash}, {} was expected", wanted.hash()),
            });
        }
        if let Wanted::Segment(row) = &wanted {
            self.verify(row, staged.file()).await?;
        }
        duramen_failpoint::reached(Point::HydrateVerified);
        blocking(&path, "store", move || staged.publish()).await?;
        duramen_failpoint::reached(Point::HydrateStored);
        self.options.observer.tell(Step::Done { objects: 1, bytes: 0 });
        self.count(&wanted, true).await
    }

    async fn stage(&self, path: &Path) -> Result<Staged> {
        let (disk, at) = (Arc::clone(&self.disk), path.to_owned());
        let create = move || {
            if let Some(folder) = at.parent() {
                disk.create_dir(folder)?;
            }
            Staged::create(disk, &at)
        };
        blocking(path, "create", create).await
    }

    /// Writes the object to `file` piece by piece; returns the hash of all of it.
    async fn download(&self, wanted: &Wanted, file: &File) -> Result<Hash> {
        let key = wanted.key();
        let mut hasher = blake3::Hasher::new();
        let mut at = 0_u64;
        while at < wanted.bytes() {
            let end = wanted.bytes().min(at.saturating_add(PIECE));
            let piece: Bytes = self.store.get_range(&key, at..end).await?;
            hasher.update(&piece);
            let (file, length) = (Arc::clone(file), end.saturating_sub(at));
            blocking(&self.hydrated.join(key.to_string()), "write", move || {
                write_in_parts(&file, &piece, at)
            })
            .await?;
            self.options.observer.tell(Step::Done { objects: 0, bytes: length });
            at = end;
        }
        Ok(Hash::from_bytes(hasher.finalize().into()))
    }

    /// Proves chain, blocks and batches of what was written, read back from the disk's cache.
    async fn verify(&self, row: &ViewRow, file: &File) -> Result<(), SegmentError> {
        let source = DiskSource { name: row.key().to_string(), file: Arc::clone(file) };
        open_segment(Arc::new(source), self.archive, row).await?.verify_full().await
    }

    async fn count(&self, wanted: &Wanted, fetched: bool) -> Result<()> {
        let mut progress = self.progress.lock().await;
        let (done, noted) = &mut *progress;
        let side = if fetched { &mut done.fetched } else { &mut done.present };
        *side = side.plus(wanted.reach());
        let now = self.store.clock().monotonic();
        if now.saturating_sub(*noted) < NOTE_EVERY {
            return Ok(());
        }
        *noted = now;
        let all = done.fetched.plus(done.present);
        let total = self.details.plan.reach.unwrap_or_default();
        let text = format!(
            "{} of {} are downloaded and verified",
            all.objects(),
            counted(total.objects(), "object")
        );
        super::note(self.dir, &self.store, self.details, text)
    }
}

async fn is_present(disk: &Arc<dyn Disk>, path: &Path, bytes: u64) -> Result<bool> {
    let (disk, at) = (Arc::clone(disk), path.to_owned());
    let found = move || match disk.open_read(&at) {
        Ok(file) => file.len().map(|len| len == bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    blocking(path, "look at", found).await
}

fn write_in_parts(file: &File, bytes: &[u8], mut at: u64) -> std::io::Result<()> {
    for part in bytes.chunks(WRITE) {
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    action: &'static str,
    run: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Io { action, path: path.to_owned(), source }),
        Err(error) => Err(Error::Interrupted(error.to_string())),
    }
}
