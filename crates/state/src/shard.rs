//! The state of one shard and the application of entries to it.

use std::collections::{BTreeMap, BTreeSet};

use duramen_types::{
    BatchHeader, ChainValue, EntryBody, EntryHead, EntryId, HybridTime, Index, RestorePointName, ShardId,
    StreamId, StreamName, TenantName, Term, genesis, leaf,
};

use crate::{Applied, ApplyError, BatchOutcome, Rejection, Stream};

/// A shard's state after a prefix of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    pub(crate) shard: ShardId,
    pub(crate) applied: Option<EntryId>,
    pub(crate) time: HybridTime,
    pub(crate) chain: ChainValue,
    pub(crate) user_end: Index,
    /// The first index that each term wrote, in order.
    pub(crate) terms: Vec<(Term, Index)>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) names: BTreeMap<TenantName, BTreeMap<StreamName, StreamId>>,
    /// The origins of the batches that were rescued of each stream, wherever they went.
    pub(crate) rescued: BTreeSet<(StreamId, Term, Index)>,
    pub(crate) tenants: BTreeMap<TenantName, HybridTime>,
    pub(crate) restore_points: BTreeMap<RestorePointName, HybridTime>,
}

impl ShardState {
    /// The state before a shard's first entry.
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            applied: None,
            time: HybridTime::ZERO,
            chain: genesis(shard),
            user_end: Index::ZERO,
            terms: Vec::new(),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            rescued: BTreeSet::new(),
            tenants: BTreeMap::new(),
            restore_points: BTreeMap::new(),
        }
    }

    /// Applies the next entry. `head_bytes` is the encoding that `head` was decoded from: the chain covers it.
    ///
    /// On an error the state is unchanged.
    pub fn apply(&mut self, id: EntryId, head: &EntryHead, head_bytes: &[u8]) -> Result<Applied, ApplyError> {
        self.check_next(id, head)?;
        let time = head.effective_time(self.time);
        let chain = self.chain.extend(&leaf(id, time, head_bytes));
        if self.terms.last().is_none_or(|(term, _)| *term < id.term) {
            self.terms.push((id.term, id.index));
        }
        let mut batches = Vec::new();
        let mut control = None;
        match &head.body {
            EntryBody::Append(headers) => {
                batches.extend(headers.iter().map(|batch| self.append(time, batch)));
            }
            EntryBody::Rescue { origin, batches: headers } => {
                batches = self.rescue(id, time, *origin, headers)
            }
            EntryBody::Control(op) => control = Some(self.control(id, time, op)),
            EntryBody::Blank | EntryBody::Membership(_) | EntryBody::Tick | EntryBody::Archived { .. } => {}
        }
        if head.body.is_user() {
            self.user_end = id.index.next();
        }
        self.applied = Some(id);
        self.time = time;
        self.chain = chain;
        Ok(Applied { time, chain, batches, control })
    }

    fn check_next(&self, id: EntryId, head: &EntryHead) -> Result<(), ApplyError> {
        // At the last index of all, the end is that index itself.
        if id.index != self.end() || self.applied.is_some_and(|applied| applied.index == id.index) {
            return Err(ApplyError::NotNext { expected: self.end(), found: id });
        }
        if let Some(previous) = self.applied
            && id.term < previous.term
        {
            return Err(ApplyError::TermRegressed { previous, found: id });
        }
        if head.body.is_timed() && head.time <= self.time {
            return Err(ApplyError::TimeRegressed { found: id, time: head.time, previous: self.time });
        }
        Ok(())
    }

    fn append(&mut self, time: HybridTime, batch: &BatchHeader) -> BatchOutcome {
        match self.streams.get_mut(&batch.stream) {
            Some(stream) => stream.append(time, batch),
            None => BatchOutcome::Rejected(Rejection::UnknownStream(batch.stream)),
        }
    }

    /// The term that wrote `index`, if it is applied.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index >= self.end() {
            return None;
        }
        let after = self.terms.partition_point(|(_, first)| *first <= index);
        after.checked_sub(1).and_then(|at| self.terms.get(at)).map(|(term, _)| *term)
    }

    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The last applied entry.
    pub const fn applied(&self) -> Option<EntryId> {
        self.applied
    }

    /// The index after the last applied entry.
    pub const fn end(&self) -> Index {
        match self.applied {
            Some(id) => id.index.next(),
            None => Index::ZERO,
        }
    }

    /// The index after the last entry that users caused.
    pub const fn user_end(&self) -> Index {
        self.user_end
    }

    /// The effective time of the last applied entry: the shard is closed through it.
    pub const fn time(&self) -> HybridTime {
        self.time
    }

    /// The chain value after the last applied entry.
    pub const fn chain(&self) -> ChainValue {
        self.chain
    }

    pub fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    pub fn stream_id(&self, tenant: &TenantName, name: &StreamName) -> Option<StreamId> {
        self.names.get(tenant)?.get(name).copied()
    }

    /// Every stream, by id.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// A tenant's streams whose names begin with `prefix` and come after `after`, by name.
    pub fn list<'a>(
        &'a self,
        tenant: &TenantName,
        prefix: &'a str,
        after: Option<&'a StreamName>,
    ) -> impl Iterator<Item = (StreamId, &'a Stream)> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        self.names
            .get(tenant)
            .into_iter()
            .flat_map(move |names| names.range::<str, _>((from, Bound::Unbounded)))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(_, id)| self.streams.get(id).map(|stream| (*id, stream)))
    }

    /// The tenants of a meta shard and when they were created.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = (&TenantName, HybridTime)> {
        self.tenants.iter().map(|(name, created)| (name, *created))
    }

    pub fn has_tenant(&self, tenant: &TenantName) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// The named restore points of a meta shard and the instants they name.
    pub fn restore_points(&self) -> impl ExactSizeIterator<Item = (&RestorePointName, HybridTime)> {
        self.restore_points.iter().map(|(name, time)| (name, *time))
    }

    pub fn restore_point(&self, name: &RestorePointName) -> Option<HybridTime> {
        self.restore_points.get(name).copied()
    }
}
