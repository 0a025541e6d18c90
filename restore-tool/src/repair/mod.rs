//! A damaged node's directory, put together again from the archive and every valid local frame beyond it.
//!
//! Nothing is deleted but what can be rebuilt (checkpoints, index files); the damaged log is moved aside. The steps:
//!
//! 1. The new log is written whole, into `wal.repair/`.
//! 2. `restore.json` notes the repair, and the activation marker goes: from then on the directory does not start.
//! 3. `wal/` is moved aside, `wal.repair/` takes its place.
//! 4. Checkpoints and index files are removed.
//! 5. What step 2 changed is put back: the directory starts again.
//!
//! Each is safe to repeat: after a crash the repair is run again and goes on.

pub(crate) mod hydrated;
mod log;
mod salvage;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_archive::{Branch, BranchView, Closed, HistoryPoint, Identity, ObjectKey, Owner, Store};
use duramen_failpoint::Point;
use duramen_state::ShardState;
use duramen_types::{ArchiveId, BranchName, EntryBody, EntryHead, Index, ShardId};
use duramen_wal::datadir::{DataDir, FORMAT_VERSION, NodeDescription, RestoreDescription};
use duramen_wal::{Disk, RealDisk, durable, inspect};
use serde::{Deserialize, Serialize};

use self::salvage::Salvaged;
use crate::{Error, Result, plan};

const RESTORE: &str = "restore.json";
const ACTIVATED: &str = "activated.json";
const STAGED: &str = "wal.repair";

/// How a directory is repaired.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// The disk that the directory is on.
    pub disk: Arc<dyn Disk>,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self { dry_run: false, disk: Arc::new(RealDisk) }
    }
}

/// What was repaired, and what is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What was damaged, file by file.
    pub damage: Vec<String>,
    /// Whether nothing was; then nothing was done.
    pub sound: bool,
    /// Whether nothing was changed, and this is what would be.
    pub dry_run: bool,
    /// Damaged files below `hydrated/` that were removed, or would be: the node reads what they held from the archive.
    pub removed: Vec<PathBuf>,
    /// Those that stay as they are, because the archive's copy can't be had.
    pub left: Vec<PathBuf>,
    pub shards: Vec<RepairedShard>,
    /// Entries that were there once, and are neither in the archive nor in a valid frame.
    pub gone: Vec<Gone>,
    /// The newest file of the log, if it could not be read: entries that only it had are lost, and nobody knows which.
    pub unread: Option<PathBuf>,
    pub notes: Vec<String>,
    /// Where the damaged log is now.
    pub moved_aside: Option<PathBuf>,
}

impl RepairReport {
    /// Whether everything is there again that users are known to have put there; entries of which nothing is known may
    /// have been theirs.
    pub fn lost_nothing(&self) -> bool {
        self.unread.is_none() && self.left.is_empty() && self.gone.iter().all(Gone::is_nothing)
    }
}

/// What one shard's log consists of after the repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedShard {
    pub shard: ShardId,
    /// Everything before this index is in the archive.
    pub archived: Index,
    /// How many local entries follow.
    pub kept: u64,
    /// The end of the log.
    pub end: Index,
}

/// Entries that are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub shard: ShardId,
    pub first: Index,
    pub end: Index,
    /// Records in those of the entries that could still be read, but don't follow the log any more.
    #[serde(default)]
    pub records: u64,
    /// Other changes in those, like a trim or a cursor's move.
    #[serde(default)]
    pub changes: u64,
    /// Entries of which nothing is known.
    #[serde(default)]
    pub unknown: u64,
    pub reason: String,
}

impl Gone {
    fn new(shard: ShardId, entries: Range<Index>, reason: String, salvaged: &Salvaged) -> Self {
        let Range { start: first, end } = entries;
        let mut gone = Self { shard, first, end, records: 0, changes: 0, unknown: 0, reason };
        let mut index = first;
        while index < end {
            let head = salvaged.entry(shard, index).and_then(|(_, head)| EntryHead::decode(head).ok());
            match head.map(|head| head.body) {
                Some(EntryBody::Append(batches) | EntryBody::Rescue { batches, .. }) => {
                    gone.records += batches.iter().map(|batch| u64::from(batch.records)).sum::<u64>();
                }
                Some(EntryBody::Control(_)) => gone.changes += 1,
                Some(
                    EntryBody::Blank
                    | EntryBody::Membership(_)
                    | EntryBody::Tick
                    | EntryBody::Archived { .. },
                ) => {}
                None => gone.unknown += 1,
            }
            index = index.next();
        }
        gone
    }

