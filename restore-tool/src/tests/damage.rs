use bytes::Bytes;
use duramen_archive::{Depth, ObjectKey, Verdict};

use super::world::*;
use crate::{VerifyOptions, verify};

/// The kind of an object, for choosing another one to swap it with.
fn kind(key: &ObjectKey) -> std::mem::Discriminant<ObjectKey> {
    std::mem::discriminant(key)
}

fn folder(key: &ObjectKey) -> String {
    key.to_string().rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
}

async fn found(world: &World, depth: Depth) -> Result<Vec<String>, crate::Error> {
    let options = VerifyOptions { record: false, ..VerifyOptions::new(depth) };
    let report = verify(&world.store, &name("main"), &options).await?;
    Ok(report
        .verdict
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.key, finding.problem))
        .collect())
}

fn names(found: &Result<Vec<String>, crate::Error>, key: &ObjectKey) -> bool {
    let key = key.to_string();
    match found {
        Ok(found) => found.iter().any(|finding| finding.contains(&key)),
        // Without these there is nothing to look at.
        Err(error) => {
            error.to_string().contains(&key) || matches!(key.as_str(), "archive.json" | "branches/main.json")
        }
    }
}

#[tokio::test]
async fn every_altered_truncated_swapped_or_dropped_object_is_named() {
    let (world, _) = World::filled().await;
    assert_eq!(found(&world, Depth::Full).await.unwrap(), Vec::<String>::new());
    let keys = world.keys().await;
    for key in &keys {
        let good = world.read(key).await;
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            world.replace(key, Some(bad.into())).await;
            let found = found(&world, Depth::Full).await;
            assert!(names(&found, key), "byte {at} of {key}: {found:?}");
        }
        // The line feed at the end of a JSON object is no part of it.
        let last = if key.to_string().ends_with(".json") { 2 } else { 1 };
        for len in [good.len() / 2, good.len() - last] {
            world.replace(key, Some(good.slice(..len))).await;
            let found = found(&world, Depth::Full).await;
            assert!(names(&found, key), "{key} cut to {len}: {found:?}");
        }
        let twins = keys.iter().filter(|other| kind(other) == kind(key) && *other != key);
        for twin in twins.take(3) {
            let other: Bytes = world.read(twin).await;
            world.replace(key, Some(other)).await;
            let found = found(&world, Depth::Full).await;
            assert!(names(&found, key), "{key} replaced by {twin}: {found:?}");
        }
        world.replace(key, None).await;
        let found = found(&world, Depth::Full).await;
        // Nothing was written after the newest ones that could speak of them.
        let leaves_a_trace = match key {
            ObjectKey::Closed { .. } | ObjectKey::Checkpoint { .. } => {
                keys.iter().any(|other| folder(other) == folder(key) && other.to_string() > key.to_string())
            }
            _ => true,
        };
        assert!(!leaves_a_trace || names(&found, key), "{key} dropped: {found:?}");
        world.replace(key, Some(good)).await;
    }
    assert_eq!(found(&world, Depth::Full).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_quick_look_finds_what_the_structure_shows() {
    let (world, _) = World::filled().await;
    assert_eq!(found(&world, Depth::Quick).await.unwrap(), Vec::<String>::new());
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
    let latest = Verdict::latest(&world.store, &name("main"), Depth::Full).await.unwrap().unwrap();
    assert_eq!(latest.id, second.verdict.id);
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
