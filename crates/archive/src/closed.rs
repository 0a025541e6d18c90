//! `{branch}/closed/{time}-{node}`: up to which time each shard can hold nothing that is not archived.
//!
//! ```text
//! message Closed      { node 1, time 2, repeated ClosedShard shards 3, previous 4 }
//! message ClosedShard { shard 1, end 2, closed 3 }
//! ```
//!
//! Framed (`frame`), magic `DURCLOSE`. An item says: every user entry with a time ≤ `closed` has an index < `end`. It
//! is usable once the shard's archived history reaches `end`. The archived entries themselves close their shard
//! through the time of the last one, and a branch's cut closes it through the cut's time.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use duramen_failpoint::Point;
use duramen_types::{BranchName, DecodeError, HybridTime, Index, NodeId, ShardId};
use futures::TryStreamExt;
use serde::Serialize;

use crate::frame::Frame;
use crate::{BranchView, FormatError, MAX_SHARDS, ObjectKey, Result, Store, paths};

const FRAME: Frame = Frame { what: "closed times", magic: b"DURCLOSE", version: 1 };
const MAX_BYTES: u64 = 64 << 10;

/// How far before the newest archived entry closed objects are looked for, until every shard is found.
const LOOK_BACK: [Duration; 3] =
    [Duration::from_secs(600), Duration::from_secs(24 * 3600), Duration::from_secs(32 * 24 * 3600)];

/// What one node says of the shards that it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Closed {
    pub node: NodeId,
    /// The largest of the closed times; part of the key.
    pub time: HybridTime,
    pub shards: Vec<ClosedShard>,
    /// The time of the closed object that the node wrote before this one, if it knows: the loss of one leaves a trace.
    pub previous: Option<HybridTime>,
}

