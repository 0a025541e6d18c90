//! `run`: archives all that a stopped node's log has, and closes every shard through its last entry.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use duramen_archive::{
    Blocking, BranchView, Closed, ClosedShard, ClosedTimes, Committer, History, HistoryOptions, Owner,
    Random, SegmentCache, Store,
};
use duramen_archiver::{Cut, Settings, ShardArchiver, check_own};
use duramen_types::{
    BranchName, Clock, Compression, Entry, HybridTime, Index, NodeId, SegmentId, ShardId, counted,
};
use duramen_wal::datadir::DataDir;
use duramen_wal::{RealDisk, Wal, WalOptions};
use tokio::sync::Semaphore;

use crate::say;

/// Memory for index pages while states are rebuilt.
const CACHE: usize = 32 << 20;
const SEGMENT_BYTES: u64 = 64 << 20;
const UPLOADS: usize = 4;
/// Bytes of entries looked at together.
const READ_BYTES: u64 = 4 << 20;

/// Archives the node in `data`, which is locked meanwhile; can be repeated after any failure.
pub async fn run(
    store: &Store,
    data: &Path,
    snapshot: bool,
    clock: Arc<dyn Clock>,
    random: Random,
    json: bool,
) -> anyhow::Result<()> {
    // Opening makes what is missing, and a directory of that name is not what is missing.
    ensure!(
        data.join("node.json").is_file(),
        "{} is no node's data directory, it has no node.json: name the one that the node was started with",
        data.display()
    );
    let disk = Arc::new(RealDisk);
    let directory = DataDir::open(disk.clone(), data)?;
    let node = directory.node()?.with_context(|| format!("{} holds no node", data.display()))?;
    let branch = node.branch.as_deref().with_context(|| {
        format!(
            "the node in {} was never bound to an archive: start it with --archive URL, which archives all",
            data.display()
        )
    })?;
    let branch = BranchName::parse(branch)?;
    let view = BranchView::open(store, &branch).await?;
    if let Some(archive) = node.archive.filter(|archive| *archive != view.identity().archive) {
        anyhow::bail!(
            "{} belongs to archive {archive}, and {} is archive {}: give the URL of that one",
            data.display(),
            store.url(),
            view.identity().archive
        );
    }
    Owner::claim(store, &branch, node.cluster).await?;
    let ids = Box::new({
        let random = random.clone();
        move || SegmentId::from_random(random.bytes16())
    });
    let (wal, _) = Wal::open(disk, &directory.wal(), WalOptions::new(node.node), clock, ids)?;
    let cache = SegmentCache::new(CACHE);
    let history = History::new(store.clone(), view.identity().archive, cache, HistoryOptions::default());
    let settings = Settings {
        archive: view.identity().archive,
        committer: Committer { cluster: node.cluster, node: node.node },
        segment_bytes: SEGMENT_BYTES,
        compression: Compression::Zstd,
        level: 1,
        threads: NonZeroUsize::MIN,
        blocking: Blocking::Threads,
        uploads: Arc::new(Semaphore::new(UPLOADS)),
    };
    let mut closed = Vec::new();
    let mut last = HybridTime::ZERO;
    for shard in view.shard_ids() {
        let log = view.log(shard).await?.clone();
        let boundary = history.state_at(&view.shard(shard).await?, log.tip().end).await?;
        check_own(&wal, &branch, shard, log.tip())?;
        let mut archiver = ShardArchiver::new(log, boundary, settings.clone()).await?;
        // A sole voter's log is committed as far as it reaches. What the node wrote for itself is archived along with
        // what users caused, never for its own sake.
        let end = wal.log_state(shard).end;
        let cut = match has_user_entries(&wal, shard, archiver.end()..end)? {
            true => archiver.cut(&wal, end, |_| {}).await?,
            false => Cut::default(),
        };
        let taken = if snapshot { archiver.snapshot().await? } else { None };
        closed.push(ClosedShard {
            shard,
            end: archiver.boundary().user_end(),
            closed: archiver.boundary().time(),
        });
        last = last.max(archiver.boundary().time());
        if json {
            let report = serde_json::json!({
                "shard": shard, "archived": archiver.end(), "segments": cut.segments, "bytes": cut.bytes,
                "entries": cut.entries, "records": cut.records, "snapshot": taken.map(|snapshot| snapshot.index),
            });
            say(&report.to_string())?;
        } else {
            say(&format!(
                "shard {shard}: {} with {} in {} of {}; archived to index {}",
                counted(cut.entries, "entry"),
                counted(cut.records, "record"),
                counted(cut.segments, "segment"),
                counted(cut.bytes, "byte"),
                archiver.end()
            ))?;
        }
    }
    wal.shutdown()?;
    let through = close(store, &branch, node.node, closed, last).await?;
    let shown = i64::try_from(through.as_micros())
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(|| through.to_string(), |instant| instant.to_string());
    if json {
        say(&serde_json::json!({ "closed_through": through, "time": shown }).to_string())
    } else {
        say(&format!("complete on every shard through {shown}: `duramen-restore … --latest` goes as far"))
    }
}

/// Whether users caused any of the log's entries in `range`.
fn has_user_entries(wal: &Wal, shard: ShardId, range: Range<Index>) -> anyhow::Result<bool> {
    let mut next = range.start;
    while next < range.end {
        let entries = match wal.entries(shard, next..range.end, READ_BYTES) {
            // The log begins later than the archive ends: the cut says what to do.
            Err(duramen_wal::Error::Purged { .. }) => return Ok(true),
            entries => entries?,
        };
        if entries.is_empty() {
            return Ok(true);
        }
        for (id, payload) in entries {
            let entry = Entry::decode(payload).with_context(|| {
                format!("shard {shard}: entry {id} can't be read; run `duramen-restore repair`")
            })?;
            if entry.body().is_user() {
                return Ok(true);
            }
            next = id.index.next();
        }
    }
    Ok(false)
}

/// Says in the archive that every shard is complete through `last`, the time of the latest entry of all; gives through
/// when they are.
///
/// True without a tick on each shard: the node is stopped, its log is archived whole, and whoever writes the branch next
/// recovers that log, or what is archived of it, before it stamps anything, with a later time.
async fn close(
    store: &Store,
    branch: &BranchName,
    node: NodeId,
    shards: Vec<ClosedShard>,
    last: HybridTime,
) -> anyhow::Result<HybridTime> {
    // Anew: the view of the beginning has the ends of then.
    let view = BranchView::open(store, branch).await?;
    let known = ClosedTimes::of(&view).await?.latest();
    let previous = Closed::last_of(&view, node).await?;
    // What the node itself has closed with a tick at `last` lacks no more than what came in that very moment.
    if known >= last || previous >= Some(last) {
        return Ok(known);
    }
    let shards = shards.into_iter().map(|shard| ClosedShard { closed: last, ..shard }).collect();
    Closed::new(node, shards, previous).write(store, branch).await?;
    Ok(last)
}
