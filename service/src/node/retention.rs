//! Stream retention: proposes trims for what has become too old or too much.
//!
//! Retention is never computed while entries are applied: the leader looks at its hot index and proposes a `Trim`, which
//! then is part of history like any other. Age goes by hybrid time, so old records appended today do not expire today.
//! The hot index reaches as far back as the local segments: what lies before them is trimmed by age through the
//! archive, and by size once the stream has outgrown its limit within the local segments.

use std::sync::{Arc, Weak};
use std::time::Duration;

use duramen_types::{ControlOp, Offset, RetentionPolicy, StreamId};

use super::{Inner, Node};
use crate::api::{Result, StreamRef};
use crate::shard::Shard;

/// How often streams are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Looks at all streams with a retention limit, until the node is gone.
pub(super) async fn run(node: Weak<Inner>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = node.upgrade() else { return };
        let node = Node(inner);
        for shard in node.data_shards() {
            if let Err(error) = node.retain_streams(shard).await {
                tracing::warn!(shard = %shard.id, %error, "retention could not be enforced; it is tried again");
            }
        }
    }
}

impl Node {
    async fn retain_streams(&self, shard: &Arc<Shard>) -> Result<()> {
        let limited: Vec<(StreamId, StreamRef, RetentionPolicy)> = {
            let state = shard.view.state.read();
            let limited = state.streams().filter(|(_, stream)| {
                stream.trimmed < stream.next && stream.config.retention != RetentionPolicy::default()
            });
            limited
                .map(|(id, stream)| {
                    let name = StreamRef { tenant: stream.tenant.clone(), name: stream.name.clone() };
                    (id, name, stream.config.retention)
                })
                .collect()
        };
        for (id, name, policy) in limited {
            if let Some(to) = self.trim_target(shard, id, &name, policy).await? {
                tracing::debug!(shard = %shard.id, stream = %name, %to, "retention trims");
                self.control(shard, ControlOp::TrimStream { stream: id, to }, &name).await?;
            }
        }
        Ok(())
    }

    /// The first offset that the policy keeps, if it is further on than the trim point.
    async fn trim_target(
        &self,
        shard: &Arc<Shard>,
        id: StreamId,
        name: &StreamRef,
        policy: RetentionPolicy,
    ) -> Result<Option<Offset>> {
        let (trimmed, next, bytes) = {
            let state = shard.view.state.read();
            let Some(stream) = state.stream(id) else { return Ok(None) };
            (stream.trimmed, stream.next, stream.appended_bytes)
        };
        let corrupt = |error| super::corrupt(name, &error);
        let mut target = trimmed;
        if let Some(limit) = policy.bytes {
            let excess = bytes.saturating_sub(limit);
            // A batch is kept from the first one that lies wholly within the newest `limit` bytes.
            let kept = shard.view.index.first_kept(id, trimmed, |row| row.before >= excess);
            match kept.map_err(corrupt)? {
                Some(kept) => target = target.max(kept),
                None if excess > 0 => {
                    let local = shard.view.index.locate_timestamp(id, trimmed, i64::MIN).map_err(corrupt)?;
                    let beyond = local.first.filter(|first| first.before < excess);
                    if let Some(first) = beyond {
                        let kept = shard.view.index.first_kept(id, first.base, |row| row.before >= excess);
                        target = target.max(kept.map_err(corrupt)?.unwrap_or(target));
                    }
                }
                None => {}
            }
        }
        if let Some(age) = policy.age_seconds {
            let cutoff = self.clock().wall().now().before(Duration::from_secs(age));
            let kept = shard.view.index.first_kept(id, trimmed, |row| row.time > cutoff).map_err(corrupt)?;
            target = target.max(match kept {
                Some(kept) => kept,
                // Everything here is older, or the trim point is only in the archive: the state as it was knows.
                None if cutoff >= self.clock().wall().now().before(self.settings().recovery_window) => {
                    let then = self.state_as_of(shard, cutoff).await?;
                    then.stream(id).map_or(trimmed, |stream| stream.next)
                }
                None => target,
            });
        }
        Ok((target > trimmed).then_some(target.min(next)))
    }
}
