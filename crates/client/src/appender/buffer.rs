//! Records on their way into batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use duramen_types::batch::{BatchBuilder, Limits, Record};
use duramen_types::{Clock, Offset};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::{Appended, AppenderOptions, Error};

/// What a record costs besides its bytes: its answer's channel and its place in the batch.
const RECORD_OVERHEAD: usize = 128;

/// Who waits for the answer to some records of a batch.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The position of its first record in the batch.
    first: u32,
    count: u32,
    answer: oneshot::Sender<Result<Appended, Error>>,
}

impl Waiter {
    pub(super) const fn new(
        first: u32,
        count: u32,
        answer: oneshot::Sender<Result<Appended, Error>>,
    ) -> Self {
        Self { first, count, answer }
    }

    pub(super) fn tell(self, result: &Result<Appended, Error>) {
        let result = result.clone().map(|appended| {
            let first: Offset = appended.offsets.start.plus(self.first.into());
            Appended { offsets: first..first.plus(self.count.into()), ..appended }
        });
        // Nobody needs to be interested in the answer.
        let _ = self.answer.send(result);
    }
}

/// A batch that takes no more records.
#[derive(Debug)]
pub(super) struct Collected {
    /// Counts the appender's batches, from 1.
    pub(super) number: u64,
    pub(super) records: BatchBuilder,
    pub(super) waiters: Vec<Waiter>,
    /// Held until the batch has its answer.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Open {
    records: BatchBuilder,
    waiters: Vec<Waiter>,
    room: Option<OwnedSemaphorePermit>,
    since: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last batch that was sealed.
    sealed: u64,
    ready: VecDeque<Collected>,
    open: Option<Open>,
    closed: bool,
}

/// What callers put records into, and the task takes batches from.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    wake: Notify,
    room: Arc<Semaphore>,
    /// Every batch up to and including this number has its answer.
    answered: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    batch_bytes: usize,
    batch_records: u32,
    linger: Duration,
    buffer_bytes: u32,
}

impl Buffer {
    pub(super) fn new(options: &AppenderOptions, clock: Arc<dyn Clock>) -> Self {
        let buffer_bytes = u32::try_from(options.buffer_bytes).unwrap_or(u32::MAX >> 1).max(1);
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            room: Arc::new(Semaphore::new(usize::try_from(buffer_bytes).unwrap_or(usize::MAX >> 4))),
            answered: watch::Sender::new(0),
            clock,
            limits: options.limits,
            batch_bytes: options.batch_bytes.min(options.limits.max_batch_bytes),
            batch_records: options.batch_records.clamp(1, options.limits.max_records),
            linger: options.linger,
            buffer_bytes,
        }
    }

    /// How much room a record takes.
    pub(super) fn cost(record: &Record) -> usize {
        let len = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
        RECORD_OVERHEAD + len(&record.key) + len(&record.value) + headers
    }

    /// Waits for room. More than the whole buffer waits for all of it.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.buffer_bytes);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| Error::Closed)
    }

    /// Puts a record into the open batch, or a new one if it doesn't fit.
    pub(super) fn add(
        &self,
        record: &Record,
        answer: oneshot::Sender<Result<Appended, Error>>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.open.as_ref().is_some_and(|open| open.records.size_with(record) > self.batch_bytes) {
            state.seal();
        }
        let mut open = state.open.take().unwrap_or_else(|| self.open());
        let first = open.records.count();
        let pushed = open.records.push_record(record);
        if pushed.is_ok() {
            open.waiters.push(Waiter::new(first, 1, answer));
            open.take_room(room);
        }
        let is_full = open.records.size() >= self.batch_bytes || open.records.count() >= self.batch_records;
        if !open.records.is_empty() {
            state.open = Some(open);
        }
        if is_full {
            state.seal();
        }
        drop(state);
        self.wake.notify_one();
        Ok(pushed?)
    }

    /// Puts records into a batch of their own.
    pub(super) fn add_batch(
        &self,
        records: &[Record],
        answer: oneshot::Sender<Result<Appended, Error>>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Error> {
        let mut own = self.open();
        for record in records {
            own.records.push_record(record)?;
        }
        if own.records.is_empty() {
            return Err(duramen_types::batch::Error::Empty.into());
        }
        own.waiters.push(Waiter::new(0, own.records.count(), answer));
        own.take_room(room);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.seal();
        state.open = Some(own);
        state.seal();
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn open(&self) -> Open {
        Open {
            records: BatchBuilder::new(self.limits),
            waiters: Vec::new(),
            room: None,
            since: self.clock.monotonic(),
        }
    }

    /// Takes the next batch that is due; `None` once the buffer is closed and empty. Loses nothing when dropped.
    pub(super) async fn next(&self) -> Option<Collected> {
        loop {
            let woken = self.wake.notified();
            let wait = {
                let mut state = self.state.lock();
                if let Some(ready) = state.ready.pop_front() {
                    return Some(ready);
                }
                match &state.open {
                    None if state.closed => return None,
                    None => None,
                    Some(open) => {
                        let age = self.clock.monotonic().saturating_sub(open.since);
                        if age >= self.linger || state.closed {
                            state.seal();
                            continue;
                        }
                        Some(self.linger.saturating_sub(age))
                    }
                }
            };
            match wait {
                None => woken.await,
                Some(linger) => {
                    // Woken or not, the loop looks again.
                    let _ = tokio::time::timeout(linger, woken).await;
                }
            }
        }
    }

    /// Takes everything, due or not.
    pub(super) fn take_all(&self) -> VecDeque<Collected> {
        let mut state = self.state.lock();
        state.seal();
        std::mem::take(&mut state.ready)
    }

    /// Refuses further records.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.wake.notify_one();
    }

    /// Sends what is there without lingering, and waits for its answers.
    pub(super) async fn flush(&self) {
        let target = {
            let mut state = self.state.lock();
            state.seal();
            state.sealed
        };
        self.wake.notify_one();
        let mut answered = self.answered.subscribe();
        // The sender lives as long as this buffer.
        let _ = answered.wait_for(|answered| *answered >= target).await;
    }

    /// Records that every batch before `oldest` has its answer; `None`: every batch that was taken.
    pub(super) fn set_oldest_unanswered(&self, oldest: Option<u64>) {
        let state = self.state.lock();
        let waiting = oldest.or_else(|| state.ready.front().map(|batch| batch.number));
        let through = waiting.map_or(state.sealed, |oldest| oldest.saturating_sub(1));
        self.answered.send_if_modified(|answered| {
            let is_new = *answered != through;
            *answered = through;
            is_new
        });
    }
}

impl Open {
    fn take_room(&mut self, room: OwnedSemaphorePermit) {
        match &mut self.room {
            None => self.room = Some(room),
            Some(held) => held.merge(room),
        }
    }
}

impl State {
    fn seal(&mut self) {
        if let Some(Open { records, waiters, room, since: _ }) = self.open.take() {
            self.sealed += 1;
            self.ready.push_back(Collected { number: self.sealed, records, waiters, room });
        }
    }
}
