//! The manifest log against a model, against rivals, and against a process that dies anywhere.

mod damage;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use duramen_types::{
    BranchName, ClusterId, Hash, HybridTime, Index, ManifestNumber, NodeId, SegmentId, ShardId, StreamId,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::store::tests::faults::{Fault, Faulty};
use crate::store::tests::{memory, over};
use crate::{Error, ObjectKey, Store};

pub(crate) const SHARD: ShardId = ShardId::new(3);

pub(crate) fn main_branch() -> BranchName {
    BranchName::parse("main").unwrap()
}

pub(crate) fn committer() -> Committer {
    Committer { cluster: ClusterId::from_random([1; 16]), node: NodeId::new(1) }
}

/// A row of `entries` entries after `point`, with these streams, its last entry at `time`.
pub(crate) fn row_after(point: HistoryPoint, entries: u64, streams: &[u64], time: u64) -> SegmentRow {
    let end = point.end.plus(entries);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&end.get().to_le_bytes());
    let hash =
        |what: &str| Hash::from_bytes(*blake3::hash(format!("{what} {end} {time}").as_bytes()).as_bytes());
    SegmentRow {
        id: SegmentId::from_bytes(id),
        first: point.end,
        end,
        first_time: point.time,
        last_time: HybridTime::from_micros(time),
        last_term: point.term,
        bytes: 1000 + entries,
        records: entries,
        record_times: Some((-5, i64::try_from(time).unwrap())),
        has_user_entries: true,
        chain_before: point.chain,
        chain_after: hash("chain"),
        streams: StreamFilter::of(streams.iter().copied().map(StreamId::new)),
        hash: hash("object"),
        level: 0,
    }
}

fn snapshot_at(point: HistoryPoint) -> SnapshotRow {
    SnapshotRow { index: point.end, time: point.time, chain: point.chain, bytes: 77, hash: point.chain }
}

pub(crate) fn rows(rows: Vec<SegmentRow>) -> Edit {
    Edit { rows, snapshots: vec![] }
}

const SMALL: LogOptions = LogOptions { checkpoint_every: 3, rows_per_page: 4 };

async fn open(store: &Store, options: LogOptions) -> ManifestLog {
    ManifestLog::open(store, &main_branch(), SHARD, HistoryPoint::genesis(SHARD), options).await.unwrap()
}

/// Commits one row of two entries.
pub(crate) async fn extend(log: &ManifestLog) -> crate::Result<ManifestNumber> {
    let tip = log.tip();
    let row = row_after(tip, 2, &[tip.end.get() % 5], tip.time.as_micros() + 10);
    log.commit(committer(), rows(vec![row])).await
}

/// What the log must say.
#[derive(Default)]
struct Model {
    rows: Vec<SegmentRow>,
    snapshots: Vec<SnapshotRow>,
}

#[derive(Debug, Clone)]
enum Step {
    Commit { rows: Vec<(u64, Vec<u64>, u64)>, snapshot: bool },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (1..5_u64, prop::collection::vec(0..6_u64, 0..3), 0..4_u64);
    let commit = (prop::collection::vec(row, 1..4), any::<bool>());
    let commit = commit.prop_map(|(rows, snapshot)| Step::Commit { rows, snapshot });
    prop::collection::vec(prop_oneof![9 => commit, 1 => Just(Step::Reopen)], 1..40)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_log_says_what_was_committed(steps in steps(), checkpoint_every in 1..5_u64, rows_per_page in 1..6_usize) {
        block_on(async {
            let options = LogOptions { checkpoint_every, rows_per_page };
            let store = memory();
            let mut log = open(&store, options).await;
            let follower = open(&store, options).await;
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Reopen => log = open(&store, options).await,
                    Step::Commit { rows, snapshot } => {
                        let mut edit = Edit::default();
                        let mut point = log.tip();
                        for (entries, streams, wait) in rows {
                            let row = row_after(point, entries, &streams, point.time.as_micros() + wait);
                            point = HistoryPoint::after(&row);
                            edit.rows.push(row);
                        }
                        edit.snapshots.extend(snapshot.then(|| snapshot_at(point)));
                        model.rows.extend(edit.rows.iter().cloned());
                        model.snapshots.extend(edit.snapshots.iter().cloned());
                        let number = log.commit(committer(), edit).await.unwrap();
                        assert_eq!(log.confirm(number).await.unwrap(), point.end);
                    }
                }
                follower.refresh().await.unwrap();
            }
            for log in [&log, &follower, &open(&store, options).await] {
                agrees(log, &model).await;
            }
        });
    }
}

