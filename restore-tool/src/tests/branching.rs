use duramen_archive::{Branch, BranchView};
use duramen_types::ClusterId;

use super::world::*;
use crate::{BranchOptions, Target, branch, default_name};

#[tokio::test]
async fn branching_writes_one_object_and_can_be_repeated() {
    let (world, latest) = World::filled().await;
    let before = world.keys().await;
    let options = BranchOptions::default();
    let dry = BranchOptions { dry_run: true, ..options.clone() };
    let planned = branch(&world.store, &name("main"), None, &Target::Latest, &dry).await.unwrap();
    assert_eq!(world.keys().await, before);
    let made = branch(&world.store, &name("main"), None, &Target::Latest, &options).await.unwrap();
    assert_eq!(made.branch, planned.branch);
    assert_eq!(made.branch, default_name(&name("main"), latest));
    assert!(made.created && made.note.is_none());
    let mut after = world.keys().await;
    after.retain(|key| !before.contains(key));
    assert_eq!(after, [duramen_archive::ObjectKey::Branch(made.branch.clone())]);
    let again = branch(&world.store, &name("main"), None, &Target::Latest, &options).await.unwrap();
    assert!(!again.created);
    let other = Target::Time(world.logs[1][3].time);
    let error = branch(&world.store, &name("main"), Some(&made.branch), &other, &options).await.unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    let error = branch(&world.store, &name("mian"), None, &other, &options).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("it has main"), "{error}");
    assert!(crate::holds(&world.store).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_branch_of_a_branch_is_cut_in_whichever_part_the_instant_lies() {
    let (mut world, latest) = World::filled().await;
    let options = BranchOptions::default();
    // In the middle of a segment, while the parent goes on.
    let middle = world.logs[1][4].time;
    branch(&world.store, &name("main"), Some(&name("one")), &Target::Time(middle), &options).await.unwrap();
    world.append("a", &["later"]);
    world.close().await;
    let mut one =
        World::on(world.store.clone(), world.clock.clone(), "one", ClusterId::from_bytes([2; 16])).await;
    let begins: Vec<_> = one.states.clone();
    one.append("a", &["other"]);
    one.append("b", &["other"]);
    let own = one.logs.iter().flatten().map(|logged| logged.time).max().unwrap();
    one.close().await;
    one.advance(1);
    let view = BranchView::open(&world.store, &name("one")).await.unwrap();
    // Instants that the parent lived through after the cut: the branch had nothing then.
    let lived = world.logs.iter().flatten().map(|logged| logged.time);
    for time in lived.filter(|time| (middle..=latest).contains(time)) {
        let between = crate::plan(&view, &Target::Time(time)).await.unwrap();
        for (shard, planned) in between.shards.iter().enumerate() {
            assert_eq!(planned.cut, world.expected(shard, middle), "shard {shard} at {time}");
            assert_eq!(planned.cut.end, begins[shard].end());
        }
    }
    let later = crate::plan(&view, &Target::Time(own)).await.unwrap();
    for (shard, planned) in later.shards.iter().enumerate() {
        let expected =
            one.logs[shard].iter().rev().find(|logged| logged.time <= own).map(|logged| logged.after);
        assert_eq!(planned.cut, expected.unwrap_or_else(|| world.expected(shard, middle)), "shard {shard}");
    }
    let early = world.logs[1][2].time;
    let two =
        branch(&world.store, &name("one"), Some(&name("two")), &Target::Time(early), &options).await.unwrap();
    for (shard, planned) in two.plan.shards.iter().enumerate() {
        assert_eq!(planned.cut, world.expected(shard, early), "shard {shard}");
    }
    let two = Branch::open(&world.store, &name("two")).await.unwrap();
    assert_eq!(two.ancestry.len(), 2);
    for found in ["one", "two", "main"] {
        let full = crate::VerifyOptions::new(duramen_archive::Depth::Full);
        let report = crate::verify(&world.store, &name(found), &full).await.unwrap();
        assert_eq!(report.verdict.findings, vec![], "{found}");
    }
}

#[test]
fn a_default_name_is_always_a_name() {
    let time = duramen_types::HybridTime::from_micros(START + 123);
    assert_eq!(default_name(&name("main"), time).as_str(), "main-20251121t142959-000123");
    let long = "x".repeat(63);
    assert_eq!(default_name(&name(&long), time).as_str().len(), 63);
    default_name(&name(&long), duramen_types::HybridTime::MAX);
}

#[tokio::test]
async fn a_hold_that_is_not_there_is_answered_with_those_that_are() {
    let (world, _) = World::filled().await;
    let said = async |id: &str| crate::release_hold(&world.store, id).await.unwrap_err().to_string();
    assert_eq!(said("nope").await, "there is no hold nope: the archive has none");
    let lasting = std::time::Duration::from_secs(60);
    let hold = duramen_archive::Hold::place(&world.store, &name("main"), "an audit", lasting).await.unwrap();
    for id in ["nope".to_owned(), uuid::Uuid::nil().to_string()] {
        let said = said(&id).await;
        assert!(said.contains(&format!("no hold {id}: the archive has {}", hold.id)), "{said}");
    }
    crate::release_hold(&world.store, &hold.id.to_string()).await.unwrap();
    assert!(crate::holds(&world.store).await.unwrap().is_empty());
}
