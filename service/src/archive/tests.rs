use std::path::PathBuf;

use bytes::Bytes;
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
    config.cluster.shards = 1;
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
