//! The power goes at every single operation, recovery's own included.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::fixture::{all, drive, entry, file, fresh, id, open, options, shard, write};
use super::model::{Model, assert_prefix, run};
use crate::sim::SimDisk;
use crate::{Record, inspect};

const SUBMISSIONS: usize = 200;

/// Every other seed without files written ahead.
fn options_for(seed: u64) -> crate::WalOptions {
    crate::WalOptions { spare_files: usize::from(seed.is_multiple_of(2)), ..options() }
}

#[test]
fn a_power_cut_at_every_operation_loses_nothing_acknowledged() {
    let (mut reclaimed, mut copied) = (0, 0);
    for seed in 0..6 {
        let total = {
            let disk = SimDisk::new(seed);
            let (wal, _) = open(&disk, options_for(seed), 1).unwrap();
            run(&wal, &mut StdRng::seed_from_u64(seed), Model::default(), SUBMISSIONS);
            reclaimed += wal.stats().reclaimed;
            copied += wal.stats().copied_forward;
            let _ = wal.shutdown();
            disk.operations()
        };
        for at in 1..=total {
            let what = format!("seed {seed}, cut at {at}");
            let disk = SimDisk::new(seed);
            disk.fail_power_at(at);
            // Even creating the log may be hit.
            let Ok((wal, _)) = open(&disk, options_for(seed), 1) else {
                disk.power_cut();
                open(&disk, options(), 2).unwrap_or_else(|error| panic!("{what}: {error}"));
                continue;
            };
            let outcome = run(&wal, &mut StdRng::seed_from_u64(seed), Model::default(), SUBMISSIONS);
            let _ = wal.shutdown();
            assert!(disk.is_off());
            drop(wal);
            disk.power_cut();
            recover_with_nested_cuts(&disk, at, &what, |wal| {
                assert_prefix(wal, &outcome, &what);
            });
        }
    }
    assert!(reclaimed > 3 && copied > 0, "the histories must reclaim segments: {reclaimed}, {copied} copied");
}

/// Recovers, with the power failing again during the first attempts; then checks, and uses the log.
fn recover_with_nested_cuts(disk: &SimDisk, at: u64, what: &str, check: impl Fn(&crate::Wal)) {
    for nested in 1..4 {
        disk.fail_power_at(disk.operations() + 1 + (at * 7 + nested * 5) % 11);
        match open(disk, options(), nested) {
            Ok((wal, _)) => check(&wal),
            Err(error) => assert!(disk.is_off(), "{what}, nested {nested}: {error}"),
        }
        disk.power_cut();
    }
    let report = inspect(disk, std::path::Path::new(super::fixture::DIR)).unwrap();
    assert!(report.is_sound(), "{what}: {:?}", report.damage);
    let (wal, _) = open(disk, options(), 9).unwrap_or_else(|error| panic!("{what}: {error}"));
    check(&wal);
    let end = wal.log_state(shard(1)).end.get();
    write(&wal, vec![Record::Truncate { shard: shard(1), from: wal.log_state(shard(1)).first }]).unwrap();
    let first = wal.log_state(shard(1)).first.get();
    write(&wal, vec![entry(1, first, 1000, 10)]).unwrap();
    drop(wal);
    disk.power_cut();
    let (wal, _) = open(disk, options(), 10).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(all(&wal, 1).len(), 1, "{what}, {end}");
}

#[test]
fn a_power_cut_at_every_operation_of_recovery_keeps_the_log() {
    for seed in 0..20 {
        for step in 1.. {
            let disk = SimDisk::new(seed);
            let wal = fresh(&disk);
            for index in 0..40 {
                write(&wal, vec![entry(1, index, 1, 500)]).unwrap();
            }
            wal.submit(vec![entry(1, 40, 1, 500)], Box::new(drop));
            disk.kill();
            disk.fail_power_at(disk.operations() + step);
            let finished = open(&disk, options(), 2).is_ok();
            disk.power_cut();
            let (wal, _) = open(&disk, options(), 3).unwrap();
            assert_eq!(all(&wal, 1).len(), 40, "seed {seed}, step {step}");
            if finished {
                break;
            }
        }
    }
}

#[test]
fn what_recovery_showed_survives_the_next_power_cut_even_if_it_was_never_synced() {
    let disk = SimDisk::new(4);
    let options =
        || crate::WalOptions { fsync: crate::Fsync::Interval(std::time::Duration::MAX), ..options() };
    let (wal, _) = open(&disk, options(), 1).unwrap();
    write(&wal, vec![entry(1, 0, 1, 100), entry(1, 1, 1, 100)]).unwrap();
    assert_eq!(wal.log_state(shard(1)).flushed.get(), 0, "written, not fsynced");
    drop(wal);
    disk.kill();
    let (wal, report) = open(&disk, options(), 2).unwrap();
    assert_eq!(report.rewritten, [1]);
    assert_eq!(wal.log_state(shard(1)).flushed.get(), 2);
    drop(wal);
    disk.power_cut();
    assert_eq!(all(&open(&disk, options(), 3).unwrap().0, 1).len(), 2);
}

#[test]
fn an_unsynced_frame_is_whole_or_not_there_and_what_was_cut_is_reported() {
    let (mut whole, mut gone, mut reported) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let wal = fresh(&disk);
        write(&wal, vec![entry(1, 0, 1, 100)]).unwrap();
        // The frame's write passes, its fsync is what fails.
        disk.fail_power_at(disk.operations() + 2);
        write(&wal, (1..5).map(|index| entry(1, index, 1, 1500)).collect()).unwrap_err();
        disk.power_cut();
        let (wal, report) = open(&disk, options(), 2).unwrap();
        match all(&wal, 1).len() {
            1 => gone += 1,
            5 => whole += 1,
            other => panic!("seed {seed}: {other} entries"),
        }
        if let Some(cut) = report.cut {
            reported += 1;
            assert_eq!((cut.file, cut.offset), (file(1), 8192));
        }
    }
    assert!(whole > 20 && gone > 20 && reported > 20, "{whole} whole, {gone} gone, {reported} reported");
}

#[test]
fn a_kill_between_submissions_keeps_all_that_was_written() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..300 {
        wal.submit(vec![entry(2, index, 1 + index / 100, 200)], Box::new(|result| result.unwrap()));
    }
    drive(&wal);
    drop(wal);
    disk.kill();
    let (wal, _) = open(&disk, options(), 2).unwrap();
    let entries = all(&wal, 2);
    assert_eq!(entries.len(), 300);
    assert_eq!(entries[299].0, id(299, 3));
}