    /// Whether users miss nothing of it: a shard without work has entries of its own all the same.
    pub fn is_nothing(&self) -> bool {
        self.records == 0 && self.changes == 0 && self.unknown == 0
    }
}

/// What `restore.json` keeps of a repair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repair {
    /// The name that the damaged log gets.
    aside: String,
    /// What `restore.json` said before, of a restore that had been finished.
    before: Option<RestoreDescription>,
    shards: Vec<RepairedShard>,
    gone: Vec<Gone>,
    damage: Vec<String>,
    #[serde(default)]
    removed: Vec<PathBuf>,
    #[serde(default)]
    left: Vec<PathBuf>,
    #[serde(default)]
    unread: Option<PathBuf>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    repair: Repair,
}

/// What the directory's note said before it became the note of a repair.
pub(crate) fn note_before(note: &RestoreDescription) -> Option<RestoreDescription> {
    serde_json::from_value::<Details>(note.details.clone()).ok()?.repair.before
}

/// Repairs the data directory `data` of a stopped node, if its log is damaged.
///
/// The node, once started, rebuilds its checkpoints from the archive and the new log. Local entries beyond the archive
/// are kept as far as they follow it without a gap, their heads replayed over the archived state; what is known to be
/// missing is in the report. Memory: the heads of the entries that are not archived.
pub async fn repair(store: &Store, data: &Path, options: &RepairOptions) -> Result<RepairReport> {
    let disk = &options.disk;
    let refuse = |reason: String| Error::NotRepairable { dir: data.to_owned(), reason };
    // Opening would create it.
    disk.list(data).map_err(|source| Error::Io { action: "list", path: data.to_owned(), source })?;
    let dir = DataDir::open_unfinished(Arc::clone(disk), data)?;
    let Some(node) = dir.node()? else {
        return Err(refuse(
            "it belongs to no node (there is no node.json): fill it with `duramen-restore hydrate`".into(),
        ));
    };
    let before = dir.restore()?;
    let interrupted =
        before.as_ref().and_then(|note| serde_json::from_value::<Details>(note.details.clone()).ok());
    if let Some(Details { repair }) = interrupted {
        if options.dry_run {
            return Ok(repair.report(true, None));
        }
        return finish(&dir, repair);
    }
    if before.is_some() && !dir.is_activated()? {
        return Err(refuse(
            "a restore into it was interrupted: run `duramen-restore hydrate --to` again".into(),
        ));
    }
    let copies = restored_again(store, &dir, &node, options).await?;
    let found = inspect(&**disk, &dir.wal())?;
    if found.is_sound() {
        if copies.damage.is_empty() {
            let never_started = before.is_some() && found.shards.is_empty();
            whose(store, &node, data, never_started).await?;
        }
        return Ok(RepairReport {
            sound: copies.damage.is_empty(),
            dry_run: options.dry_run,
            damage: copies.damage,
            removed: copies.removed,
            left: copies.left,
            shards: vec![],
            gone: vec![],
            unread: None,
            notes: copies.notes,
            moved_aside: None,
        });
    }
    let branch = whose(store, &node, data, false).await?;
    let damage = found
        .damage
        .iter()
        .map(|damage| format!("{} at byte {}: {}", damage.file.display(), damage.offset, damage.reason));
    let damage: Vec<String> = copies.damage.into_iter().chain(damage).collect();
    let archived = archived(store, &branch).await?;
    let ends = archived.iter().map(|(shard, (point, _))| (*shard, point.end)).collect();
    let (wal, with) = (dir.wal(), Arc::clone(disk));
    let salvaged = tokio::task::spawn_blocking(move || salvage::salvage(&*with, &wal, &ends)).await;
    let mut salvaged = salvaged.map_err(|error| Error::Interrupted(error.to_string()))??;
    for (shard, state) in &found.shards {
        salvaged.known(*shard, state.end);
    }
    let mut repair = Repair {
        aside: format!("wal.damaged-{}", store.clock().now()),
        before,
        shards: vec![],
        gone: vec![],
        damage,
        removed: copies.removed,
        left: copies.left,
        unread: found.unread,
        notes: copies.notes.into_iter().chain(salvaged.notes()).collect(),
    };
    let mut kept = BTreeMap::new();
    for (shard, (point, state)) in archived {
        let end = repair.decide(shard, point, state, &salvaged);
        kept.insert(shard, (point, end));
    }
    if options.dry_run {
        return Ok(repair.report(true, None));
    }
    // The tick behind a closed time is not archived: if it was in what is lost here, a clock that is behind would stamp
    // what comes next with a time for which the archive says that nothing more comes.
    let view = BranchView::open(store, &branch).await?;
    if let Some(closed) = Closed::last_of(&view, node.node).await? {
        dir.stamp_after(closed)?;
    }
    let (staged, clock, random) = (data.join(STAGED), Arc::clone(store.clock()), store.random().clone());
    let (wal, with, node) = (dir.wal(), Arc::clone(disk), node.node);
    let write = move || log::write(with, &wal, &staged, node, clock, random, &salvaged, &kept);
    tokio::task::spawn_blocking(write).await.map_err(|error| Error::Interrupted(error.to_string()))??;
    begin(&dir, store, &branch, &repair)?;
    finish(&dir, repair)
}

