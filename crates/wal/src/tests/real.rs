//! The log on the machine's own disk, driven by its thread.

use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use duramen_types::{EntryId, Index, NodeId, SegmentId, ShardId, SystemClock, Term};

use crate::{RealDisk, Record, RecoveryReport, Wal, WalOptions};

const SHARD: ShardId = ShardId::new(3);

fn id(index: u64) -> EntryId {
    EntryId { index: Index::new(index), term: Term::new(1) }
}

fn open(dir: &Path, options: WalOptions) -> (Wal, RecoveryReport) {
    let mut n = 0_u128;
    let ids = Box::new(move || {
        n += 1;
        SegmentId::from_bytes(n.to_le_bytes())
    });
    Wal::open(Arc::new(RealDisk::new()), dir, options, Arc::new(SystemClock::new()), ids).unwrap()
}

fn append(wal: &Wal, range: std::ops::Range<u64>, size: usize) {
    let (done, acknowledged) = mpsc::channel();
    for index in range.clone() {
        let payload = Bytes::from(vec![index.to_le_bytes()[0]; size]);
        let done = done.clone();
        let record = Record::Entry { shard: SHARD, id: id(index), payload };
        wal.submit(vec![record], Box::new(move |result| done.send((index, result)).unwrap()));
    }
    for index in range {
        let (acknowledged, result) = acknowledged.recv().unwrap();
        result.unwrap();
        assert_eq!(acknowledged, index, "completions run in order");
    }
}

#[test]
fn entries_written_by_the_thread_are_back_after_a_shutdown_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let options = WalOptions {
        segment_bytes: 256 * 1024,
        max_frame_bytes: 64 * 1024,
        cache_bytes: 0,
        ..WalOptions::new(NodeId::new(1))
    };
    let (wal, _) = open(dir.path(), options.clone());
    wal.spawn_writer().unwrap();
    append(&wal, 0..2000, 1000);
    assert!(wal.segments().len() > 4, "{:?}", wal.segments());
    wal.shutdown().unwrap();

    let (wal, report) = open(dir.path(), options.clone());
    assert_eq!(report.frames_scanned, 0, "a clean restart reads footers only");
    wal.spawn_writer().unwrap();
    append(&wal, 2000..2500, 100);
    drop(wal);
    // No shutdown: as after kill -9, the open segment has no footer.
    let (wal, report) = open(dir.path(), options);
    assert!(report.frames_scanned > 0);
    let mut next = 0;
    while next < 2500 {
        for (found, payload) in wal.entries(SHARD, Index::new(next)..Index::MAX, 1 << 20).unwrap() {
            assert_eq!(found, id(next));
            assert!(payload.iter().all(|byte| *byte == next.to_le_bytes()[0]));
            next += 1;
        }
    }
    assert_eq!(wal.log_state(SHARD).flushed, Index::new(2500));
}
