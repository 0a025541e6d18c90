//! How a shard's log speaks the consensus library's language: its types, and the conversions to ours.
//!
//! The library's positions are inclusive; ours are half-open. The conversion happens here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use duramen_state::Applied;
use duramen_types::{
    DecodeError, Entry, EntryBody, EntryHead, EntryId, HybridTime, Index, Reader, Term, Writer,
};
use duramen_wal::Reservation;
use openraft::impls::{EmptyNode, leader_id_std};
use openraft::{EntryPayload, Membership, StoredMembership};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

openraft::declare_raft_types!(
    /// The consensus library's view of a shard.
    pub ShardRaft:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = EmptyNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

pub type RaftLogId = openraft::type_config::alias::LogIdOf<ShardRaft>;
pub type RaftEntry = openraft::type_config::alias::EntryOf<ShardRaft>;
pub type RaftVote = openraft::type_config::alias::VoteOf<ShardRaft>;
pub type RaftMembership = openraft::type_config::alias::StoredMembershipOf<ShardRaft>;

/// Who waits for an entry's outcome, and what is given back when it is there.
#[derive(Debug)]
pub struct Waiting {
    /// Told when the entry is applied; dropped, which means "unknown outcome", if it never is by this leader.
    pub outcome: oneshot::Sender<Result<Outcome, NotProposed>>,
    /// The share of the node's byte budget that the batch takes until then.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// The operation never reached the log, so it had no effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotProposed {
    #[error("this node does not lead shard {0} now: try again")]
    NotLeader(duramen_types::ShardId),
    #[error("the node is shutting down: try again after its restart")]
    ShuttingDown,
    #[error(transparent)]
    Log(Arc<duramen_wal::Error>),
}

/// An applied entry, as those who proposed it are told.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub id: EntryId,
    pub applied: Arc<Applied>,
    /// Which of the entry's batches the waiter proposed.
    pub item: usize,
}

/// An entry on its way through consensus, with those who wait for it on the node that proposed it.
#[derive(Clone)]
pub struct Proposal {
    pub entry: Entry,
    waiting: Option<Arc<Mutex<Vec<Waiting>>>>,
    /// The sequencer's permit: free again when the proposal is applied or dropped.
    _permit: Option<Arc<OwnedSemaphorePermit>>,
    /// The entry's place on the disk, until the log has the entry.
    place: Option<Arc<Mutex<Option<Reservation>>>>,
}

impl Proposal {
    /// A proposal of this node: `waiting` has one place for each batch, or one for a control entry.
    pub fn new(
        entry: Entry,
        waiting: Vec<Waiting>,
        permit: OwnedSemaphorePermit,
        place: Reservation,
    ) -> Self {
        Self {
            entry,
            waiting: Some(Arc::new(Mutex::new(waiting))),
            _permit: Some(Arc::new(permit)),
            place: Some(Arc::new(Mutex::new(Some(place)))),
        }
    }

    /// An entry read back from the log, for which nobody waits.
    pub const fn stored(entry: Entry) -> Self {
        Self { entry, waiting: None, _permit: None, place: None }
    }

    /// The log has the entry: from here on it counts its place itself.
    pub fn logged(&self) {
        if let Some(place) = &self.place {
            place.lock().take();
        }
    }

    /// Tells everyone who waits; a second call tells nobody.
    pub fn resolve(&self, id: EntryId, applied: &Arc<Applied>) {
        let Some(waiting) = &self.waiting else { return };
        for (item, Waiting { outcome, budget }) in
            std::mem::take(&mut *waiting.lock()).into_iter().enumerate()
        {
            drop(budget);
            // The receiver may be gone: its client went away or its deadline passed.
            let _ = outcome.send(Ok(Outcome { id, applied: Arc::clone(applied), item }));
        }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry of {} bytes", self.entry.payload().len())
    }
}

pub fn log_id(id: EntryId) -> RaftLogId {
    RaftLogId::new_term_index(id.term.get(), id.index.get())
}

pub fn entry_id(id: &RaftLogId) -> EntryId {
    EntryId { index: Index::new(id.index()), term: Term::new(id.committed_leader_id().term) }
}