async fn agrees(log: &ManifestLog, model: &Model) {
    let view = log.rows();
    let end = model.rows.last().map_or(Index::ZERO, |row| row.end);
    assert_eq!(view.tip().end, end);
    assert_eq!(view.count(), u64::try_from(model.rows.len()).unwrap());
    assert_eq!(view.bytes(), model.rows.iter().map(|row| row.bytes).sum::<u64>());
    assert_eq!(all(view.cursor(Index::ZERO, None)).await, model.rows);
    for index in (0..end.get() + 3).map(Index::new) {
        let expected = model.rows.iter().find(|row| row.first <= index && index < row.end);
        assert_eq!(view.containing(index).await.unwrap().as_deref(), expected, "index {index}");
        let best = model.snapshots.iter().filter(|row| row.index <= index).max_by_key(|row| row.index);
        assert_eq!(view.snapshot_at(index).await.unwrap().as_ref(), best, "snapshot at {index}");
    }
    for time in (0..view.tip().time.as_micros() + 2).map(HybridTime::from_micros) {
        let expected = model.rows.iter().find(|row| row.last_time > time);
        assert_eq!(view.first_after(time).await.unwrap().as_deref(), expected, "time {time}");
    }
    for stream in (0..7).map(StreamId::new) {
        let from = Index::new(end.get() / 3);
        let wanted = |row: &&SegmentRow| row.end > from && row.streams.may_contain(stream.into());
        let expected: Vec<_> = model.rows.iter().filter(wanted).cloned().collect();
        assert_eq!(all(view.cursor(from, Some(stream))).await, expected, "stream {stream}");
    }
    assert_eq!(view.snapshots().await.unwrap(), model.snapshots);
}

