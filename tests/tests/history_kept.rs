//! The archive beside a log that a crash takes back, and beside a clock that is set back.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use duramen::api::{AppendPayload, AppendRequest, Appended, ReadFrom, ReadRequest, StreamRef};
use duramen::config::{Config, Fsync};
use duramen::{Environment, Node};
use duramen_archive::{Random, Store, StoreOptions};
use duramen_restore::{BranchOptions, Target};
use duramen_types::batch::Record;
use duramen_types::{Acknowledgement, BranchName, Clock, HybridTime, StreamName, SystemClock, TenantName};
use duramen_wal::sim::SimDisk;

fn stream() -> StreamRef {
    StreamRef { tenant: TenantName::parse("default").unwrap(), name: StreamName::parse("s").unwrap() }
}

async fn append(
    node: &Node,
    value: &'static str,
    level: Acknowledgement,
) -> Result<Appended, duramen::api::Error> {
    let record = Record { value: Some(Bytes::from_static(value.as_bytes())), ..Record::default() };
    let request = AppendRequest {
        stream: stream(),
        payload: AppendPayload::Records(vec![record]),
        acknowledgement: Some(level),
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await?.acknowledged().await
}

async fn records(node: &Node, as_of: Option<HybridTime>) -> Result<u64, duramen::api::Error> {
    let request = ReadRequest {
        stream: stream(),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of,
        seen: HybridTime::ZERO,
    };
    let mut read = node.read(request).await?;
    let mut records = 0;
    while let Some(batch) = read.next().await {
        records += u64::from(batch?.records);
    }
    Ok(records)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_is_never_ahead_of_what_a_power_cut_leaves() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = SimDisk::new(5);
    let mut config = Config::default();
    config.node.data = PathBuf::from("/data");
    config.cluster.shards = Some(1);
    config.wal.segment_size = bytesize::ByteSize::mib(1);
    config.wal.fsync = Fsync::Interval;
    // As good as never.
    config.wal.fsync_interval = Duration::from_secs(3600);
    config.archive.url = Some(format!("file://{}", directory.path().join("archive").display()));
    let start = || {
        let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::machine() };
        Node::start_in(environment, &config)
    };
    for round in 1..=3 {
        let node = start().await?;
        append(&node, "archived", Acknowledgement::Archived)
            .await
            .with_context(|| format!("round {round}"))?;
        disk.power_cut();
        drop(node);
    }
    let node = start().await?;
    ensure!(records(&node, None).await? == 3, "what was archived is here too");
    append(&node, "archived", Acknowledgement::Archived).await.context("the log continues its archive")?;
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

/// A clock that is set by hand.
#[derive(Debug)]
struct SetClock(AtomicU64, SystemClock);

impl Clock for SetClock {
    fn now(&self) -> HybridTime {
        HybridTime::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_writes_after_its_cut_although_the_clock_is_set_back_before_its_first_change() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let url = format!("file://{}", directory.path().join("archive").display());
    let clock = Arc::new(SetClock(AtomicU64::new(1_000_000_000_000), SystemClock::new()));
    let start = |disk: &SimDisk, branch: &str| {
        let mut config = Config::default();
        config.node.data = Path::new("/data").join(branch);
        config.cluster.shards = Some(1);
        config.wal.segment_size = bytesize::ByteSize::mib(1);
        config.archive.url = Some(url.clone());
        config.archive.branch = Some(BranchName::parse(branch).unwrap());
        let (disk, clock) = (Arc::new(disk.clone()), Arc::clone(&clock));
        let environment = Environment { disk, clock, ..Environment::machine() };
        async move { Node::start_in(environment, &config).await }
    };
    let (one, other) = (SimDisk::new(1), SimDisk::new(2));
    let node = start(&one, "main").await?;
    append(&node, "first", Acknowledgement::Local).await?;
    // The round that closes it comes much later than the last change.
    clock.0.store(2_000_000_000_000, Ordering::Relaxed);
    node.archive_flush().await?;
    node.shutdown(Duration::from_secs(20)).await?;

    let store =
        Store::open(&url, &StoreOptions::default(), Arc::clone(&clock) as _, Random::from_system()).await?;
    let (main, name) = (BranchName::parse("main")?, BranchName::parse("again")?);
    let options = BranchOptions::default();
    let made = duramen_restore::branch(&store, &main, Some(&name), &Target::Latest, &options).await?;
    let cut = made.plan.time;
    ensure!(cut.as_micros() >= 2_000_000_000_000, "{cut} is not the time of the round");
    let node = start(&other, "again").await?;
    node.shutdown(Duration::from_secs(20)).await?;
    drop(node);

    clock.0.store(1_500_000_000_000, Ordering::Relaxed);
    let node = start(&other, "again").await?;
    let appended = append(&node, "second", Acknowledgement::Local).await?;
    ensure!(appended.time > cut, "{} is written at or before the cut {cut}", appended.time);
    node.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}
