//! What an archive holds: branches, windows, snapshots, restore points.

use duramen_archive::{Ancestor, Branch, BranchView, ClosedTimes, Identity, Owner, Store};
use duramen_types::{BranchName, HybridTime, Index, RestorePointName, ShardId};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::{Result, plan};

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    pub url: String,
    pub archive: Identity,
    pub branches: Vec<BranchListing>,
}

/// One branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BranchListing {
    pub name: BranchName,
    /// Oldest first, the parent last.
    pub ancestry: Vec<Ancestor>,
    /// The instant at which it left its parent.
    pub begins: Option<HybridTime>,
    pub creator: String,
    pub created: HybridTime,
    /// The cluster that writes it; `None` while nobody does.
    pub owner: Option<Owner>,
    /// The instants that can be restored: from the first entry through the smallest closed time.
    pub earliest: Option<HybridTime>,
    pub latest: HybridTime,
    pub shards: Vec<ShardWindow>,
    pub restore_points: Vec<NamedPoint>,
    /// What keeps parts of the branch from being read; everything else is listed all the same.
    pub problems: Vec<String>,
}

/// What one shard of a branch covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardWindow {
    pub shard: ShardId,
    /// The time of its first entry.
    pub first: Option<HybridTime>,
    /// The time of its last archived entry.
    pub last: HybridTime,
    /// Up to when it is proven complete.
    pub closed: HybridTime,
    /// How many entries are archived.
    pub end: Index,
    /// Where its snapshots are.
    pub snapshots: Vec<Index>,
}

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedPoint {
    pub name: RestorePointName,
    pub time: HybridTime,
}

impl Listing {
    /// The branches with a node that continue `branch` and hold something later than it does, the latest last: where a node went
    /// on that was rebuilt from it.
    pub fn later(&self, branch: &BranchName) -> Vec<&BranchListing> {
        let own = self.branches.iter().find(|found| found.name == *branch);
        let own = own.map_or(HybridTime::MAX, |own| own.latest);
        let continues = |found: &&BranchListing| {
            found.owner.is_some()
                && found.latest > own
                && found.ancestry.iter().any(|ancestor| ancestor.branch == *branch)
        };
        let mut later: Vec<_> = self.branches.iter().filter(continues).collect();
        later.sort_by_key(|found| found.latest);
        later
    }
}

/// Lists every branch of the archive. A branch that can't be read is listed with its problems.
pub async fn list(store: &Store) -> Result<Listing> {
    let archive = Identity::open(store).await?;
    let names = Branch::list(store).await?;
    let branches = stream::iter(names).map(|name| list_branch(store, name)).buffered(4).try_collect().await?;
    Ok(Listing { url: store.url().to_string(), archive, branches })
}

async fn list_branch(store: &Store, name: BranchName) -> Result<BranchListing> {
    let mut listing = match Branch::open(store, &name).await {
        Ok(branch) => BranchListing {
            begins: branch.cut.as_ref().map(|cut| cut.time),
            ancestry: branch.ancestry,
            creator: branch.creator,
            created: branch.created,
            ..BranchListing::unread(name.clone())
        },
        Err(error) if error.is_retryable() => return Err(error.into()),
        Err(error) => {
            let mut listing = BranchListing::unread(name);
            listing.problems.push(error.to_string());
            return Ok(listing);
        }
    };
    if let Err(error) = listing.read(store).await {
        if error.is_retryable() {
            return Err(error);
        }
        listing.problems.push(error.to_string());
    }
    Ok(listing)
}

impl BranchListing {
    const fn unread(name: BranchName) -> Self {
        Self {
            name,
            ancestry: Vec::new(),
            begins: None,
            creator: String::new(),
            created: HybridTime::ZERO,
            owner: None,
            earliest: None,
            latest: HybridTime::ZERO,
            shards: Vec::new(),
            restore_points: Vec::new(),
            problems: Vec::new(),
        }
    }

    async fn read(&mut self, store: &Store) -> Result<()> {
        self.owner = Owner::read(store, &self.name).await?;
        let view = BranchView::open(store, &self.name).await?;
        let closed = ClosedTimes::of(&view).await?;
        self.latest = closed.latest();
        for shard in view.shard_ids() {
            let rows = view.shard(shard).await?;
            let tip = rows.tip();
            self.shards.push(ShardWindow {
                shard,
                first: plan::first_time(&view, &rows).await?,
                last: tip.time,
                closed: closed.shards.get(&shard).copied().unwrap_or_default(),
                end: tip.end,
                snapshots: rows.snapshots().await?.into_iter().map(|snapshot| snapshot.row.index).collect(),
            });
        }
        self.earliest = self.shards.iter().filter_map(|window| window.first).min();
        let meta = view.shard(ShardId::META).await?;
        let meta = plan::history(&view).state_at(&meta, meta.tip().end).await?;
        let points = meta.restore_points().map(|(name, time)| NamedPoint { name: name.clone(), time });
        self.restore_points = points.collect();
        Ok(())
    }
}
