//! Reads: one iterator over memory, local segments and archive.

mod open;

use std::collections::VecDeque;
use std::sync::Arc;

use duramen_archive::Blocking;
use duramen_types::batch::Batch;
use duramen_types::{Entry, HybridTime, Index, Offset, StreamId};
use tokio::sync::Notify;

use super::{Node, corrupt, unread};
use crate::api::{Code, Error, ReadBatch, Result, StreamRef};
use crate::archive::ColdReader;
use crate::index::Row;
use crate::shard::Shard;
use crate::telemetry::ReadSource;

/// Bytes of entries fetched from the log at once by a sequential reader.
const READ_AHEAD: u64 = 1 << 20;

/// What a read may see: the live stream, or the stream as it was at a cut.
#[derive(Debug, Clone)]
enum Scope {
    Live(Arc<Notify>),
    Past { first: Offset, tail: Offset },
}

/// A read under way: batches in order, until its limits, the tail, or for ever when it follows.
#[derive(Debug)]
pub struct ReadSession {
    node: Node,
    shard: Arc<Shard>,
    name: StreamRef,
    stream: StreamId,
    scope: Scope,
    next: Offset,
    follow: bool,
    records_left: u64,
    bytes_left: u64,
    served: bool,
    /// What the hot index gave and was not served yet.
    rows: VecDeque<Row>,
    /// Entries fetched and not passed yet, in order.
    entries: VecDeque<(Index, Entry)>,
    last_entry: Option<Index>,
    cold: Option<ColdReader>,
}

impl ReadSession {
    /// The next batch; `None` at the end. Cancel-safe: a batch is taken only when it is returned.
    ///
    /// Fails with [`Code::OutOfRange`] when a trim overtakes the read, and with [`Code::UnknownStream`] when the
    /// stream is deleted under it.
    pub async fn next(&mut self) -> Option<Result<ReadBatch>> {
        if self.records_left == 0 || (self.served && self.bytes_left == 0) {
            return None;
        }
        loop {
            // Registered before the state is looked at, so that no wake-up is lost in between.
            let scope = self.scope.clone();
            let mut woken = match &scope {
                Scope::Live(notify) => Some(Box::pin(notify.notified())),
                Scope::Past { .. } => None,
            };
            if let Some(woken) = &mut woken {
                woken.as_mut().enable();
            }
            let tail = match self.tail() {
                Ok(tail) => tail,
                Err(error) => return Some(Err(error)),
            };
            if self.next < tail {
                let batch = self.fetch(tail).await;
                return match batch {
                    Ok(batch)
                        if self.served
                            && u64::try_from(batch.batch.len()).unwrap_or(u64::MAX) > self.bytes_left =>
                    {
                        // The batch is left for another read: this one has reached its limit.
                        self.records_left = 0;
                        None
                    }
                    Ok(batch) => {
                        self.pass(&batch);
                        Some(Ok(batch))
                    }
                    Err(error) => Some(Err(error)),
                };
            }
            match woken {
                Some(woken) if self.follow => woken.await,
                _ => return None,
            }
        }
    }

    /// The next batches: the first as [`next`](Self::next) gives it, and as many of those behind it as are in memory,
    /// until they have `bytes` bytes together. Cancel-safe, and fails, as `next` is and does.
    pub async fn next_together(&mut self, bytes: usize) -> Option<Result<Vec<ReadBatch>>> {
        let first = match self.next().await? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let tail = first.tail;
        let mut taken = first.batch.len();
        let mut batches = vec![first];
        while taken < bytes
            && let Some(batch) = self.at_hand(tail)
        {
            taken = taken.saturating_add(batch.batch.len());
            batches.push(batch);
        }
        Some(Ok(batches))
    }

    /// The next batch, if it is in an entry that was fetched already and no limit is met.
    fn at_hand(&mut self, tail: Offset) -> Option<ReadBatch> {
        if self.cold.is_some() || self.records_left == 0 || self.next >= tail {
            return None;
        }
        while self.rows.front().is_some_and(|row| row.end() <= self.next) {
            self.rows.pop_front();
        }
        let row = self.rows.front().copied().filter(|row| row.base <= self.next)?;
        while self.entries.front().is_some_and(|(index, _)| *index < row.index) {
            self.entries.pop_front();
        }
        if self.entries.front().is_none_or(|(index, _)| *index != row.index) {
            return None;
        }
        // What goes wrong here goes wrong again for the next call, which tells.
        let batch = self.batch_of_fetched(row).ok()?;
        let batch = self.serve(batch, row.base, row.records, row.time, tail);
        let is_within = u64::try_from(batch.batch.len()).is_ok_and(|bytes| bytes <= self.bytes_left);
        is_within.then(|| {
            self.pass(&batch);
            batch
        })
    }

