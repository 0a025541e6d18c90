use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;

use bytes::Bytes;
use duramen_state::ShardState;
use duramen_types::batch::Batch;
use duramen_types::{BranchName, Compression, HybridTime, Index, Offset, SegmentId, ShardId, StreamId, Term};

use super::*;
use crate::manifest::tests::committer;
use crate::segment::tests::log::{Logged, RandomLog};
use crate::store::tests::memory;
use crate::{
    Branch, BranchView, Cut, Edit, HistoryPoint, Identity, ObjectKey, SegmentOptions, SegmentWriter,
    ShardView, Snapshot,
};

mod branches;
mod damage;
mod kept;
mod mirror;
mod requests;

const SHARD: ShardId = ShardId::new(3);

fn name(name: &str) -> BranchName {
    BranchName::parse(name).unwrap()
}

async fn archive(store: &Store) -> BranchView {
    Identity::open_or_create(store, 3).await.unwrap();
    Branch::open_or_create_root(store, &name("main"), "test").await.unwrap();
    BranchView::open(store, &name("main")).await.unwrap()
}

/// Archives `log` in segments of `sizes` entries in turn, with a snapshot after every third of them.
async fn write(view: &BranchView, before: &ShardState, log: &[Logged], sizes: &[usize]) {
    let store = view.store();
    let branch = view.branch().name.clone();
    let archive = view.identity().archive;
    let manifests = view.log(SHARD).await.unwrap();
    let mut state = before.clone();
    let mut sizes = sizes.iter().cycle();
    let mut rest = log;
    let mut count = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = later;
        let options = SegmentOptions {
            identity: SegmentIdentity {
                archive,
                branch: branch.clone(),
                shard: SHARD,
                segment: SegmentId::from_random(store.random().bytes16()),
            },
            first: state.end(),
            chain_before: state.chain(),
            max_bytes: 64 << 20,
            compression_level: 1,
            threads: NonZeroUsize::MIN,
        };
        let mut writer = SegmentWriter::new(options);
        for logged in now {
            writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
            state.apply(logged.id, logged.entry.head(), &logged.entry.head_bytes()).unwrap();
        }
        let object = writer.finish(&|_| Compression::Zstd).unwrap();
        let row = object.facts.row();
        store.create(&row.key(&branch, SHARD), object.into_bytes()).await.unwrap();
        let mut edit = Edit { rows: vec![row], snapshots: vec![] };
        count += 1;
        if count % 3 == 0 {
            let snapshot = Snapshot { archive, branch: branch.clone(), state: state.clone() };
            let bytes = snapshot.encode();
            store.create(&snapshot.key(), bytes.clone()).await.unwrap();
            edit.snapshots.push(snapshot.row(&bytes));
        }
        manifests.commit(committer(), edit).await.unwrap();
    }
}

fn history(view: &BranchView) -> History {
    // Small requests and a small cache, so that both are divided and run over.
    let options = HistoryOptions { request_bytes: 2000, entries_bytes: 20_000, ..HistoryOptions::default() };
    History::new(view.store().clone(), view.identity().archive, SegmentCache::new(200_000), options)
}

/// What straight replay of a log gives.
struct Model {
    /// The state before each entry, and after the last.
    states: Vec<ShardState>,
    log: Vec<Logged>,
}

impl Model {
    fn of(log: Vec<Logged>) -> Self {
        let mut states = vec![ShardState::new(SHARD)];
        for logged in &log {
            let mut state = states.last().unwrap().clone();
            state.apply(logged.id, logged.entry.head(), &logged.entry.head_bytes()).unwrap();
            states.push(state);
        }
        Self { states, log }
    }

    fn streams(&self) -> BTreeMap<StreamId, Vec<(Offset, HybridTime, Index, Bytes)>> {
        let mut streams: BTreeMap<StreamId, Vec<_>> = BTreeMap::new();
        for logged in &self.log {
            for ((header, batch), outcome) in logged.entry.batches().zip(&logged.outcomes) {
                if let Some((stream, base)) = outcome.place(header.stream) {
                    let appended = (base, logged.time, logged.id.index, batch);
                    streams.entry(stream).or_default().push(appended);
                }
            }
        }
        streams
    }

    async fn check_states(&self, history: &History, view: &ShardView, step: usize) {
        for (cut, state) in self.states.iter().enumerate().step_by(step) {
            let found = history.state_at(view, Index::new(cut as u64)).await.unwrap();
            assert_eq!(&found, state, "at index {cut}");
        }
    }

    async fn check_times(&self, history: &History, view: &ShardView) {
        let last = self.log.last().unwrap().time.as_micros();
        for logged in &self.log {
            for time in [
                logged.time.as_micros() - 1,
                logged.time.as_micros(),
                logged.time.as_micros() + 1,
                0,
                last + 9,
            ] {
                let time = HybridTime::from_micros(time);
                let later = self.log.iter().position(|logged| logged.time > time).unwrap_or(self.log.len());
                assert_eq!(
                    history.cut_at_time(view, time).await.unwrap(),
                    Index::new(later as u64),
                    "at {time}"
                );
            }
        }
    }

