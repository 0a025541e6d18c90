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

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_read_while_shards_are_being_archived_for_as_long_as_that_takes() {
    let mut config = Config::default();
    config.node.data = PathBuf::from("/data");
    config.cluster.shards = 1;
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.archive.url = Some("memory:".to_owned());
    let environment = Environment { disk: Arc::new(SimDisk::new(1)), ..Environment::machine() };
    let node = Node::start_in(environment, &config).await.unwrap();
    let stream =
        StreamRef { tenant: TenantName::parse("default").unwrap(), name: StreamName::parse("s").unwrap() };
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
