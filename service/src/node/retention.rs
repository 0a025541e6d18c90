//! Stream retention: proposes trims for what has become too old or too much.
//!
//! Retention is never computed while entries are applied: the leader looks at its hot index and proposes a `Trim`, which
//! then is part of history like any other. Age goes by hybrid time, so old records appended today do not expire today.
//! The hot index reaches as far back as the local segments; what lies before them is looked for in the archive.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use duramen_archive::BytesBefore;
use duramen_types::{ControlOp, Offset, RetentionPolicy, StreamId};

use super::{Inner, Node};
use crate::api::{Result, StreamRef};
use crate::index::{Kept, Limit};
use crate::shard::Shard;

/// How often streams are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// For each stream whose limit in bytes lies in the archive: where it was found last, so that the next look goes on there.
type Found = HashMap<StreamId, BytesBefore>;

/// Looks at all streams with a retention limit, until the node is gone.
pub(super) async fn run(node: Weak<Inner>) {
    let mut found: Vec<Found> = Vec::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = node.upgrade() else { return };
        let node = Node(inner);
        found.resize_with(node.data_shards().len(), Found::new);
        for (shard, found) in node.data_shards().iter().zip(&mut found) {
            node.retain_streams(shard, found).await;
        }
    }
}

/// A stream with a limit, as the state had it at one moment.
struct Limited {
    id: StreamId,
    name: StreamRef,
    policy: RetentionPolicy,
    trimmed: Offset,
    next: Offset,
    bytes: u64,
}

impl Node {
    async fn retain_streams(&self, shard: &Arc<Shard>, found: &mut Found) {
        let limited: Vec<Limited> = {
            let state = shard.view.state.read();
            found.retain(|stream, _| state.stream(*stream).is_some());
            let limited = state.streams().filter(|(_, stream)| {
                stream.trimmed < stream.next && stream.config.retention != RetentionPolicy::default()
            });
            limited
                .map(|(id, stream)| Limited {
                    id,
                    name: StreamRef { tenant: stream.tenant.clone(), name: stream.name.clone() },
                    policy: stream.config.retention,
                    trimmed: stream.trimmed,
                    next: stream.next,
                    bytes: stream.appended_bytes,
                })
                .collect()
        };
        for stream in limited {
            if let Err(error) = self.retain_stream(shard, &stream, found).await {
                tracing::warn!(
                    shard = %shard.id, stream = %stream.name, %error,
                    "retention could not be enforced; it is tried again"
                );
            }
        }
    }

    async fn retain_stream(&self, shard: &Arc<Shard>, stream: &Limited, found: &mut Found) -> Result<()> {
        let mut to = stream.trimmed;
        let excess = stream.policy.bytes.map_or(0, |limit| stream.bytes.saturating_sub(limit));
        if excess > 0 {
            // A batch is kept from the first one that lies wholly within the newest `limit` bytes.
            to = to.max(self.first_kept(shard, stream, Limit::Bytes(excess), found).await?);
        }
        if let Some(age) = stream.policy.age_seconds {
            let cutoff = self.clock().wall().now().before(Duration::from_secs(age));
            to = to.max(self.first_kept(shard, stream, Limit::Later(cutoff), found).await?);
        }
        if to > stream.trimmed {
            tracing::debug!(shard = %shard.id, stream = %stream.name, %to, "retention trims");
            self.control(shard, ControlOp::TrimStream { stream: stream.id, to }, &stream.name).await?;
        }
        Ok(())
    }

    /// The first offset that the limit keeps; the trim point where all before is unknown, which trims nothing.
    async fn first_kept(
        &self,
        shard: &Arc<Shard>,
        stream: &Limited,
        limit: Limit,
        found: &mut Found,
    ) -> Result<Offset> {
        let Limited { id, trimmed, next, .. } = *stream;
        let (view, name) = (Arc::clone(&shard.view), stream.name.clone());
        let kept = self.blocking().run(move || view.index.first_kept(id, limit));
        let kept = kept.await.map_err(|error| super::corrupt(&name, &error))?;
        let first = match kept.map_err(|error| super::corrupt(&name, &error))? {
            Kept::From(row) => return Ok(row.base),
            // Age leaves nothing. A batch that alone exceeds the limit of bytes stays until the next one comes.
            Kept::Nothing { last } => {
                return Ok(match (limit, last) {
                    (Limit::Bytes(_), Some(last)) => last.base,
                    (Limit::Bytes(_) | Limit::Later(_), _) => next,
                });
            }
            Kept::NotCovered { first } => first,
        };
        let local = first.map_or(next, |row| row.base);
        let Some(archive) = self.0.archive.as_ref().filter(|_| local > trimmed) else { return Ok(trimmed) };
        match limit {
            Limit::Later(time) => {
                let kept = archive.first_later(shard.id, id, trimmed..local, time).await?;
                Ok(kept.unwrap_or(local))
            }
            Limit::Bytes(bytes) => {
                let behind =
                    BytesBefore { offset: local, bytes: first.map_or(stream.bytes, |row| row.before) };
                let known = found.get(&id).copied().filter(|known| known.bytes <= bytes);
                let kept = archive.first_within(shard.id, id, trimmed, known, behind, bytes).await?;
                found.insert(id, kept);
                // Only a batch that alone exceeds the limit could leave nothing.
                Ok(if kept.offset < next { kept.offset } else { trimmed })
            }
        }
    }
}
