//! Failing fsyncs, full disks, flipped bits, missing files, wrong input.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use duramen_types::{Index, NodeId};
use parking_lot::Mutex;

use super::fixture::{DIR, all, drive, entry, file, fresh, id, open, options, shard, write};
use crate::sim::SimDisk;
use crate::{Disk, Error, Fsync, Progress, Record, WalOptions, inspect, salvage};

#[test]
fn a_failed_fsync_stops_the_log_and_fails_all_that_wait() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    write(&wal, vec![entry(1, 0, 1, 10)]).unwrap();
    disk.fail_syncs_from(disk.operations());
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for index in 1..4 {
        let outcomes = outcomes.clone();
        let records = vec![entry(1, index, 1, 6000)];
        wal.submit(records, Box::new(move |result| outcomes.lock().push((index, result.unwrap_err()))));
    }
    assert!(matches!(wal.drive(), Err(Error::Io { action: "fsync", .. })));
    let outcomes = outcomes.lock();
    assert_eq!(outcomes.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3], "in order");
    assert!(
        outcomes
            .iter()
            .all(|(_, error)| matches!(error, Error::Stopped { .. }) && error.may_have_had_effect())
    );
    // The disk would say yes to a second fsync, but what it dropped is dropped.
    assert!(matches!(write(&wal, vec![entry(1, 4, 1, 10)]), Err(Error::Stopped { .. })));
    assert!(wal.failure().is_some());
    assert!(wal.drive().is_err());
    drop(wal);
    disk.power_cut();
    assert_eq!(all(&open(&disk, options(), 2).unwrap().0, 1).len(), 1);
}

#[test]
fn a_full_disk_refuses_entries_takes_votes_and_purges_and_recovers_by_itself() {
    let disk = SimDisk::new(1);
    disk.set_capacity(300 * 1024);
    let options = || WalOptions { reserve_bytes: 128 * 1024, copy_forward_bytes: 0, ..options() };
    let (wal, _) = open(&disk, options(), 1).unwrap();
    let mut index = 0;
    let refused = loop {
        match wal.reserve(2000) {
            Ok(reserved) => {
                write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
                drop(reserved);
                index += 1;
            }
            Err(error) => break error,
        }
        assert!(index < 1000, "it must fill up");
    };
    assert!(matches!(&refused, Error::DiskFull { reserve: 131_072, .. }), "{refused}");
    assert!(refused.is_retryable() && !refused.may_have_had_effect());
    assert!(wal.check_space().is_err() && wal.space().full);
    assert!(disk.available(Path::new(DIR)).unwrap() >= 128 * 1024 - 4096, "the reserve is whole");
    assert!(index > 20);
    assert_eq!(all(&wal, 1).len(), usize::try_from(index).unwrap(), "reads go on");
    for _ in 0..10 {
        write(&wal, vec![Record::Vote { shard: shard(1), bytes: "vote".into() }]).unwrap();
    }
    write(&wal, vec![Record::Purged { shard: shard(1), id: id(index - 1, 1) }]).unwrap();
    drive(&wal);
    for next in index..index + 20 {
        drop(wal.reserve(2000).unwrap());
        write(&wal, vec![entry(1, next, 1, 2000)]).unwrap();
    }
    drop(wal);
    disk.power_cut();
    assert_eq!(all(&open(&disk, options(), 2).unwrap().0, 1).len(), 20);
}

