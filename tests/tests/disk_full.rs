//! A full disk: appends are refused, reads go on, and the node goes on by itself once there is space again.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use bytesize::ByteSize;
use duramen::api::{AppendPayload, AppendRequest, Appended, Code, ReadFrom, ReadRequest, StreamRef};
use duramen::config::Config;
use duramen::{Environment, Node, StartError};
use duramen_types::batch::Record;
use duramen_types::{HybridTime, StreamName, TenantName};
use duramen_wal::Disk;
use duramen_wal::sim::SimDisk;

const STREAMS: usize = 16;
const RECORD: usize = 1_000_000;

fn stream(n: usize) -> StreamRef {
    let name = StreamName::parse(&format!("stream-{n}")).unwrap();
    StreamRef { tenant: TenantName::parse("default").unwrap(), name }
}

fn config() -> Config {
    let mut config = Config::default();
    config.node.data = Path::new("/data").to_owned();
    config.cluster.shards = Some(4);
    config.wal.segment_size = ByteSize::mib(2);
    config.wal.reserve = ByteSize::mib(2);
    config.wal.cache = ByteSize::mib(1);
    config
}

async fn start(disk: &SimDisk, config: &Config) -> Result<Node, StartError> {
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::machine() };
    Node::start_in(environment, config).await
}

async fn append(node: &Node, n: usize) -> Result<Appended, duramen::api::Error> {
    let record = Record { value: Some(Bytes::from(vec![b'x'; RECORD])), ..Record::default() };
    let request = AppendRequest {
        stream: stream(n),
        payload: AppendPayload::Records(vec![record]),
        acknowledgement: None,
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await?.acknowledged().await
}

async fn records(node: &Node, n: usize) -> Result<u64> {
    let request = ReadRequest {
        stream: stream(n),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of: None,
        seen: HybridTime::ZERO,
    };
    let mut read = node.read(request).await?;
    let mut records = 0;
    while let Some(batch) = read.next().await {
        records += u64::from(batch?.records);
    }
    Ok(records)
}

/// Appends to every stream at once until each was refused; gives how many records each got.
async fn fill(node: &Node) -> Result<Vec<u64>> {
    let writers = (0..STREAMS).map(|n| async move {
        let mut acknowledged = 0;
        loop {
            match append(node, n).await {
                Ok(_) => acknowledged += 1,
                Err(error) if error.code == Code::DiskFull => return Ok(acknowledged),
                Err(error) => return Err(error).context("only a full disk may refuse"),
            }
            ensure!(acknowledged < 1000, "the disk never gets full");
        }
    });
    futures::future::try_join_all(writers).await
}

async fn ends(node: &Node) -> bool {
    tokio::time::timeout(Duration::from_millis(300), node.failed()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_shards_that_fill_a_disk_together_are_refused_read_on_and_go_on_when_there_is_space()
-> Result<()> {
    let disk = SimDisk::new(1);
    let node = start(&disk, &config()).await?;
    for n in 0..STREAMS {
        append(&node, n).await?;
    }
    let mut expected = vec![1; STREAMS];
    for round in 1..=3 {
        disk.set_capacity(disk.used() + (24 << 20));
        for (expected, more) in expected.iter_mut().zip(fill(&node).await?) {
            *expected += more;
        }
        // What was refused while others were on their way may fit now: until nothing does.
        while append(&node, 0).await.is_ok() {
            expected[0] += 1;
        }
        ensure!(!ends(&node).await, "round {round}: a full disk ended the node");
        let mut found = Vec::new();
        for n in 0..STREAMS {
            found.push(records(&node, n).await?);
        }
        ensure!(
            found == expected,
            "round {round}: {found:?} records are there, {expected:?} were acknowledged"
        );
        let health = node.health().await;
        ensure!(health.condition == duramen::status::Condition::Degraded, "round {round}: {health:?}");
    }
    node.shutdown(Duration::from_secs(20)).await.context("a full disk must not fail a shutdown")?;
    Ok(())
}

async fn refused_start(disk: &SimDisk, config: &Config) -> Result<()> {
    let error = start(disk, config).await.err().context("there is no space to start")?.to_string();
    ensure!(error.contains("the disk with /data is full, 0 bytes are free"), "{error}");
    ensure!(error.contains("free some space and start again"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_start_is_named_with_what_to_do() -> Result<()> {
    let disk = SimDisk::new(2);
    let node = start(&disk, &config()).await?;
    append(&node, 0).await?;
    node.shutdown(Duration::from_secs(20)).await?;
    drop(node);

    // The file that was written ahead is enough to be elected and to be read from.
    disk.set_capacity(disk.used());
    let node = start(&disk, &config()).await?;
    ensure!(records(&node, 0).await? == 1);
    node.shutdown(Duration::from_secs(20)).await?;
    drop(node);

    // Without it nobody can be elected.
    let wal = Path::new("/data/wal");
    for spare in disk.list(wal)?.iter().filter(|name| name.starts_with("spare")) {
        disk.remove(&wal.join(spare))?;
    }
    disk.set_capacity(disk.used());
    refused_start(&disk, &config()).await?;

    disk.kill();
    disk.set_capacity(u64::MAX);
    let node = start(&disk, &config()).await?;
    append(&node, 0).await?;
    // As after a crash, the end of the log has to be written anew, and there is no space for it.
    disk.kill();
    drop(node);
    disk.set_capacity(disk.used());
    refused_start(&disk, &config()).await?;

    disk.kill();
    disk.set_capacity(u64::MAX);
    let node = start(&disk, &config()).await?;
    ensure!(records(&node, 0).await? == 2, "what was acknowledged is all there");
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn archiving_frees_a_full_disk_by_itself() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = SimDisk::new(3);
    let mut config = config();
    config.archive.url = Some(format!("file://{}", directory.path().join("archive").display()));
    config.archive.segment_age = Duration::from_secs(1);
    config.local_retention.bytes = ByteSize::mib(4);
    let node = start(&disk, &config).await?;
    disk.set_capacity(disk.used() + (24 << 20));
    let first = fill(&node).await?;
    for n in 0..STREAMS {
        let again = async {
            let mut look = tokio::time::interval(Duration::from_millis(50));
            loop {
                look.tick().await;
                match append(&node, n).await {
                    Err(error) if error.code == Code::DiskFull => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), again).await.context("the disk stays full")??;
    }
    for (n, first) in first.iter().enumerate() {
        ensure!(records(&node, n).await? == first + 1, "stream {n}");
    }
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}
