use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_archive::{Branch, ObjectKey};
use duramen_types::NodeId;
use duramen_wal::RealDisk;
use duramen_wal::datadir::{self, DataDir};
use tokio::sync::Notify;

use super::world::*;
use crate::{Error, HydrateOptions, Observer, Target, hydrate, resume};

fn options() -> HydrateOptions {
    HydrateOptions { parallelism: 1, ..HydrateOptions::new(NodeId::new(3)) }
}

/// Every segment is in the directory, byte for byte.
async fn check(world: &World, dir: &Path) {
    let mut count = 0;
    for key in world.keys().await {
        if let ObjectKey::Segment { .. } = key {
            let copy = std::fs::read(dir.join("hydrated").join(key.to_string())).unwrap();
            assert!(copy == world.read(&key).await, "{key}");
            count += 1;
        }
    }
    assert_eq!(count, 15);
    let opened = DataDir::open(Arc::new(RealDisk), dir).unwrap();
    let node = opened.node().unwrap().unwrap();
    assert_eq!((node.node, node.shards), (NodeId::new(3), SHARDS));
    assert_eq!(node.archive, Some(world.view.identity().archive));
    Branch::open(&world.store, &name(&node.branch.unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_hydrated_directory_holds_the_archive_verbatim() {
    let (world, _) = World::filled().await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    let report = hydrate(&world.store, &name("main"), &Target::Latest, &to, &options()).await.unwrap();
    assert_eq!((report.fetched.segments, report.fetched.snapshots, report.present.objects()), (15, 3, 0));
    check(&world, &to).await;
    let again = hydrate(&world.store, &name("main"), &Target::Latest, &to, &options()).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyRestored { .. }), "{again}");
    let second = dir.path().join("second");
    let other = hydrate(&world.store, &name("main"), &Target::Latest, &second, &options()).await.unwrap();
    assert_ne!(other.branch, report.branch, "two directories are two branches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_at_any_object_is_finished_by_running_it_again() {
    let (world, _) = World::filled().await;
    // 18 objects of one piece each: two steps for every one of them, and the plan.
    for steps in 1..=37 {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("data");
        let (seen, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let mut interrupted = options();
        let (counted, told) = (Arc::clone(&seen), Arc::clone(&stop));
        interrupted.observer = Observer::new(move |_| {
            if counted.fetch_add(1, Ordering::SeqCst) + 1 == steps {
                told.notify_one();
            }
        });
        let run = {
            let (store, to) = (world.store.clone(), to.clone());
            let named = name(&format!("killed-{steps}"));
            let interrupted = HydrateOptions { branch: Some(named), ..interrupted };
            async move { hydrate(&store, &name("main"), &Target::Latest, &to, &interrupted).await }
        };
        // On a runtime of its own, whose end waits for what it still does on the disk: nothing of a killed process goes on.
        tokio::task::block_in_place(|| {
            let process = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            process.block_on(async {
                tokio::select! {
                    biased;
                    () = stop.notified() => {}
                    done = run => { done.unwrap(); }
                }
            });
        });
        let unfinished = DataDir::open(Arc::new(RealDisk), &to).map(|dir| dir.is_activated().unwrap());
        match unfinished {
            Err(datadir::Error::HalfRestored { .. }) => {}
            Ok(true) => continue,
            other => panic!("after {steps} steps: {other:?}"),
        }
        let report = if steps % 2 == 0 {
            resume(&world.store, &to, &options()).await.unwrap()
        } else {
            let named = HydrateOptions { branch: Some(name(&format!("killed-{steps}"))), ..options() };
            hydrate(&world.store, &name("main"), &Target::Latest, &to, &named).await.unwrap()
        };
        assert!(report.resumed);
        assert_eq!(report.fetched.objects() + report.present.objects(), 18);
        assert!(report.present.objects() + 1 >= (steps - 1) / 2, "{steps}: {report:?}");
        check(&world, &to).await;
    }
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused_before_anything_is_written() {
    let (world, _) = World::filled().await;
    let before = world.keys().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("notes.txt")).unwrap();
    let error =
        hydrate(&world.store, &name("main"), &Target::Latest, dir.path(), &options()).await.unwrap_err();
    assert!(error.to_string().contains("is not empty: it has \"notes.txt\""), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = resume(&world.store, &dir.path().join("new"), &options()).await.unwrap_err();
    assert!(error.to_string().contains("holds no interrupted restore"), "{error}");
    assert_eq!(world.keys().await, before);
}

#[tokio::test]
async fn another_target_does_not_go_on_with_a_half_restored_directory() {
    let (world, _) = World::filled().await;
    let dir = tempfile::tempdir().unwrap();
    let key = world.keys().await.into_iter().rfind(|key| matches!(key, ObjectKey::Segment { .. })).unwrap();
    let good = world.read(&key).await;
    let mut bad = good.to_vec();
    bad[100] ^= 1;
    world.replace(&key, Some(bad.into())).await;
    let to = dir.path();
    let error = hydrate(&world.store, &name("main"), &Target::Latest, to, &options()).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains(&key.to_string()), "{error}");
    let other = Target::Time(world.logs[1][4].time);
    let error = hydrate(&world.store, &name("main"), &other, to, &options()).await.unwrap_err();
    assert!(matches!(error, Error::OtherRestore { .. }), "{error}");
    assert!(matches!(DataDir::open(Arc::new(RealDisk), to), Err(datadir::Error::HalfRestored { .. })));
    world.replace(&key, Some(good)).await;
    let report = resume(&world.store, to, &options()).await.unwrap();
    assert!(report.present.objects() > 0 && report.fetched.objects() < 18);
    check(&world, to).await;
}