/// Up to where one shard is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClosedShard {
    pub shard: ShardId,
    /// Usable when the archived history reaches this index: the end of the last user entry before the tick.
    pub end: Index,
    /// No entry that follows `end` is a user entry with a time at or before this one.
    pub closed: HybridTime,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireClosed {
    #[prost(uint64, tag = "1")]
    node: u64,
    #[prost(uint64, tag = "2")]
    time: u64,
    #[prost(message, repeated, tag = "3")]
    shards: Vec<WireShard>,
    #[prost(uint64, optional, tag = "4")]
    previous: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireShard {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    end: u64,
    #[prost(uint64, tag = "3")]
    closed: u64,
}

impl Closed {
    /// What `node` says of `shards`, of which there is at least one; `previous` is the time of what it said before.
    pub fn new(node: NodeId, shards: Vec<ClosedShard>, previous: Option<HybridTime>) -> Self {
        let time = shards.iter().map(|shard| shard.closed).max().unwrap_or_default();
        // A clock that was set back, on a directory that lost its end: then there is nothing to point to.
        let previous = previous.filter(|previous| *previous < time);
        Self { node, time, shards, previous }
    }

    /// The object's key.
    pub fn key(&self, branch: &BranchName) -> ObjectKey {
        ObjectKey::Closed { branch: branch.clone(), time: self.time, node: self.node }
    }

    /// The time of the last object that `node` wrote to the view's branch; `None` if it wrote none.
    pub async fn last_of(view: &BranchView, node: NodeId) -> Result<Option<HybridTime>> {
        let mut anchor = HybridTime::ZERO;
        for shard in view.shard_ids() {
            anchor = anchor.max(view.end(shard).await?.time);
        }
        for window in windows(view, anchor) {
            let found = listed(view, &window).await?.into_iter().rfind(|(.., by)| *by == node);
            if let Some((_, time, _)) = found {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// Writes it; on `Ok` it is durable.
    pub async fn write(&self, store: &Store, branch: &BranchName) -> Result<()> {
        duramen_failpoint::reached(Point::CloseDue);
        store.create(&self.key(branch), self.encode()).await?;
        duramen_failpoint::reached(Point::CloseCreated);
        Ok(())
    }

    pub(crate) fn encode(&self) -> Bytes {
        let shards = self.shards.iter().map(|item| WireShard {
            shard: u32::from(item.shard.get()),
            end: item.end.get(),
            closed: item.closed.as_micros(),
        });
        FRAME.seal(&WireClosed {
            node: self.node.get(),
            time: self.time.as_micros(),
            shards: shards.collect(),
            previous: self.previous.map(HybridTime::as_micros),
        })
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let wire: WireClosed = FRAME.open(bytes, &[(3, usize::from(MAX_SHARDS).saturating_add(1))])?;
        let shards = wire.shards.into_iter().map(|item| {
            let shard = u16::try_from(item.shard)
                .map_err(|_| DecodeError::invalid(FRAME.what, format!("shard {} is none", item.shard)))?;
            let (end, closed) = (Index::new(item.end), HybridTime::from_micros(item.closed));
            Ok(ClosedShard { shard: ShardId::new(shard), end, closed })
        });
        let shards = shards.collect::<Result<Vec<_>, DecodeError>>()?;
        let previous = wire.previous.map(HybridTime::from_micros);
        let closed = Self::new(NodeId::new(wire.node), shards, previous);
        if closed.time.as_micros() != wire.time {
            return Err(DecodeError::invalid(FRAME.what, "its time is not the largest of its shards'").into());
        }
        if previous.is_some_and(|previous| previous >= closed.time) {
            return Err(DecodeError::invalid(FRAME.what, "it follows one of a later time").into());
        }
        Ok(closed)
    }
}

/// Up to which time each shard of a branch is closed, as far as the archive proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedTimes {
    /// Every shard of the archive; zero for one that nothing closes.
    pub shards: BTreeMap<ShardId, HybridTime>,
}

impl ClosedTimes {
    /// The latest time that can be restored on all shards together: the smallest of the shards' closed times.
    pub fn latest(&self) -> HybridTime {
        self.shards.values().copied().min().unwrap_or_default()
    }

    /// The shard that is closed least far.
    pub fn slowest(&self) -> Option<ShardId> {
        self.shards.iter().min_by_key(|(_, closed)| **closed).map(|(shard, _)| *shard)
    }

    /// Computes them from what the view has archived, and from the newest closed objects of its branch.
    ///
    /// Lists near the newest archived entry first, and further back only while a shard is not found there: years of
    /// history are never listed for the sake of the present.
    pub async fn of(view: &BranchView) -> Result<Self> {
        let mut known = Known::archived(view).await?;
        let anchor = known.closed.values().copied().max().unwrap_or_default();
        for window in windows(view, anchor) {
            known.read(view, &window).await?;
            if known.missing.is_empty() {
                break;
            }
        }
        Ok(Self { shards: known.closed })
    }
}

/// A part of the closed objects: those whose keys are after `after` and not after `before`.
struct Window {
    after: Option<String>,
    before: Option<String>,
}

/// From the newest closed objects, those around `anchor` and later, to the oldest.
fn windows(view: &BranchView, anchor: HybridTime) -> impl Iterator<Item = Window> {
    let branch = view.branch().name.clone();
    // No node has the number 0 in `time - 1`; the key itself need not exist.
    let key = move |time| ObjectKey::Closed { branch: branch.clone(), time, node: NodeId::ZERO }.to_string();
    let mut before = None;
    LOOK_BACK.map(Some).into_iter().chain([None]).map(move |look_back| {
        let after = look_back.map(|by| key(anchor.before(by)));
        Window { before: std::mem::replace(&mut before, after.clone()), after }
    })
}

/// The keys of a window and the times in them, oldest first.
async fn listed(view: &BranchView, window: &Window) -> Result<Vec<(ObjectKey, HybridTime, NodeId)>> {
    let mut keys = Vec::new();
    let mut listed = view.store().list(&paths::closed_prefix(&view.branch().name), window.after.as_deref());
    while let Some(object) = listed.try_next().await? {
        if window.before.as_deref().is_some_and(|before| object.path.as_str() > before) {
            break;
        }
        if let Some(key @ ObjectKey::Closed { time, node, .. }) = object.key {
            keys.push((key, time, node));
        }
    }
    Ok(keys)
}

/// What is found so far.
struct Known {
    ends: BTreeMap<ShardId, Index>,
    closed: BTreeMap<ShardId, HybridTime>,
    /// The shards that no usable item was found for.
    missing: std::collections::BTreeSet<ShardId>,
}

impl Known {
    /// What the archived entries and the branch's cut say.
    async fn archived(view: &BranchView) -> Result<Self> {
        let cut = view.branch().cut.as_ref().map_or(HybridTime::ZERO, |cut| cut.time);
        let mut known = Self { ends: BTreeMap::new(), closed: BTreeMap::new(), missing: Default::default() };
        for shard in view.shard_ids() {
            let tip = view.end(shard).await?;
            known.ends.insert(shard, tip.end);
            known.closed.insert(shard, tip.time.max(cut));
            known.missing.insert(shard);
        }
        Ok(known)
    }

    /// Takes the closed objects of a window, newest first.
    async fn read(&mut self, view: &BranchView, window: &Window) -> Result<()> {
        for (key, time, _) in listed(view, window).await?.into_iter().rev() {
            // An older object can say nothing new of a shard that is closed beyond it.
            if self.missing.is_empty() && self.closed.values().all(|closed| *closed >= time) {
                break;
            }
            let store = view.store();
            let bytes = store.get(&key, MAX_BYTES).await?;
            let found = Closed::decode(&bytes).map_err(|error| store.unreadable(&key, error))?;
            if found.key(&view.branch().name) != key {
                let reason = "it is of another time or node than its key says";
                return Err(store.unreadable(&key, DecodeError::invalid(FRAME.what, reason)));
            }
            self.take(&found);
        }
        Ok(())
    }

    fn take(&mut self, found: &Closed) {
        for item in &found.shards {
            let usable = self.ends.get(&item.shard).is_some_and(|end| item.end <= *end);
            if let Some(closed) = self.closed.get_mut(&item.shard).filter(|_| usable) {
                *closed = item.closed.max(*closed);
                self.missing.remove(&item.shard);
            }
        }
    }
}
