//! Stream retention: what is too old or too much is trimmed by itself, and what was trimmed can still be read as of
//! before.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use duramen::api::{
    AppendPayload, AppendRequest, ReadFrom, ReadRequest, StreamConfigPatch, StreamInfo, StreamRef,
};
use duramen::config::Config;
use duramen::{Environment, Node};
use duramen_types::batch::Record;
use duramen_types::{HybridTime, RetentionPolicy, StreamConfig, StreamName, TenantName};
use duramen_wal::Disk;
use duramen_wal::sim::SimDisk;

fn stream(name: &str) -> StreamRef {
    StreamRef { tenant: TenantName::parse("default").unwrap(), name: StreamName::parse(name).unwrap() }
}

async fn append(node: &Node, name: &str, batches: usize) -> Result<()> {
    for _ in 0..batches {
        let record = Record { value: Some(Bytes::from(vec![b'x'; 1000])), ..Record::default() };
        let request = AppendRequest {
            stream: stream(name),
            payload: AppendPayload::Records(vec![record]),
            acknowledgement: None,
            match_offset: None,
            fencing_token: None,
            producer: None,
            seen: HybridTime::ZERO,
        };
        node.append(request, true).await?.acknowledged().await?;
    }
    Ok(())
}

async fn until(node: &Node, name: &str, done: impl Fn(&StreamInfo) -> bool) -> Result<StreamInfo> {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            look.tick().await;
            let info = node.describe_stream(&stream(name)).await?;
            if done(&info) {
                return Ok(info);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.context("retention did nothing for a minute")?
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_trimmed_by_size_and_by_age_and_others_are_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.node.data = directory.path().join("node");
    config.archive.url = Some(format!("file://{}", directory.path().join("archive").display()));
    let node = Node::start(&config).await?;
    let limit = 10_000;
    let by_size = RetentionPolicy { bytes: Some(limit), age_seconds: None };
    let by_age = RetentionPolicy { bytes: None, age_seconds: Some(1) };
    for (name, retention) in [("size", by_size), ("age", by_age), ("kept", RetentionPolicy::default())] {
        node.create_stream(&stream(name), StreamConfig { retention, ..StreamConfig::default() }).await?;
        append(&node, name, 50).await?;
    }
    let before = node.latest_time();

    let size = until(&node, "size", |info| info.first.get() > 0).await?;
    let kept = size.next.since(size.first) * (size.appended_bytes / 50);
    ensure!(kept <= limit && kept > limit / 2, "{kept} bytes are kept of a limit of {limit}");
    until(&node, "age", |info| info.first == info.next).await?;
    ensure!(
        node.describe_stream(&stream("kept")).await?.first.get() == 0,
        "a stream without a limit was trimmed"
    );

    let request = ReadRequest {
        stream: stream("age"),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of: Some(before),
        seen: HybridTime::ZERO,
    };
    let mut past = node.read(request).await?;
    let mut records = 0;
    while let Some(batch) = past.next().await {
        records += batch?.records;
    }
    ensure!(records == 50, "{records} of 50 records are readable as of before the trim");
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

/// Local segments go while appends go on: what a purge takes must never be more than what the archive has.
#[tokio::test(flavor = "multi_thread")]
async fn local_segments_that_go_while_appends_go_on_take_nothing_along_that_is_not_archived() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.node.data = directory.path().join("node");
    config.archive.url = Some(format!("file://{}", directory.path().join("archive").display()));
    config.archive.segment_age = Duration::from_secs(1);
    config.cluster.shards = Some(1);
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.log.record_limit = bytesize::ByteSize::kib(64);
    config.log.batch_limit = bytesize::ByteSize::kib(128);
    config.local_retention.bytes = bytesize::ByteSize::b(0);
    let node = Node::start(&config).await?;
    let purges = async {
        let (mut purges, mut first) = (0, 0);
        while purges < 3 {
            append(&node, "busy", 50).await?;
            for shard in node.status().await.shards {
                let (local, archived) = (shard.local_first, shard.archived);
                ensure!(
                    local <= archived,
                    "shard {}: local from {local}, archived to {archived}",
                    shard.shard
                );
                if shard.shard == 1 && local > first {
                    (purges, first) = (purges + 1, local);
                }
            }
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(120), purges)
        .await
        .context("nothing went for two minutes")??;
    node.archive_flush().await?;
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

/// Whether the local index begins later than the shard's log did.
fn index_was_purged(disk: &SimDisk) -> bool {
    let names = disk.list(Path::new("/data/index")).unwrap();
    let mut shard = names.iter().filter(|name| name.starts_with("0001-"));
    shard.next().is_some_and(|first| !first.starts_with(&format!("0001-{:020}", 0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_in_the_archive_is_trimmed_by_size_and_by_age_too() -> Result<()> {
    let disk = SimDisk::new(1);
    let mut config = Config::default();
    config.node.data = PathBuf::from("/data");
    config.cluster.shards = Some(1);
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.local_retention.bytes = bytesize::ByteSize::mib(1);
    config.archive.url = Some("memory:".to_owned());
    config.archive.segment_age = Duration::from_millis(200);
    // Shorter than the age: what is too old was not readable `as_of` long since.
    config.archive.recovery_window = Duration::from_secs(1);
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::machine() };
    let node = Node::start_in(environment, &config).await?;
    for name in ["size", "age"] {
        append(&node, name, 50).await?;
    }
    let forgotten = async {
        while !index_was_purged(&disk) {
            append(&node, "noise", 100).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(120), forgotten).await.context("nothing local is purged")??;

    let limit = 10_000;
    let patch = |bytes, age| StreamConfigPatch {
        retention_bytes: Some(bytes),
        retention_age_seconds: Some(age),
        ..StreamConfigPatch::default()
    };
    node.configure_stream(&stream("size"), patch(Some(limit), None)).await?;
    node.configure_stream(&stream("age"), patch(None, Some(2))).await?;
    let size = until(&node, "size", |info| info.first.get() > 0).await?;
    let batch = size.appended_bytes / 50;
    let kept = size.next.since(size.first) * batch;
    ensure!(kept <= limit && kept + batch > limit, "{kept} bytes are kept of a limit of {limit}");
    until(&node, "age", |info| info.first == info.next).await?;

    // From here on it goes forward from what was found.
    append(&node, "size", 3).await?;
    let more = until(&node, "size", |info| info.first > size.first).await?;
    ensure!(more.next.since(more.first) == size.next.since(size.first), "{more:?} after {size:?}");
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}
