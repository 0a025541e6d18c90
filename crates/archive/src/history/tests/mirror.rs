//! What the mirror has is read from there.

use super::*;

#[tokio::test]
async fn a_snapshot_that_the_mirror_has_is_read_from_there() {
    let store = memory();
    let view = archive(&store).await;
    let log = RandomLog::new(9).take(60);
    write(&view, &ShardState::new(SHARD), &log, &[20]).await;
    let shard = view.shard(SHARD).await.unwrap();
    let snapshot = shard.snapshot_at(Index::new(60)).await.unwrap().unwrap();
    let mirror = tempfile::tempdir().unwrap();
    let path = mirror.path().join(snapshot.key().to_string());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = store.get(&snapshot.key(), snapshot.row.bytes).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&path, &bytes).unwrap();
    store.delete(&snapshot.key()).await.unwrap();
    let options = HistoryOptions { mirror: Some(mirror.path().to_owned()), ..HistoryOptions::default() };
    let history = History::new(store, view.identity().archive, SegmentCache::new(1 << 20), options);
    assert_eq!(history.snapshot(&snapshot).await.unwrap().end(), Index::new(60));
}
