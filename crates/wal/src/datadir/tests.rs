use std::path::Path;
use std::sync::Arc;

use duramen_types::{ArchiveId, ClusterId, HybridTime, NodeId};

use super::*;
use crate::RealDisk;
use crate::sim::SimDisk;

fn description() -> NodeDescription {
    NodeDescription {
        format_version: FORMAT_VERSION,
        node: NodeId::new(1),
        cluster: ClusterId::from_bytes([1; 16]),
        archive: None,
        branch: None,
        shards: 8,
        created: HybridTime::from_micros(5),
        cut: None,
    }
}

fn restore() -> RestoreDescription {
    RestoreDescription {
        format_version: FORMAT_VERSION,
        source: "s3://bucket/prefix".to_owned(),
        branch: "main".to_owned(),
        progress: "3 of 7 segments".to_owned(),
        details: serde_json::json!({ "done": [1, 2, 3] }),
    }
}

#[test]
fn a_directory_in_use_names_the_process_that_holds_it() {
    let root = tempfile::tempdir().unwrap();
    let held = DataDir::open(Arc::new(RealDisk::new()), root.path()).unwrap();
    let error = DataDir::open(Arc::new(RealDisk::new()), root.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    let clone = held.clone();
    drop(held);
    assert!(DataDir::open(Arc::new(RealDisk::new()), root.path()).is_err(), "a clone holds it, too");
    drop(clone);
    DataDir::open(Arc::new(RealDisk::new()), root.path()).unwrap();
}

#[test]
fn a_directory_belongs_to_one_node_and_takes_its_archive_once() {
    let disk = SimDisk::new(1);
    let dir = DataDir::open(Arc::new(disk), Path::new("/data")).unwrap();
    assert_eq!(dir.node().unwrap(), None);
    dir.bind(&description()).unwrap();
    let archive = Some(ArchiveId::from_bytes([2; 16]));
    let bound = NodeDescription { archive, branch: Some("main".to_owned()), ..description() };
    assert_eq!(dir.bind(&bound).unwrap(), bound);
    assert_eq!(dir.bind(&description()).unwrap(), bound, "what is written down stays");
    for (wrong, what) in [
        (NodeDescription { node: NodeId::new(2), ..description() }, "belongs to node 1, but this is node 2"),
        (NodeDescription { cluster: ClusterId::from_bytes([9; 16]), ..description() }, "belongs to cluster"),
        (NodeDescription { shards: 9, ..description() }, "shard count 8"),
        (
            NodeDescription { archive: Some(ArchiveId::from_bytes([3; 16])), ..description() },
            "belongs to archive",
        ),
        (NodeDescription { branch: Some("other".to_owned()), ..description() }, "belongs to branch main"),
    ] {
        let error = dir.bind(&wrong).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_newer_or_malformed_directory_is_refused_with_what_to_do() {
    let disk = Arc::new(SimDisk::new(1));
    drop(DataDir::open(disk.clone(), Path::new("/data")).unwrap());
    let node = Path::new("/data/node.json");
    durable::write_file(&*disk, node, br#"{ "format_version": 2, "unheard_of": true }"#).unwrap();
    let error = DataDir::open(disk.clone(), Path::new("/data")).unwrap_err().to_string();
    assert!(error.contains("format version 2") && error.contains("use a newer release"), "{error}");
    let restore = Path::new("/data/restore.json");
    durable::write_file(&*disk, node, b"{").unwrap();
    let error = DataDir::open(disk.clone(), Path::new("/data")).unwrap_err().to_string();
    assert!(error.contains("/data/node.json can't be read"), "{error}");
    durable::remove_file(&*disk, node).unwrap();
    durable::write_file(&*disk, restore, br#"{ "format_version": 3, "unheard_of": true }"#).unwrap();
    let error = DataDir::open(disk, Path::new("/data")).unwrap_err().to_string();
    assert!(error.contains("format version 3"), "{error}");
}

#[test]
fn a_half_restored_directory_does_not_open_until_it_is_activated() {
    let disk = Arc::new(SimDisk::new(1));
    let dir = DataDir::open_unfinished(disk.clone(), Path::new("/data")).unwrap();
    dir.note_restore(&restore()).unwrap();
    dir.bind(&description()).unwrap();
    dir.note_restore(&restore()).expect("the restore goes on in a directory that it bound itself");
    drop(dir);
    let error = DataDir::open(disk.clone(), Path::new("/data")).unwrap_err().to_string();
    assert!(
        error.contains("half restored (from branch main of s3://bucket/prefix, 3 of 7 segments)"),
        "{error}"
    );
    assert!(error.contains("duramen-restore hydrate --to /data"), "{error}");
    let dir = DataDir::open_unfinished(disk.clone(), Path::new("/data")).unwrap();
    assert_eq!(dir.restore().unwrap(), Some(restore()));
    dir.activate(HybridTime::from_micros(9)).unwrap();
    drop(dir);
    DataDir::open(disk, Path::new("/data")).unwrap();
}

#[test]
fn a_restore_into_a_directory_in_use_by_a_node_is_refused() {
    let dir = DataDir::open(Arc::new(SimDisk::new(1)), Path::new("/data")).unwrap();
    dir.bind(&description()).unwrap();
    let error = dir.note_restore(&restore()).unwrap_err().to_string();
    assert!(error.contains("belongs to node 1; restore into an empty directory"), "{error}");
}

#[test]
fn a_power_cut_at_any_step_of_a_restore_never_opens_a_half_restored_directory() {
    for seed in 0..30 {
        for step in 1.. {
            let disk = SimDisk::new(seed);
            disk.fail_power_at(step);
            let restored = (|| {
                let dir = DataDir::open_unfinished(Arc::new(disk.clone()), Path::new("/data"))?;
                dir.note_restore(&restore())?;
                dir.bind(&description())?;
                dir.activate(HybridTime::from_micros(9))
            })();
            disk.power_cut();
            let opened = DataDir::open(Arc::new(disk), Path::new("/data"));
            if let Ok(dir) = &opened {
                // Either nothing had begun, or everything is there.
                assert_eq!(
                    dir.node().unwrap().is_some(),
                    dir.restore().unwrap().is_some(),
                    "seed {seed}, step {step}"
                );
            }
            if restored.is_ok() {
                opened.unwrap();
                break;
            }
        }
    }
}

const GOLDEN: duramen_golden::Golden = duramen_golden::golden!();

/// The descriptions have no checksum: they are replaced atomically, and are read by people. Damage is an error or
/// another text, number or id.
#[test]
fn the_descriptions_are_the_golden_ones() {
    let disk = Arc::new(SimDisk::new(1));
    let root = Path::new("/data");
    let dir = DataDir::open_unfinished(disk.clone(), root).unwrap();
    let bound = NodeDescription {
        archive: Some(ArchiveId::from_bytes([2; 16])),
        branch: Some("main".to_owned()),
        ..description()
    };
    dir.note_restore(&restore()).unwrap();
    dir.bind(&bound).unwrap();
    dir.activate(HybridTime::from_micros(9)).unwrap();
    drop(dir);
    let read = |name: &str| disk.content(&root.join(name)).unwrap();
    for name in [NODE, RESTORE, ACTIVATED] {
        let bytes = GOLDEN.assert_golden(name, &read(name));
        let open = |bytes: &[u8]| {
            durable::write_file(&*disk, &root.join(name), bytes).unwrap();
            let dir = DataDir::open(disk.clone(), root)?;
            Ok::<_, Error>((dir.node()?, dir.restore()?, dir.is_activated()?))
        };
        assert_eq!(open(&bytes).unwrap(), (Some(bound.clone()), Some(restore()), true), "{name}");
        duramen_golden::for_each_damage(&bytes, |damaged, what| {
            // A file that is cut short is never taken for a whole one.
            let cut = damaged.len() < bytes.len() && damaged.len() < bytes.trim_ascii_end().len();
            assert!(!(cut && open(damaged).is_ok()), "{name} {what}");
            drop(open(damaged));
        });
        open(&bytes).unwrap();
    }
    // What is in LOCK is for people: a process, its lock, makes the difference.
    let pid = String::from_utf8(read(LOCK)).unwrap();
    assert_eq!(pid, format!("{}\n", std::process::id()));
}
