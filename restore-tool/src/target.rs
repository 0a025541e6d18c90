//! Where a restore stops.

use std::collections::BTreeMap;
use std::str::FromStr;

use duramen_types::{ChainValue, HybridTime, Index, RestorePointName, ShardId};
use serde::{Deserialize, Serialize};

use crate::{Error, Plan, Result};

/// Where a restore stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// With every entry up to and including this instant.
    Time(HybridTime),
    /// At these indexes.
    Position(Position),
    /// At a named restore point.
    Name(RestorePointName),
    /// At the latest instant through which every shard is proven complete.
    Latest,
    /// At the end of each shard on its own: more, and not causal between shards.
    LatestPerShard,
}

/// An index for every shard of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub shards: BTreeMap<ShardId, PositionShard>,
    /// The instant that the position stands for, where a plan gave it.
    pub time: Option<HybridTime>,
}

/// Where one shard stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionShard {
    /// The cut holds the entries before this index.
    pub end: Index,
    /// The history chain there, where a plan gave it: another history with this index is refused.
    pub chain: Option<ChainValue>,
}

impl From<&Plan> for Position {
    fn from(plan: &Plan) -> Self {
        let shards = plan.shards.iter().map(|planned| {
            let shard = PositionShard { end: planned.cut.end, chain: Some(planned.cut.chain) };
            (planned.shard, shard)
        });
        Self { shards: shards.collect(), time: Some(plan.time) }
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads `0:17,1:203,…` or a plan's JSON.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Position { reason };
        let text = text.trim();
        if text.starts_with('{') {
            let plan: Plan =
                serde_json::from_str(text).map_err(|error| wrong(format!("it is no plan: {error}")))?;
            return Ok(Self::from(&plan));
        }
        let mut shards = BTreeMap::new();
        for item in text.split(',').map(str::trim) {
            let parsed = item.split_once(':').and_then(|(shard, end)| {
                Some((shard.trim().parse::<ShardId>().ok()?, end.trim().parse::<Index>().ok()?))
            });
            let Some((shard, end)) = parsed else {
                return Err(wrong(format!("{item:?} is not `shard:index`")));
            };
            if shards.insert(shard, PositionShard { end, chain: None }).is_some() {
                return Err(wrong(format!("shard {shard} is named twice")));
            }
        }
        Ok(Self { shards, time: None })
    }
}
