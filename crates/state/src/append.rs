//! Appends: conditions, fencing and idempotent producers, evaluated in log order.
//!
//! A batch meets these checks, and the first that fails is its outcome:
//!
//! 1. Is it a repetition of a remembered batch? Then it gets its first answer, whatever has changed since: a token
//!    set or a tail moved in between says nothing about a batch that is in the stream already.
//! 2. The fencing token.
//! 3. The producer's epoch, then its sequence.
//! 4. `match_offset`.
//!
//! A batch that is refused uses up no sequence number: what its producer had pipelined behind it is refused too.
//!
//! # Idempotent producers
//!
//! The rules are Kafka's (KIP-98), for each stream and producer id:
//!
//! - A batch is repeated if epoch, first sequence and record count are those of one of the last five that were
//!   accepted; its contents are not compared. An older one is out of order.
//! - Within an epoch, a batch begins where the one before it ended, modulo 2^31.
//! - A higher epoch begins with sequence 0 and forgets the batches of the lower; a lower one is fenced.
//! - A producer is forgotten when it was silent for [`PRODUCER_EXPIRY`], by the times of the entries, or when the
//!   stream needs its place for others ([`MAX_PRODUCERS_PER_STREAM`]). A repetition does not count as a sign of life.
//!
//! One rule differs: Kafka, since KIP-360, takes any sequence from a producer that it does not know. Here an unknown
//! producer must begin with sequence 0, as in Kafka before: a repetition that comes after its producer was forgotten
//! is then refused, not appended a second time. The exception is a producer's very first batch, whose sequence is 0.
//!
//! So to a producer that repeats a batch, [`Rejection::UnknownProducer`] and [`Rejection::OutOfOrderSequence`] do not
//! say that its first attempt failed.

use std::collections::VecDeque;

use duramen_types::{BatchHeader, HybridTime, Offset, Producer, ProducerId};

use crate::{
    BatchOutcome, MAX_PRODUCERS_PER_STREAM, PRODUCER_EXPIRY, PRODUCERS_FORGOTTEN_AT_ONCE, ProducerState,
    REMEMBERED_BATCHES, Rejection, RememberedBatch, Stream,
};

/// Sequence numbers run through 31 bits and wrap (KIP-98).
const SEQUENCE_MASK: u32 = 0x7fff_ffff;

impl Stream {
    /// Appends one batch, or says why not.
    pub(crate) fn append(&mut self, time: HybridTime, batch: &BatchHeader) -> BatchOutcome {
        if let Some(producer) = &batch.producer
            && let Some(first) = self.first_answer(time, producer, batch.records)
        {
            return BatchOutcome::Duplicate { base: first.base, time: first.time };
        }
        if let Err(rejection) = self.check(time, batch) {
            return BatchOutcome::Rejected(rejection);
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

    /// What the stream knows of a producer, unless that has expired at `time`.
    fn producer(&self, time: HybridTime, id: ProducerId) -> Option<&ProducerState> {
        self.producers.get(&id).filter(|known| time.since(known.last_seen) < PRODUCER_EXPIRY)
    }

    /// The same batch, if it was accepted before and is remembered.
    fn first_answer(&self, time: HybridTime, producer: &Producer, records: u32) -> Option<RememberedBatch> {
        let known = self.producer(time, producer.id).filter(|known| known.epoch == producer.epoch)?;
        let same = |batch: &&RememberedBatch| batch.sequence == producer.sequence && batch.records == records;
        known.batches.iter().rev().find(same).copied()
    }

    fn check(&self, time: HybridTime, batch: &BatchHeader) -> Result<(), Rejection> {
        if self.fencing_token.is_some() && self.fencing_token != batch.fencing_token {
            return Err(Rejection::Fenced { current: self.fencing_token.clone() });
        }
        if let Some(producer) = &batch.producer {
            self.check_sequence(time, producer)?;
        }
        match batch.match_offset {
            Some(expected) if expected != self.next => {
                Err(Rejection::OffsetMismatch { expected, tail: self.next })
            }
            _ => Ok(()),
        }
    }

    fn check_sequence(&self, time: HybridTime, producer: &Producer) -> Result<(), Rejection> {
        let found = producer.sequence;
        let expected = match self.producer(time, producer.id) {
            None if found == 0 => return Ok(()),
            None => return Err(Rejection::UnknownProducer(producer.id)),
            Some(known) if producer.epoch < known.epoch => {
                return Err(Rejection::ProducerFenced { found: producer.epoch, current: known.epoch });
            }
            Some(known) if producer.epoch > known.epoch => 0,
            Some(known) => known.batches.back().map_or(0, RememberedBatch::next_sequence),
        };
        if found == expected { Ok(()) } else { Err(Rejection::OutOfOrderSequence { found, expected }) }
    }

    fn remember(&mut self, time: HybridTime, producer: &Producer, records: u32, base: Offset) {
        if !self.producers.contains_key(&producer.id) {
            self.make_room_for_producer();
        }
        let state = self.producers.entry(producer.id).or_insert_with(|| ProducerState {
            epoch: producer.epoch,
            last_seen: time,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
        });
        // A new epoch, and a producer that comes back after its expiry, start over.
        if state.epoch != producer.epoch || time.since(state.last_seen) >= PRODUCER_EXPIRY {
            state.epoch = producer.epoch;
            state.batches.clear();
        }
        state.last_seen = time;
        while state.batches.len() >= REMEMBERED_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back(RememberedBatch { sequence: producer.sequence, records, base, time });
    }

    /// Forgets the producers that have been silent longest, if there are as many as a stream may have. The expired
    /// ones are the first to go; until then they take up room and nothing else.
    ///
    /// Several go at once: to look for one at every new producer would take most of the time of an entry full of them.
    fn make_room_for_producer(&mut self) {
        if self.producers.len() < MAX_PRODUCERS_PER_STREAM {
            return;
        }
        let mut by_silence: Vec<_> =
            self.producers.iter().map(|(id, known)| (known.last_seen, *id)).collect();
        by_silence.sort_unstable();
        for (_, id) in by_silence.into_iter().take(PRODUCERS_FORGOTTEN_AT_ONCE) {
            self.producers.remove(&id);
        }
    }
}

impl RememberedBatch {
    /// The sequence number that follows the batch's last.
    const fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(self.records) & SEQUENCE_MASK
    }
}
