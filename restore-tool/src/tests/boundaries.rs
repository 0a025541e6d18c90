//! `branch` and `hydrate` at the very instants of entries and of closed times, a microsecond before, and one after.

use std::collections::BTreeSet;
use std::path::Path;

use duramen_archive::{Branch, ObjectKey};
use duramen_types::{EntryBody, HybridTime, NodeId, ShardId};
use serde_json::Value;

use super::world::*;
use crate::{
    BranchOptions, Error, ExportFormat, HydrateOptions, Observer, Streams, Target, branch, export, hydrate,
};

/// What becomes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    BeforeWindow,
    Restored,
    NotClosed,
}

/// The records of a branch at its end, in the order of streams and offsets.
async fn records(world: &World, of: &str) -> Vec<(String, u64, String)> {
    let mut out = Vec::new();
    let (jsonl, observer) = (ExportFormat::Jsonl, Observer::default());
    export(&world.store, &name(of), &Target::Latest, &Streams::All, jsonl, &mut out, &observer)
        .await
        .unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (text("stream"), line["offset"].as_u64().unwrap(), text("value"))
    };
    let mut records: Vec<_> = String::from_utf8(out).unwrap().lines().map(line).collect();
    records.sort();
    records
}

/// The archived segments below a hydrated directory.
fn segments(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for shard in 0..=SHARDS {
        let folder = format!("main/shard-{shard:04}/segments");
        for file in std::fs::read_dir(dir.join("hydrated").join(&folder)).into_iter().flatten() {
            found.insert(format!("{folder}/{}", file.unwrap().file_name().into_string().unwrap()));
        }
    }
    found
}

async fn check(world: &World, time: HybridTime, outcome: Outcome, number: usize) {
    let what = format!("{time}, {outcome:?}");
    let before = world.keys().await;
    let (branched, hydrated) = (name(&format!("branch-{number}")), name(&format!("hydrate-{number}")));
    let dir = tempfile::tempdir().unwrap();
    let target = Target::Time(time);
    let options = BranchOptions::default();
    let made = branch(&world.store, &name("main"), Some(&branched), &target, &options).await;
    let options = HydrateOptions { branch: Some(hydrated.clone()), ..HydrateOptions::new(NodeId::new(3)) };
    let restored = hydrate(&world.store, &name("main"), &target, dir.path(), &options).await;
    let of = |error: Option<&Error>| match error {
        None => Outcome::Restored,
        Some(Error::BeforeWindow { .. }) => Outcome::BeforeWindow,
        Some(Error::NotClosed { .. }) => Outcome::NotClosed,
        Some(error) => panic!("{what}: {error}"),
    };
    assert_eq!(of(made.as_ref().err()), outcome, "branch at {what}");
    assert_eq!(of(restored.as_ref().err()), outcome, "hydrate at {what}");
    if outcome != Outcome::Restored {
        assert_eq!(world.keys().await, before, "{what}: something was written");
        assert!(!dir.path().join("restore.json").exists(), "{what}: a restore was begun");
        return;
    }
    let stated = |record: &&Modelled| record.time <= time;
    let mut expected: Vec<_> = world
        .records
        .iter()
        .filter(stated)
        .map(|record| (record.stream.to_string(), record.offset.get(), record.value.clone()))
        .collect();
    expected.sort();
    for found in [&branched, &hydrated] {
        let cut = Branch::open(&world.store, found).await.unwrap().cut.unwrap();
        assert_eq!(cut.time, time, "{found}");
        for (shard, found) in cut.shards.iter().enumerate() {
            assert_eq!(*found, world.expected(shard, time), "shard {shard} at {what}");
        }
        assert_eq!(records(world, found.as_str()).await, expected, "{found} at {what}");
    }
    let reached = before.iter().filter_map(|key| match key {
        ObjectKey::Segment { shard, first, .. } => {
            let end = world.expected(usize::from(shard.get()), time).end;
            (*first < end).then(|| key.to_string())
        }
        _ => None,
    });
    assert_eq!(segments(dir.path()), reached.collect(), "hydrate at {what}");
}

#[tokio::test]
async fn a_restore_to_the_very_instant_of_an_entry_or_a_closed_time_has_what_was_there_by_then() {
    let (world, latest) = World::filled().await;
    let timed = world.logs.iter().flatten().filter(|logged| logged.time > HybridTime::ZERO);
    let first = timed.clone().map(|logged| logged.time).min().unwrap();
    let last_record = world.records.last().unwrap().time;
    let mut instants = vec![first, last_record, latest];
    // Each round closes at the first tick, that of shard 0; the last one is in the name of the closed object.
    for shard in [ShardId::META, ShardId::new(SHARDS)] {
        let ticks = world.logs[usize::from(shard.get())].iter();
        instants.extend(
            ticks
                .filter(|logged| matches!(logged.entry.head().body, EntryBody::Tick))
                .map(|logged| logged.time),
        );
    }
    instants.push(timed.map(|logged| logged.time).max().unwrap());
    let around = instants.iter().map(|time| time.as_micros()).flat_map(|time| [time - 1, time, time + 1]);
    let around: BTreeSet<_> = around.map(HybridTime::from_micros).collect();
    let mut seen = Vec::new();
    for (number, time) in around.into_iter().enumerate() {
        let outcome = match time {
            time if time < first => Outcome::BeforeWindow,
            time if time > latest => Outcome::NotClosed,
            _ => Outcome::Restored,
        };
        check(&world, time, outcome, number).await;
        seen.push(outcome);
    }
    let count = |outcome| seen.iter().filter(|seen| **seen == outcome).count();
    assert_eq!(count(Outcome::BeforeWindow), 1);
    assert!(count(Outcome::Restored) > 30 && count(Outcome::NotClosed) >= 4, "{seen:?}");
}
