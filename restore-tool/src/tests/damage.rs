use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use duramen_archive::{Depth, Hold, ObjectKey, Verdict};
use duramen_types::ClusterId;

use super::world::*;
use crate::{BranchOptions, Target, VerifyOptions, branch, verify};

/// The kind of an object, for choosing another one to swap it with.
fn kind(key: &ObjectKey) -> std::mem::Discriminant<ObjectKey> {
    std::mem::discriminant(key)
}

fn folder(key: &ObjectKey) -> String {
    key.to_string().rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
}

/// An archive with objects of every kind, and several of most: a branch of another cluster, two holds, verdicts on both branches.
async fn everything() -> World {
    let (mut world, latest) = World::filled().await;
    let (main, options) = (name("main"), BranchOptions::default());
    branch(&world.store, &main, Some(&name("other")), &Target::Time(latest), &options).await.unwrap();
    let clock = world.clock.clone();
    let mut other = World::on(world.store.clone(), clock, "other", ClusterId::from_bytes([2; 16])).await;
    for round in 0..2 {
        for stream in ["a", "b", "c", "d"] {
            other.append(stream, &[&format!("other {stream}{round}")]);
        }
        other.close().await;
    }
    for reason in ["a restore", "another"] {
        Hold::place(&world.store, &main, reason, Duration::from_secs(3600)).await.unwrap();
    }
    for depth in [Depth::Quick, Depth::Full] {
        for branch in [&main, &name("other")] {
            world.advance(1_000_000);
            assert!(verify(&world.store, branch, &VerifyOptions::new(depth)).await.unwrap().is_clean());
        }
    }
    world.append("a", &["not archived"]);
    world.advance(1_000_000);
    world
}

/// What is found on each branch, or why it can't be looked at.
async fn found(world: &World, depth: Depth) -> Vec<String> {
    let options = VerifyOptions { record: false, ..VerifyOptions::new(depth) };
    let mut found = Vec::new();
    for branch in ["main", "other"] {
        match verify(&world.store, &name(branch), &options).await {
            Ok(report) => {
                let findings = report.verdict.findings.into_iter();
                found.extend(findings.map(|finding| format!("{}: {}", finding.key, finding.problem)));
            }
            Err(error) => found.push(error.to_string()),
        }
    }
    found
}

fn names(found: &[String], key: &ObjectKey) -> bool {
    let text = key.to_string();
    // A branch that is known from everything else is not unknown.
    let is_known = !found.iter().any(|found| found.contains("has no branch"));
    is_known
        && found.iter().any(|found| match key {
            // Without these there is nothing to look at.
            ObjectKey::Archive => found.contains(&text) || found.contains("there is no archive"),
            _ => found.contains(&text),
        })
}

/// Whether anything that is there speaks of the object, if it is gone.
fn leaves_a_trace(key: &ObjectKey, keys: &[ObjectKey]) -> bool {
    match key {
        // Nothing was written after the last that could speak of it.
        ObjectKey::Verdict { .. } => {
            keys.iter().any(|other| folder(other) == folder(key) && other.to_string() > key.to_string())
        }
        // One that is gone was released.
        ObjectKey::Hold { .. } => false,
        _ => true,
    }
}

#[tokio::test]
async fn every_altered_truncated_swapped_or_dropped_object_is_named() {
    let world = everything().await;
    assert_eq!(found(&world, Depth::Full).await, Vec::<String>::new());
    let keys = world.keys().await;
    let kinds: BTreeSet<String> = keys.iter().map(|key| format!("{key:?}")).map(kind_of).collect();
    let all = [
        "Archive",
        "Branch",
        "Checkpoint",
        "Closed",
        "Hold",
        "Manifest",
        "Owner",
        "Page",
        "Segment",
        "Snapshot",
        "Verdict",
    ];
    assert!(kinds.iter().map(String::as_str).eq(all), "{kinds:?}");
    let mut wrong = Vec::new();
    for key in &keys {
        let good = world.read(key).await;
        let mut check = async |what: String, bad: Option<Bytes>| {
            world.replace(key, bad).await;
            let found = found(&world, Depth::Full).await;
            if !names(&found, key) {
                wrong.push(format!("{key} {what}: {found:?}"));
            }
        };
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            check(format!("with another byte {at}"), Some(bad.into())).await;
        }
        for len in [0, good.len() / 2, good.len() - 1] {
            check(format!("cut to {len}"), Some(good.slice(..len))).await;
        }
        check("with a line feed more".to_owned(), Some([&good[..], b"\n"].concat().into())).await;
        let twins: Vec<_> = keys.iter().filter(|other| kind(other) == kind(key) && *other != key).collect();
        assert!(!twins.is_empty() || *key == ObjectKey::Archive, "{key} is the only one of its kind");
        // Those next to it, and one from the other end.
        for twin in twins.iter().take(3).chain(twins.iter().skip(3).last()) {
            check(format!("replaced by {twin}"), Some(world.read(twin).await)).await;
        }
        if leaves_a_trace(key, &keys) {
            check("dropped".to_owned(), None).await;
        }
        world.replace(key, Some(good)).await;
    }
    assert!(wrong.is_empty(), "{} were not named:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(found(&world, Depth::Full).await, Vec::<String>::new());
}

