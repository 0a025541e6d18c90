//! What a node asks of its object store: the tables of docs/COST.md, counted on a simulated machine whose hours take seconds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duramen::api::{AppendPayload, AppendRequest, ReadFrom, ReadRequest};
use duramen::config::Config;
use duramen::{NO_TIMESTAMP, Node};
use duramen_simulation::{Bill, CountingStore, World, stream_ref};
use duramen_types::batch::Record;
use duramen_types::{Acknowledgement, HybridTime, ShardId, shard_of};

/// What is counted, and how many of it are an hour.
const COUNTED: Duration = Duration::from_secs(600);
const AN_HOUR: u64 = 6;
const SHUTDOWN: Duration = Duration::from_secs(20);

/// The defaults, but for what is not part of an hour's requests: snapshots are asked for, and a simulated disk needs no large files.
fn defaults() -> Config {
    let mut config = Config::default();
    config.node.data = "/simulated/node".into();
    config.archive.url = Some("memory:".to_owned());
    config.archive.snapshot_schedule = "0 0 0 1 1 *".to_owned();
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config
}

fn world() -> (World, Arc<CountingStore>) {
    let mut world = World::new(1);
    let store = Arc::new(CountingStore::new(Arc::clone(&world.objects) as _));
    world.reach_store_through(Arc::clone(&store) as _);
    (world, store)
}

async fn append(node: &Node, stream: &str) {
    let value = Some(Bytes::from_static(b"a record of an ordinary size"));
    let request = AppendRequest {
        stream: stream_ref(stream),
        payload: AppendPayload::Records(vec![Record { value, timestamp: NO_TIMESTAMP, ..Record::default() }]),
        acknowledgement: Some(Acknowledgement::Local),
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await.unwrap().acknowledged().await.unwrap();
}

/// A stream for each of the default's shards.
fn one_in_every_shard() -> Vec<String> {
    let shards = duramen::config::DEFAULT_SHARDS;
    let in_shard = |wanted: u16| {
        let named = |n: u32| (format!("s{n}"), stream_ref(&format!("s{n}")));
        let found = (0..)
            .map(named)
            .find(|(_, stream)| shard_of(&stream.tenant, &stream.name, shards) == ShardId::new(wanted));
        found.expect("some name has the hash").0
    };
    (1..=shards).map(in_shard).collect()
}

/// An hour in which a record a second goes to each of `streams`.
async fn hour(node: &Node, store: &CountingStore, streams: &[String]) -> Bill {
    let before = store.bill();
    for _ in 0..COUNTED.as_secs() {
        for stream in streams {
            append(node, stream).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let counted = store.bill().since(before);
    Bill { put: counted.put * AN_HOUR, get: counted.get * AN_HOUR, list: counted.list * AN_HOUR }
}

const LOADS: [&str; 4] = [
    "idle",
    "a record a second in one stream",
    "a record a second in every shard",
    "snapshots of every shard",
];

/// What the document's row of a load or a read says.
fn cells(row: &str) -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COST.md")).unwrap();
    let found = page.lines().find_map(|line| line.strip_prefix(&format!("| {row} |")));
    let found = found.unwrap_or_else(|| panic!("docs/COST.md has no row of {row}"));
    found.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn documented(row: &str) -> Bill {
    let cells = cells(row);
    let number = |at: usize| cells.get(at).unwrap().replace(',', "").parse().unwrap();
    Bill { put: number(0), get: number(1), list: number(2) }
}

/// Each number is the documented one; rounds may fall a little differently where something waits longer.
fn assert_documented(load: &str, found: Bill) {
    println!("{load}: {found:?}");
    let expected = documented(load);
    let near = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 50;
    assert!(
        near(found.put, expected.put) && near(found.get, expected.get) && near(found.list, expected.list),
        "{load}: {found:?}, docs/COST.md says {expected:?}"
    );
}

#[test]
fn a_months_price_is_that_of_its_requests() {
    for load in LOADS {
        let hour = documented(load);
        let thousandths = |requests: u64, dollars: f64| f64::from(u32::try_from(requests).unwrap()) * dollars;
        let month = 0.73 * (thousandths(hour.put + hour.list, 0.005) + thousandths(hour.get, 0.0004));
        assert_eq!(cells(load).last().unwrap(), &format!("${month:.2}"), "{load}");
    }
}

#[test]
fn an_hour_takes_the_requests_that_the_document_says() {
    let (world, store) = world();
    world.live(async {
        let node = Node::start_in(world.environment(), &defaults()).await.unwrap();
        let everywhere = one_in_every_shard();
        assert_eq!(everywhere.len(), 8);
        let [idle, one, every, snapshots] = LOADS;
        for (load, streams) in [(one, &everywhere[..1]), (every, &everywhere)] {
            assert_documented(load, hour(&node, &store, streams).await);
        }
        let before = store.bill();
        node.snapshot().await.unwrap();
        assert_documented(snapshots, store.bill().since(before));
        // What is still open is archived and closed.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_documented(idle, hour(&node, &store, &[]).await);
        node.shutdown(SHUTDOWN).await.unwrap();
    });
}

/// How many archived segments have a record of the sparse stream.
const SPARSE: u64 = 1000;

async fn read(node: &Node, stream: &str) -> u64 {
    let request = ReadRequest {
        stream: stream_ref(stream),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of: None,
        seen: HybridTime::ZERO,
    };
    let (mut session, mut records) = (node.read(request).await.unwrap(), 0);
    while let Some(batch) = session.next().await {
        records += u64::from(batch.unwrap().records);
    }
    records
}

#[test]
fn a_sparse_stream_is_read_with_two_requests_for_each_segment_that_has_it() {
    let (world, store) = world();
    let mut config = defaults();
    config.cluster.shards = Some(1);
    config.local_retention.bytes = bytesize::ByteSize::b(0);
    world.live(async {
        let node = Node::start_in(world.environment(), &config).await.unwrap();
        append(&node, "early").await;
        for _ in 0..SPARSE {
            append(&node, "sparse").await;
            for _ in 0..3 {
                append(&node, "dense").await;
            }
            node.archive_flush().await.unwrap();
        }
        append(&node, "late").await;
        node.archive_flush().await.unwrap();
        node.shutdown(SHUTDOWN).await.unwrap();
    });
    let store_of = |world: &World| world.store();
    let branch = |name: &str| duramen_types::BranchName::parse(name).unwrap();
    world.live(async {
        let options = duramen_restore::BranchOptions::default();
        let target = duramen_restore::Target::Latest;
        let (main, new) = (branch("main"), branch("again"));
        duramen_restore::branch(&store_of(&world), &main, Some(&new), &target, &options).await.unwrap();
    });
    // On an empty disk: everything is in the archive.
    let disk = duramen_wal::sim::SimDisk::new(2);
    world.live(async {
        config.archive.branch = Some(branch("again"));
        let node = Node::start_in(world.beside(disk.clone()), &config).await.unwrap();
        while !node.archive_status().await.unwrap().reachable {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for (stream, records, most) in [
            ("early", 1, documented("one record in one of 1,000 segments").get),
            ("late", 1, documented("one record in one of 1,000 segments").get),
            ("sparse", SPARSE, documented("one record in each of 1,000 segments").get),
        ] {
            let before = store.bill();
            assert_eq!(read(&node, stream).await, records, "{stream}");
            let bill = store.bill().since(before);
            println!("{stream}: {bill:?}");
            assert!(
                bill.get <= most && bill.put == 0 && bill.list == 0,
                "{stream}: {bill:?}, at most {most}"
            );
        }
        node.shutdown(SHUTDOWN).await.unwrap();
    });
}
