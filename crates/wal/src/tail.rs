//! What the log holds once everything that was submitted is written, and the newest payloads in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use duramen_types::{EntryId, Index, ShardId, Term};

use crate::catalog::Catalog;
use crate::format::{MAX_PAYLOAD_BYTES, Record};
use crate::{Error, LogState};

/// The position of a submission in the order of all; it grows by one each time.
pub(crate) type Ticket = u64;

/// The submitted log of all shards.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    shards: BTreeMap<ShardId, Tail>,
    /// Cached payloads, oldest first.
    order: VecDeque<(ShardId, Ticket)>,
    cached_bytes: u64,
    budget: u64,
}

/// The submitted log of one shard.
#[derive(Debug, Default)]
struct Tail {
    vote: Option<Bytes>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
    /// The index behind the last entry.
    end: Index,
    /// Where each term begins; the first may begin before the first entry.
    terms: VecDeque<(Index, Term)>,
    /// The newest entries without a gap; those that are not yet written are always among them.
    recent: VecDeque<Recent>,
    /// How many of the newest entries are not yet fsynced.
    unsynced: usize,
    displaced: BTreeSet<EntryId>,
}

#[derive(Debug)]
struct Recent {
    payload: Bytes,
    ticket: Ticket,
}

impl Tail {
    fn first(&self) -> Index {
        self.purged.map_or(Index::ZERO, |purged| purged.index.next())
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index < self.first() || index >= self.end {
            return None;
        }
        let behind = self.terms.partition_point(|(start, _)| *start <= index);
        self.terms.get(behind.checked_sub(1)?).map(|(_, term)| *term)
    }

    fn recent_first(&self) -> Index {
        Index::new(self.end.get().saturating_sub(self.recent.len() as u64))
    }

    fn truncate(&mut self, from: Index) -> usize {
        let from = from.max(self.first());
        let mut freed = 0;
        while self.end > from {
            let Some(last) = self.recent.pop_back() else { break };
            freed += last.payload.len();
            self.end = Index::new(self.end.get() - 1);
            self.unsynced = self.unsynced.saturating_sub(1);
        }
        self.end = self.end.min(from);
        while self.terms.back().is_some_and(|(start, _)| *start >= from) {
            self.terms.pop_back();
        }
        freed
    }

    fn purge(&mut self, through: EntryId) -> usize {
        if self.purged.is_some_and(|purged| purged.index > through.index) {
            return 0;
        }
        let first = through.index.next();
        let mut freed = 0;
        while self.recent_first() < first
            && let Some(recent) = self.recent.pop_front()
        {
            freed += recent.payload.len();
        }
        self.unsynced = self.unsynced.min(self.recent.len());
        self.purged = Some(through);
        if self.end <= first {
            self.end = first;
            self.terms.clear();
        }
        while self.terms.get(1).is_some_and(|(start, _)| *start <= first) {
            self.terms.pop_front();
        }
        freed
    }
}

impl Tails {
    /// The tails of a log that was just recovered: everything is on disk, nothing is in memory.
    pub(crate) fn recovered(catalog: &Catalog, budget: u64) -> Self {
        let mut tails = Self { budget, ..Self::default() };
        for (shard, log) in &catalog.shards {
            let mut terms: VecDeque<(Index, Term)> = VecDeque::new();
            for (first, piece) in &log.pieces {
                if terms.back().is_none_or(|(_, term)| *term != piece.term) {
                    terms.push_back((*first, piece.term));
                }
            }
            let tail = Tail {
                vote: log.vote.clone(),
                committed: log.committed,
                purged: log.purged,
                end: log.end(),
                terms,
                displaced: log.displaced.keys().copied().collect(),
                ..Tail::default()
            };
            tails.shards.insert(*shard, tail);
        }
        tails
    }

    /// Whether the records may follow, in this order; nothing is changed.
    pub(crate) fn admit(&self, records: &[Record]) -> Result<(), Error> {
        let none = Tail::default();
        // The first and end index that a shard would have after the records so far.
        let mut bounds: BTreeMap<ShardId, (Index, Index)> = BTreeMap::new();
        for record in records {
            let shard = record.shard();
            let tail = self.shards.get(&shard).unwrap_or(&none);
            let (first, end) = bounds.entry(shard).or_insert((tail.first(), tail.end));
            let size = record.payload().len();
            if size > MAX_PAYLOAD_BYTES {
                return Err(Error::TooLarge { size: size as u64, limit: MAX_PAYLOAD_BYTES as u64 });
            }
            match record {
                Record::Entry { id, .. } => {
                    if id.index != *end {
                        return Err(Error::OutOfOrder { shard, expected: *end, found: *id });
                    }
                    *end = end.next();
                }
                Record::Truncate { from, .. } => *end = (*end).min((*from).max(*first)),
                Record::Purged { id, .. } => {
                    *first = (*first).max(id.index.next());
                    *end = (*end).max(*first);
                }
                Record::Displaced { id, .. } => {
                    let held = id.index >= *first && id.index < *end && tail.term(id.index) == Some(id.term);
                    if !held && !tail.displaced.contains(id) {
                        return Err(Error::UnknownEntry { shard, id: *id });
                    }
                }
                Record::DisplacedCopy { id, .. } => return Err(Error::UnknownEntry { shard, id: *id }),
                Record::Released { .. } | Record::Vote { .. } | Record::Committed { .. } => {}
            }
        }
        Ok(())
    }

