mod rescued;

use duramen_types::{EntryBody, EntryHead, Term};

use std::path::Path;
use std::time::Duration;

use duramen_archive::Blocking;
use duramen_types::{Offset, ShardId};
use duramen_wal::sim::SimDisk;
use duramen_wal::{Disk, durable};
use futures::stream;

use super::super::raft::sole_voter;
use super::*;
use crate::index::page_cache;

const SHARD: ShardId = ShardId::new(1);

/// As many rows as fill a chunk of the hot index.
fn fill_index(view: &View) {
    let mut n = view.progress().end.get();
    while !view.index_is_full() {
        let row = Row {
            base: Offset::new(n),
            records: 1,
            index: Index::new(n),
            item: 0,
            time: HybridTime::from_micros(n),
            max_timestamp: 0,
            before: n,
        };
        view.index.push(Index::new(n), [(StreamId::new(0), row)]);
        n += 1;
    }
}

#[tokio::test]
async fn a_disk_too_full_for_a_checkpoint_leaves_the_shard_alone_and_keeps_it_from_being_purged() {
    let disk = SimDisk::new(1);
    let (index, checkpoints) = (Path::new("/index"), Path::new("/checkpoint"));
    disk.create_dir(index).unwrap();
    disk.create_dir(checkpoints).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let hot = HotIndex::open(Arc::clone(&shared), index, SHARD, Index::ZERO, page_cache(1 << 20)).unwrap();
    let view = Arc::new(View::new(ShardState::new(SHARD), hot));
    let metrics = Arc::new(Metrics::new());
    let mut machine = Machine::new(
        Arc::clone(&view),
        sole_voter(1, None),
        Arc::default(),
        Checkpoints::new(shared, checkpoints.to_owned(), 256 << 20, Blocking::Threads),
        Arc::clone(&metrics),
    );
    let file = checkpoints.join("0001.checkpoint");
    disk.set_capacity(disk.used());
    fill_index(&view);
    let failed = || metrics.render().contains("duramen_checkpoint_failures_total 1");
    let wait = async {
        while !failed() {
            // What the consensus library would take for the end of the shard.
            machine.apply(stream::empty()).await.expect("applying goes on");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the failure is counted");
    machine.checkpoint_beyond(Index::new(1)).await.expect_err("nothing may be purged");
    assert!(durable::read_file(&disk, &file, u64::MAX).is_err());

    disk.set_capacity(u64::MAX);
    machine.checkpoint_beyond(Index::new(1)).await.unwrap();
    assert!(durable::read_file(&disk, &file, u64::MAX).is_ok());
    assert_eq!(disk.list(index).unwrap().len(), 1, "the index file was written after all");
}

#[tokio::test]
async fn an_index_file_written_after_a_failed_checkpoint_is_not_taken_for_it() {
    let disk = SimDisk::new(1);
    let (index, checkpoints) = (Path::new("/index"), Path::new("/checkpoint"));
    disk.create_dir(index).unwrap();
    disk.create_dir(checkpoints).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let hot = HotIndex::open(Arc::clone(&shared), index, SHARD, Index::ZERO, page_cache(1 << 20)).unwrap();
    let view = Arc::new(View::new(ShardState::new(SHARD), hot));
    let mut machine = Machine::new(
        Arc::clone(&view),
        sole_voter(1, None),
        Arc::default(),
        Checkpoints::new(shared, checkpoints.to_owned(), 256 << 20, Blocking::Inline),
        Arc::new(Metrics::new()),
    );
    let id = EntryId { index: Index::ZERO, term: Term::new(1) };
    let head = EntryHead { time: HybridTime::from_micros(1), body: EntryBody::Tick };
    view.apply(id, &Entry::new(head)).unwrap();
    let end = id.index.next();
    disk.set_capacity(disk.used());
    machine.checkpoint_beyond(end).await.expect_err("there is no space for it");

    disk.set_capacity(u64::MAX);
    let files = disk.list(index).unwrap().len();
    fill_index(&view);
    for _ in 0..3 {
        machine.apply(stream::empty()).await.unwrap();
    }
    assert!(disk.list(index).unwrap().len() > files, "an index file was written, and no checkpoint is due");
    machine.checkpoint_beyond(end).await.unwrap();
    let file = checkpoints.join("0001.checkpoint");
    assert!(
        durable::read_file(&disk, &file, u64::MAX).is_ok(),
        "the log may be purged, and nothing replaces it"
    );
}