#[test]
fn whatever_was_promised_to_all_shards_at_once_finds_its_place() {
    const SIZES: [usize; 5] = [100, 6000, 40_000, 3000, 9000];
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        disk.set_capacity(1024 * 1024 + seed * 4096);
        let options = WalOptions { reserve_bytes: 96 * 1024, copy_forward_bytes: 0, ..options() };
        let (wal, _) = open(&disk, options, seed).unwrap();
        let mut ends = [0; 8];
        for round in 0..4 {
            let mut promised = Vec::new();
            let mut sizes = SIZES.iter().cycle();
            let refused = loop {
                let size = *sizes.next().unwrap();
                match wal.reserve(size as u64) {
                    Ok(reservation) => promised.push((size, reservation)),
                    Err(error) => break error,
                }
                assert!(promised.len() < 1000, "it must fill up");
            };
            assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
            assert!(promised.len() > 8, "{} promises in round {round}", promised.len());
            let outcomes = Arc::new(Mutex::new(Vec::new()));
            let asked = promised.len();
            for (at, (size, reservation)) in promised.into_iter().enumerate() {
                let n = at % ends.len();
                let told = outcomes.clone();
                let records = vec![entry(u16::try_from(n).unwrap(), ends[n], 1, size)];
                wal.submit(records, Box::new(move |result| told.lock().push(result)));
                drop(reservation);
                ends[n] += 1;
            }
            loop {
                match wal.drive().unwrap() {
                    Progress::Wrote => {}
                    Progress::Idle => break,
                    Progress::Blocked => panic!("seed {seed}, round {round}: what was promised has no place"),
                }
            }
            assert_eq!(outcomes.lock().len(), asked);
            assert!(outcomes.lock().iter().all(Result::is_ok));
            for (n, end) in ends.iter().enumerate() {
                let n = u16::try_from(n).unwrap();
                write(&wal, vec![Record::Purged { shard: shard(n), id: id(end - 1, 1) }]).unwrap();
            }
            drive(&wal);
        }
    }
}

#[test]
fn a_promise_that_is_given_up_leaves_its_place_to_others() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    disk.set_capacity(disk.used() + 128 * 1024);
    let all = wal.reserve(50 * 1024).unwrap();
    assert!(matches!(wal.reserve(40 * 1024), Err(Error::DiskFull { .. })));
    drop(all);
    drop(wal.reserve(40 * 1024).unwrap());
}

#[test]
fn a_log_without_space_says_so_until_it_goes_on() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    disk.set_capacity(0);
    wal.submit(vec![Record::Vote { shard: shard(1), bytes: "vote".into() }], Box::new(|_| {}));
    assert_eq!(wal.drive().unwrap(), Progress::Blocked);
    assert!(wal.blocked().unwrap().is_disk_full());
    disk.set_capacity(u64::MAX);
    drive(&wal);
    assert!(wal.blocked().is_none());
}

#[test]
fn records_that_find_no_space_at_all_wait_and_go_on_once_there_is_some() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    write(&wal, vec![entry(1, 0, 1, 100)]).unwrap();
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    let records = (0..3).map(|_| Record::Vote { shard: shard(1), bytes: vec![7; 20_000].into() }).collect();
    disk.set_capacity(0);
    wal.submit(records, Box::new(move |result| *told.lock() = Some(result)));
    loop {
        match wal.drive().unwrap() {
            Progress::Blocked => break,
            progress => assert_eq!(progress, Progress::Wrote),
        }
    }
    assert_eq!(wal.drive().unwrap(), Progress::Blocked);
    assert!(outcome.lock().is_none());
    disk.set_capacity(u64::MAX);
    drive(&wal);
    outcome.lock().take().unwrap().unwrap();
    disk.power_cut();
    let (wal, _) = open(&disk, options(), 2).unwrap();
    assert_eq!(wal.log_state(shard(1)).vote.unwrap().len(), 20_000);
}

/// A log with five frames in its first segment, which was not sealed.
fn five_frames(disk: &SimDisk) {
    let wal = fresh(disk);
    for index in 0..5 {
        write(&wal, vec![entry(1, index, 1, 100)]).unwrap();
    }
    disk.kill();
}

