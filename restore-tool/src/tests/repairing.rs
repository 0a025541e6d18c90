use std::path::Path;
use std::sync::Arc;

use duramen_archive::Closed;
use duramen_types::{Clock, Index, NodeId, SegmentId, ShardId};
use duramen_wal::datadir::{DataDir, FORMAT_VERSION, NodeDescription};
use duramen_wal::{Progress, RealDisk, Record, Wal, WalOptions};

use super::world::*;
use crate::{RepairOptions, repair};

fn open(dir: &Path, clock: &Arc<TestClock>) -> Wal {
    let options = WalOptions {
        segment_bytes: 1 << 20,
        max_frame_bytes: 64 << 10,
        reserve_bytes: 0,
        ..WalOptions::new(NodeId::new(1))
    };
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Wal::open(Arc::new(RealDisk), dir, options, clock, Box::new(|| SegmentId::from_random([9; 16])))
        .unwrap()
        .0
}

/// A node's directory whose log holds everything, one frame for each entry.
fn node(world: &World, root: &Path) {
    node_with(world, root, |wal| {
        for (shard, log) in (0..).map(ShardId::new).zip(&world.logs) {
            wal.submit(vec![Record::Vote { shard, bytes: "vote".into() }], Box::new(|done| done.unwrap()));
            for logged in log {
                let (id, payload) = (logged.id, logged.entry.payload().clone());
                wal.submit(vec![Record::Entry { shard, id, payload }], Box::new(|done| done.unwrap()));
                while wal.drive().unwrap() == Progress::Wrote {}
            }
        }
    });
}

/// A node's directory with the log that `write` makes.
fn node_with(world: &World, root: &Path, write: impl FnOnce(&Wal)) {
    let dir = DataDir::open(Arc::new(RealDisk), root).unwrap();
    dir.bind(&NodeDescription {
        format_version: FORMAT_VERSION,
        node: NodeId::new(1),
        cluster: world.cluster,
        archive: Some(world.view.identity().archive),
        branch: Some("main".to_owned()),
        shards: SHARDS,
        created: world.now(),
        cut: None,
    })
    .unwrap();
    let wal = open(&dir.wal(), &world.clock);
    write(&wal);
    wal.shutdown().unwrap();
}

/// Flips a byte of the frame that holds the entry.
fn damage(root: &Path, shard: u16, index: Index) {
    let mut at = None;
    duramen_wal::salvage(&RealDisk, &root.join("wal"), &mut |path, position, record| {
        if let Record::Entry { shard: found, id, .. } = &record
            && *found == ShardId::new(shard)
            && id.index == index
        {
            at = Some((path.to_owned(), position));
        }
        Ok(())
    })
    .unwrap();
    let (path, position) = at.unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    use std::os::unix::fs::FileExt;
    let mut byte = [0];
    file.read_exact_at(&mut byte, position + 12).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], position + 12).unwrap();
}

async fn world() -> World {
    let (mut world, _) = World::filled().await;
    for round in 0..4 {
        for stream in ["a", "b", "c", "d"] {
            world.append(stream, &[&format!("tail {round}")]);
        }
    }
    world
}

#[tokio::test]
async fn damage_below_the_archived_end_costs_nothing() {
    let world = world().await;
    let dir = tempfile::tempdir().unwrap();
    node(&world, dir.path());
    let sound = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    assert!(sound.sound && sound.moved_aside.is_none());
    damage(dir.path(), 1, Index::new(2));
    let dry = RepairOptions { dry_run: true, ..RepairOptions::default() };
    let planned = repair(&world.store, dir.path(), &dry).await.unwrap();
    assert!(planned.lost_nothing() && !planned.damage.is_empty() && planned.moved_aside.is_none());
    let report = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    assert_eq!((&report.shards, &report.gone), (&planned.shards, &planned.gone));
    assert!(report.moved_aside.unwrap().is_dir());
    let opened = DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
    let wal = open(&opened.wal(), &world.clock);
    for shard in 0..=SHARDS {
        let at = usize::from(shard);
        let id = ShardId::new(shard);
        let state = wal.log_state(id);
        assert_eq!(state.end, world.end(at));
        assert_eq!(state.vote.as_deref(), Some(&b"vote"[..]));
        let archived = world.logs[at][world.archived[at] - 1].id;
        assert_eq!(state.purged, Some(archived));
        let kept = wal.entries(id, archived.index.next()..state.end, 1 << 20).unwrap();
        let expected: Vec<_> =
            world.logs[at][world.archived[at]..].iter().map(|l| (l.id, l.entry.payload().clone())).collect();
        assert_eq!(kept, expected, "shard {shard}");
    }
    drop(opened);
    let again = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    assert!(again.sound);
}

