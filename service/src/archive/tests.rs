use std::path::PathBuf;

use bytes::Bytes;
use duramen_archive::{Depth, Finding, Verdict};
use duramen_types::batch::Record;
use duramen_types::{Acknowledgement, StreamName, TenantName};
use duramen_wal::sim::SimDisk;
use futures::future::join_all;

use super::*;
use crate::api::{AppendPayload, AppendRequest, ReadFrom, ReadRequest};
use crate::config::Config;
use crate::{Environment, Node};

async fn append(node: &Node, stream: &StreamRef, level: Acknowledgement) -> HybridTime {
    let record = Record { value: Some(Bytes::from_static(b"value")), ..Record::default() };
    let request = AppendRequest {
        stream: stream.clone(),
        payload: AppendPayload::Records(vec![record]),
        acknowledgement: Some(level),
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await.unwrap().acknowledged().await.unwrap().time
}

/// A node with one shard, whose rounds are an hour apart, and the name of a stream.
async fn start() -> (Node, StreamRef) {
    let mut config = Config::default();
    config.node.data = PathBuf::from("/data");
    config.cluster.shards = Some(1);
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.archive.url = Some("memory:".to_owned());
    config.archive.segment_age = Duration::from_secs(3600);
    let environment = Environment { disk: Arc::new(SimDisk::new(1)), ..Environment::machine() };
    let node = Node::start_in(environment, &config).await.unwrap();
    let stream =
        StreamRef { tenant: TenantName::parse("default").unwrap(), name: StreamName::parse("s").unwrap() };
    (node, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_read_while_shards_are_being_archived_for_as_long_as_that_takes() {
    let (node, stream) = start().await;
    append(&node, &stream, Acknowledgement::Archived).await;

    // As a cut has them while it tries again and again.
    let opened = node.archive_task().opened().await.unwrap();
    let busy = join_all(opened.archivers.iter().map(|archiver| archiver.lock())).await;
    let time = append(&node, &stream, Acknowledgement::Local).await;
    append(&node, &stream, Acknowledgement::Local).await;
    let request = ReadRequest {
        stream,
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of: Some(time),
        seen: HybridTime::ZERO,
    };
    let read = async {
        let mut read = node.read(request).await.unwrap();
        let mut records = 0;
        while let Some(batch) = read.next().await {
            records += batch.unwrap().records;
        }
        records
    };
    let records = tokio::time::timeout(Duration::from_secs(60), read).await;
    assert_eq!(records.expect("a read of the past does not wait for the archiver"), 2);
    drop(busy);
    node.shutdown(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_during_a_slow_cut_is_as_old_as_it_is() {
    let (node, stream) = start().await;
    append(&node, &stream, Acknowledgement::Local).await;
    node.archive_flush().await.unwrap();
    let shared = &node.archive_task().shared;
    let opened = node.archive_task().opened().await.unwrap();
    let shard = shared.shards.iter().find(|shard| shard.id.get() == 1).unwrap();
    append(&node, &stream, Acknowledgement::Local).await;
    let through = shard.view.progress().end;
    // As a cut has it that the store keeps waiting.
    let busy = opened.archivers[1].lock().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let during = append(&node, &stream, Acknowledgement::Local).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    drop(busy);
    assert!(shared.cut(&opened, shard, through, false).await);
    assert_eq!(archived(shard), through, "the second one is not archived");

    let lag = || node.archive_task().status().lag_seconds;
    let age = || shared.clock.wall().now().since(during).as_secs_f64();
    let deadline = shared.clock.wall().monotonic() + Duration::from_secs(60);
    loop {
        let (least, lag, most) = (age(), lag(), age());
        assert!(lag >= least, "{lag} s, and it is at least {least} s old");
        if lag <= most + 0.05 {
            break;
        }
        assert!(shared.clock.wall().monotonic() < deadline, "what is archived counts for ever: {lag} s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(shared.cut(&opened, shard, shard.view.progress().end, false).await);
    assert_eq!(lag(), 0.0);
    node.shutdown(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_verification_takes_back_nothing_that_a_full_one_found() {
    let (node, _) = start().await;
    let shared = &node.archive_task().shared;
    node.archive_task().opened().await.unwrap();
    let verify = async |seconds: u64, depth: Depth, keys: &[&str]| {
        let findings =
            keys.iter().map(|key| Finding { key: (*key).to_owned(), problem: seconds.to_string() });
        let verdict = Verdict {
            id: uuid::Uuid::from_u128(seconds.into()),
            time: HybridTime::from_micros(seconds * 1_000_000),
            depth,
            branch: shared.settings.branch.clone(),
            shards: vec![],
            objects: 1,
            bytes: 1,
            took_ms: 1,
            findings: findings.collect(),
            newest: vec![],
        };
        verdict.write(&shared.store).await.unwrap();
        shared.look_at_verification().await;
        node.archive_task().observe(node.metrics().observed());
        let page = node.metrics().render();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().parse::<f64>().unwrap()
        };
        let of = |name: &str| value(&format!("duramen_archive_verification_{name}"));
        (of("timestamp_seconds"), of("findings"))
    };
    assert_eq!(
        verify(10, Depth::Quick, &[]).await,
        (0.0, 0.0),
        "a quick one keeps nobody quiet for eight days"
    );
    assert_eq!(
        verify(20, Depth::Full, &["a", "a", "b"]).await,
        (20.0, 2.0),
        "two objects, one with two problems"
    );
    assert_eq!(verify(30, Depth::Quick, &[]).await, (20.0, 2.0));
    assert_eq!(verify(40, Depth::Full, &[]).await, (40.0, 0.0));
    assert_eq!(verify(50, Depth::Quick, &["q"]).await, (40.0, 1.0));
    assert_eq!(verify(60, Depth::Quick, &[]).await, (40.0, 0.0));
    node.shutdown(Duration::from_secs(20)).await.unwrap();
}
