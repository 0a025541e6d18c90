//! What is wrong in the archive is named, never skipped.

use super::*;
use duramen_state::BatchOutcome;

async fn replace(store: &Store, key: &ObjectKey, bytes: Bytes) {
    store.delete(key).await.unwrap();
    store.create(key, bytes).await.unwrap();
}

struct Archived {
    store: Store,
    shard: ShardView,
    log: Vec<Logged>,
    keys: Vec<ObjectKey>,
    view: BranchView,
}

async fn archived() -> Archived {
    let store = memory();
    let view = archive(&store).await;
    let log = RandomLog::new(77).take(80);
    write(&view, &ShardState::new(SHARD), &log, &[20]).await;
    let shard = view.shard(SHARD).await.unwrap();
    let mut cursor = shard.cursor(Index::ZERO, None);
    let mut keys = Vec::new();
    while let Some(row) = cursor.next().await.unwrap() {
        keys.push(row.key());
    }
    Archived { store, shard, log, keys, view }
}

#[tokio::test]
async fn a_missing_segment_is_named_and_earlier_cuts_still_work() {
    let archived = archived().await;
    archived.store.delete(&archived.keys[1]).await.unwrap();
    let history = history(&archived.view);
    history.state_at(&archived.shard, Index::new(20)).await.unwrap();
    let error = history.state_at(&archived.shard, Index::new(30)).await.unwrap_err();
    assert!(error.to_string().contains(&archived.keys[1].to_string()), "{error}");
    // The snapshot after the third segment needs nothing before it.
    history.state_at(&archived.shard, Index::new(70)).await.unwrap();
}

#[tokio::test]
async fn a_segment_of_the_same_size_from_elsewhere_is_named() {
    let archived = archived().await;
    let bytes = archived.store.get(&archived.keys[0], 1 << 20).await.unwrap();
    let other = archived.store.get(&archived.keys[1], 1 << 20).await.unwrap();
    let mut swapped = other.to_vec();
    swapped.resize(bytes.len(), 0);
    replace(&archived.store, &archived.keys[0], swapped.into()).await;
    let error = history(&archived.view).state_at(&archived.shard, Index::new(5)).await.unwrap_err();
    assert!(error.to_string().contains(&archived.keys[0].to_string()), "{error}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_named() {
    let archived = archived().await;
    let snapshot = archived.shard.snapshot_at(Index::new(70)).await.unwrap().unwrap();
    let mut bytes = archived.store.get(&snapshot.key(), 1 << 20).await.unwrap().to_vec();
    bytes[40] ^= 1;
    replace(&archived.store, &snapshot.key(), bytes.into()).await;
    let error = history(&archived.view).state_at(&archived.shard, Index::new(70)).await.unwrap_err();
    assert!(
        matches!(&error, HistoryError::Snapshot { object, .. } if *object == snapshot.key().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn outcomes_that_replay_does_not_give_are_named() {
    let store = memory();
    let view = archive(&store).await;
    let mut log = RandomLog::new(78).take(40);
    let at = log
        .iter()
        .position(|logged| matches!(logged.outcomes[..], [BatchOutcome::Appended { .. }, ..]))
        .unwrap();
    let BatchOutcome::Appended { base } = log[at].outcomes[0] else { unreachable!() };
    log[at].outcomes[0] = BatchOutcome::Appended { base: base.next() };
    write(&view, &ShardState::new(SHARD), &log, &[40]).await;
    let shard = view.shard(SHARD).await.unwrap();
    let error = history(&view).state_at(&shard, Index::new(40)).await.unwrap_err();
    assert!(matches!(error, HistoryError::Diverged { entry, .. } if entry == log[at].id), "{error}");
    // The stream then lacks its first offset, which is said and not skipped.
    let stream = log[at].entry.body().batches()[0].stream;
    let error = history(&view).stream(&shard, stream, base..base.plus(9)).next().await.unwrap_err();
    assert!(matches!(error, HistoryError::Gap { .. }), "{error}");
}

#[tokio::test]
async fn a_local_mirror_is_used_where_it_has_the_object() {
    let archived = archived().await;
    let folder = tempfile::tempdir().unwrap();
    let options = HistoryOptions { mirror: Some(folder.path().to_owned()), ..HistoryOptions::default() };
    let cache = SegmentCache::new(1 << 20);
    let history = History::new(archived.store.clone(), archived.view.identity().archive, cache, options);
    for key in &archived.keys[..2] {
        let path = folder.path().join(key.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::io::Write::write_all(
            &mut std::fs::File::create(path).unwrap(),
            &archived.store.get(key, 1 << 20).await.unwrap(),
        )
        .unwrap();
        archived.store.delete(key).await.unwrap();
    }
    let model = Model::of(archived.log);
    model.check_entries(&history, &archived.shard).await;
    model.check_streams(&history, &archived.shard).await;
}