    async fn check_streams(&self, history: &History, view: &ShardView) {
        for (stream, batches) in self.streams() {
            let tail = batches.last().map(|(base, _, _, batch)| base.plus(count(batch))).unwrap();
            for from in 0..=tail.get() {
                let from = Offset::new(from);
                let end = if from.get().is_multiple_of(3) { tail } else { from.plus(4).min(tail) };
                let mut reader = history.stream(view, stream, from..end);
                let mut found = Vec::new();
                while let Some(batch) = reader.next().await.unwrap() {
                    found.push((batch.base, batch.time, batch.index, batch.batch));
                }
                let inside = |(base, _, _, batch): &&(Offset, _, _, Bytes)| {
                    *base < end && base.plus(count(batch)) > from
                };
                let wanted: Vec<_> = batches.iter().filter(inside).cloned().collect();
                assert_eq!(
                    found,
                    if from < end { wanted } else { vec![] },
                    "stream {stream} from {from} to {end}"
                );
                assert!(from >= end || reader.position() >= end);
            }
            let mut none = history.stream(view, stream, tail..tail.plus(5));
            assert!(none.next().await.unwrap().is_none(), "stream {stream} at its tail");
        }
    }

    async fn check_timestamps(&self, history: &History, view: &ShardView) {
        for (stream, batches) in self.streams() {
            let mut records = Vec::new();
            for (base, _, _, batch) in batches {
                let batch = Batch::from_trusted(batch).unwrap();
                let timestamps = batch.records(base).unwrap();
                records
                    .extend(timestamps.iter().map(|record| record.unwrap()).map(|r| (r.offset, r.timestamp)));
            }
            let range = |from: usize| Offset::new(from as u64)..Offset::new(records.len() as u64);
            for at in (0..records.len()).step_by(3) {
                for timestamp in [records[at].1, records[at].1 + 1, i64::MIN, i64::MAX] {
                    let from = at / 2;
                    let wanted = records[from..]
                        .iter()
                        .find(|(_, found)| *found >= timestamp)
                        .map(|(offset, _)| *offset);
                    let found =
                        history.offset_at_timestamp(view, stream, range(from), timestamp).await.unwrap();
                    assert_eq!(found, wanted, "stream {stream} from {from} at {timestamp}");
                }
            }
        }
    }

    async fn check_entries(&self, history: &History, view: &ShardView) {
        for from in [0, self.log.len() / 2, self.log.len() - 1] {
            let range = Index::new(from as u64)..Index::new(self.log.len() as u64 - 1);
            let mut entries = history.entries(view, range);
            for logged in &self.log[from..self.log.len() - 1] {
                let (id, time, entry) = entries.next().await.unwrap().unwrap();
                assert_eq!((id, time, &entry), (logged.id, logged.time, &logged.entry));
            }
            assert!(entries.next().await.unwrap().is_none());
        }
    }
}

fn count(batch: &Bytes) -> u64 {
    Batch::from_trusted(batch.clone()).unwrap().count().into()
}

#[tokio::test]
async fn history_reads_back_as_it_was_over_several_segments() {
    for seed in 0..3 {
        let store = memory();
        let view = archive(&store).await;
        let log = RandomLog::new(seed).take(150);
        write(&view, &ShardState::new(SHARD), &log, &[1, 17, 5, 40]).await;
        let model = Model::of(log);
        let (history, shard) = (history(&view), view.shard(SHARD).await.unwrap());
        model.check_states(&history, &shard, 1).await;
        model.check_times(&history, &shard).await;
        model.check_streams(&history, &shard).await;
        model.check_timestamps(&history, &shard).await;
        model.check_entries(&history, &shard).await;
    }
}

#[tokio::test]
async fn an_empty_history_has_the_state_before_the_first_entry() {
    let store = memory();
    let view = archive(&store).await;
    let (history, shard) = (history(&view), view.shard(SHARD).await.unwrap());
    assert_eq!(history.state_at(&shard, Index::ZERO).await.unwrap(), ShardState::new(SHARD));
    assert_eq!(history.cut_at_time(&shard, HybridTime::MAX).await.unwrap(), Index::ZERO);
    let beyond = history.state_at(&shard, Index::new(1)).await.unwrap_err();
    assert!(matches!(beyond, HistoryError::BeyondEnd { .. }), "{beyond}");
    let range = Offset::ZERO..Offset::new(9);
    assert!(history.stream(&shard, StreamId::new(1), range.clone()).next().await.unwrap().is_none());
    assert!(history.offset_at_timestamp(&shard, StreamId::new(1), range, 0).await.unwrap().is_none());
}