#[test]
fn any_flipped_bit_of_a_frame_known_to_be_synced_is_corruption_with_file_and_byte() {
    for bit in 0..(40 + 27 + 100) * 8 {
        let disk = SimDisk::new(1);
        five_frames(&disk);
        let start = 3 * 4096;
        disk.flip_bit(&file(1), start + bit / 8, u8::try_from(bit % 8).unwrap()).unwrap();
        let before = disk.content(&file(1)).unwrap();
        match open(&disk, options(), 2) {
            Err(Error::Corrupt { file: at, offset, .. }) => assert_eq!((at, offset), (file(1), start)),
            other => panic!("bit {bit}: {other:?}"),
        }
        assert!(disk.content(&file(1)).unwrap() == before, "nothing was changed");
        let report = inspect(&disk, Path::new(DIR)).unwrap();
        assert_eq!((&report.damage[0].file, report.damage[0].offset), (&file(1), start));
        let mut found = Vec::new();
        salvage(&disk, Path::new(DIR), &mut |_, _, record| {
            found.extend(match record {
                Record::Entry { id, .. } => Some(id.index.get()),
                _ => None,
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [0, 1, 3, 4], "frames behind the damage can be had");
    }
}

#[test]
fn any_flipped_bit_behind_the_last_synced_frame_is_cut_and_reported() {
    for bit in 0..(40 + 27 + 100) * 8 {
        let disk = SimDisk::new(1);
        five_frames(&disk);
        let start = 5 * 4096;
        disk.flip_bit(&file(1), start + bit / 8, u8::try_from(bit % 8).unwrap()).unwrap();
        let cut = inspect(&disk, Path::new(DIR)).unwrap().cut.unwrap();
        let (wal, report) = open(&disk, options(), 2).unwrap();
        assert_eq!(report.cut.as_ref().map(|cut| cut.offset), Some(start), "bit {bit}");
        assert_eq!(report.cut, Some(cut));
        assert_eq!(all(&wal, 1).len(), 4);
    }
}

#[test]
fn an_idle_writer_publishes_how_far_it_is_synced() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    write(&wal, vec![entry(1, 0, 1, 100)]).unwrap();
    assert_eq!(wal.publish().unwrap(), Progress::Wrote);
    assert_eq!(wal.publish().unwrap(), Progress::Idle, "once is enough");
    disk.kill();
    disk.flip_bit(&file(1), 4096 + 50, 1).unwrap();
    assert!(matches!(open(&disk, options(), 2), Err(Error::Corrupt { offset: 4096, .. })));
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_when_it_is_read() {
    let disk = SimDisk::new(1);
    five_frames(&disk);
    open(&disk, options(), 2).unwrap().0.shutdown().unwrap();
    disk.flip_bit(&file(1), 3 * 4096 + 80, 3).unwrap();
    let (wal, _) = open(&disk, options(), 3).unwrap();
    let read = |index: u64| wal.entries(shard(1), Index::new(index)..Index::new(index + 1), u64::MAX);
    assert!(matches!(read(2), Err(Error::Corrupt { file: at, offset: 12_328, .. }) if at == file(1)));
    read(3).unwrap();
    assert!(!inspect(&disk, Path::new(DIR)).unwrap().is_sound());
}

#[test]
fn a_damaged_footer_is_made_anew_from_the_frames() {
    for byte in 1..=64 {
        let disk = SimDisk::new(1);
        let wal = fresh(&disk);
        for index in 0..60 {
            write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
        }
        wal.shutdown().unwrap();
        let len = disk.content(&file(2)).unwrap().len() as u64;
        disk.flip_bit(&file(2), len - byte, 0).unwrap();
        let (wal, report) = open(&disk, options(), 2).unwrap();
        assert_eq!(report.rewritten, [2]);
        assert_eq!(all(&wal, 1).len(), 60);
    }
}

#[test]
fn a_missing_segment_is_named() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..60 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    drop(wal);
    disk.kill();
    disk.remove(&file(2)).unwrap();
    let error = open(&disk, options(), 2).unwrap_err();
    assert!(error.to_string().contains("segments 2 to 2 are missing"), "{error}");
    disk.remove(&file(1)).unwrap();
    let error = open(&disk, options(), 2).unwrap_err();
    assert!(error.to_string().contains("shard 1 has no entries 0 to"), "{error}");
    assert!(!inspect(&disk, Path::new(DIR)).unwrap().is_sound());
}

/// A log whose newest segment holds one frame; that segment's number.
fn one_frame_in_the_newest(disk: &SimDisk) -> u64 {
    let wal = fresh(disk);
    let mut index = 0;
    loop {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
        index += 1;
        let segments = wal.segments();
        if segments.len() == 3 {
            drop(wal);
            disk.kill();
            return segments[2].sequence;
        }
    }
}

#[test]
fn that_the_newest_segment_is_missing_is_seen() {
    let disk = SimDisk::new(1);
    let newest = one_frame_in_the_newest(&disk);
    disk.remove(&file(newest)).unwrap();
    let error = open(&disk, options(), 2).unwrap_err();
    assert!(error.to_string().contains("segment 3 is missing, which was the newest"), "{error}");
    let report = inspect(&disk, Path::new(DIR)).unwrap();
    assert_eq!((report.damage.len(), report.unread), (1, Some(file(newest))), "{:?}", report.damage);
    disk.remove(&file(2)).unwrap();
    let error = open(&disk, options(), 2).unwrap_err();
    assert!(error.to_string().contains("segments 2 to 3 are missing"), "{error}");
}

#[test]
fn that_the_newest_segment_is_missing_is_seen_of_a_log_that_fsyncs_when_it_seals() {
    let disk = SimDisk::new(1);
    let seldom = WalOptions { fsync: Fsync::Interval(Duration::from_secs(3600)), ..options() };
    let (wal, _) = open(&disk, seldom.clone(), 1).unwrap();
    for index in 0..20 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    wal.shutdown().unwrap();
    let newest = wal.segments().last().unwrap().sequence;
    drop(wal);
    disk.remove(&file(newest)).unwrap();
    let error = open(&disk, seldom, 2).unwrap_err();
    assert!(error.to_string().contains("is missing, which was the newest"), "{error}");
}

#[test]
fn the_first_frame_of_a_segment_is_not_taken_for_torn_once_it_was_fsynced() {
    let disk = SimDisk::new(1);
    let newest = one_frame_in_the_newest(&disk);
    disk.flip_bit(&file(newest), crate::format::BLOCK + 100, 0).unwrap();
    let error = open(&disk, options(), 2).unwrap_err();
    assert!(error.to_string().contains("it was fsynced"), "{error}");
    assert!(!inspect(&disk, Path::new(DIR)).unwrap().is_sound());
}

#[test]
fn a_newest_segment_that_holds_nothing_is_removed_and_not_missed() {
    let disk = SimDisk::new(1);
    one_frame_in_the_newest(&disk);
    // Each start opens a segment with its first frame; this one's is never fsynced.
    let (wal, _) = open(&disk, options(), 2).unwrap();
    wal.note(vec![Record::Committed { shard: shard(1), id: id(0, 1) }]).unwrap();
    drop(wal);
    disk.power_cut();
    for seed in 3..5 {
        let (wal, _) = open(&disk, options(), seed).unwrap();
        drop(wal);
        disk.kill();
    }
}

#[test]
fn a_log_of_another_node_is_refused() {
    let disk = SimDisk::new(1);
    five_frames(&disk);
    let error = open(&disk, WalOptions { node: NodeId::new(2), ..options() }, 2).unwrap_err();
    assert!(error.to_string().contains("belongs to node 1, this is node 2"), "{error}");
}

#[test]
fn records_that_break_the_order_are_refused_and_change_nothing() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    write(&wal, vec![entry(1, 0, 1, 10), entry(1, 1, 1, 10)]).unwrap();
    let before = wal.log_state(shard(1));
    let hole = write(&wal, vec![entry(1, 2, 1, 10), entry(1, 4, 1, 10)]).unwrap_err();
    assert!(matches!(hole, Error::OutOfOrder { expected, .. } if expected == Index::new(3)), "{hole}");
    let unknown = write(&wal, vec![Record::Displaced { shard: shard(1), id: id(1, 9) }]).unwrap_err();
    assert!(matches!(unknown, Error::UnknownEntry { .. }), "{unknown}");
    assert_eq!(wal.log_state(shard(1)), before);
    write(&wal, vec![Record::Purged { shard: shard(1), id: id(0, 1) }]).unwrap();
    let purged = wal.entries(shard(1), Index::ZERO..Index::MAX, 1).unwrap_err();
    assert!(matches!(purged, Error::Purged { first, .. } if first == Index::new(1)), "{purged}");
    assert_eq!(wal.term_of(shard(1), Index::ZERO), Some(duramen_types::Term::new(1)));
    assert_eq!(wal.entries(shard(1), Index::new(5)..Index::MAX, 1).unwrap(), []);
}
