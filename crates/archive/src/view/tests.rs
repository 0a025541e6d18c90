//! Branches of branches, read as one history; closed times over them.

use duramen_types::{ClusterId, NodeId, StreamId, Term};

use super::*;
use crate::closed::{Closed, ClosedShard, ClosedTimes};
use crate::manifest::tests::{committer, extend, row_after, rows};
use crate::store::tests::memory;
use crate::{Ancestor, Cut, Error, Owner};
use duramen_types::HybridTime;

const SHARDS: u16 = 2;
const ONE: ShardId = ShardId::new(1);

fn name(name: &str) -> BranchName {
    BranchName::parse(name).unwrap()
}

async fn archive() -> (Store, BranchView) {
    let store = memory();
    Identity::open_or_create(&store, SHARDS).await.unwrap();
    Branch::open_or_create_root(&store, &name("main"), "test").await.unwrap();
    let view = BranchView::open(&store, &name("main")).await.unwrap();
    (store, view)
}

/// Cuts shard 1 at `point`, the others at their ends.
async fn branch_off(view: &BranchView, child: &str, point: HistoryPoint) -> BranchView {
    let mut shards = Vec::new();
    for shard in view.shard_ids() {
        shards.push(if shard == ONE { point } else { view.end(shard).await.unwrap() });
    }
    let cut = Cut { time: point.time, shards };
    let branch = Branch::child(view.store(), view.branch(), name(child), cut, "test").unwrap();
    branch.create(view.store()).await.unwrap();
    BranchView::open(view.store(), &name(child)).await.unwrap()
}

/// The segments of shard 1: whose they are, and what is visible of them.
async fn segments(view: &BranchView) -> Vec<(String, u64, u64)> {
    let mut cursor = view.shard(ONE).await.unwrap().cursor(Index::ZERO, None);
    let mut found = Vec::new();
    while let Some(row) = cursor.next().await.unwrap() {
        found.push((row.branch.to_string(), row.visible.start.get(), row.visible.end.get()));
    }
    found
}

fn expected(parts: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    parts.iter().map(|(branch, from, to)| ((*branch).to_owned(), *from, *to)).collect()
}

#[tokio::test]
async fn a_branch_sees_its_ancestors_up_to_the_cut_and_nothing_of_their_later_history() {
    let (store, main) = archive().await;
    for _ in 0..3 {
        extend(main.log(ONE).await.unwrap()).await.unwrap();
    }
    let cut = HistoryPoint::after(
        &main.shard(ONE).await.unwrap().containing(Index::new(3)).await.unwrap().unwrap().row,
    );
    let child = branch_off(&main, "child", cut).await;
    extend(main.log(ONE).await.unwrap()).await.unwrap();
    assert_eq!(segments(&child).await, expected(&[("main", 0, 2), ("main", 2, 4)]));
    assert_eq!(child.end(ONE).await.unwrap(), cut);
    extend(child.log(ONE).await.unwrap()).await.unwrap();
    assert_eq!(segments(&child).await, expected(&[("main", 0, 2), ("main", 2, 4), ("child", 4, 6)]));
    let grandchild = branch_off(&child, "grandchild", child.end(ONE).await.unwrap()).await;
    extend(grandchild.log(ONE).await.unwrap()).await.unwrap();
    let whole = expected(&[("main", 0, 2), ("main", 2, 4), ("child", 4, 6), ("grandchild", 6, 8)]);
    assert_eq!(segments(&grandchild).await, whole);
    assert_eq!(segments(&main).await.len(), 4, "the parent goes on");
    let names = Branch::list(&store).await.unwrap();
    assert_eq!(names, [name("child"), name("grandchild"), name("main")]);
}

