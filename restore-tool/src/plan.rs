//! What a restore would do: the cut of every shard, what it reaches, and whether all of it is there.

use std::sync::Arc;

use duramen_archive::{
    BranchView, ClosedTimes, Cut, History, HistoryOptions, HistoryPoint, ObjectKey, SegmentCache, ShardView,
    Store, paths::ShardFolder,
};
use duramen_client::when;
use duramen_types::{ArchiveId, BranchName, HybridTime, Index, RestorePointName, ShardId};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::{Error, Position, Result, Target, point};

/// How many shards are looked at together.
const SHARDS_AT_ONCE: usize = 8;
/// Enough for the few blocks that a plan reads.
const CACHE_BYTES: usize = 8 << 20;

/// A restore, decided: the same plan always gives the same history. As JSON it is a `--target-position`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub archive: ArchiveId,
    /// Where the archive was when the plan was made, without secrets.
    pub url: String,
    /// The branch that is restored from.
    pub branch: BranchName,
    /// What was asked for.
    pub target: Target,
    /// The instant of the cut: new entries of the restored history are later.
    pub time: HybridTime,
    /// The same as RFC 3339, for people.
    pub at: String,
    /// Whether the cut holds exactly the entries up to `time` on every shard; not so for positions and
    /// latest-per-shard.
    pub consistent: bool,
    /// Every shard of the archive, the meta shard first.
    pub shards: Vec<PlannedShard>,
    /// What the restored history consists of, if that was asked for.
    pub reach: Option<Reach>,
}

/// One shard of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedShard {
    pub shard: ShardId,
    pub cut: HistoryPoint,
    /// The end of what is archived.
    pub archived: Index,
    /// Up to when the archive proves the shard complete.
    pub closed: HybridTime,
    pub reach: Option<Reach>,
}

/// How much of an archive a history consists of. All of it was found to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    pub segments: u64,
    pub snapshots: u64,
    /// The size of all of them.
    pub bytes: u64,
}

impl Reach {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            segments: self.segments.saturating_add(other.segments),
            snapshots: self.snapshots.saturating_add(other.snapshots),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub const fn objects(&self) -> u64 {
        self.segments.saturating_add(self.snapshots)
    }
}

impl Plan {
    /// The plan's cut, as a branch file states it.
    pub fn cut(&self) -> Cut {
        Cut { time: self.time, shards: self.shards.iter().map(|planned| planned.cut).collect() }
    }
}

/// Decides where a restore of `view` to `target` cuts each shard, and finds every object that it reaches.
///
/// Reads only. A gap before the target, a missing object, or a target that the archive does not prove covered is an
/// error that names it. Requests: a few for each shard, and one listing page for each 1,000 segments.
pub async fn plan(view: &BranchView, target: &Target) -> Result<Plan> {
    let mut plan = cut(view, target).await?;
    let shards = stream::iter(plan.shards.clone())
        .map(|planned| async move {
            let reach = reach(view, planned.shard, planned.cut.end).await?;
            Ok::<_, Error>(PlannedShard { reach: Some(reach), ..planned })
        })
        .buffered(SHARDS_AT_ONCE);
    plan.shards = shards.try_collect().await?;
    let sum = |sum: Reach, planned: &PlannedShard| sum.plus(planned.reach.unwrap_or_default());
    plan.reach = Some(plan.shards.iter().fold(Reach::default(), sum));
    Ok(plan)
}

