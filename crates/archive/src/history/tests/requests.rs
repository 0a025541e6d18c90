//! How many requests a read takes.

use std::sync::atomic::Ordering;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::store::tests::faults::Faulty;
use crate::store::tests::over;

#[tokio::test]
async fn a_warm_stream_read_takes_one_request_for_neighbouring_blocks_and_none_once_they_are_cached() {
    let counting = Arc::new(Faulty::new(Arc::new(InMemory::new())));
    let store = over(Arc::clone(&counting) as Arc<dyn ObjectStore>);
    let view = archive(&store).await;
    let log = RandomLog::new(5).take(3000);
    write(&view, &ShardState::new(SHARD), &log, &[1000]).await;
    let model = Model::of(log);
    let shard = view.shard(SHARD).await.unwrap();
    let cache = SegmentCache::new(64 << 20);
    let history = History::new(store, view.identity().archive, cache, HistoryOptions::default());
    let gets = || counting.gets.load(Ordering::Relaxed);
    let streams = model.streams();
    let (stream, batches) = streams.iter().max_by_key(|(_, batches)| batches.len()).unwrap();
    let tail = batches.last().map(|(base, _, _, batch)| base.plus(count(batch))).unwrap();
    let middle = Offset::new(tail.get() / 2);
    let read = async |range: Range<Offset>| {
        let before = gets();
        let mut reader = history.stream(&shard, *stream, range.clone());
        let mut batches = 0;
        while reader.next().await.unwrap().is_some() {
            batches += 1;
        }
        assert!(batches > 0 && reader.position() >= range.end);
        gets() - before
    };
    // The directories of every segment, and stream pages at their ends, come with this one.
    history.offset_at_timestamp(&shard, *stream, Offset::ZERO..tail, i64::MAX).await.unwrap();
    for segment in 0..3 {
        let row = shard.containing(Index::new(segment * 1000)).await.unwrap().unwrap();
        history.open(&row).await.unwrap();
    }
    assert_eq!(read(middle..middle.next()).await, 1, "one block");
    assert_eq!(read(middle..middle.next()).await, 0, "it is cached");
    let cold = read(Offset::ZERO..tail).await;
    assert!((1..12).contains(&cold), "{cold} requests for three segments");
    assert_eq!(read(Offset::ZERO..tail).await, 0, "all is cached");
    assert!(history.cache().usage() <= history.cache().capacity());
}