#[tokio::test]
async fn a_cut_before_the_parents_beginning_leaves_the_parent_out() {
    let (_, main) = archive().await;
    for _ in 0..4 {
        extend(main.log(ONE).await.unwrap()).await.unwrap();
    }
    let child = branch_off(&main, "child", main.end(ONE).await.unwrap()).await;
    extend(child.log(ONE).await.unwrap()).await.unwrap();
    let early = child.shard(ONE).await.unwrap().containing(Index::new(3)).await.unwrap().unwrap();
    let late = branch_off(&child, "late", HistoryPoint::after(&early.row)).await;
    assert_eq!(late.branch().ancestry.iter().map(|a: &Ancestor| a.ends[1].get()).collect::<Vec<_>>(), [4, 4]);
    extend(late.log(ONE).await.unwrap()).await.unwrap();
    assert_eq!(segments(&late).await, expected(&[("main", 0, 2), ("main", 2, 4), ("late", 4, 6)]));
}

#[tokio::test]
async fn a_cut_within_a_segment_shows_its_beginning() {
    let (_, main) = archive().await;
    let log = main.log(ONE).await.unwrap();
    let row = row_after(log.tip(), 10, &[4], 100);
    let hash = row.hash;
    log.commit(committer(), rows(vec![row])).await.unwrap();
    let point = HistoryPoint {
        end: Index::new(6),
        chain: hash,
        term: Term::new(1),
        time: HybridTime::from_micros(60),
    };
    let child = branch_off(&main, "child", point).await;
    let view = child.shard(ONE).await.unwrap();
    let row = view.containing(Index::new(5)).await.unwrap().unwrap();
    assert!(row.is_clipped() && row.visible == (Index::ZERO..Index::new(6)));
    assert_eq!(view.containing(Index::new(6)).await.unwrap(), None);
    assert_eq!(row.key().branch(), Some(&name("main")));
    extend(child.log(ONE).await.unwrap()).await.unwrap();
    assert_eq!(segments(&child).await, expected(&[("main", 0, 6), ("child", 6, 8)]));
    let view = child.shard(ONE).await.unwrap();
    let after = view.first_after(HybridTime::from_micros(65)).await.unwrap().unwrap();
    assert_eq!(after.visible.start, Index::ZERO, "it may: the clipped segment ends at 100");
    let found = view.cursor(Index::ZERO, Some(StreamId::new(4))).next().await.unwrap().unwrap();
    assert_eq!(found.row.hash, hash);
}

#[tokio::test]
async fn an_ancestor_that_lost_its_end_is_a_gap() {
    let (store, main) = archive().await;
    for _ in 0..3 {
        extend(main.log(ONE).await.unwrap()).await.unwrap();
    }
    let child = branch_off(&main, "child", main.end(ONE).await.unwrap()).await;
    let last = duramen_types::ManifestNumber::new(2);
    store.delete(&ObjectKey::Manifest { branch: name("main"), shard: ONE, number: last }).await.unwrap();
    let error = child.shard(ONE).await.unwrap_err();
    assert!(matches!(&error, Error::Gap { branch, .. } if *branch == name("main")), "{error}");
}

#[tokio::test]
async fn names_owners_and_identities_are_taken_once() {
    let (store, main) = archive().await;
    let taken = Branch::root(&store, name("main"), "another").create(&store).await.unwrap_err();
    assert!(matches!(taken, Error::BranchExists { .. }), "{taken}");
    let unknown = BranchView::open(&store, &name("nowhere")).await.unwrap_err().to_string();
    assert!(unknown.contains("nowhere") && unknown.contains("it has main"), "{unknown}");
    let (us, them) = (ClusterId::from_random([1; 16]), ClusterId::from_random([2; 16]));
    assert_eq!(Owner::read(&store, &name("main")).await.unwrap(), None);
    let first = Owner::claim(&store, &name("main"), us).await.unwrap();
    assert_eq!(Owner::claim(&store, &name("main"), us).await.unwrap(), first);
    let refused = Owner::claim(&store, &name("main"), them).await.unwrap_err();
    assert!(
        matches!(refused, Error::Owned { .. }) && refused.to_string().contains("duramen-restore"),
        "{refused}"
    );
    assert_eq!(Identity::open_or_create(&store, SHARDS).await.unwrap(), *main.identity());
    let other = Identity::open_or_create(&store, 8).await.unwrap_err();
    assert!(matches!(other, Error::ShardCount { expected: 8, found: SHARDS, .. }), "{other}");
}