/// The kind of an object from its debug output.
fn kind_of(debug: String) -> String {
    debug.chars().take_while(char::is_ascii_alphabetic).collect()
}

#[tokio::test]
async fn a_quick_look_finds_what_the_structure_shows() {
    let world = everything().await;
    assert_eq!(found(&world, Depth::Quick).await, Vec::<String>::new());
    for key in world.keys().await {
        let good = world.read(&key).await;
        world.replace(&key, Some(good.slice(..good.len() / 2))).await;
        let found = found(&world, Depth::Quick).await;
        assert!(names(&found, &key), "{key}: {found:?}");
        world.replace(&key, Some(good)).await;
    }
}

#[tokio::test]
async fn a_verdict_is_recorded_and_lets_the_next_run_skip() {
    let (mut world, _) = World::filled().await;
    let options = VerifyOptions::new(Depth::Full);
    let first = verify(&world.store, &name("main"), &options).await.unwrap();
    assert!(first.is_clean());
    world.advance(1);
    let since = VerifyOptions { since: true, ..options.clone() };
    let second = verify(&world.store, &name("main"), &since).await.unwrap();
    assert_eq!(second.since, Some(first.verdict.id));
    assert!(second.is_clean() && second.verdict.bytes < first.verdict.bytes);
    let (key, _) = Verdict::each(&world.store).await.unwrap().pop().unwrap();
    assert_eq!(key, second.verdict.key());
    // What is new is looked at.
    world.append("a", &["new"]);
    world.close().await;
    let key = world.keys().await.into_iter().rfind(|key| matches!(key, ObjectKey::Segment { .. })).unwrap();
    let mut bad = world.read(&key).await.to_vec();
    bad[40] ^= 1;
    world.replace(&key, Some(bad.into())).await;
    let third = verify(&world.store, &name("main"), &since).await.unwrap();
    assert!(third.verdict.findings.iter().any(|finding| finding.key == key.to_string()), "{third:?}");
    // Also where an earlier verdict covers the damage: it stays found until it is mended.
    let old = world.keys().await.into_iter().find(|key| matches!(key, ObjectKey::Segment { .. })).unwrap();
    let (good, mut bad) = (world.read(&old).await, world.read(&old).await.to_vec());
    bad[40] ^= 1;
    world.replace(&old, Some(bad.into())).await;
    for options in [options, since.clone(), since] {
        world.advance(1);
        let again = verify(&world.store, &name("main"), &options).await.unwrap();
        assert!(again.verdict.findings.iter().any(|finding| finding.key == old.to_string()), "{again:?}");
    }
    world.replace(&old, Some(good)).await;
}

#[tokio::test]
async fn a_damaged_verdict_hides_nothing_and_lets_nothing_be_skipped() {
    let world = everything().await;
    let since = VerifyOptions { since: true, record: false, ..VerifyOptions::new(Depth::Full) };
    let clean = verify(&world.store, &name("main"), &since).await.unwrap();
    assert!(clean.is_clean() && clean.since.is_some());
    let keys = world.keys().await;
    let verdict = keys.iter().find(|key| matches!(key, ObjectKey::Verdict { .. })).unwrap();
    let segment = keys.iter().find(|key| matches!(key, ObjectKey::Segment { .. })).unwrap();
    for key in [verdict, segment] {
        let mut bad = world.read(key).await.to_vec();
        bad[40] ^= 1;
        world.replace(key, Some(bad.into())).await;
    }
    let report = verify(&world.store, &name("main"), &since).await.unwrap();
    assert_eq!(report.since, None);
    for key in [verdict, segment] {
        let found = report.verdict.findings.iter().find(|finding| finding.key == key.to_string());
        assert!(found.is_some(), "{key}: {report:?}");
    }
    let mend = report.verdict.findings.iter().any(|finding| finding.problem.contains("or delete it"));
    assert!(mend, "{report:?}");
}

#[tokio::test]
async fn the_loss_of_the_newest_manifests_is_noticed_after_a_verification() {
    let (world, _) = World::filled().await;
    let options = VerifyOptions::new(Depth::Quick);
    verify(&world.store, &name("main"), &options).await.unwrap();
    let is_manifest = |key: &&ObjectKey| key.to_string().starts_with("main/shard-0001/manifest/");
    let keys = world.keys().await;
    // The last segment's manifest.
    let last = keys.iter().rfind(is_manifest).unwrap();
    world.replace(last, None).await;
    let report = verify(&world.store, &name("main"), &options).await.unwrap();
    assert!(report.verdict.findings.iter().any(|finding| finding.key == last.to_string()), "{report:?}");
    crate::show(&world.store, &keys[0].to_string()).await.unwrap();
}