/// The plan without what it reaches: a few requests for each shard, however long the history is.
pub(crate) async fn cut(view: &BranchView, target: &Target) -> Result<Plan> {
    let closed = ClosedTimes::of(view).await?;
    let resolved = resolve(view, target, &closed).await?;
    let shards = stream::iter(view.shard_ids())
        .map(|shard| plan_shard(view, shard, &resolved, &closed))
        .buffered(SHARDS_AT_ONCE);
    let shards: Vec<(PlannedShard, Option<HybridTime>)> = shards.try_collect().await?;
    let latest = shards.iter().map(|(planned, _)| planned.cut.time).max().unwrap_or_default();
    let (time, consistent) = match &resolved {
        Resolved::Time(time) => (*time, true),
        // Later than everything in the cut, so that what follows is later than everything.
        Resolved::Position(position) => (position.time.unwrap_or_default().max(latest), false),
        Resolved::Ends => (latest, false),
    };
    let first = shards.iter().filter_map(|(_, first)| *first).min();
    if let (true, Some(first)) = (consistent, first)
        && time < first
    {
        let (url, branch) = place(view);
        return Err(Error::BeforeWindow { url, branch, asked: time, first });
    }
    Ok(Plan {
        archive: view.identity().archive,
        url: view.store().url().to_string(),
        branch: view.branch().name.clone(),
        target: target.clone(),
        time,
        at: when::format(time),
        consistent,
        shards: shards.into_iter().map(|(planned, _)| planned).collect(),
        reach: None,
    })
}

/// A target whose names and relative instants are looked up.
enum Resolved<'a> {
    Time(HybridTime),
    Position(&'a Position),
    Ends,
}

async fn resolve<'a>(view: &BranchView, target: &'a Target, closed: &ClosedTimes) -> Result<Resolved<'a>> {
    let time = match target {
        Target::Time(time) => *time,
        Target::Name(name) => restore_point(view, name).await?,
        Target::Latest => closed.latest(),
        Target::LatestPerShard => return Ok(Resolved::Ends),
        Target::Position(position) => {
            check_position(view, position)?;
            return Ok(Resolved::Position(position));
        }
    };
    let (url, branch) = place(view);
    let shard = closed.slowest().unwrap_or_default();
    if closed.latest() == HybridTime::ZERO {
        return Err(Error::NothingClosed { url, branch, shard });
    }
    let now = view.store().clock().now();
    if time > now && time > closed.latest() {
        return Err(Error::FutureTarget { asked: time, now });
    }
    if time > closed.latest() {
        return Err(Error::NotClosed { url, branch, asked: time, closed: closed.latest(), shard });
    }
    Ok(Resolved::Time(time))
}

fn check_position(view: &BranchView, position: &Position) -> Result<()> {
    let wanted: Vec<_> = view.shard_ids().filter(|shard| !position.shards.contains_key(shard)).collect();
    if !wanted.is_empty() {
        let names = wanted.iter().map(ShardId::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::Position { reason: format!("it says nothing of shard {names}") });
    }
    match position.shards.keys().find(|shard| shard.get() > view.identity().shards) {
        Some(shard) => {
            let reason =
                format!("the archive has no shard {shard}, its shards are 0 to {}", view.identity().shards);
            Err(Error::Position { reason })
        }
        None => Ok(()),
    }
}

/// The instant of a restore point, from the latest archived state of the meta shard.
async fn restore_point(view: &BranchView, name: &RestorePointName) -> Result<HybridTime> {
    let meta = view.shard(ShardId::META).await?;
    let state = history(view).state_at(&meta, meta.tip().end).await?;
    state.restore_point(name).ok_or_else(|| {
        let (url, branch) = place(view);
        let known = state.restore_points().map(|(name, _)| name.clone()).collect();
        Error::UnknownRestorePoint { url, branch, name: name.clone(), known }
    })
}

/// A reader of the view's history that keeps little in memory.
pub(crate) fn history(view: &BranchView) -> History {
    let cache = SegmentCache::new(CACHE_BYTES);
    History::new(view.store().clone(), view.identity().archive, cache, HistoryOptions::default())
}

/// The shard's cut, and the time of its first entry.
async fn plan_shard(
    view: &BranchView,
    shard: ShardId,
    resolved: &Resolved<'_>,
    closed: &ClosedTimes,
) -> Result<(PlannedShard, Option<HybridTime>)> {
    let rows = view.shard(shard).await?;
    let first = first_time(view, &rows).await?;
    let cut = match resolved {
        Resolved::Time(time) => point::at_time(view, &rows, *time).await?,
        Resolved::Ends => rows.tip(),
        Resolved::Position(position) => {
            let wanted = position.shards.get(&shard).copied();
            let Some(wanted) = wanted else {
                return Err(Error::Position { reason: format!("it says nothing of shard {shard}") });
            };
            let point = point::at_index(view, &rows, wanted.end).await?;
            if wanted.chain.is_some_and(|chain| chain != point.chain) {
                let reason =
                    format!("shard {shard} has another history at index {} than the plan says", wanted.end);
                return Err(Error::Position { reason });
            }
            point
        }
    };
    let closed = closed.shards.get(&shard).copied().unwrap_or_default();
    Ok((PlannedShard { shard, cut, archived: rows.tip().end, closed, reach: None }, first))
}