async fn all(mut cursor: RowCursor) -> Vec<SegmentRow> {
    let mut found = Vec::new();
    while let Some(row) = cursor.next().await.unwrap() {
        found.push((*row).clone());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_one_wins_each_number_and_the_other_begins_again() {
    let store = memory();
    let write = |store: Store| async move {
        let log = open(&store, SMALL).await;
        let (mut won, mut lost) = (0_u64, 0_u64);
        while won < 30 {
            match extend(&log).await {
                Ok(_) => won += 1,
                Err(Error::Lost { .. }) => {
                    lost += 1;
                    log.refresh().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        lost
    };
    let (a, b) = tokio::join!(tokio::spawn(write(store.clone())), tokio::spawn(write(store.clone())));
    let lost = a.unwrap() + b.unwrap();
    let log = open(&store, SMALL).await;
    assert_eq!(log.next_number(), ManifestNumber::new(60), "{lost} were lost");
    assert_eq!(log.tip().end, Index::new(120));
    assert_eq!(all(log.rows().cursor(Index::ZERO, None)).await.len(), 60);
}

#[tokio::test]
async fn a_loser_is_told_and_changes_nothing() {
    let store = memory();
    let (first, second) = (open(&store, SMALL).await, open(&store, SMALL).await);
    extend(&first).await.unwrap();
    let error = extend(&second).await.unwrap_err();
    assert!(
        matches!(error, Error::Lost { .. }) && error.is_retryable() && !error.may_have_had_effect(),
        "{error}"
    );
    assert_eq!(second.refresh().await.unwrap(), 1);
    assert_eq!(second.tip(), first.tip());
    extend(&second).await.unwrap();
}

/// A store whose process dies after `budget` PUTs, over objects that survive it.
fn mortal(objects: &Arc<InMemory>, budget: usize) -> (Store, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(Arc::clone(objects) as Arc<dyn ObjectStore>));
    faulty.budget.store(budget, Ordering::SeqCst);
    (over(Arc::clone(&faulty) as Arc<dyn ObjectStore>), faulty)
}

#[tokio::test]
async fn a_writer_may_die_between_any_two_puts() {
    let objects = Arc::new(InMemory::new());
    let (store, faulty) = mortal(&objects, usize::MAX);
    let log = open(&store, SMALL).await;
    for _ in 0..14 {
        extend(&log).await.unwrap();
    }
    let puts = faulty.puts.load(Ordering::SeqCst);
    assert!(puts >= 14 + 4 + 3, "manifests, checkpoints and pages: {puts}");
    for budget in 0..puts {
        let objects = Arc::new(InMemory::new());
        let (store, _) = mortal(&objects, budget);
        let log = open(&store, SMALL).await;
        let mut acknowledged = 0;
        while extend(&log).await.is_ok() {
            acknowledged += 1;
        }
        let (store, _) = mortal(&objects, usize::MAX);
        let log = open(&store, SMALL).await;
        assert_eq!(log.next_number(), ManifestNumber::new(acknowledged), "died after {budget} PUTs");
        for _ in acknowledged..14 {
            extend(&log).await.unwrap();
        }
        let again = open(&store, SMALL).await;
        assert_eq!(all(again.rows().cursor(Index::ZERO, None)).await.len(), 14);
        assert_eq!(again.tip(), log.tip());
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_refreshing() {
    let objects = Arc::new(InMemory::new());
    let (store, faulty) = mortal(&objects, usize::MAX);
    let log = open(&store, SMALL).await;
    faulty.script.lock().extend([const { Fault::TimesOutBefore }; 4]);
    let error = extend(&log).await.unwrap_err();
    assert!(error.is_retryable() && error.may_have_had_effect(), "{error}");
    assert_eq!(log.refresh().await.unwrap(), 0);
    faulty.script.lock().push_back(Fault::TimesOutAfterSuccess);
    assert_eq!(extend(&log).await.unwrap(), ManifestNumber::ZERO);
    assert_eq!(log.next_number(), ManifestNumber::new(1));
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_written_by_a_later_commit() {
    let objects = Arc::new(InMemory::new());
    let (store, faulty) = mortal(&objects, usize::MAX);
    let log = open(&store, LogOptions { checkpoint_every: 3, rows_per_page: 100 }).await;
    extend(&log).await.unwrap();
    extend(&log).await.unwrap();
    faulty.script.lock().push_back(Fault::None);
    faulty.script.lock().extend([const { Fault::TimesOutBefore }; 4]);
    extend(&log).await.expect("the manifest is committed, whatever becomes of the checkpoint");
    let key = |number| ObjectKey::Checkpoint {
        branch: main_branch(),
        shard: SHARD,
        number: ManifestNumber::new(number),
    };
    assert!(store.size(&key(2)).await.unwrap_err().is_missing());
    extend(&log).await.unwrap();
    store.size(&key(3)).await.unwrap();
    assert_eq!(open(&store, SMALL).await.tip(), log.tip());
}

#[tokio::test]
async fn what_does_not_join_is_not_committed() {
    let store = memory();
    let log = open(&store, SMALL).await;
    extend(&log).await.unwrap();
    let tip = log.tip();
    let good = row_after(tip, 2, &[], 100);
    let bad = [
        ("gap", SegmentRow { first: tip.end.next(), ..good.clone() }),
        ("overlap", SegmentRow { first: Index::ZERO, ..good.clone() }),
        ("another chain", SegmentRow { chain_before: good.chain_after, ..good.clone() }),
        ("earlier", SegmentRow { first_time: HybridTime::ZERO, ..good.clone() }),
    ];
    for (what, row) in bad {
        let error = log.commit(committer(), rows(vec![row])).await.unwrap_err();
        assert!(matches!(error, Error::Discontinuous { .. }) && !error.is_retryable(), "{what}: {error}");
    }
    assert!(log.commit(committer(), Edit::default()).await.is_err());
    let strange = SnapshotRow { chain: good.hash, ..snapshot_at(tip) };
    let edit = Edit { rows: vec![], snapshots: vec![strange] };
    assert!(matches!(log.commit(committer(), edit).await, Err(Error::Discontinuous { .. })));
    assert_eq!(open(&store, SMALL).await.tip(), tip);
}

#[tokio::test]
async fn a_missing_manifest_is_a_gap() {
    let store = memory();
    let log = open(&store, LogOptions::default()).await;
    for _ in 0..40 {
        extend(&log).await.unwrap();
    }
    for missing in [0, 1, 17, 37] {
        let key =
            ObjectKey::Manifest { branch: main_branch(), shard: SHARD, number: ManifestNumber::new(missing) };
        let bytes = store.get(&key, 1 << 20).await.unwrap();
        store.delete(&key).await.unwrap();
        let start = HistoryPoint::genesis(SHARD);
        let error =
            ManifestLog::open(&store, &main_branch(), SHARD, start, LogOptions::default()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Gap { reason, .. } if reason.contains(&format!("manifest {missing} "))),
            "{error}"
        );
        store.create(&key, bytes).await.unwrap();
    }
    assert_eq!(open(&store, LogOptions::default()).await.tip(), log.tip());
}

#[tokio::test]
async fn a_follower_of_a_long_log_stays_small() {
    let store = memory();
    let (log, follower) = (open(&store, SMALL).await, open(&store, SMALL).await);
    for _ in 0..60 {
        extend(&log).await.unwrap();
        follower.refresh().await.unwrap();
    }
    assert!(follower.state().tail.len() <= 4 * SMALL.rows_per_page, "{}", follower.state().tail.len());
    assert_eq!(follower.tip(), log.tip());
}
