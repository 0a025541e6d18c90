//! The one place where a shard's entries get their order and their hybrid time.
//!
//! A sequencer runs where its shard leads. It coalesces the appends that wait into one entry (no timer: what arrives
//! while earlier entries are on their way to the disk goes together), stamps it and proposes it for the leader's own
//! term only, so that an entry of an older leadership can never slip in behind a newer one.

use std::sync::Arc;

use duramen_types::{AppendItem, ControlOp, Entry, EntryBody, EntryHead, HybridTime, ShardId, Term};
use duramen_wal::{Reservation, Wal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::raft::{NotProposed, Proposal, ShardRaft, Waiting};
use super::{Machine, View};
use crate::time::HybridClock;

/// Entries of one shard that are proposed and not yet applied. Two keep the disk busy: one is being synced while the
/// next one fills; more would only make entries smaller.
const IN_FLIGHT: usize = 2;
/// An entry takes no further batch once it has this many bytes. A start-up re-applies 64 entries at a time.
const ENTRY_BYTES: usize = 4 << 20;
/// Or this many batches.
const ENTRY_BATCHES: usize = 4096;

/// What a shard is asked to put into its log.
#[derive(Debug)]
pub enum Job {
    Append(AppendItem, Waiting),
    Control(ControlOp, Waiting),
    /// An entry whose only effect is its time, later than every time seen before.
    Tick(Waiting),
}

impl Job {
    fn into_waiting(self) -> Waiting {
        match self {
            Self::Append(_, waiting) | Self::Control(_, waiting) | Self::Tick(waiting) => waiting,
        }
    }

    pub(super) fn refuse(self, reason: NotProposed) {
        refuse(self.into_waiting(), reason);
    }
}

fn refuse(waiting: Waiting, reason: NotProposed) {
    // The receiver may be gone, and then nobody needs to know.
    let _ = waiting.outcome.send(Err(reason));
}

/// The state of one shard's sequencer task.
pub(super) struct Sequencer {
    pub shard: ShardId,
    pub raft: openraft::Raft<ShardRaft, Machine>,
    pub view: Arc<View>,
    pub clock: Arc<HybridClock>,
    pub wal: Wal,
    pub jobs: mpsc::UnboundedReceiver<Job>,
}

impl Sequencer {
    /// Runs until every sender of jobs is gone.
    pub async fn run(mut self) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut last = self.view.progress().time;
        let mut held_back: Option<Job> = None;
        loop {
            let job = match held_back.take() {
                Some(job) => job,
                None => match self.jobs.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            // Waiting here, not before the job came, is what lets later appends join it.
            let permit = Arc::clone(&in_flight).acquire_owned().await.expect("the semaphore is never closed");
            let term = match self.raft.as_leader() {
                Ok(leader) => leader.term(),
                Err(_) => {
                    job.refuse(NotProposed::NotLeader(self.shard));
                    continue;
                }
            };
            // Applied entries of an earlier leader may be later than what this sequencer stamped.
            last = self.clock.stamp(last.max(self.view.progress().time));
            let (entry, waiting) = self.fill(job, last, &mut held_back);
            // The consensus library stops a shard for good when its log refuses an entry. So nothing is proposed that
            // has no place on the disk, whatever the other shards propose meanwhile.
            match self.wal.reserve(u64::try_from(entry.payload().len()).unwrap_or(u64::MAX)) {
                Ok(place) => self.propose(Term::new(term), entry, waiting, permit, place).await,
                Err(error) => {
                    let error = Arc::new(error);
                    waiting.into_iter().for_each(|one| refuse(one, NotProposed::Log(Arc::clone(&error))));
                }
            }
        }
    }

    /// Makes the entry of `job` and of the appends that wait behind it.
    fn fill(&mut self, job: Job, time: HybridTime, held_back: &mut Option<Job>) -> (Entry, Vec<Waiting>) {
        let (item, waiting) = match job {
            Job::Append(item, waiting) => (item, waiting),
            Job::Control(op, waiting) => {
                return (Entry::new(EntryHead { time, body: EntryBody::Control(op) }), vec![waiting]);
            }
            Job::Tick(waiting) => {
                return (Entry::new(EntryHead { time, body: EntryBody::Tick }), vec![waiting]);
            }
        };
        let mut bytes = item.batch.len();
        let (mut items, mut waiters) = (vec![item], vec![waiting]);
        while bytes < ENTRY_BYTES && items.len() < ENTRY_BATCHES {
            match self.jobs.try_recv() {
                Ok(Job::Append(item, waiting)) => {
                    bytes += item.batch.len();
                    items.push(item);
                    waiters.push(waiting);
                }
                Ok(other) => {
                    *held_back = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        (Entry::append(time, items), waiters)
    }

    async fn propose(
        &self,
        term: Term,
        entry: Entry,
        waiting: Vec<Waiting>,
        permit: OwnedSemaphorePermit,
        place: Reservation,
    ) {
        let proposal = Proposal::new(entry, waiting, permit, place);
        let leader =
            openraft::impls::leader_id_std::LeaderId { term: term.get(), voted_for: *self.raft.node_id() };
        let request =
            self.raft.write(proposal).with_leader(openraft::vote::RaftLeaderId::to_committed(&leader));
        // A proposal that is refused or lost drops its waiters, which then answer "unknown outcome".
        if let Err(error) = request.await {
            tracing::error!(shard = %self.shard, %error, "the shard has stopped");
        }
    }
}
