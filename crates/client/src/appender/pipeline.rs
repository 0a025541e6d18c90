//! Which batch is sent next, and what becomes of it when its answer comes or does not: the rules, without I/O.
//!
//! Batches are sent in order and answered in order. What may be sent again, and when:
//!
//! - **Idempotent.** Each batch is stamped with a sequence number when it is first sent, and keeps it: sent again, it
//!   is appended once, as long as the stream remembers it: no batch is sent five or more after one without an answer. A batch that was not appended leaves a hole, so that the node refuses all behind it with
//!   `out_of_order_sequence`. From then on the pipeline _drains_: it sends nothing, and collects the answers to what is
//!   in flight. Then it sends the collected ones again, in order. If the first failure was final, its number is never
//!   used, so a new epoch begins and the rest is stamped anew; the new epoch also shuts out copies of the old one that
//!   are still on their way.
//! - **Not idempotent.** A refusal that had no effect is repeated only if nothing was in flight behind it, which keeps
//!   the order. What is in flight when the session breaks has an unknown outcome, and is not sent again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use duramen_types::batch::{self, Batch, BatchBuilder, Codec, Limits};
use duramen_types::{Producer, ProducerId};

use super::buffer::{Collected, Waiter};
use crate::append::APPEND;
use crate::retry::Effect;
use crate::{Appended, Error, ErrorCode};

/// How many batches a stream remembers of a producer (Kafka's number): more in flight could not be repeated safely.
pub(super) const REMEMBERED_BATCHES: usize = 5;

/// Sequence numbers run through 31 bits and wrap (KIP-98); epochs through 15.
const SEQUENCE_MASK: u32 = 0x7fff_ffff;
const LAST_EPOCH: u16 = 0x7fff;

/// A batch between the buffer and its answer.
#[derive(Debug)]
struct Pending {
    content: Content,
    number: u64,
    count: u32,
    waiters: Vec<Waiter>,
    room: Option<tokio::sync::OwnedSemaphorePermit>,
    /// When it was last sent.
    sent: Duration,
    /// When it was first refused.
    refused: Option<Duration>,
    /// Whether a copy of it may have been appended, or may be yet, without an answer.
    has_copies: bool,
    /// Whether it must first be asked after under the stamp that it has.
    is_adrift: bool,
}

#[derive(Debug)]
enum Content {
    Collected(Box<BatchBuilder>),
    Encoded(Batch),
}

/// A batch whose fate is known; its room is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Done {
    waiters: Vec<Waiter>,
    result: Result<Appended, Error>,
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Done {
    pub(super) fn tell(self) {
        for waiter in self.waiters {
            waiter.tell(&self.result);
        }
    }
}

impl Pending {
    fn done(self, result: Result<Appended, Error>) -> Done {
        Done { waiters: self.waiters, result, _room: self.room }
    }

    /// Its last attempt failed; what became of earlier ones counts too.
    fn fail(self, error: Error) -> Done {
        let error = if self.has_copies && !error.may_have_had_effect() {
            Error::lost(
                APPEND,
                Effect::Once,
                format!("an earlier attempt had no answer, and the last failed: {error}"),
            )
        } else {
            error
        };
        self.done(Err(error))
    }
}

#[derive(Debug, Clone, Copy)]
struct Stamps {
    id: ProducerId,
    epoch: u16,
    next: u32,
}

impl Stamps {
    /// The stamp of the next batch.
    const fn stamp(self) -> Producer {
        Producer { id: self.id, epoch: self.epoch, sequence: self.next }
    }

    fn advance(&mut self, records: u32) {
        self.next = self.next.wrapping_add(records) & SEQUENCE_MASK;
    }

    /// The following epoch of the same producer, if it has one.
    fn next_epoch(self) -> Option<Self> {
        (self.epoch < LAST_EPOCH).then(|| Self { epoch: self.epoch + 1, next: 0, ..self })
    }
}

