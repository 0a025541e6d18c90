//! A model of the log, and random histories of it: the log equals the model after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{EntryId, Index, ShardId, Term};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fixture::{all, drive, open, options, payload};
use crate::sim::SimDisk;
use crate::{Error, Progress, Record, Wal};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ShardModel {
    first: u64,
    purged: Option<EntryId>,
    entries: BTreeMap<u64, (EntryId, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<EntryId>,
    displaced: BTreeMap<EntryId, Bytes>,
}

impl ShardModel {
    fn outline(&self) -> String {
        let entries: Vec<String> = self.entries.values().map(|(id, _)| id.to_string()).collect();
        let Self { purged, vote, committed, displaced, .. } = self;
        format!("{purged:?} {vote:?} {committed:?} {:?} {entries:?}", displaced.keys())
    }

    fn end(&self) -> u64 {
        self.entries.last_key_value().map_or(self.first, |(index, _)| index + 1)
    }
}

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model(BTreeMap<ShardId, ShardModel>);

impl Model {
    fn shard(&self, shard: ShardId) -> ShardModel {
        self.0.get(&shard).cloned().unwrap_or_default()
    }

    pub(super) fn apply(&mut self, record: &Record) {
        let shard = self.0.entry(record.shard()).or_default();
        match record {
            Record::Entry { id, payload, .. } => {
                shard.entries.insert(id.index.get(), (*id, payload.clone()));
            }
            Record::Truncate { from, .. } => {
                shard.entries.split_off(&from.get());
            }
            Record::Displaced { id, .. } => {
                let (_, payload) = shard.entries[&id.index.get()].clone();
                shard.displaced.insert(*id, payload);
            }
            Record::Released { id, .. } => {
                shard.displaced.remove(id);
            }
            Record::Vote { bytes, .. } => shard.vote = Some(bytes.clone()),
            Record::Committed { id, .. } => shard.committed = Some(*id),
            Record::Purged { id, .. } => {
                shard.purged = Some(*id);
                shard.first = id.index.get() + 1;
                shard.entries = shard.entries.split_off(&shard.first);
            }
            Record::DisplacedCopy { .. } => unreachable!("only the log writes it"),
        }
    }

    /// What the log holds, read through its interface.
    pub(super) fn of(wal: &Wal) -> Self {
        let mut model = Self::default();
        for shard in wal.shards() {
            let state = wal.log_state(shard);
            let entries = all(wal, shard.get()).into_iter().map(|(id, bytes)| (id.index.get(), (id, bytes)));
            let displaced = wal.displaced(shard).into_iter();
            let model = model.0.entry(shard).or_default();
            *model = ShardModel {
                first: state.first.get(),
                purged: state.purged,
                entries: entries.collect(),
                vote: state.vote,
                committed: state.committed,
                displaced: displaced.map(|id| (id, wal.displaced_entry(shard, id).unwrap())).collect(),
            };
            assert_eq!(model.end(), state.end.get());
        }
        model.0.retain(|_, shard| *shard != ShardModel::default());
        model
    }
}

/// A submission that keeps the rules of the log, for a model of what was submitted before.
pub(super) fn submission(rng: &mut StdRng, model: &Model) -> Vec<Record> {
    // Shard 0 is idle: what it has must be copied forward while the others go on.
    let shard = ShardId::new(if rng.random_ratio(1, 60) { 0 } else { rng.random_range(1..4) });
    let now = model.shard(shard);
    let (first, end) = (now.first, now.end());
    let id = |index: u64, term| EntryId { index: Index::new(index), term: Term::new(term) };
    let last = now.entries.last_key_value().map(|(_, (id, _))| *id);
    let term = last.or(now.purged).map_or(1, |id| id.term.get());
    match rng.random_range(0..20) {
        0 => vec![Record::Vote { shard, bytes: payload(shard, id(end, term), 12) }],
        1 if end > first => vec![Record::Committed { shard, id: now.entries[&(end - 1)].0 }],
        2 | 3 if end > first && shard != ShardId::META => {
            let through = rng.random_range(first..end);
            vec![Record::Purged { shard, id: now.entries[&through].0 }]
        }
        4 if end > first => {
            let from = rng.random_range(end.saturating_sub(5).max(first)..end);
            let mut records = Vec::new();
            for (_, (id, _)) in now.entries.range(from..) {
                if rng.random_ratio(1, 3) {
                    records.push(Record::Displaced { shard, id: *id });
                }
            }
            records.push(Record::Truncate { shard, from: Index::new(from) });
            let id = id(from, term + 1);
            records.push(Record::Entry { shard, id, payload: payload(shard, id, 40) });
            records
        }
        5 => now.displaced.keys().take(2).map(|id| Record::Released { shard, id: *id }).collect(),
        6 if rng.random_ratio(1, 8) => vec![Record::Purged { shard, id: id(end + 7, term) }],
        _ => (0..rng.random_range(1..5))
            .map(|n| {
                let id = id(end + n, term);
                // One submission fits into a frame: it is there whole or not at all.
                let size = if n == 0 && rng.random_ratio(1, 5) { 3000 } else { rng.random_range(1..300) };
                Record::Entry { shard, id, payload: payload(shard, id, size) }
            })
            .collect(),
    }
}

/// What happened to a run of submissions on a log.
pub(super) struct Outcome {
    /// The models after each number of submissions.
    pub(super) after: Vec<Model>,
    /// How many submissions were acknowledged.
    pub(super) acknowledged: usize,
}

/// Submits `count` random submissions, several to a frame, and drives until done or until the log stops.
pub(super) fn run(wal: &Wal, rng: &mut StdRng, start: Model, count: usize) -> Outcome {
    let mut after = vec![start];
    let done: Arc<Mutex<Vec<(usize, bool)>>> = Arc::default();
    for n in 0..count {
        let mut model = after[n].clone();
        let records = submission(rng, &model);
        records.iter().for_each(|record| model.apply(record));
        let told = done.clone();
        let completion = Box::new(move |result: Result<(), Error>| told.lock().push((n, result.is_ok())));
        wal.submit(records, completion);
        after.push(model);
        let stopped = match rng.random_range(0..120) {
            0..40 => wal.drive().is_err(),
            40..48 => wal.publish().is_err(),
            48..50 => wal.seal().is_err(),
            _ => false,
        };
        if stopped {
            break;
        }
    }
    drive(wal);
    let done = done.lock();
    assert!(done.is_sorted(), "completions run in order, and once each");
    assert_eq!(done.len(), after.len() - 1, "every completion runs");
    let acknowledged = done.iter().take_while(|(_, ok)| *ok).count();
    assert!(done[acknowledged..].iter().all(|(_, ok)| !ok), "nothing succeeds behind a failure");
    Outcome { after, acknowledged }
}

/// Checks that the log is the model after some number of submissions, none of the acknowledged ones missing.
pub(super) fn assert_prefix(wal: &Wal, outcome: &Outcome, what: &str) -> Model {
    let found = Model::of(wal);
    let normal = |model: &Model| {
        let mut model = model.clone();
        model.0.retain(|_, shard| *shard != ShardModel::default());
        model
    };
    let at = (outcome.acknowledged..outcome.after.len()).find(|n| normal(&outcome.after[*n]) == found);
    assert!(
        at.is_some(),
        "{what}: the log is no state at or after submission {}: {}",
        outcome.acknowledged,
        {
            let expected = normal(&outcome.after[outcome.acknowledged]);
            let differs = |(shard, model): (&ShardId, &ShardModel)| {
                let expected = expected.shard(*shard);
                (expected != *model)
                    .then(|| format!("shard {shard}:\n{}\nnot\n{}\n", model.outline(), expected.outline()))
            };
            found.0.iter().filter_map(differs).collect::<String>()
        }
    );
    found
}

#[test]
fn random_histories_equal_the_model_across_clean_restarts_kills_and_power_cuts() {
    let mut reclaimed = BTreeSet::new();
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        let mut model = Model::default();
        for round in 0..8 {
            let (wal, _) = open(&disk, options(), rng.random()).unwrap();
            let outcome = run(&wal, &mut rng, model, 60);
            assert_eq!(outcome.acknowledged, 60);
            let what = format!("seed {seed}, round {round}");
            assert_eq!(assert_prefix(&wal, &outcome, &what), Model::of(&wal));
            reclaimed.insert(wal.stats().reclaimed > 0);
            match rng.random_range(0..3) {
                0 => wal.shutdown().unwrap(),
                1 => disk.kill(),
                _ => disk.power_cut(),
            }
            drop(wal);
            let (wal, _) = open(&disk, options(), rng.random()).unwrap();
            model = assert_prefix(&wal, &outcome, &what);
            assert_ne!(wal.drive().unwrap(), Progress::Blocked);
        }
    }
    assert!(reclaimed.contains(&true), "some history must have reclaimed segments");
}
