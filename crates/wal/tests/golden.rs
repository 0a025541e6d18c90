//! The golden files of WAL segments (`tests/golden`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duramen_golden::{Counting, Golden, for_each_damage, golden, peak_of};
use duramen_types::{Clock, EntryId, HybridTime, Index, NodeId, SegmentId, ShardId, Term};
use duramen_wal::sim::SimDisk;
use duramen_wal::{Disk, Progress, Record, Report, Wal, WalOptions, inspect, salvage};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GOLDEN: Golden = golden!();
const DIR: &str = "/data/wal";

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> HybridTime {
        HybridTime::from_micros(1_700_000_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: Index::new(index), term: Term::new(term) }
}

const META: ShardId = ShardId::META;
const DATA: ShardId = ShardId::new(5);

fn entry(shard: ShardId, id: EntryId) -> Record {
    Record::Entry { shard, id, payload: Bytes::from(format!("entry {id} of shard {shard}")) }
}

fn vote(shard: ShardId, term: u8) -> Record {
    let mut bytes = [0; 17];
    bytes[0] = term;
    bytes[8] = 1;
    bytes[16] = 1;
    Record::Vote { shard, bytes: Bytes::copy_from_slice(&bytes) }
}

/// Frames with every kind of record that is submitted.
fn history() -> Vec<Vec<Record>> {
    vec![
        vec![vote(META, 1), entry(META, id(0, 1)), vote(DATA, 1)],
        (0..5).map(|index| entry(DATA, id(index, 1))).collect(),
        vec![
            Record::Committed { shard: DATA, id: id(1, 1) },
            Record::Displaced { shard: DATA, id: id(3, 1) },
            Record::Displaced { shard: DATA, id: id(4, 1) },
            Record::Truncate { shard: DATA, from: Index::new(3) },
            vote(DATA, 3),
            entry(DATA, id(3, 3)),
        ],
        vec![Record::Purged { shard: DATA, id: id(1, 1) }, Record::Released { shard: DATA, id: id(4, 1) }],
    ]
}

fn write(wal: &Wal, records: Vec<Record>) {
    wal.submit(records, Box::new(|outcome| outcome.unwrap()));
    while let Ok(Progress::Wrote) = wal.drive() {}
}

/// What the log writes: a segment that was sealed, and the open one after what is still needed was copied forward to it.
fn written() -> [(u64, Vec<u8>); 2] {
    let disk = SimDisk::new(1);
    let options = WalOptions {
        segment_bytes: 20 << 10,
        max_frame_bytes: 4 << 10,
        reserve_bytes: 0,
        copy_forward_bytes: 4 << 10,
        spare_files: 0,
        ..WalOptions::new(NodeId::new(1))
    };
    let mut next = 0;
    let ids = Box::new(move || {
        next += 1;
        SegmentId::from_bytes([next; 16])
    });
    let (wal, _) =
        Wal::open(Arc::new(disk.clone()), Path::new(DIR), options, Arc::new(StoppedClock), ids).unwrap();
    let only = |wal: &Wal| {
        let [segment] = &wal.segments()[..] else { panic!("{:?}", wal.segments()) };
        (segment.sequence, disk.content(&segment.path).unwrap())
    };
    for records in history() {
        write(&wal, records);
    }
    wal.seal().unwrap();
    let sealed = only(&wal);
    write(&wal, vec![entry(META, id(1, 3))]);
    wal.publish().unwrap();
    [sealed, only(&wal)]
}

fn disk_with(sequence: u64, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join(format!("{sequence:020}.wal"));
    disk.create(&path).unwrap().write_all_at(bytes, 0).unwrap();
    disk
}

type Found = (Report, Vec<Record>);

/// What is in a log of one segment; an error if anything of it is damaged or cut off.
fn read(sequence: u64, bytes: &[u8]) -> Result<Found, String> {
    let disk = disk_with(sequence, bytes);
    let report = inspect(&disk, Path::new(DIR)).map_err(|error| error.to_string())?;
    if !report.is_sound() || report.cut.is_some() {
        return Err(format!("{:?} {:?}", report.damage, report.cut));
    }
    let mut records = Vec::new();
    let mut keep = |_: &Path, _, record| {
        records.push(record);
        Ok(())
    };
    salvage(&disk, Path::new(DIR), &mut keep).map_err(|error| error.to_string())?;
    Ok((report, records))
}

/// Most memory is that of the simulated disk's file and of what is read of it at once.
const MOST: usize = 1 << 20;

/// Damage is said, or it is in bytes that mean nothing; an open segment may have lost frames at its end, which were not
/// known to be synced.
fn assert_resists_damage(sequence: u64, bytes: &[u8]) -> Found {
    let whole = read(sequence, bytes).unwrap();
    for_each_damage(bytes, |damaged, what| {
        let (found, peak) = peak_of(|| read(sequence, damaged));
        assert!(peak <= MOST, "{what}: took {peak} bytes of memory");
        let Ok((report, records)) = found else { return };
        let sealed = whole.0.segments[0].sealed && report.segments.first().is_some_and(|it| it.sealed);
        if sealed {
            assert_eq!((&report, &records), (&whole.0, &whole.1), "{what}");
        } else {
            assert!(whole.1.starts_with(&records), "{what}");
            assert!(records.len() == whole.1.len() || damaged.len() < bytes.len(), "{what}: {records:?}");
        }
    });
    whole
}

fn kinds(records: &[Record]) -> Vec<&'static str> {
    let kind = |record: &Record| match record {
        Record::Entry { .. } => "entry",
        Record::Truncate { .. } => "truncate",
        Record::Displaced { .. } => "displaced",
        Record::Released { .. } => "released",
        Record::Vote { .. } => "vote",
        Record::Committed { .. } => "committed",
        Record::Purged { .. } => "purged",
        Record::DisplacedCopy { .. } => "displaced copy",
    };
    records.iter().map(kind).collect()
}

#[test]
fn a_sealed_segment_is_the_golden_one() {
    let [(sequence, bytes), _] = written();
    let bytes = GOLDEN.assert_golden("segment-sealed.wal", &bytes);
    let (report, records) = assert_resists_damage(sequence, &bytes);
    assert!(report.segments[0].sealed);
    assert_eq!(records, history().concat());
}

#[test]
fn an_open_segment_is_the_golden_one() {
    let [_, (sequence, bytes)] = written();
    let bytes = GOLDEN.assert_golden("segment-open.wal", &bytes);
    let (report, records) = assert_resists_damage(sequence, &bytes);
    assert!(!report.segments[0].sealed);
    let expected =
        ["vote", "vote", "committed", "purged", "entry", "entry", "entry", "entry", "displaced copy"];
    assert_eq!(kinds(&records), expected);
}
