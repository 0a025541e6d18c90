//! Segments come back as space: deleted, recycled, or emptied by copying forward.

use duramen_types::Index;

use super::fixture::{all, drive, entry, file, fresh, id, open, options, shard, write};
use crate::sim::SimDisk;
use crate::{Record, WalOptions};

fn purge(n: u16, index: u64) -> Vec<Record> {
    vec![Record::Purged { shard: shard(n), id: id(index, 1) }]
}

#[test]
fn purged_segments_are_recycled_and_their_stale_frames_are_never_seen() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..100 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    let used = wal.space().used;
    write(&wal, purge(1, 98)).unwrap();
    drive(&wal);
    assert!(wal.stats().reclaimed > 4 && wal.space().used < used / 2, "{:?}", wal.stats());
    let last = wal.segments().len() - 1;
    let sequence = wal.segments()[last].sequence;
    let mut end = 100;
    while wal.segments().last().unwrap().sequence == sequence {
        write(&wal, vec![entry(1, end, 1, 2000)]).unwrap();
        end += 1;
    }
    let content = disk.content(&wal.segments().last().unwrap().path).unwrap();
    let stale = content.windows(6).any(|window| window == b"1/5@1;");
    assert!(stale, "the file must be a recycled one with stale entries in it");
    disk.kill();
    let (wal, report) = open(&disk, options(), 2).unwrap();
    assert_eq!(report.cut, None, "stale frames are no damage");
    let entries = all(&wal, 1);
    assert_eq!((entries[0].0, entries.len()), (id(99, 1), usize::try_from(end).unwrap() - 99));
}

#[test]
fn the_few_entries_of_an_idle_shard_are_copied_forward_rather_than_pin_a_file() {
    let disk = SimDisk::new(1);
    let options = || WalOptions { copy_forward_bytes: 4096, ..options() };
    let (wal, _) = open(&disk, options(), 1).unwrap();
    write(&wal, vec![entry(7, 0, 1, 100), entry(7, 1, 1, 100), entry(7, 2, 1, 100)]).unwrap();
    write(&wal, vec![Record::Displaced { shard: shard(7), id: id(2, 1) }]).unwrap();
    write(&wal, vec![Record::Truncate { shard: shard(7), from: Index::new(2) }, entry(7, 2, 2, 60)]).unwrap();
    write(&wal, vec![Record::Vote { shard: shard(7), bytes: "a vote".into() }]).unwrap();
    for index in 0..400 {
        write(&wal, vec![entry(1, index, 1, 1000)]).unwrap();
        if index % 20 == 19 {
            write(&wal, purge(1, index - 10)).unwrap();
        }
    }
    drive(&wal);
    assert!(wal.stats().copied_forward >= 4 && wal.segments().len() <= 6, "{:?}", wal.segments());
    for round in 0..2 {
        if round == 1 {
            disk.power_cut();
        }
        let wal = if round == 0 { wal.clone() } else { open(&disk, options(), 2).unwrap().0 };
        let ids: Vec<_> = all(&wal, 7).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [id(0, 1), id(1, 1), id(2, 2)]);
        assert_eq!(wal.displaced(shard(7)), [id(2, 1)]);
        let kept = wal.displaced_entry(shard(7), id(2, 1)).unwrap();
        assert!(kept.starts_with(b"7/2@1;"));
        assert_eq!(wal.log_state(shard(7)).vote.unwrap(), "a vote");
    }
}

#[test]
fn a_segment_with_a_displaced_entry_stays_until_it_is_released() {
    let disk = SimDisk::new(1);
    let options = || WalOptions { copy_forward_bytes: 0, ..options() };
    let (wal, _) = open(&disk, options(), 1).unwrap();
    write(&wal, vec![entry(1, 0, 1, 100)]).unwrap();
    write(&wal, vec![Record::Displaced { shard: shard(1), id: id(0, 1) }]).unwrap();
    write(&wal, purge(1, 0)).unwrap();
    for index in 1..60 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    write(&wal, purge(1, 58)).unwrap();
    drive(&wal);
    assert_eq!(wal.segments()[0].path, file(1));
    assert!(wal.displaced_entry(shard(1), id(0, 1)).unwrap().starts_with(b"1/0@1;"));
    write(&wal, vec![Record::Released { shard: shard(1), id: id(0, 1) }]).unwrap();
    drive(&wal);
    assert!(wal.segments()[0].sequence > 2);
}

#[test]
fn a_reader_sees_what_it_was_promised_while_a_purge_overtakes_it() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..60 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    // What a reader holds between looking up the place and reading it.
    let pinned = wal.shared().state.lock().catalog.segments[&1].file.clone();
    let mut before = vec![0; 20_000];
    pinned.read_exact_at(&mut before, 4096).unwrap();
    write(&wal, purge(1, 58)).unwrap();
    for index in 60..120 {
        write(&wal, vec![entry(1, index, 1, 2000)]).unwrap();
    }
    assert!(wal.segments()[0].sequence > 1);
    let mut after = vec![0; 20_000];
    pinned.read_exact_at(&mut after, 4096).unwrap();
    assert!(before == after, "a pinned file is not recycled");
}

#[test]
fn nothing_is_reclaimed_without_a_purge() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..200 {
        write(&wal, vec![entry(1, index, 1, 1000), entry(2, index, 1, 10)]).unwrap();
    }
    drive(&wal);
    assert_eq!(wal.segments()[0].path, file(1));
    assert_eq!((all(&wal, 1).len(), all(&wal, 2).len()), (200, 200));
}

#[test]
fn the_bytes_of_any_range_are_counted_as_they_would_be_read() {
    let disk = SimDisk::new(1);
    let wal = fresh(&disk);
    for index in 0..150 {
        let term = 1 + index / 40;
        let size = 200 + usize::try_from(index * 37 % 1500).unwrap();
        write(&wal, vec![entry(1, index, term, size), entry(2, index, term, 50)]).unwrap();
    }
    write(&wal, vec![Record::Truncate { shard: shard(1), from: Index::new(140) }]).unwrap();
    write(&wal, vec![entry(1, 140, 9, 900), entry(1, 141, 9, 700)]).unwrap();
    write(&wal, purge(1, 30)).unwrap();
    drive(&wal);
    assert!(wal.segments().iter().filter(|segment| segment.sealed).count() > 3, "{:?}", wal.segments());
    let check = |wal: &crate::Wal| {
        let entries = all(wal, 1);
        assert_eq!(entries.len(), 111);
        for start in 31..=142 {
            for end in start..=143 {
                let of = entries.iter().filter(|(id, _)| (start..end).contains(&id.index.get()));
                let expected: u64 = of.map(|(_, payload)| payload.len() as u64).sum();
                let found = wal.payload_bytes(shard(1), Index::new(start)..Index::new(end)).unwrap();
                assert_eq!(found, expected, "{start}..{end}");
            }
        }
    };
    check(&wal);
    disk.kill();
    let (wal, _) = open(&disk, options(), 2).unwrap();
    check(&wal);
    assert_eq!(wal.payload_bytes(shard(5), Index::ZERO..Index::MAX).unwrap(), 0, "a shard that is not there");
}