/// Sending is paused until what is in flight has its answers.
#[derive(Debug, Clone, Copy, Default)]
struct Drain {
    new_epoch: bool,
    /// The batch that left the hole may be appended yet, and then the copies of those behind it too.
    hole_may_close: bool,
    /// At least how long to wait before sending again.
    delay: Duration,
}

/// An answer to a batch that is not the one whose answer is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfTurn {
    pub(super) expected: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Pipeline {
    idempotent: bool,
    compression: Codec,
    max_in_flight: usize,
    retry_for: Duration,
    stamps: Option<Stamps>,
    queue: VecDeque<Pending>,
    in_flight: VecDeque<Pending>,
    again: VecDeque<Pending>,
    drain: Option<Drain>,
}

impl Pipeline {
    pub(super) fn new(
        idempotent: bool,
        compression: Codec,
        max_in_flight: usize,
        retry_for: Duration,
    ) -> Self {
        let most = if idempotent { REMEMBERED_BATCHES } else { usize::MAX };
        Self {
            idempotent,
            compression,
            max_in_flight: max_in_flight.clamp(1, most),
            retry_for,
            stamps: None,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            drain: None,
        }
    }

    pub(super) const fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Whether a producer must be allocated before anything can be sent.
    pub(super) const fn needs_producer(&self) -> bool {
        self.idempotent && self.stamps.is_none()
    }