#[tokio::test]
async fn a_prefix_that_holds_something_else_is_refused() {
    let store = memory();
    assert!(matches!(Identity::open(&store).await, Err(Error::NoArchive { .. })));
    store.create(&ObjectKey::Owner(name("main")), "x".into()).await.unwrap();
    let error = Identity::open_or_create(&store, 8).await.unwrap_err();
    assert!(matches!(&error, Error::NotEmpty { found, .. } if found == "main/owner.json"), "{error}");
    let store = memory();
    store.create(&ObjectKey::Archive, "{\"name\":\"a web site\"}".into()).await.unwrap();
    assert!(matches!(Identity::open_or_create(&store, 8).await, Err(Error::Damaged { .. })));
    assert!(Identity::open_or_create(&memory(), 0).await.is_err());
    let store = memory();
    assert!(store.check().await.passed());
    Identity::open_or_create(&store, 8).await.unwrap();
}

fn at(micros: u64) -> HybridTime {
    HybridTime::from_micros(micros)
}

async fn close(store: &Store, node: u64, items: &[(u16, u64, u64)]) {
    let item = |(shard, end, closed): &(u16, u64, u64)| ClosedShard {
        shard: ShardId::new(*shard),
        end: Index::new(*end),
        closed: at(*closed),
    };
    Closed::new(NodeId::new(node), items.iter().map(item).collect(), None)
        .write(store, &name("main"))
        .await
        .unwrap();
}

#[tokio::test]
async fn shards_are_closed_as_far_as_their_archived_ends_prove() {
    let (store, main) = archive().await;
    let of = async || ClosedTimes::of(&main).await.unwrap();
    assert_eq!(of().await.latest(), HybridTime::ZERO);
    extend(main.log(ONE).await.unwrap()).await.unwrap();
    assert_eq!(of().await.shards[&ONE], at(10), "its entries close a shard through the last one");
    assert_eq!(of().await.slowest(), Some(ShardId::ZERO));
    close(&store, 1, &[(0, 0, 500), (1, 2, 501)]).await;
    close(&store, 2, &[(2, 0, 502)]).await;
    assert_eq!(of().await.shards.values().map(|t| t.as_micros()).collect::<Vec<_>>(), [500, 501, 502]);
    close(&store, 1, &[(0, 0, 900), (1, 3, 901)]).await;
    let times = of().await;
    assert_eq!(times.shards[&ONE], at(501), "entry 2 is not archived yet");
    assert_eq!((times.latest(), times.slowest()), (at(501), Some(ONE)));
    let child = branch_off(&main, "child", main.end(ONE).await.unwrap()).await;
    assert_eq!(ClosedTimes::of(&child).await.unwrap().latest(), at(10), "a cut closes through its time");
}

#[tokio::test]
async fn closed_times_are_found_however_far_back_they_are() {
    let (store, main) = archive().await;
    let year = 365 * 24 * 3600 * 1_000_000_u64;
    close(&store, 1, &[(0, 0, 70), (2, 0, 71)]).await;
    let log = main.log(ONE).await.unwrap();
    let row = row_after(log.tip(), 5, &[], year);
    log.commit(committer(), rows(vec![row])).await.unwrap();
    let times = ClosedTimes::of(&main).await.unwrap();
    assert_eq!(times.shards.values().map(|t| t.as_micros()).collect::<Vec<_>>(), [70, year, 71]);
    assert_eq!(Closed::last_of(&main, NodeId::new(1)).await.unwrap(), Some(at(71)));
    assert_eq!(Closed::last_of(&main, NodeId::new(2)).await.unwrap(), None);
}
