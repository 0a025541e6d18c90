//! A log on a simulated disk, driven inline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duramen_types::{Clock, EntryId, HybridTime, Index, NodeId, SegmentId, ShardId, Term};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sim::SimDisk;
use crate::{Error, Progress, Record, RecoveryReport, Wal, WalOptions};

pub(super) const DIR: &str = "/data/wal";

#[derive(Debug)]
pub(super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> HybridTime {
        HybridTime::from_micros(1_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub(super) fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 32 * 1024,
        max_frame_bytes: 8 * 1024,
        cache_bytes: 2 * 1024,
        index_cache_bytes: 4096,
        reserve_bytes: 0,
        ..WalOptions::new(NodeId::new(1))
    }
}

pub(super) fn open(disk: &SimDisk, options: WalOptions, seed: u64) -> Result<(Wal, RecoveryReport), Error> {
    let mut rng = StdRng::seed_from_u64(seed);
    let ids = Box::new(move || SegmentId::from_random(rng.random()));
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), options, Arc::new(StoppedClock), ids)
}

pub(super) fn fresh(disk: &SimDisk) -> Wal {
    open(disk, options(), 1).unwrap().0
}

pub(super) fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: Index::new(index), term: Term::new(term) }
}

pub(super) fn shard(n: u16) -> ShardId {
    ShardId::new(n)
}

pub(super) fn payload(shard: ShardId, id: EntryId, size: usize) -> Bytes {
    let text = format!("{shard}/{id};");
    Bytes::from(text.bytes().cycle().take(size.max(text.len())).collect::<Vec<u8>>())
}

pub(super) fn entry(n: u16, index: u64, term: u64, size: usize) -> Record {
    let id = id(index, term);
    Record::Entry { shard: shard(n), id, payload: payload(shard(n), id, size) }
}

/// Submits records, drives until nothing waits, and gives their outcome.
pub(super) fn write(wal: &Wal, records: Vec<Record>) -> Result<(), Error> {
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    wal.submit(records, Box::new(move |result| *told.lock() = Some(result)));
    drive(wal);
    let outcome = outcome.lock().take();
    outcome.expect("every completion runs")
}

pub(super) fn drive(wal: &Wal) {
    while let Ok(Progress::Wrote) = wal.drive() {}
}

pub(super) fn all(wal: &Wal, n: u16) -> Vec<(EntryId, Bytes)> {
    let state = wal.log_state(shard(n));
    let (mut next, mut entries) = (state.first, Vec::new());
    while next < state.end {
        let more = wal.entries(shard(n), next..state.end, 3000).unwrap();
        assert!(!more.is_empty(), "at least one entry of {next}..{}", state.end);
        for (id, payload) in more {
            assert_eq!(id.index, next);
            assert_eq!(wal.term_of(shard(n), next), Some(id.term));
            next = next.next();
            entries.push((id, payload));
        }
    }
    entries
}

pub(super) fn file(sequence: u64) -> PathBuf {
    crate::segment::path(Path::new(DIR), sequence)
}
