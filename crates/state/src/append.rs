//! Appends: conditions, fencing and idempotent producers, evaluated in log order.

use std::collections::VecDeque;

use duramen_types::{BatchHeader, HybridTime, Offset, Producer, ProducerId};

use crate::{
    BatchOutcome, MAX_PRODUCERS_PER_STREAM, PRODUCER_EXPIRY, ProducerState, REMEMBERED_BATCHES, Rejection,
    RememberedBatch, Stream,
};

/// Sequence numbers run through 31 bits and wrap (KIP-98).
const SEQUENCE_MASK: u32 = 0x7fff_ffff;

impl Stream {
    /// Appends one batch, or says why not. A repeated batch gets its first answer before any condition is looked
    /// at, so that a retry of a conditional append succeeds.
    pub(crate) fn append(&mut self, time: HybridTime, batch: &BatchHeader) -> BatchOutcome {
        if self.fencing_token.is_some() && self.fencing_token != batch.fencing_token {
            return BatchOutcome::Rejected(Rejection::Fenced { current: self.fencing_token.clone() });
        }
        if let Some(producer) = &batch.producer {
            match self.check_producer(time, producer, batch.records) {
                Ok(None) => {}
                Ok(Some(base)) => return BatchOutcome::Duplicate { base },
                Err(rejection) => return BatchOutcome::Rejected(rejection),
            }
        }
        if let Some(expected) = batch.match_offset
            && expected != self.next
        {
            return BatchOutcome::Rejected(Rejection::OffsetMismatch { expected, tail: self.next });
        }
        let base = self.next;
        if let Some(producer) = &batch.producer {
            self.remember(time, producer, batch.records, base);
        }
        self.accept(time, batch);
        BatchOutcome::Appended { base }
    }

    /// Takes the batch at the tail, whatever its conditions say.
    pub(crate) fn accept(&mut self, time: HybridTime, batch: &BatchHeader) {
        self.next = self.next.plus(u64::from(batch.records));
        self.appended_bytes = self.appended_bytes.saturating_add(u64::from(batch.bytes));
        self.last_append = time;
    }

    /// `Some` is the base offset of the same batch, accepted earlier.
    fn check_producer(
        &self,
        time: HybridTime,
        producer: &Producer,
        records: u32,
    ) -> Result<Option<Offset>, Rejection> {
        let known = self.producers.get(&producer.id).filter(|known| time.since(known.last_seen) < PRODUCER_EXPIRY);
        let Some(known) = known else {
            return if producer.sequence == 0 { Ok(None) } else { Err(Rejection::UnknownProducer(producer.id)) };
        };
        if producer.epoch < known.epoch {
            return Err(Rejection::ProducerFenced { found: producer.epoch, current: known.epoch });
        }
        let expected = if producer.epoch > known.epoch {
            0
        } else {
            let same = |batch: &&RememberedBatch| batch.sequence == producer.sequence && batch.records == records;
            if let Some(batch) = known.batches.iter().rev().find(same) {
                return Ok(Some(batch.base));
            }
            known.batches.back().map_or(0, |last| last.sequence.wrapping_add(last.records) & SEQUENCE_MASK)
        };
        if producer.sequence == expected {
            Ok(None)
        } else {
            Err(Rejection::OutOfOrderSequence { found: producer.sequence, expected })
        }
    }

    fn remember(&mut self, time: HybridTime, producer: &Producer, records: u32, base: Offset) {
        if !self.producers.contains_key(&producer.id) {
            self.make_room_for_producer(time);
        }
        let state = self.producers.entry(producer.id).or_insert_with(|| ProducerState {
            epoch: producer.epoch,
            last_seen: time,
            batches: VecDeque::new(),
        });
        // A new epoch, and a producer that comes back after its expiry, start over.
        if state.epoch != producer.epoch || time.since(state.last_seen) >= PRODUCER_EXPIRY {
            state.epoch = producer.epoch;
            state.batches.clear();
        }
        state.last_seen = time;
        state.batches.push_back(RememberedBatch { sequence: producer.sequence, records, base });
        while state.batches.len() > REMEMBERED_BATCHES {
            state.batches.pop_front();
        }
    }

    fn make_room_for_producer(&mut self, time: HybridTime) {
        if self.producers.len() < MAX_PRODUCERS_PER_STREAM {
            return;
        }
        self.producers.retain(|_, known| time.since(known.last_seen) < PRODUCER_EXPIRY);
        while self.producers.len() >= MAX_PRODUCERS_PER_STREAM {
            let silent_longest: Option<ProducerId> =
                self.producers.iter().min_by_key(|(id, known)| (known.last_seen, **id)).map(|(id, _)| *id);
            let Some(id) = silent_longest else { return };
            self.producers.remove(&id);
        }
    }
}