/// What the WAL stores for an entry of the library.
pub fn to_log(entry: &RaftEntry) -> Entry {
    let untimed = |body| Entry::new(EntryHead { time: HybridTime::ZERO, body });
    match &entry.payload {
        EntryPayload::Blank => untimed(EntryBody::Blank),
        EntryPayload::Normal(proposal) => proposal.entry.clone(),
        EntryPayload::Membership(membership) => {
            untimed(EntryBody::Membership(encode_membership(membership).into()))
        }
    }
}

/// The library's entry for what the WAL stored.
pub fn from_log(id: EntryId, payload: Bytes) -> Result<RaftEntry, DecodeError> {
    let entry = Entry::decode(payload)?;
    let payload = match entry.body() {
        EntryBody::Blank => EntryPayload::Blank,
        EntryBody::Membership(bytes) => EntryPayload::Membership(decode_membership(bytes)?),
        _ => EntryPayload::Normal(Proposal::stored(entry)),
    };
    Ok(RaftEntry { log_id: log_id(id), payload })
}

/// `groups u32, (voters u32, (node u64)…)… | nodes u32, (node u64)…`, little-endian.
fn encode_membership(membership: &Membership<u64, EmptyNode>) -> Vec<u8> {
    let mut out = Writer::new();
    out.count(membership.get_joint_config().len());
    for voters in membership.get_joint_config() {
        out.count(voters.len());
        for node in voters {
            out.u64(*node);
        }
    }
    let nodes: Vec<u64> = membership.nodes().map(|(node, _)| *node).collect();
    out.count(nodes.len());
    for node in nodes {
        out.u64(node);
    }
    out.into_bytes()
}

fn decode_membership(bytes: &[u8]) -> Result<Membership<u64, EmptyNode>, DecodeError> {
    let mut reader = Reader::new("membership", bytes);
    let mut groups = Vec::new();
    for _ in 0..reader.count(4)? {
        let voters = (0..reader.count(8)?).map(|_| reader.u64()).collect::<Result<BTreeSet<u64>, _>>()?;
        groups.push(voters);
    }
    let nodes = (0..reader.count(8)?)
        .map(|_| Ok((reader.u64()?, EmptyNode::default())))
        .collect::<Result<BTreeMap<u64, EmptyNode>, DecodeError>>()?;
    reader.finish()?;
    Membership::new(groups, nodes).map_err(|error| DecodeError::invalid("membership", error.to_string()))
}

/// `present u8 | id (index u64, term u64) | membership`: the last membership that a checkpoint includes.
pub fn encode_stored_membership(stored: &RaftMembership) -> Vec<u8> {
    let mut out = Writer::new();
    out.option(stored.log_id().as_ref(), |out, id| {
        let id = entry_id(id);
        out.u64(id.index.get()).u64(id.term.get());
    });
    out.put(&encode_membership(stored.membership()));
    out.into_bytes()
}

pub fn decode_stored_membership(bytes: &[u8]) -> Result<RaftMembership, DecodeError> {
    let mut reader = Reader::new("membership", bytes);
    let id = reader
        .option(|reader| Ok(EntryId { index: Index::new(reader.u64()?), term: Term::new(reader.u64()?) }))?;
    let membership = decode_membership(reader.take(reader.remaining())?)?;
    Ok(StoredMembership::new(id.map(log_id), membership))
}

/// The membership of a group whose only voter is `node`, in force since `id`.
pub fn sole_voter(node: u64, id: Option<EntryId>) -> RaftMembership {
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([node])], []);
    StoredMembership::new(id.map(log_id), membership)
}

/// `term u64 | voted for u64 | committed u8`.
pub fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut out = Writer::new();
    out.u64(vote.leader_id.term).u64(vote.leader_id.voted_for).bool(vote.committed);
    out.into_bytes().into()
}

pub fn decode_vote(bytes: &[u8]) -> Result<RaftVote, DecodeError> {
    let mut reader = Reader::new("vote", bytes);
    let leader_id = leader_id_std::LeaderId { term: reader.u64()?, voted_for: reader.u64()? };
    let committed = reader.bool()?;
    reader.finish()?;
    Ok(RaftVote { leader_id, committed })
}

/// The vote of a node that enters a history at `term`: its election starts one term later.
pub fn seeded_vote(node: u64, term: Term) -> Bytes {
    encode_vote(&RaftVote {
        leader_id: leader_id_std::LeaderId { term: term.get(), voted_for: node },
        committed: false,
    })
}

/// An I/O error for the consensus library, which stops the shard.
pub fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
