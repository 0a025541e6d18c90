//! Workloads with an object store.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use duramen_types::{Clock as _, SystemClock};

use super::{Bench, Workload, local};
use crate::content::Content;
use crate::node::{Archive, Target};
use crate::produce::{self, Batches};
use crate::report::{Counted, Measurement, Running};
use crate::restore;

const MIB: f64 = 1_048_576.0;
/// How often the archive's lag is asked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long the archive may take to hold everything.
const PATIENCE: Duration = Duration::from_secs(280);

/// Local segments go as soon as they may, so that the disk holds little.
const KEEP_NOTHING: [&str; 2] = ["local_retention.bytes=0", "wal.segment_size=64MiB"];

pub async fn sustained(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let mut all = Vec::new();
    // What is kept locally, and what the archive gets of what can't be compressed.
    bench.maker.need((2 << 30) + bench.sustained.as_secs() * (100 << 20))?;
    for (content, rate) in [(Content::Text, 150.0), (Content::Random, 100.0)] {
        let (node, _archive) = bench.archived(&["local_retention.bytes=1GiB"])?;
        let target = node.target()?;
        let how = Batches { content, rate: Some(rate), seconds: bench.sustained, ..bench.batches() };
        let lag = Lag::watch(target.clone());
        let measured = produce::batches(&target, &workload.name(), how).await?;
        let at_end = target.lag()?;
        let caught_up = until_archived(&target).await?;
        all.push(
            lag.told(measured)
                .await
                .with("lag at end mib", at_end as f64 / MIB)
                .with("caught up after s", caught_up.as_secs_f64()),
        );
    }
    Ok(all)
}

pub async fn steady(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let (node, _archive) = bench.archived(&[])?;
    let target = node.target()?;
    let seconds = bench.seconds.max(Duration::from_secs(20));
    let lag = Lag::watch(target.clone());
    let measured = produce::scheduled(&target, &workload.name(), local::steady_schedule(seconds)).await?;
    Ok(vec![lag.told(measured).await])
}

pub async fn cold(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let name = workload.name();
    let bytes = bench.archive_bytes.min(1 << 30);
    bench.maker.need(2 * bytes)?;
    let (mut node, archive) = bench.archived(&KEEP_NOTHING)?;
    local::fill(&node.target()?, &name, bench, bench.batch_records, bytes).await?;
    until_archived(&node.target()?).await?;
    // A node on a branch has nothing but the archive to read from.
    node.stop()?;
    let branched = branch(bench, &archive)?;
    let target = branched.target()?;
    let stream = produce::stream(&name, 0)?;
    let measured = local::read_all(&target, &name, &stream, bench.batch_records).await?;
    let rate = measured.mib_per_second;
    Ok(vec![measured.share(
        "of object store GET",
        rate,
        bench.ceilings.store.map(|store| store.get_mib_per_second),
    )])
}

/// A node on a new branch of the archive, in an empty directory.
fn branch(bench: &Bench, archive: &Archive) -> Result<crate::node::OwnNode> {
    let name = "cold";
    restore::branch(archive, name)?;
    let mut node = bench.maker.prepare()?;
    node.set_archive(archive);
    node.set(format!("archive.branch={name}"));
    node.start()?;
    Ok(node)
}

pub async fn hydrate(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let name = workload.name();
    // In the archive, in the log until it is there, and rebuilt.
    bench.maker.need(3 * bench.archive_bytes)?;
    let (mut node, archive) = bench.archived(&KEEP_NOTHING)?;
    let how = Batches {
        bytes: bench.archive_bytes,
        seconds: Duration::from_secs(240),
        content: Content::Mixed,
        ..bench.batches()
    };
    produce::batches(&node.target()?, &name, how).await?;
    until_archived(&node.target()?).await?;
    node.stop()?;
    drop(node);
    let mut all = Vec::new();
    let running = Running::begin(None);
    let branched = restore::branch(&archive, "elsewhere")?;
    let setting = format!("of an archive with {} MiB of values", bench.archive_bytes >> 20);
    all.push(
        running.end("branch", setting, Counted::default()).with("ms", branched.took.as_secs_f64() * 1e3),
    );

    let directory = tempfile::tempdir_in(&bench.maker.directory)?;
    let running = Running::begin(None);
    let done = restore::hydrate(&archive, "rebuilt", &directory.path().join("data"))?;
    let setting = format!("{} objects, {} MiB, 16 at once, verified", done.objects, done.bytes >> 20);
    let counted = Counted { records: 0, bytes: done.bytes, latency: None };
    let measured = running.end(&name, setting, counted);
    let rate = measured.mib_per_second;
    all.push(
        measured.with("cpu s", done.cpu.as_secs_f64()).with("peak rss mib", done.peak as f64 / MIB).share(
            "of object store GET",
            rate,
            bench.ceilings.store.map(|store| store.get_mib_per_second),
        ),
    );
    if let Some(copied) = rclone(bench, &archive)? {
        all.push(copied);
    }
    Ok(all)
}