    /// Stamps with this new producer from now on.
    pub(super) fn set_producer(&mut self, id: ProducerId) {
        self.stamps = Some(Stamps { id, epoch: 0, next: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.again.is_empty()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The number of the oldest batch without its answer.
    pub(super) fn oldest(&self) -> Option<u64> {
        let fronts = [&self.again, &self.in_flight, &self.queue];
        fronts.into_iter().filter_map(|batches| batches.front().map(|batch| batch.number)).min()
    }

    /// When the oldest batch in flight was sent.
    pub(super) fn oldest_sent(&self) -> Option<Duration> {
        self.in_flight.front().map(|batch| batch.sent)
    }

    /// Whether a further batch could be sent at once.
    pub(super) fn has_room(&self) -> bool {
        self.drain.is_none() && self.queue.is_empty() && self.in_flight.len() < self.max_in_flight
    }

    pub(super) fn push(&mut self, collected: Collected) {
        let Collected { number, records, waiters, room } = collected;
        self.queue.push_back(Pending {
            count: records.count(),
            content: Content::Collected(Box::new(records)),
            number,
            waiters,
            room,
            sent: Duration::ZERO,
            refused: None,
            has_copies: false,
            is_adrift: false,
        });
    }

    /// The next batch to send, with its number; it is in flight from now on. `Err` is a batch that can't be encoded.
    pub(super) fn send(&mut self, now: Duration) -> Option<Result<(u64, Bytes), Done>> {
        let is_paused = self.drain.is_some() && !self.is_front_adrift();
        if is_paused || self.in_flight.len() >= self.max_in_flight || self.needs_producer() {
            return None;
        }
        let mut batch = self.queue.pop_front_if(|batch| {
            // The stream must still remember the oldest one without an answer when that is asked after again.
            let unanswered = [self.in_flight.front(), self.again.front()].into_iter().flatten();
            let oldest = unanswered.map(|other| other.number).min().unwrap_or(batch.number);
            !self.idempotent || batch.number.saturating_sub(oldest) < REMEMBERED_BATCHES as u64
        })?;
        if let Err(error) = batch.content.encode(self.stamps, self.compression) {
            return Some(Err(batch.done(Err(error.into()))));
        }
        let Content::Encoded(encoded) = &batch.content else { return None };
        if let Some(stamps) = &mut self.stamps
            && encoded.producer() == Some(stamps.stamp())
        {
            stamps.advance(batch.count);
        }
        let next = (batch.number, encoded.bytes().clone());
        batch.sent = now;
        self.in_flight.push_back(batch);
        Some(Ok(next))
    }

    /// Takes the answer to the oldest batch in flight; gives the batch if that settles its fate.
    pub(super) fn answered(
        &mut self,
        number: u64,
        result: Result<Appended, Error>,
        now: Duration,
    ) -> Result<Option<Done>, OutOfTurn> {
        let expected = self.in_flight.front().map(|batch| batch.number);
        let Some(mut batch) = self.in_flight.pop_front_if(|batch| batch.number == number) else {
            return Err(OutOfTurn { expected });
        };
        let error = match result {
            Ok(appended) if appended.offsets.end.since(appended.offsets.start) == u64::from(batch.count) => {
                return Ok(Some(batch.done(Ok(appended))));
            }
            Ok(appended) => {
                let found = appended.offsets.end.since(appended.offsets.start);
                let reason = format!("it acknowledges {found} records of {}", batch.count);
                return Ok(Some(batch.done(Err(Error::protocol(APPEND, Effect::Once, reason)))));
            }
            Err(error) => error,
        };
        let is_patient = now.saturating_sub(*batch.refused.get_or_insert(now)) < self.retry_for;
        if !self.idempotent {
            // With nothing behind it, sending it again keeps the order.
            if !(is_patient && self.in_flight.is_empty() && error.may_retry(Effect::Once)) {
                return Ok(Some(batch.done(Err(error))));
            }
            self.drain(error.retry_after());
            self.keep(batch);
            return Ok(None);
        }
        if let Some(drain) = self.drain
            && error.code() == ErrorCode::OutOfOrderSequence
        {
            // A hole before it, not the batch itself, is why it was refused: it was not appended so far.
            if drain.hole_may_close && batch.has_copies {
                return Ok(Some(batch.fail(error)));
            }
            batch.is_adrift = false;
            self.keep(batch);
            return Ok(None);
        }
        // The stream has forgotten a producer that was silent for long.
        let is_forgotten = error.code() == ErrorCode::UnknownProducer && !batch.has_copies;
        let drain = self.drain(error.retry_after());
        if is_patient && (is_forgotten || error.is_retryable()) {
            drain.new_epoch |= is_forgotten;
            batch.has_copies |= error.may_have_had_effect();
            batch.is_adrift = batch.has_copies;
            self.keep(batch);
            return Ok(None);
        }
        drain.new_epoch = true;
        drain.hole_may_close |= batch.has_copies || error.may_have_had_effect();
        if error.code() == ErrorCode::ProducerFenced {
            self.stamps = None;
        }
        Ok(Some(batch.fail(error)))
    }

    /// Ends the pause once everything in flight has its answer; gives how long to wait at least before sending again,
    /// or what can't be sent again.
    pub(super) fn resume(&mut self) -> Option<(Duration, Vec<Done>)> {
        let drain = self.drain.filter(|_| self.in_flight.is_empty() && !self.is_front_adrift())?;
        let mut in_doubt = false;
        for batch in &mut self.again {
            // Where one before it may be appended yet, so may its own copies after that.
            batch.is_adrift |= in_doubt && batch.has_copies;
            in_doubt |= batch.is_adrift;
        }
        if drain.new_epoch && in_doubt {
            // Only under its old stamp is it safe to ask again about a batch that may have been appended.
            let (adrift, rest) =
                std::mem::take(&mut self.again).into_iter().partition(|batch| batch.is_adrift);
            self.again = rest;
            self.put_first(adrift);
            return Some((drain.delay, Vec::new()));
        }
        self.drain = None;
        let again = std::mem::take(&mut self.again);
        self.put_first(again);
        let failed = if drain.new_epoch { self.begin_epoch() } else { Vec::new() };
        Some((drain.delay, failed))
    }

    /// The session broke. `was_open` tells whether what was in flight may have reached the node.
    pub(super) fn disconnected(&mut self, was_open: bool, reason: &str) -> Vec<Done> {
        let mut in_flight = std::mem::take(&mut self.in_flight);
        if was_open && !self.idempotent {
            let lost = || Err(Error::lost(APPEND, Effect::Once, reason));
            return in_flight.into_iter().map(|batch| batch.done(lost())).collect();
        }
        for batch in &mut in_flight {
            batch.is_adrift |= was_open;
            batch.has_copies |= was_open;
        }
        self.put_first(in_flight);
        if self.drain.is_some_and(|drain| !drain.new_epoch) {
            // All of them go again in their order.
            self.drain = None;
            let again = std::mem::take(&mut self.again);
            self.put_first(again);
        }
        Vec::new()
    }

    /// Nothing can be sent: all batches fail.
    pub(super) fn give_up(&mut self, error: &Error) -> Vec<Done> {
        let mut batches = std::mem::take(&mut self.again);
        batches.append(&mut self.in_flight);
        batches.append(&mut self.queue);
        self.drain = None;
        self.stamps = self.stamps.and_then(Stamps::next_epoch);
        batches.into_iter().map(|batch| batch.fail(error.clone())).collect()
    }

    /// Pauses sending, for at least `delay` after all in flight has its answers.
    fn drain(&mut self, delay: Option<Duration>) -> &mut Drain {
        let drain = self.drain.get_or_insert_default();
        drain.delay = drain.delay.max(delay.unwrap_or_default());
        drain
    }

    /// Keeps a batch, in order, to be sent again after the pause.
    fn keep(&mut self, batch: Pending) {
        let place = self.again.partition_point(|other| other.number < batch.number);
        self.again.insert(place, batch);
    }

    fn is_front_adrift(&self) -> bool {
        self.queue.front().is_some_and(|batch| batch.is_adrift)
    }

    /// Puts batches before those in the queue, all in the order of their numbers.
    fn put_first(&mut self, mut batches: VecDeque<Pending>) {
        batches.append(&mut self.queue);
        batches.make_contiguous().sort_by_key(|batch| batch.number);
        self.queue = batches;
    }

    /// A new epoch, or a new producer where there is none left: what was stamped loses its stamp.
    fn begin_epoch(&mut self) -> Vec<Done> {
        self.stamps = self.stamps.and_then(Stamps::next_epoch);
        let mut failed = Vec::new();
        for mut batch in std::mem::take(&mut self.queue) {
            (batch.is_adrift, batch.has_copies) = (false, false);
            match batch.content.remove_stamp() {
                Ok(()) => self.queue.push_back(batch),
                Err(error) => failed.push(batch.done(Err(error.into()))),
            }
        }
        failed
    }
}

impl Content {
    /// Encodes what is not encoded yet, with the next stamp.
    fn encode(&mut self, stamps: Option<Stamps>, compression: Codec) -> Result<(), batch::Error> {
        if let Self::Collected(records) = self {
            let empty = BatchBuilder::new(Limits::default());
            let options = batch::Options { compression, producer: stamps.map(Stamps::stamp), arrival: None };
            *self = Self::Encoded(std::mem::replace(&mut **records, empty).finish(options)?);
        }
        Ok(())
    }

    /// Goes back to plain records, to be encoded with another stamp.
    fn remove_stamp(&mut self) -> Result<(), batch::Error> {
        let Self::Encoded(encoded) = self else { return Ok(()) };
        let limits = Limits {
            max_batch_bytes: usize::MAX,
            max_record_bytes: usize::MAX,
            max_records: u32::MAX,
            max_uncompressed_bytes: usize::MAX,
        };
        let mut records = BatchBuilder::new(limits);
        for record in &encoded.records(duramen_types::Offset::ZERO)? {
            let record = record?;
            records.push(record.timestamp, record.key, record.value, record.headers())?;
        }
        *self = Self::Collected(Box::new(records));
        Ok(())
    }
}
