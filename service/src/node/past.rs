//! The state of a shard as it was at an instant of the past.

use std::sync::Arc;

use duramen_state::ShardState;
use duramen_types::{Entry, HybridTime, Index};

use super::Node;
use crate::api::{Code, Error, More, Result};
use crate::shard::{Checkpoint, Shard};
use crate::time::rfc3339;

/// Bytes of entries that a replay of the local log reads at once.
const REPLAY_BYTES: u64 = 4 << 20;

impl Node {
    /// The shard's state after every entry with a time of at most `time`.
    ///
    /// The instant must lie in the past and inside the recovery window. The shard's log first gets an entry later
    /// than `time`, so that nothing can be added before it any more.
    pub(super) async fn state_as_of(&self, shard: &Arc<Shard>, time: HybridTime) -> Result<Arc<ShardState>> {
        let now = self.clock().wall().now();
        if time > now {
            return Err(Error::new(
                Code::FutureTime,
                format!(
                    "{} lies in the future, it is {} here: choose an instant that has passed, and compare the machines' \
                     clocks",
                    rfc3339(time),
                    rfc3339(now)
                ),
            )
            .with_more(More { time: Some(now), ..More::default() }));
        }
        let begin = now.before(self.settings().recovery_window);
        if time < begin {
            return Err(Error::new(
                Code::NotCovered,
                format!(
                    "{} lies before the recovery window, which begins at {} (archive.recovery_window): choose a later \
                     instant",
                    rfc3339(time),
                    rfc3339(begin)
                ),
            )
            .with_more(More { time: Some(begin), ..More::default() }));
        }
        while shard.view.progress().time <= time {
            self.tick(shard).await.map_err(|error| match error.code {
                // What may have happened is a tick, which is no change to whoever reads.
                Code::UnknownOutcome => Error::new(
                    Code::Unavailable,
                    format!(
                        "shard {}: the log did not get beyond {} in time, and what was written by then is not known before: \
                         the disk is slow or stands still. Nothing was changed, read again",
                        shard.id,
                        rfc3339(time)
                    ),
                ),
                _ => error,
            })?;
        }
        loop {
            if let Some(state) = self.archived_state(shard, time).await? {
                return Ok(state);
            }
            let base = match self.archive_boundary(shard.id).await? {
                // A cut may have moved the boundary beyond `time` just now: then the archive has the answer.
                Some(state) if state.time() > time => continue,
                Some(state) => state,
                None => Arc::new(self.local_base(shard, time)?),
            };
            let (node, from) = (self.clone(), Arc::clone(shard));
            let replay = move || node.replay(&from, ShardState::clone(&base), time);
            let replayed = self.blocking().run(replay).await;
            let replayed = replayed
                .map_err(|error| Error::new(Code::Internal, format!("replaying the log: {error}")))??;
            if let Some(state) = replayed {
                return Ok(state);
            }
        }
    }

    /// Without an archive the whole log is local: replay from the checkpoint where that is early enough.
    fn local_base(&self, shard: &Shard, time: HybridTime) -> Result<ShardState> {
        let checkpoint = Checkpoint::load(&**self.disk(), self.checkpoints(), shard.id)
            .map_err(|error| Error::new(Code::Corruption, error.to_string()))?;
        Ok(match checkpoint {
            Some(checkpoint) if checkpoint.state.time() <= time => checkpoint.state,
            _ => ShardState::new(shard.id),
        })
    }

    /// `None` where the log was archived and purged beyond `state` meanwhile: there is a later one to begin with.
    fn replay(
        &self,
        shard: &Shard,
        mut state: ShardState,
        time: HybridTime,
    ) -> Result<Option<Arc<ShardState>>> {
        let damaged = |index: Index, error: &dyn std::fmt::Display| {
            Error::new(Code::Corruption, format!("shard {}, index {index}: {error}", shard.id))
        };
        loop {
            let from = state.end();
            let entries = self.wal().entries(shard.id, from..shard.view.progress().end, REPLAY_BYTES);
            let entries = match entries {
                Err(duramen_wal::Error::Purged { .. }) if *shard.archived.borrow() > from => return Ok(None),
                entries => entries.map_err(|error| damaged(from, &super::unread(&error)))?,
            };
            if entries.is_empty() {
                return Err(damaged(from, &"the log ends before the time asked for"));
            }
            for (id, payload) in entries {
                let entry = Entry::decode(payload).map_err(|error| damaged(id.index, &error))?;
                if entry.head().effective_time(state.time()) > time {
                    return Ok(Some(Arc::new(state)));
                }
                state
                    .apply(id, entry.head(), &entry.head_bytes())
                    .map_err(|error| damaged(id.index, &error))?;
            }
        }
    }
}