/// The time of the first entry that the shard's history has, apart from those of a new shard, which have no time; the
/// history must begin at its beginning.
pub(crate) async fn first_time(view: &BranchView, rows: &ShardView) -> Result<Option<HybridTime>> {
    let Some(first) = rows.cursor(Index::ZERO, None).next().await? else { return Ok(None) };
    if first.visible.start != Index::ZERO {
        let reason = format!("the first archived entry has index {}", first.visible.start);
        return Err(Error::Gap { branch: first.branch, shard: rows.shard(), reason });
    }
    point::first_time(view, rows).await
}

/// Finds every object that the history of a shard before `end` consists of.
async fn reach(view: &BranchView, shard: ShardId, end: Index) -> Result<Reach> {
    let rows = view.shard(shard).await?;
    let store = view.store();
    let (mut reach, mut missing) = (Reach::default(), Vec::new());
    let mut cursor = rows.cursor(Index::ZERO, None);
    let mut present: Option<(BranchName, Present)> = None;
    while let Some(row) = cursor.next().await? {
        if row.visible.start >= end {
            break;
        }
        let listed = match &mut present {
            Some((branch, listed)) if *branch == row.branch => listed,
            other => {
                let folder = ShardFolder::Segments.prefix(&row.branch, shard);
                &mut other.insert((row.branch.clone(), Present::new(store, &folder))).1
            }
        };
        let key = row.key();
        match listed.size_of(&key).await? {
            Some(bytes) if bytes == row.row.bytes => {}
            Some(bytes) => missing.push(format!("{key} ({bytes} bytes instead of {})", row.row.bytes)),
            None => missing.push(key.to_string()),
        }
        reach.segments = reach.segments.saturating_add(1);
        reach.bytes = reach.bytes.saturating_add(row.row.bytes);
    }
    if let Some(snapshot) = rows.snapshot_at(end).await? {
        let key = snapshot.key();
        match store.size(&key).await {
            Ok(bytes) if bytes == snapshot.row.bytes => {}
            Ok(bytes) => missing.push(format!("{key} ({bytes} bytes instead of {})", snapshot.row.bytes)),
            Err(error) if error.is_missing() => missing.push(key.to_string()),
            Err(error) => return Err(error.into()),
        }
        reach.snapshots = 1;
        reach.bytes = reach.bytes.saturating_add(snapshot.row.bytes);
    }
    if missing.is_empty() {
        Ok(reach)
    } else {
        Err(Error::MissingObjects { url: Arc::clone(store.url()), missing })
    }
}

/// The objects of a folder, to be asked for in their order.
struct Present {
    listed: stream::BoxStream<'static, duramen_archive::Result<duramen_archive::Listed>>,
    ahead: Option<duramen_archive::Listed>,
}

impl Present {
    fn new(store: &Store, folder: &str) -> Self {
        Self { listed: store.list(folder, None).boxed(), ahead: None }
    }

    /// The size of an object that comes after all that were asked for before.
    async fn size_of(&mut self, key: &ObjectKey) -> Result<Option<u64>> {
        let key = key.to_string();
        loop {
            match &self.ahead {
                Some(found) if found.path == key => return Ok(Some(found.bytes)),
                Some(found) if found.path > key => return Ok(None),
                Some(_) | None => {}
            }
            match self.listed.try_next().await? {
                Some(next) => self.ahead = Some(next),
                None => return Ok(None),
            }
        }
    }
}

fn place(view: &BranchView) -> (Arc<str>, BranchName) {
    (Arc::clone(view.store().url()), view.branch().name.clone())
}