#[tokio::test]
async fn what_was_closed_stays_closed_though_its_tick_is_lost() {
    let world = world().await;
    let closed = Closed::last_of(&world.view, NodeId::new(1)).await.unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    node(&world, dir.path());
    damage(dir.path(), 1, Index::new(2));
    let cut = || DataDir::open(Arc::new(RealDisk), dir.path()).unwrap().node().unwrap().unwrap().cut;
    let dry = RepairOptions { dry_run: true, ..RepairOptions::default() };
    repair(&world.store, dir.path(), &dry).await.unwrap();
    assert_eq!(cut(), None);
    repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    assert_eq!(cut(), Some(closed));
}

#[tokio::test]
async fn what_is_gone_beyond_the_archive_is_said_exactly() {
    let world = world().await;
    let dir = tempfile::tempdir().unwrap();
    node(&world, dir.path());
    let lost = world.logs[1][world.archived[1] + 1].id.index;
    damage(dir.path(), 1, lost);
    let report = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    let [gone] = &report.gone[..] else { panic!("{report:?}") };
    assert_eq!((gone.shard, gone.first, gone.end), (ShardId::new(1), lost, world.end(1)));
    assert!(!report.lost_nothing() && gone.unknown == 1 && gone.records > 0, "{gone:?}");
    let opened = DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
    let wal = open(&opened.wal(), &world.clock);
    assert_eq!(wal.log_state(ShardId::new(1)).end, lost);
    assert_eq!(wal.log_state(ShardId::new(2)).end, world.end(2));
}

#[tokio::test]
async fn an_entry_that_shares_its_frame_with_a_damaged_one_is_kept() {
    let world = world().await;
    let dir = tempfile::tempdir().unwrap();
    // An archived entry of one shard and one of the other that is only here.
    let (one, other) = (&world.logs[1], &world.logs[2]);
    let (archived, local) = (2, world.archived[2]);
    node_with(&world, dir.path(), |wal| {
        let entry = |shard, at: usize, log: &[Logged]| Record::Entry {
            shard: ShardId::new(shard),
            id: log[at].id,
            payload: log[at].entry.payload().clone(),
        };
        for at in 0..archived {
            wal.submit(vec![entry(1, at, one)], Box::new(|done| done.unwrap()));
        }
        for at in 0..local {
            wal.submit(vec![entry(2, at, other)], Box::new(|done| done.unwrap()));
        }
        while wal.drive().unwrap() == Progress::Wrote {}
        wal.submit(vec![entry(1, archived, one), entry(2, local, other)], Box::new(|done| done.unwrap()));
        while wal.drive().unwrap() == Progress::Wrote {}
        for at in archived + 1..one.len() {
            wal.submit(vec![entry(1, at, one)], Box::new(|done| done.unwrap()));
        }
        for at in local + 1..other.len() {
            wal.submit(vec![entry(2, at, other)], Box::new(|done| done.unwrap()));
        }
        while wal.drive().unwrap() == Progress::Wrote {}
    });
    damage(dir.path(), 1, one[archived].id.index);
    let report = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap();
    assert!(report.lost_nothing() && report.gone.is_empty(), "{report:?}");
    let opened = DataDir::open(Arc::new(RealDisk), dir.path()).unwrap();
    assert_eq!(open(&opened.wal(), &world.clock).log_state(ShardId::new(2)).end, world.end(2));
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_not_repaired() {
    let mut world = world().await;
    let dir = tempfile::tempdir().unwrap();
    world.cluster = duramen_types::ClusterId::from_bytes([5; 16]);
    node(&world, dir.path());
    damage(dir.path(), 1, Index::new(2));
    let error = repair(&world.store, dir.path(), &RepairOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("branch main is written by cluster"), "{error}");
    let error =
        repair(&world.store, &dir.path().join("nowhere"), &RepairOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("cannot list"), "{error}");
}
