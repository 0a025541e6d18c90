use duramen_archive::BranchView;
use duramen_types::{HybridTime, RestorePointName};

use super::world::*;
use crate::{Error, Position, Target, plan};

#[tokio::test]
async fn the_cut_at_every_instant_is_the_models() {
    let (world, latest) = World::filled().await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    // A new shard's first entry has no time.
    let timed =
        || world.logs.iter().flatten().map(|logged| logged.time).filter(|time| *time > HybridTime::ZERO);
    let times = timed().map(HybridTime::as_micros).flat_map(|time| [time - 1, time, time + 1]);
    let first = timed().min().unwrap();
    for time in times.map(HybridTime::from_micros) {
        let planned = crate::plan::cut(&view, &Target::Time(time)).await;
        if time > latest {
            assert!(matches!(planned, Err(Error::NotClosed { .. })), "{time}: {planned:?}");
            continue;
        }
        if time < first {
            assert!(matches!(planned, Err(Error::BeforeWindow { .. })), "{time}: {planned:?}");
            continue;
        }
        for (shard, found) in planned.unwrap().shards.iter().enumerate() {
            assert_eq!(found.cut, world.expected(shard, time), "shard {shard} at {time}");
        }
    }
}

#[tokio::test]
async fn a_plan_is_a_position_and_finds_what_it_reaches() {
    let (world, latest) = World::filled().await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    let planned = plan(&view, &Target::Latest).await.unwrap();
    assert_eq!((planned.time, planned.consistent), (latest, true));
    let reach = planned.reach.unwrap();
    assert_eq!((reach.segments, reach.snapshots), (15, 3));
    let json = serde_json::to_string(&planned).unwrap();
    let again: Position = json.parse().unwrap();
    let again = plan(&view, &Target::Position(again)).await.unwrap();
    assert_eq!((again.cut(), again.reach), (planned.cut(), planned.reach));
    let text = "0:1, 1:2,2:3";
    let by_hand = plan(&view, &Target::Position(text.parse().unwrap())).await.unwrap();
    let ends: Vec<u64> = by_hand.shards.iter().map(|shard| shard.cut.end.get()).collect();
    assert_eq!(ends, [1, 2, 3]);
    for (shard, planned) in by_hand.shards.iter().enumerate() {
        assert_eq!(planned.cut, world.logs[shard][shard].after);
    }
}

#[tokio::test]
async fn a_plan_of_another_history_and_a_wrong_position_are_refused() {
    let (world, _) = World::filled().await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    let mut planned = plan(&view, &Target::Latest).await.unwrap();
    planned.shards[1].cut.chain = planned.shards[0].cut.chain;
    let error = plan(&view, &Target::Position(Position::from(&planned))).await.unwrap_err();
    assert!(error.to_string().contains("shard 1 has another history at index"), "{error}");
    for (text, part) in [
        ("", "is not `shard:index`"),
        ("0:1,1:2", "it says nothing of shard 2"),
        ("0:1,0:2,1:1", "shard 0 is named twice"),
        ("0:1,1:2,2:3,3:4", "the archive has no shard 3"),
        ("0:1,1:2,2:999999", "shard 2 of branch main is archived up to index"),
        ("{\"no\":\"plan\"}", "it is no plan"),
    ] {
        let error = match text.parse::<Position>() {
            Ok(position) => plan(&view, &Target::Position(position)).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{text:?} gave {error}");
    }
}

#[tokio::test]
async fn targets_that_are_not_covered_say_what_is() {
    let (world, latest) = World::filled().await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    let message = async |target| plan(&view, &target).await.unwrap_err().to_string();
    let future = message(Target::Time(world.now().next())).await;
    assert!(future.contains("lies in the future") && future.contains("--latest"), "{future}");
    let open = message(Target::Time(latest.next())).await;
    assert!(open.contains("proven complete through") && open.contains("the slowest"), "{open}");
    let before = message(Target::Time(HybridTime::from_micros(START - 1))).await;
    assert!(before.contains("recovery window begins at 2025-11-21T14:29:59"), "{before}");
    let point = message(Target::Name(RestorePointName::parse("nightly").unwrap())).await;
    assert!(point.contains("has no restore point nightly; it has none"), "{point}");
    let empty = World::new().await;
    let view = BranchView::open(&empty.store, &name("main")).await.unwrap();
    let error = plan(&view, &Target::Latest).await.unwrap_err();
    assert!(error.to_string().contains("nothing that is proven complete yet"), "{error}");
}

#[tokio::test]
async fn a_restore_point_names_its_instant() {
    let mut world = World::new().await;
    world.create("a");
    world.append("a", &["1"]);
    let time = world.now();
    let named = RestorePointName::parse("before-migration").unwrap();
    world.append("a", &["2"]);
    let op = duramen_types::ControlOp::CreateRestorePoint { name: named.clone(), time };
    world.control(duramen_types::ShardId::META, op);
    world.close().await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    let planned = plan(&view, &Target::Name(named)).await.unwrap();
    assert_eq!(planned.time, time);
    let listing = crate::list(&world.store).await.unwrap();
    assert_eq!(listing.branches[0].restore_points[0].time, time);
    assert_eq!(listing.branches[0].problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_segment_before_the_target_is_named() {
    let (world, _) = World::filled().await;
    let is_segment = |key: &duramen_archive::ObjectKey| key.to_string().contains("main/shard-0001/segments/");
    let key = world.keys().await.into_iter().filter(is_segment).nth(2).unwrap();
    world.replace(&key, None).await;
    let view = BranchView::open(&world.store, &name("main")).await.unwrap();
    let error = plan(&view, &Target::Latest).await.unwrap_err();
    assert!(matches!(error, Error::MissingObjects { .. }) && error.is_damage());
    assert!(error.to_string().contains(&key.to_string()), "{error}");
}