/// What `rclone copy` takes for the same objects, where there is an rclone.
fn rclone(bench: &Bench, archive: &Archive) -> Result<Option<Measurement>> {
    let directory = tempfile::tempdir_in(&bench.maker.directory)?;
    let environment = archive.environment();
    let key = |name: &str| {
        environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let mut command = Command::new("rclone");
    command
        .args(["copy", "--transfers", "16", "--config", "/dev/null"])
        .arg(format!(":s3:{}", archive.bucket.name()))
        .arg(directory.path())
        // It can't take one for a server without TLS.
        .env_remove("AWS_CA_BUNDLE")
        .env("RCLONE_S3_PROVIDER", "Minio")
        .env("RCLONE_S3_ENDPOINT", archive.bucket.server().endpoint())
        .env("RCLONE_S3_ACCESS_KEY_ID", key("AWS_ACCESS_KEY_ID"))
        .env("RCLONE_S3_SECRET_ACCESS_KEY", key("AWS_SECRET_ACCESS_KEY"));
    let running = Running::begin(None);
    let status = match command.status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        status => status.context("rclone")?,
    };
    if !status.success() {
        eprintln!("rclone ended with {status}: there is nothing to compare with");
        return Ok(None);
    }
    let bytes = bytes_under(directory.path())?;
    let counted = Counted { records: 0, bytes, latency: None };
    let setting = format!("rclone copy, 16 transfers, {} MiB, nothing verified", bytes >> 20);
    Ok(Some(running.end("rclone", setting, counted)))
}

fn bytes_under(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        bytes += if kind.is_dir() { bytes_under(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

pub async fn archiver(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let name = workload.name();
    bench.maker.need(2 * bench.archive_bytes)?;
    let mut node = bench.maker.start(None, &[])?;
    let how = Batches {
        bytes: bench.archive_bytes,
        seconds: Duration::from_secs(240),
        content: Content::Mixed,
        ..bench.batches()
    };
    let filled = produce::batches(&node.target()?, &name, how).await?;
    node.stop()?;
    // The log is there and the archive is empty, as after an outage of the store.
    let archive = Archive::new()?;
    node.set_archive(&archive);
    node.start()?;
    let target = node.target()?;
    let running = Running::begin(Some(&target));
    until_archived(&target).await?;
    let setting =
        format!("{} MiB of mixed records, from local segments into an empty archive", filled.bytes >> 20);
    let counted = Counted { records: filled.records, bytes: filled.bytes, latency: None };
    let measured = running.end(&name, setting, counted);
    let rate = measured.mib_per_second;
    Ok(vec![measured.share(
        "of object store PUT",
        rate,
        bench.ceilings.store.map(|store| store.put_mib_per_second),
    )])
}

/// Waits until everything that was acknowledged is in the archive.
async fn until_archived(target: &Target) -> Result<Duration> {
    let clock = SystemClock::new();
    loop {
        let status = target.page("/admin/archive/status")?;
        if status.get("lag_entries").and_then(serde_json::Value::as_u64) == Some(0) {
            return Ok(clock.monotonic());
        }
        anyhow::ensure!(clock.monotonic() < PATIENCE, "the archive does not catch up: {status}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks at the archive's lag while a workload runs.
struct Lag(tokio::task::JoinHandle<()>, std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Lag {
    fn watch(target: Target) -> Self {
        let most = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = std::sync::Arc::clone(&most);
        let task = tokio::spawn(async move {
            loop {
                let target = target.clone();
                // A call that fails is made again: the number is for people.
                if let Ok(Ok(lag)) = tokio::task::spawn_blocking(move || target.lag()).await {
                    seen.fetch_max(lag, std::sync::atomic::Ordering::Relaxed);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self(task, most)
    }

    async fn told(self, measured: Measurement) -> Measurement {
        self.0.abort();
        let most = self.1.load(std::sync::atomic::Ordering::Relaxed);
        measured.with("most lag mib", most as f64 / MIB)
    }
}