    /// The next offset that the read will serve.
    pub const fn position(&self) -> Offset {
        self.next
    }

    /// The stream's first readable offset and its tail, as far as this read may see.
    pub fn bounds(&self) -> Result<(Offset, Offset)> {
        match &self.scope {
            Scope::Past { first, tail } => Ok((*first, *tail)),
            Scope::Live(_) => {
                let state = self.shard.view.state.read();
                let stream = state.stream(self.stream).ok_or_else(|| self.deleted())?;
                Ok((stream.trimmed, stream.next))
            }
        }
    }

    fn deleted(&self) -> Error {
        Error::new(
            Code::UnknownStream,
            format!(
                "stream {} was deleted; what it held can be read with `as_of` an earlier time",
                self.name
            ),
        )
    }

    /// The end of what may be served now.
    fn tail(&self) -> Result<Offset> {
        let (first, tail) = self.bounds()?;
        if self.next < first {
            return Err(below_trim(&self.name, self.next, first));
        }
        Ok(tail)
    }

    fn pass(&mut self, batch: &ReadBatch) {
        let source = if self.cold.is_some() { ReadSource::Archive } else { ReadSource::Local };
        let bytes = u64::try_from(batch.batch.len()).unwrap_or(u64::MAX);
        self.node.metrics().read_served(source, batch.end.since(batch.from), bytes);
        self.records_left = self.records_left.saturating_sub(batch.end.since(batch.from));
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.served = true;
        self.next = batch.end;
    }

    async fn fetch(&mut self, tail: Offset) -> Result<ReadBatch> {
        // A read in the archive goes on there as far as the archive reaches: it is read ahead.
        if let Some(batch) = self.continue_cold(tail).await? {
            return Ok(batch);
        }
        while self.rows.front().is_some_and(|row| row.end() <= self.next) {
            self.rows.pop_front();
        }
        let damage = match self.fetch_local(tail).await {
            Ok(Some(batch)) => return Ok(batch),
            Ok(None) => None,
            Err(error) if error.code == Code::Corruption => Some(error),
            Err(error) => return Err(error),
        };
        // What the hot index still names may be purged from the log: nothing of it is used then.
        self.rows.clear();
        self.entries.clear();
        // Older than the local segments, in an index file that is gone, or damaged: the archive has it.
        let found = self.fetch_cold(tail).await;
        let Some(damage) = damage else { return found };
        self.node.met_damage(&damage);
        // Why the archive has it not either is in the log; the damage is what must be mended.
        found.map_err(|error| {
            tracing::error!(stream = %self.name, error = %error.message, "the archive can't stand in for it");
            damage
        })
    }

    /// The next batch from memory or local segments; `None` where these don't hold it.
    async fn fetch_local(&mut self, tail: Offset) -> Result<Option<ReadBatch>> {
        if self.rows.front().is_none_or(|row| row.base > self.next) {
            self.locate().await?;
        }
        let Some(row) = self.rows.front().copied().filter(|row| row.base <= self.next) else {
            return Ok(None);
        };
        let batch = self.read_batch(row).await?;
        Ok(batch.map(|batch| self.serve(batch, row.base, row.records, row.time, tail)))
    }

    async fn fetch_cold(&mut self, tail: Offset) -> Result<ReadBatch> {
        let reader = self.node.cold_reader(&self.shard, &self.name, self.stream, self.next, tail).await?;
        self.cold = Some(reader);
        match self.continue_cold(tail).await? {
            Some(batch) => Ok(batch),
            None if *self.shard.archived.borrow() < self.shard.view.progress().user_end => Err(Error::new(
                Code::Unavailable,
                format!(
                    "stream {}: offset {} is in the local log, which has no index file for it any more; it can be read as \
                     soon as it is archived",
                    self.name, self.next
                ),
            )),
            None => Err(Error::new(
                Code::Corruption,
                format!(
                    "stream {}: offset {} is neither in the local segments nor in the archive; run \
                     `duramen-restore verify`",
                    self.name, self.next
                ),
            )),
        }
    }

