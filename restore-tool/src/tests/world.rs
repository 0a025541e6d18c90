//! A small archive, made through the archive's own writers, and the log that it was made of.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use duramen_archive::{
    Branch, BranchView, Closed, ClosedShard, Committer, Edit, HistoryPoint, Identity, LogOptions, ObjectKey,
    Owner, Random, SegmentIdentity, SegmentOptions, SegmentRow, SegmentWriter, Snapshot, Store, StoreOptions,
    StreamFilter,
};
use duramen_state::{BatchOutcome, ShardState};
use duramen_types::batch::{BatchBuilder, Limits, Options, Record};
use duramen_types::{
    AppendItem, BatchHeader, BranchName, Clock, ClusterId, Compression, ControlOp, Entry, EntryBody,
    EntryHead, EntryId, HybridTime, Index, NodeId, Offset, SegmentId, ShardId, StreamConfig, StreamId,
    StreamName, TenantName, Term, shard_of,
};
use futures::TryStreamExt;

pub(super) const SHARDS: u16 = 2;
/// The time of the first entry, in microseconds.
pub(super) const START: u64 = 1_763_735_399_000_000;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(super) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> HybridTime {
        HybridTime::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

pub(super) fn name(text: &str) -> BranchName {
    BranchName::parse(text).unwrap()
}

pub(super) fn tenant() -> TenantName {
    TenantName::parse("default").unwrap()
}

/// An entry as it was in the log.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub id: EntryId,
    pub time: HybridTime,
    pub entry: Entry,
    pub outcomes: Vec<BatchOutcome>,
    /// The point after it.
    pub after: HistoryPoint,
}

/// A record of the model.
#[derive(Debug, Clone)]
pub(super) struct Modelled {
    pub time: HybridTime,
    pub stream: StreamName,
    pub offset: Offset,
    pub value: String,
}

/// A cluster's logs on one branch, and what of them is archived.
pub(super) struct World {
    pub store: Store,
    pub clock: Arc<TestClock>,
    pub view: BranchView,
    pub cluster: ClusterId,
    pub logs: Vec<Vec<Logged>>,
    pub states: Vec<ShardState>,
    pub records: Vec<Modelled>,
    /// For each shard, how many entries are archived.
    pub archived: Vec<usize>,
    term: u64,
}

