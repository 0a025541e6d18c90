//! The closed objects of a branch: each readable and under its own key; and what they say that there is.

use std::collections::BTreeSet;

use duramen_archive::{ObjectKey, describe, paths};
use duramen_types::{HybridTime, Index, ShardId};
use futures::TryStreamExt;
use serde_json::Value;

use super::Context;
use crate::Result;

/// The largest closed object.
const MAX_BYTES: u64 = 64 << 10;
/// How many of the newest a quick verification reads.
const NEWEST: usize = 256;

pub(super) async fn verify(context: &mut Context) -> Result<()> {
    let folder = paths::closed_prefix(&context.branch);
    let mut listed = context.store.list(&folder, None);
    let mut keys = Vec::new();
    while let Some(object) = listed.try_next().await? {
        match object.key {
            Some(key @ ObjectKey::Closed { .. }) => {
                context.newest.see(&key);
                keys.push(key);
            }
            _ => context.find(&object.path, "it is no object of an archive"),
        }
    }
    let there: BTreeSet<String> = keys.iter().map(ObjectKey::to_string).collect();
    if !context.is_full() {
        keys.drain(..keys.len().saturating_sub(NEWEST));
    }
    for key in keys {
        let bytes = context.store.get(&key, MAX_BYTES).await;
        let Some(bytes) = context.absorb(&key, bytes)? else { continue };
        context.looked_at(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let Some(says) = context.decoded(&key, describe(&key, &bytes)) else { continue };
        let ObjectKey::Closed { time, node, .. } = &key else { continue };
        if (number(&says, "time"), number(&says, "node")) != (Some(time.as_micros()), Some(node.get())) {
            context.find(&key, "it is of another time or node than its key says: it was swapped");
            continue;
        }
        if let Some(previous) = number(&says, "previous") {
            let time = HybridTime::from_micros(previous);
            let previous = ObjectKey::Closed { branch: context.branch.clone(), time, node: *node };
            if !there.contains(&previous.to_string()) {
                context.find(&previous, format!("it is missing: {key} was written after it"));
            }
        }
        take(context, &key, &says);
    }
    Ok(())
}

/// Remembers the largest end that is claimed of each shard.
fn take(context: &mut Context, key: &ObjectKey, says: &Value) {
    for item in says.get("shards").and_then(Value::as_array).into_iter().flatten() {
        let shard = number(item, "shard").and_then(|shard| u16::try_from(shard).ok()).map(ShardId::new);
        let (Some(shard), Some(end)) = (shard, number(item, "end").map(Index::new)) else { continue };
        let claim = context.closed_claims.entry(shard).or_insert((Index::ZERO, String::new()));
        if end > claim.0 {
            *claim = (end, key.to_string());
        }
    }
}

fn number(value: &Value, field: &str) -> Option<u64> {
    value.get(field).and_then(Value::as_u64)
}