    /// Applies admitted records under `ticket`.
    pub(crate) fn apply(&mut self, records: &[Record], ticket: Ticket) {
        for record in records {
            let shard = record.shard();
            let tail = self.shards.entry(shard).or_default();
            let freed = match record {
                Record::Entry { id, payload, .. } => {
                    if tail.terms.back().is_none_or(|(_, term)| *term != id.term) {
                        tail.terms.push_back((id.index, id.term));
                    }
                    tail.end = id.index.next();
                    tail.unsynced += 1;
                    tail.recent.push_back(Recent { payload: payload.clone(), ticket });
                    self.order.push_back((shard, ticket));
                    self.cached_bytes += payload.len() as u64;
                    0
                }
                Record::Truncate { from, .. } => tail.truncate(*from),
                Record::Purged { id, .. } => tail.purge(*id),
                Record::Displaced { id, .. } => {
                    tail.displaced.insert(*id);
                    0
                }
                Record::Released { id, .. } => {
                    tail.displaced.remove(id);
                    0
                }
                Record::Vote { bytes, .. } => {
                    tail.vote = Some(bytes.clone());
                    0
                }
                Record::Committed { id, .. } => {
                    tail.committed = Some(*id);
                    0
                }
                Record::DisplacedCopy { .. } => 0,
            };
            self.cached_bytes = self.cached_bytes.saturating_sub(freed as u64);
        }
    }

    /// Notes that everything up to `ticket` is fsynced.
    pub(crate) fn synced(&mut self, ticket: Ticket) {
        for tail in self.shards.values_mut() {
            while let Some(oldest) = tail.recent.len().checked_sub(tail.unsynced)
                && tail.recent.get(oldest).is_some_and(|recent| recent.ticket <= ticket)
            {
                tail.unsynced -= 1;
            }
        }
    }

    /// Forgets the oldest payloads beyond the budget, as far as they are fsynced.
    pub(crate) fn evict(&mut self, synced: Ticket) {
        while self.cached_bytes > self.budget
            && let Some((shard, ticket)) = self.order.pop_front_if(|(_, ticket)| *ticket <= synced)
        {
            let Some(tail) = self.shards.get_mut(&shard) else { continue };
            // A payload that was truncated or purged is gone from the tail already.
            if let Some(oldest) = tail.recent.pop_front_if(|oldest| oldest.ticket == ticket) {
                self.cached_bytes = self.cached_bytes.saturating_sub(oldest.payload.len() as u64);
            }
        }
        // Truncated and purged payloads leave their place in the order behind: bound what that costs.
        let held: usize = self.shards.values().map(|tail| tail.recent.len()).sum();
        if self.order.len() > 2 * held + 1024 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut held: BTreeMap<(ShardId, Ticket), usize> = BTreeMap::new();
        for (shard, tail) in &self.shards {
            for recent in &tail.recent {
                *held.entry((*shard, recent.ticket)).or_default() += 1;
            }
        }
        // From the back: of one submission's entries the last ones are those a purge left.
        let mut kept = VecDeque::with_capacity(self.order.len());
        while let Some(place) = self.order.pop_back() {
            if let Some(count) = held.get_mut(&place).filter(|count| **count > 0) {
                *count -= 1;
                kept.push_front(place);
            }
        }
        self.order = kept;
    }

    pub(crate) fn term(&self, shard: ShardId, index: Index) -> Option<Term> {
        self.shards.get(&shard)?.term(index)
    }

    /// The payload of an entry in memory.
    pub(crate) fn cached(&self, shard: ShardId, index: Index) -> Option<Bytes> {
        let tail = self.shards.get(&shard)?;
        let place = index.get().checked_sub(tail.recent_first().get())?;
        Some(tail.recent.get(usize::try_from(place).ok()?)?.payload.clone())
    }

    /// The sum of the lengths of the payloads of `range` that are in memory.
    pub(crate) fn cached_payload_bytes(&self, shard: ShardId, range: &Range<Index>) -> u64 {
        let Some(tail) = self.shards.get(&shard) else { return 0 };
        let place = |index: Index| usize::try_from(index.since(tail.recent_first())).unwrap_or(usize::MAX);
        let (start, end) = (place(range.start), place(range.end).min(tail.recent.len()));
        if start >= end {
            return 0;
        }
        tail.recent.range(start..end).map(|recent| recent.payload.len() as u64).sum()
    }

    /// The first index whose payload is in memory; all later ones are too.
    pub(crate) fn cached_from(&self, shard: ShardId) -> Index {
        self.shards.get(&shard).map_or(Index::ZERO, Tail::recent_first)
    }

    pub(crate) fn state(&self, shard: ShardId) -> LogState {
        let none = Tail::default();
        let tail = self.shards.get(&shard).unwrap_or(&none);
        let last = tail.end.previous().and_then(|index| Some(EntryId { index, term: tail.term(index)? }));
        LogState {
            purged: tail.purged,
            first: tail.first(),
            end: tail.end,
            last,
            vote: tail.vote.clone(),
            committed: tail.committed,
            flushed: Index::new(tail.end.get() - tail.unsynced as u64),
        }
    }

    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    pub(crate) fn displaced(&self, shard: ShardId) -> Vec<EntryId> {
        self.shards.get(&shard).map(|tail| tail.displaced.iter().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }
}