    /// Finds the rows from the next offset on: in memory at once, in files on a thread that may block.
    async fn locate(&mut self) -> Result<()> {
        self.rows.clear();
        if self.shard.view.index.locate_in_memory(self.stream, self.next, &mut self.rows) {
            return Ok(());
        }
        let (view, stream, next) = (Arc::clone(&self.shard.view), self.stream, self.next);
        let (hint, mut rows) = (self.last_entry, std::mem::take(&mut self.rows));
        let found = blocking(self.node.blocking(), move || {
            let found = view.index.locate(stream, next, hint, &mut rows);
            (found, rows)
        });
        let (found, rows) = found.await?;
        self.rows = rows;
        found.map(drop).map_err(|error| corrupt(&self.name, &error))
    }

    /// The next batch of the read in the archive that is under way; `None` where there is none, or at its end.
    async fn continue_cold(&mut self, tail: Offset) -> Result<Option<ReadBatch>> {
        let Some(cold) = self.cold.as_mut().filter(|cold| cold.position() == self.next) else {
            return Ok(None);
        };
        match cold.next().await? {
            Some((base, batch, time)) => {
                let records = batch.count();
                Ok(Some(self.serve(batch, base, records, time, tail)))
            }
            None => {
                self.cold = None;
                Ok(None)
            }
        }
    }

    /// The row's batch from the log; `None` where the log was purged beyond it.
    async fn read_batch(&mut self, row: Row) -> Result<Option<Batch>> {
        while self.entries.front().is_some_and(|(index, _)| *index < row.index) {
            self.entries.pop_front();
        }
        if self.entries.front().is_none_or(|(index, _)| *index != row.index) {
            self.entries.clear();
            if !self.read_log(row.index).await? {
                return Ok(None);
            }
        }
        self.batch_of_fetched(row).map(Some)
    }

    /// The row's batch from its entry, which is the first of those that were fetched.
    fn batch_of_fetched(&mut self, row: Row) -> Result<Batch> {
        self.last_entry = Some(row.index);
        let found = self.entries.front().and_then(|(_, entry)| {
            entry.batches().nth(usize::try_from(row.item).unwrap_or(usize::MAX)).map(|(_, bytes)| bytes)
        });
        let bytes = found.ok_or_else(|| {
            let reason = format!("entry {} has no batch {}, which the hot index names", row.index, row.item);
            corrupt(&self.name, &reason)
        })?;
        Batch::from_trusted(bytes).map_err(|error| corrupt(&self.name, &error))
    }

    /// Fetches the entry at `index`, and those after it that the stream's next rows are in as long as they follow
    /// each other; false where they are purged.
    async fn read_log(&mut self, index: Index) -> Result<bool> {
        let mut end = index.next();
        for row in &self.rows {
            if row.index == end {
                end = end.next();
            } else if row.index > end {
                break;
            }
        }
        let (wal, shard) = (self.node.wal(), self.shard.id);
        let found = match wal.entries_in_memory(shard, index..end, READ_AHEAD) {
            Ok(None) => {
                let wal = wal.clone();
                blocking(self.node.blocking(), move || wal.entries(shard, index..end, READ_AHEAD)).await?
            }
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        let found = match found {
            Err(duramen_wal::Error::Purged { .. }) => return Ok(false),
            found => found.map_err(|error| corrupt(&self.name, &unread(&error)))?,
        };
        for (id, payload) in found {
            let entry = Entry::decode(payload).map_err(|error| corrupt(&self.name, &error))?;
            self.entries.push_back((id.index, entry));
        }
        Ok(true)
    }

    fn serve(&self, batch: Batch, base: Offset, records: u32, time: HybridTime, tail: Offset) -> ReadBatch {
        let from = self.next.max(base);
        let end = base.plus(u64::from(records)).min(from.plus(self.records_left)).min(tail);
        ReadBatch { batch: batch.with_base_offset(base), base, records, from, end, time, tail }
    }
}

/// Runs what may wait for the disk where it holds up no other task.
async fn blocking<T: Send + 'static>(on: Blocking, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = on.run(work).await;
    done.map_err(|error| Error::new(Code::Unavailable, format!("the read was interrupted: {error}")))
}

fn below_trim(stream: &StreamRef, at: Offset, first: Offset) -> Error {
    Error::new(
        Code::OutOfRange,
        format!(
            "stream {stream}: offset {at} is trimmed, the first readable offset is {first}: begin there, or read the \
             stream as of an instant before the trim"
        ),
    )
    .with_first_readable(first)
}