/// What a restore downloaded and this disk has damaged since.
#[derive(Debug, Default)]
struct Copies {
    damage: Vec<String>,
    removed: Vec<PathBuf>,
    left: Vec<PathBuf>,
    notes: Vec<String>,
}

/// Removes the damaged copies of what the archive has: it is read from there then.
async fn restored_again(
    store: &Store,
    dir: &DataDir,
    node: &NodeDescription,
    options: &RepairOptions,
) -> Result<Copies> {
    let mut copies = Copies::default();
    let (folder, Some(archive)) = (dir.hydrated(), node.archive) else { return Ok(copies) };
    let io = |source| Error::Io { action: "read", path: folder.clone(), source };
    let found = hydrated::damaged(&folder, archive).await.map_err(io)?;
    if !found.is_empty() {
        is_of(store, archive, dir.root()).await?;
    }
    for (path, problem) in found {
        let key = path.strip_prefix(&folder).ok().and_then(Path::to_str).and_then(ObjectKey::parse);
        copies.damage.push(format!("{}: {problem}", path.display()));
        let Some(key) = key else { continue };
        match store.get_range(&key, 0..1).await {
            Ok(_) => {
                let is = if options.dry_run { "would be" } else { "is" };
                if !options.dry_run {
                    remove(dir, &path)?;
                }
                let note =
                    format!("{} {is} read from the archive, without the damaged copy here", path.display());
                copies.notes.push(note);
                copies.removed.push(path);
            }
            Err(error) => {
                let note =
                    format!("{} stays as it is: the archive's copy can't be had ({error})", path.display());
                copies.notes.push(note);
                copies.left.push(path);
            }
        }
    }
    Ok(copies)
}

/// The branch that the directory's cluster writes, after making sure that this archive is its own. Nobody has written the branch
/// of one that was restored and `never_started`.
async fn whose(
    store: &Store,
    node: &NodeDescription,
    data: &Path,
    never_started: bool,
) -> Result<BranchName> {
    let refuse = |reason: String| Error::NotRepairable { dir: data.to_owned(), reason };
    let (Some(archive), Some(branch)) = (node.archive, &node.branch) else {
        return Err(refuse("its node has no archive: there is nothing to repair it from".into()));
    };
    let branch = BranchName::parse(branch).map_err(|error| refuse(format!("node.json: {error}")))?;
    is_of(store, archive, data).await?;
    match Owner::read(store, &branch).await? {
        Some(owner) if owner.cluster == node.cluster => Ok(branch),
        Some(owner) => Err(refuse(format!(
            "branch {branch} is written by cluster {}, it is of {}",
            owner.cluster, node.cluster
        ))),
        None if never_started => Ok(Branch::open(store, &branch).await?.name),
        None => {
            Err(refuse(format!("branch {branch} of {} has no owner: its node never wrote it", store.url())))
        }
    }
}

/// Makes sure that the store holds the directory's archive.
async fn is_of(store: &Store, expected: ArchiveId, dir: &Path) -> Result<()> {
    let found = Identity::open(store).await?.archive;
    if found == expected {
        return Ok(());
    }
    Err(Error::OtherArchive { dir: dir.to_owned(), url: Arc::clone(store.url()), expected, found })
}

/// Where each shard's archive ends, and the state there.
async fn archived(
    store: &Store,
    branch: &BranchName,
) -> Result<BTreeMap<ShardId, (HistoryPoint, ShardState)>> {
    let view = BranchView::open(store, branch).await?;
    let history = plan::history(&view);
    let mut archived = BTreeMap::new();
    for shard in view.shard_ids() {
        let rows = view.shard(shard).await?;
        let point = rows.tip();
        archived.insert(shard, (point, history.state_at(&rows, point.end).await?));
    }
    Ok(archived)
}

