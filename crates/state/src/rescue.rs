//! Rescues: batches that a leader acknowledged `local`, and that its successor's log displaced, come back.
//!
//! All batches of a rescue are of one stream, the origin. They go to the stream `{origin}~rescued` of the same tenant
//! and shard, or to the origin's own tail if its policy says so. Then:
//!
//! - Without the origin they are refused: with the stream its records were deleted.
//! - An entry that is in the log, and one that was rescued before, is not taken again. What was rescued is remembered
//!   for as long as the origin is there, even when `~rescued` is deleted.
//! - `~rescued` is created by the entry that needs it, whose index is its id. It gets the origin's retention and
//!   compression, as they are then. It doesn't count against [`MAX_STREAMS_PER_SHARD`](crate::MAX_STREAMS_PER_SHARD),
//!   because nothing that was acknowledged may be lost to a limit; there is at most one for each stream ever created.
//! - No condition is checked, and producers are left alone: they have gone on meanwhile, or given up.

use duramen_types::{
    BatchHeader, EntryId, HybridTime, Index, RescueOrigin, RescuePolicy, StreamConfig, StreamId, Term,
};

use crate::{BatchOutcome, Rejection, ShardState, Stream};

impl ShardState {
    /// Takes the batches of one rescue, in their order, or says why not.
    pub(crate) fn rescue(
        &mut self,
        id: EntryId,
        time: HybridTime,
        origin: RescueOrigin,
        batches: &[BatchHeader],
    ) -> Vec<BatchOutcome> {
        let Some(of) = batches.first().map(|batch| batch.stream) else { return Vec::new() };
        let all = |outcome: BatchOutcome| vec![outcome; batches.len()];
        let Some(tail) =
            self.streams.get(&of).filter(|_| self.precedes(of, origin)).map(|stream| stream.next)
        else {
            return all(BatchOutcome::Rejected(Rejection::UnknownStream(of)));
        };
        let key = (of, origin.term, origin.index);
        if self.term_at(origin.index) == Some(origin.term) || self.rescued.contains(&key) {
            return all(BatchOutcome::Duplicate { base: tail, time });
        }
        let target = self.rescue_target(id, time, of);
        let Some(stream) = self.streams.get_mut(&target) else {
            return all(BatchOutcome::Rejected(Rejection::UnknownStream(target)));
        };
        let outcomes = batches.iter().map(|batch| {
            let base = stream.next;
            stream.accept(time, batch);
            if target == of {
                BatchOutcome::Appended { base }
            } else {
                BatchOutcome::Rescued { stream: target, base }
            }
        });
        let outcomes = outcomes.collect();
        self.rescued.insert(key);
        outcomes
    }

    /// Whether the stream that has the id in this log can be the one that the origin's log knew by it: another leader
    /// may have created another stream at that index.
    fn precedes(&self, stream: StreamId, origin: RescueOrigin) -> bool {
        let created = Index::new(stream.get());
        created < origin.index && self.term_at(created).is_some_and(|term| term <= origin.term)
    }

    /// The stream that takes what is rescued of `of`; creates it if it isn't there.
    fn rescue_target(&mut self, id: EntryId, time: HybridTime, of: StreamId) -> StreamId {
        let Some(origin) = self.streams.get(&of) else { return of };
        // What was rescued already and is displaced once more stays in its stream.
        let Some(name) = origin.name.rescued() else { return of };
        if origin.config.rescue_policy() == RescuePolicy::Append {
            return of;
        }
        if let Some(existing) = self.stream_id(&origin.tenant, &name) {
            return existing;
        }
        let config = StreamConfig {
            retention: origin.config.retention,
            compression: origin.config.compression,
            ..StreamConfig::default()
        };
        let created = Stream::new(origin.tenant.clone(), name, config, time);
        let target = StreamId::new(id.index.get());
        self.insert_stream(target, created);
        target
    }

    pub(crate) fn forget_rescues(&mut self, stream: StreamId) {
        let all = (stream, Term::ZERO, Index::ZERO)..=(stream, Term::MAX, Index::MAX);
        let origins: Vec<_> = self.rescued.range(all).copied().collect();
        for origin in origins {
            self.rescued.remove(&origin);
        }
    }
}
