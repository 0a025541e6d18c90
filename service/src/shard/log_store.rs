//! A shard's log for the consensus library, on the node's one WAL.
//!
//! The library's core task awaits these calls inline, so none of them blocks on the disk: they hand records to the
//! WAL's writer. Only what must be durable before the library may go on (a vote, a truncation) is waited for.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use duramen_types::{EntryId, Index, ShardId};
use duramen_wal::{Record, Wal};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::raft::{
    Proposal, RaftEntry, RaftLogId, RaftVote, ShardRaft, decode_vote, encode_vote, entry_id, from_log,
    io_error, log_id, to_log,
};

/// Bytes of entries that one read of the log gives at most (but always one entry).
const READ_BYTES: u64 = 4 << 20;

/// Entries that were proposed here and are not yet applied, as they were proposed: with those who wait for them,
/// and without being decoded again.
#[derive(Debug, Default)]
pub struct Unapplied(Mutex<VecDeque<RaftEntry>>);

impl Unapplied {
    fn push(&self, entry: RaftEntry) {
        self.0.lock().push_back(entry);
    }

    fn truncate(&self, from: u64) {
        self.0.lock().retain(|entry| entry.log_id.index() < from);
    }

    /// Forgets entries through `index`.
    pub fn applied(&self, index: Index) {
        let mut entries = self.0.lock();
        while entries.front().is_some_and(|entry| entry.log_id.index() <= index.get()) {
            entries.pop_front();
        }
    }

    /// The entries from `start` to before `end`, if the first of them is here.
    fn range(&self, start: u64, end: u64) -> Option<Vec<RaftEntry>> {
        let entries = self.0.lock();
        let first = entries.front()?.log_id.index();
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        let found: Vec<_> =
            entries.iter().skip(skip).take_while(|entry| entry.log_id.index() < end).cloned().collect();
        (!found.is_empty()).then_some(found)
    }
}

/// One shard's part of the WAL.
#[derive(Debug, Clone)]
pub struct LogStore {
    shard: ShardId,
    wal: Wal,
    unapplied: Arc<Unapplied>,
}

impl LogStore {
    pub fn new(shard: ShardId, wal: Wal) -> Self {
        Self { shard, wal, unapplied: Arc::new(Unapplied::default()) }
    }

    pub fn unapplied(&self) -> Arc<Unapplied> {
        Arc::clone(&self.unapplied)
    }

    /// Submits a record and waits until it is durable.
    async fn write(&self, record: Record) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let completion = Box::new(move |result| {
            // The library may have given the shard up meanwhile.
            let _ = done.send(result);
        });
        self.wal.submit(vec![record], completion);
        written.await.map_err(io_error)?.map_err(io_error)
    }

    fn read(&self, start: u64, end: u64, max_bytes: u64) -> io::Result<Vec<RaftEntry>> {
        if let Some(entries) = self.unapplied.range(start, end) {
            return Ok(entries);
        }
        let entries =
            self.wal.entries(self.shard, Index::new(start)..Index::new(end), max_bytes).map_err(io_error)?;
        entries.into_iter().map(|(id, payload)| from_log(id, payload).map_err(io_error)).collect()
    }
}

impl RaftLogReader<ShardRaft> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        let mut next = start;
        // The library wants the whole range; the WAL gives it in bounded reads.
        while next < end {
            let more = self.read(next, end, READ_BYTES)?;
            let Some(last) = more.last() else { break };
            next = last.log_id.index().saturating_add(1);
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.wal.log_state(self.shard).vote;
        vote.map(|bytes| decode_vote(&bytes)).transpose().map_err(io_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }

    /// The last entry of each term, by the WAL's index. Left to itself, the library reads whole entries to learn their
    /// terms: at every start, and more of them with every term that the log holds.
    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<RaftLogId>,
    ) -> Result<Vec<RaftLogId>, io::Error> {
        let term_of = |index: u64| {
            let lacking =
                || io::Error::other(format!("shard {}: entry {index} is not in the log", self.shard));
            self.wal.term_of(self.shard, Index::new(index)).ok_or_else(lacking)
        };
        let last = entry_id(range.end());
        let mut ids = Vec::new();
        let mut begin = entry_id(range.start());
        while begin.term < last.term {
            // `low` is of the term that begins there, `high` of a later one.
            let (mut low, mut high) = (begin.index.get(), last.index.get());
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if term_of(middle)? == begin.term {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            ids.push(log_id(EntryId { index: Index::new(low), term: begin.term }));
            begin = EntryId { index: Index::new(high), term: term_of(high)? };
        }
        ids.push(log_id(last));
        Ok(ids)
    }
}

impl RaftLogStorage<ShardRaft> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<ShardRaft>, io::Error> {
        let state = self.wal.log_state(self.shard);
        let purged = state.purged.map(log_id);
        let last = state.last.map(log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.max(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Durable when it returns: a vote that a crash takes back could elect two leaders in one term.
    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.write(Record::Vote { shard: self.shard, bytes: encode_vote(vote) }).await
    }

    /// Rides with the next frame: losing it only makes a restart learn the commit index again from an election.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        let record = Record::Committed { shard: self.shard, id: entry_id(&committed) };
        self.wal.note(vec![record]).map_err(io_error)
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.wal.log_state(self.shard).committed.map(log_id))
    }

    /// Queues the entries; `callback` runs once their frame survives a power cut.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<ShardRaft>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + Send,
        I::IntoIter: Send,
    {
        let mut records = Vec::new();
        let mut proposals = Vec::new();
        for entry in entries {
            let id: EntryId = entry_id(&entry.log_id);
            records.push(Record::Entry { shard: self.shard, id, payload: to_log(&entry).payload().clone() });
            if let EntryPayload::Normal(proposal) = &entry.payload {
                proposals.push(proposal.clone());
            }
            self.unapplied.push(entry);
        }
        let completion = Box::new(move |result: Result<(), duramen_wal::Error>| {
            callback.io_completed(result.map_err(io_error));
        });
        self.wal.submit(records, completion);
        proposals.iter().for_each(Proposal::logged);
        Ok(())
    }

    /// Durable when it returns. The bytes stay in their segments; replay drops the entries.
    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index().saturating_add(1));
        self.unapplied.truncate(from);
        self.write(Record::Truncate { shard: self.shard, from: Index::new(from) }).await
    }

    async fn purge(&mut self, through: RaftLogId) -> Result<(), io::Error> {
        self.unapplied.applied(Index::new(through.index()));
        self.write(Record::Purged { shard: self.shard, id: entry_id(&through) }).await
    }
}