impl World {
    pub(super) async fn new() -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let store =
            Store::open("memory:", &StoreOptions::default(), shared, Random::from_seed(7)).await.unwrap();
        Identity::open_or_create(&store, SHARDS).await.unwrap();
        Branch::open_or_create_root(&store, &name("main"), "test").await.unwrap();
        Self::on(store, clock, "main", ClusterId::from_bytes([1; 16])).await
    }

    /// Goes on where the branch begins.
    pub(super) async fn on(store: Store, clock: Arc<TestClock>, branch: &str, cluster: ClusterId) -> Self {
        let options = LogOptions { checkpoint_every: 4, rows_per_page: 2 };
        Owner::claim(&store, &name(branch), cluster).await.unwrap();
        let view = BranchView::open_with(&store, &name(branch), options).await.unwrap();
        let mut states = Vec::new();
        for shard in view.shard_ids() {
            let rows = view.shard(shard).await.unwrap();
            let state = crate::plan::history(&view).state_at(&rows, rows.tip().end).await.unwrap();
            states.push(state);
        }
        let archived = vec![0; states.len()];
        let logs = vec![Vec::new(); states.len()];
        let term =
            states.iter().filter_map(|state| state.applied()).map(|id| id.term.get()).max().unwrap_or(0) + 1;
        Self { store, clock, view, cluster, logs, states, records: Vec::new(), archived, term }
    }

    pub(super) fn now(&self) -> HybridTime {
        self.clock.now()
    }

    pub(super) fn advance(&self, micros: u64) {
        self.clock.0.fetch_add(micros, Ordering::Relaxed);
    }

    fn push(&mut self, shard: usize, body: EntryBody, batches: &[Bytes]) -> (EntryId, Vec<BatchOutcome>) {
        self.advance(10);
        let time = if body.is_timed() { self.now() } else { HybridTime::ZERO };
        let entry = Entry::with_batches(EntryHead { time, body }, batches);
        let state = &mut self.states[shard];
        let id = EntryId { index: state.end(), term: Term::new(self.term) };
        let applied = state.apply(id, entry.head(), &entry.head_bytes()).unwrap();
        let (end, chain, time) = (state.end(), state.chain(), applied.time);
        let after = HistoryPoint { end, chain, term: id.term, time };
        self.logs[shard].push(Logged { id, time, entry, outcomes: applied.batches.clone(), after });
        (id, applied.batches)
    }

    pub(super) fn control(&mut self, shard: ShardId, op: ControlOp) -> EntryId {
        self.push(usize::from(shard.get()), EntryBody::Control(op), &[]).0
    }

    pub(super) fn create(&mut self, stream: &str) -> (ShardId, StreamId) {
        let stream = StreamName::parse(stream).unwrap();
        let shard = shard_of(&tenant(), &stream, SHARDS);
        let op = ControlOp::CreateStream { tenant: tenant(), name: stream, config: StreamConfig::default() };
        (shard, StreamId::new(self.control(shard, op).index.get()))
    }

    /// Appends one batch with these values.
    pub(super) fn append(&mut self, stream: &str, values: &[&str]) {
        let stream = StreamName::parse(stream).unwrap();
        let shard = shard_of(&tenant(), &stream, SHARDS);
        let at = usize::from(shard.get());
        let id = self.states[at].stream_id(&tenant(), &stream).unwrap();
        let mut builder = BatchBuilder::new(Limits::default());
        for value in values {
            let record = Record {
                key: Some("k".into()),
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
                timestamp: 5,
                ..Record::default()
            };
            builder.push_record(&record).unwrap();
        }
        let batch = builder.finish(Options::default()).unwrap();
        let header = BatchHeader {
            stream: id,
            records: batch.count(),
            bytes: u32::try_from(batch.bytes().len()).unwrap(),
            base_timestamp: batch.base_timestamp(),
            max_timestamp: batch.max_timestamp(),
            hash: batch.hash(),
            producer: None,
            match_offset: None,
            fencing_token: None,
        };
        let item = AppendItem { header, batch: batch.into_bytes() };
        let (_, outcomes) = self.push(at, EntryBody::Append(vec![item.header]), &[item.batch]);
        let [BatchOutcome::Appended { base }] = outcomes[..] else {
            panic!("it was not appended: {outcomes:?}")
        };
        for (ahead, value) in (0..).zip(values) {
            let (time, offset) = (self.now(), base.plus(ahead));
            self.records.push(Modelled { time, stream: stream.clone(), offset, value: (*value).to_owned() });
        }
    }

    pub(super) fn blank(&mut self, shard: u16) {
        self.push(usize::from(shard), EntryBody::Blank, &[]);
    }

    /// Archives what a shard has, as one segment, with a snapshot after it where asked.
    pub(super) async fn archive(&mut self, shard: u16, snapshot: bool) {
        let at = usize::from(shard);
        let shard = ShardId::new(shard);
        let log = self.view.log(shard).await.unwrap().clone();
        let tip = log.tip();
        let pending = &self.logs[at][self.archived[at]..];
        let committer = Committer { cluster: self.cluster, node: NodeId::new(1) };
        if !pending.is_empty() {
            let identity = SegmentIdentity {
                archive: self.view.identity().archive,
                branch: log.branch().clone(),
                shard,
                segment: SegmentId::from_random(self.store.random().bytes16()),
            };
            let mut writer = SegmentWriter::new(SegmentOptions {
                identity,
                first: tip.end,
                chain_before: tip.chain,
                max_bytes: 64 << 20,
                compression_level: 1,
                threads: NonZeroUsize::MIN,
            });
            for logged in pending {
                writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
            }
            let object = writer.finish(&|_| Compression::Zstd).unwrap();
            let facts = object.facts;
            let row = SegmentRow {
                id: facts.identity.segment,
                first: facts.first,
                end: facts.end,
                first_time: facts.first_time,
                last_time: facts.last_time,
                last_term: facts.last_term,
                bytes: facts.bytes,
                records: facts.records,
                record_times: facts.timestamps,
                has_user_entries: facts.has_user_entries,
                chain_before: facts.chain_before,
                chain_after: facts.chain_after,
                streams: StreamFilter::of(facts.streams.iter().copied()),
                hash: facts.hash,
                level: 0,
            };
            self.store.create(&row.key(log.branch(), shard), object.chunks.concat().into()).await.unwrap();
            log.commit(committer, Edit { rows: vec![row], snapshots: vec![] }).await.unwrap();
            self.archived[at] = self.logs[at].len();
        }
        if snapshot {
            let archive = self.view.identity().archive;
            let snapshot = Snapshot { archive, branch: log.branch().clone(), state: self.states[at].clone() };
            let bytes = snapshot.encode();
            let row = snapshot.row(&bytes);
            self.store.create(&snapshot.key(), bytes).await.unwrap();
            log.commit(committer, Edit { rows: vec![], snapshots: vec![row] }).await.unwrap();
        }
    }

    /// A round: every shard gets a tick, everything is archived, and one closed object says so.
    pub(super) async fn close(&mut self) -> HybridTime {
        let mut closed = Vec::new();
        for shard in 0..=SHARDS {
            self.push(usize::from(shard), EntryBody::Tick, &[]);
            self.archive(shard, false).await;
            let state = &self.states[usize::from(shard)];
            closed.push(ClosedShard { shard: state.shard(), end: state.end(), closed: state.time() });
        }
        let latest = closed.iter().map(|item| item.closed).min().unwrap();
        let branch = self.view.branch().name.clone();
        let previous = Closed::last_of(&self.view, NodeId::new(1)).await.unwrap();
        Closed::new(NodeId::new(1), closed, previous).write(&self.store, &branch).await.unwrap();
        latest
    }

    /// A history with everything in it: several segments, snapshots, checkpoints and pages; gives the closed time.
    pub(super) async fn filled() -> (Self, HybridTime) {
        let mut world = Self::new().await;
        for shard in 0..=SHARDS {
            world.blank(shard);
        }
        for stream in ["a", "b", "c", "d"] {
            world.create(stream);
        }
        let mut latest = HybridTime::ZERO;
        for round in 0..5_u32 {
            for stream in ["a", "b", "c", "d"] {
                world.append(stream, &[&format!("{stream}{round}-0"), &format!("{stream}{round}-1")]);
            }
            latest = world.close().await;
            for shard in 0..=SHARDS {
                if round % 2 == 1 {
                    world.archive(shard, true).await;
                }
            }
        }
        world.advance(1_000_000);
        (world, latest)
    }

    /// What the cut at `time` must be.
    pub(super) fn expected(&self, shard: usize, time: HybridTime) -> HistoryPoint {
        let last = self.logs[shard].iter().take_while(|logged| logged.time <= time).last();
        last.map_or_else(
            || HistoryPoint::genesis(ShardId::new(u16::try_from(shard).unwrap())),
            |logged| logged.after,
        )
    }

    pub(super) async fn keys(&self) -> Vec<ObjectKey> {
        let listed: Vec<_> = self.store.list("", None).try_collect().await.unwrap();
        listed.into_iter().map(|object| object.key.unwrap()).collect()
    }

    pub(super) async fn read(&self, key: &ObjectKey) -> Bytes {
        self.store.get(key, 1 << 30).await.unwrap()
    }

    pub(super) async fn replace(&self, key: &ObjectKey, bytes: Option<Bytes>) {
        self.store.delete(key).await.unwrap();
        if let Some(bytes) = bytes {
            self.store.create(key, bytes).await.unwrap();
        }
    }

    pub(super) fn end(&self, shard: usize) -> Index {
        self.states[shard].end()
    }
}