impl Repair {
    /// How far the local entries of a shard can be kept: as far as they continue the archived state.
    fn decide(
        &mut self,
        shard: ShardId,
        point: HistoryPoint,
        mut state: ShardState,
        salvaged: &Salvaged,
    ) -> Index {
        let mut reason = "no valid frame holds the first of them".to_owned();
        while let Some((id, head)) = salvaged.entry(shard, state.end()) {
            if let Err(error) = duramen_types::EntryHead::decode(head)
                .map_err(|error| error.to_string())
                .and_then(|decoded| state.apply(id, &decoded, head).map_err(|error| error.to_string()))
            {
                reason = format!("entry {id} does not continue the log: {error}");
                break;
            }
        }
        let (end, known) = (state.end(), salvaged.end_of(shard));
        self.shards.push(RepairedShard { shard, archived: point.end, kept: end.since(point.end), end });
        if end < known {
            self.gone.push(Gone::new(shard, end..known, reason, salvaged));
        }
        end
    }

    fn report(self, dry_run: bool, moved_aside: Option<PathBuf>) -> RepairReport {
        let Self { shards, gone, damage, removed, left, unread, notes, .. } = self;
        RepairReport {
            damage,
            sound: false,
            dry_run,
            removed,
            left,
            shards,
            gone,
            unread,
            notes,
            moved_aside,
        }
    }
}

/// Step 2: notes the repair, so that the directory does not start half repaired.
fn begin(dir: &DataDir, store: &Store, branch: &BranchName, repair: &Repair) -> Result<()> {
    let details = serde_json::json!({ "repair": repair });
    let note = RestoreDescription {
        format_version: FORMAT_VERSION,
        source: store.url().to_string(),
        branch: branch.to_string(),
        progress: "a repair was interrupted: run `duramen-restore repair --data` again instead".to_owned(),
        details,
    };
    write_note(dir, &note)?;
    duramen_failpoint::reached(Point::RepairNoted);
    remove(dir, &dir.root().join(ACTIVATED))
}

/// Steps 3 to 5.
fn finish(dir: &DataDir, repair: Repair) -> Result<RepairReport> {
    let disk = &**dir.disk();
    remove(dir, &dir.root().join(ACTIVATED))?;
    let (aside, staged, wal) = (dir.root().join(&repair.aside), dir.root().join(STAGED), dir.wal());
    let is_there = |path: &Path| disk.list(path).is_ok();
    let renamed = |path: &Path, result: std::io::Result<()>| {
        result.map_err(|source| Error::Io { action: "rename", path: path.to_owned(), source })
    };
    if !is_there(&aside) {
        renamed(&wal, durable::move_dir(disk, &wal, &aside))?;
        duramen_failpoint::reached(Point::RepairAside);
    }
    if is_there(&staged) {
        // Opening the directory may have made an empty one: that is replaced.
        renamed(&staged, durable::move_dir(disk, &staged, &wal))?;
        duramen_failpoint::reached(Point::RepairReplaced);
    }
    for folder in [dir.checkpoint(), dir.index()] {
        let names = disk.list(&folder).map_err(|source| Error::Io {
            action: "list",
            path: folder.clone(),
            source,
        })?;
        for name in names {
            remove(dir, &folder.join(name))?;
        }
    }
    duramen_failpoint::reached(Point::RepairCleared);
    match &repair.before {
        Some(before) => {
            write_note(dir, before)?;
            // The restore itself had been finished; its instant is of no use to anybody.
            dir.activate(duramen_types::HybridTime::ZERO)?;
        }
        None => remove(dir, &dir.root().join(RESTORE))?,
    }
    Ok(repair.report(false, Some(aside)))
}

fn write_note(dir: &DataDir, note: &RestoreDescription) -> Result<()> {
    let path = dir.root().join(RESTORE);
    let json = serde_json::to_vec_pretty(note).expect("a note has only text keys");
    durable::write_file(&**dir.disk(), &path, &json).map_err(|source| Error::Io {
        action: "write",
        path,
        source,
    })
}

fn remove(dir: &DataDir, path: &Path) -> Result<()> {
    durable::remove_file(&**dir.disk(), path).map_err(|source| Error::Io {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}
