//! How many requests to the object store a branch takes, and a node that starts on it: no more for a large archive than for a
//! small one, counted where they arrive.
//!
//! They grow with the manifests since the last checkpoint and the segments since the last snapshot, of which there is one for
//! every 256: so does an archive that has just got both compare with one that has none yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, S3Server, Tool};
use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStore as _};
use serde_json::Value;

const SHARDS: u64 = 1;

/// A node that archives when it is told to, and at no other time.
fn settings(data: &Path, bucket: &Bucket) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, "log")
        .set("archive.segment_age", "1h")
        .set("archive.snapshot_schedule", "0 0 0 29 2 *")
        .set("archive.check_interval", "1h")
        .set("cluster.shards", &SHARDS.to_string())
        .set("wal.segment_size", "1MiB")
        .set("wal.reserve", "1MiB")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "128KiB")
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().new_agent()
}

/// Requests of a branch, and of the start of a node on it.
#[derive(Debug, Clone, Copy)]
struct Taken {
    branch: u64,
    start: u64,
}

fn measure(server: &S3Server, bucket: &Bucket, at: &Path, name: &str) -> Result<Taken> {
    let count = || server.requests().context("the server counts");
    let before = count()?;
    Tool::restore(&bucket.archive_url("log"))?.bucket(bucket).args(["branch", name, "--latest"]).succeed()?;
    let branched = count()?;
    let mut node = settings(&at.join(name), bucket).set("archive.branch", name).start()?;
    let admin = node.admin_url();
    let agent = agent();
    node.process().wait_until(Deadline::after_secs(60), || {
        let url = format!("{admin}/admin/archive/status");
        let status: Value = serde_json::from_str(&agent.get(url).call()?.into_body().read_to_string()?)?;
        ensure!(status["reachable"] == true, "{status}");
        Ok(())
    })?;
    let started = count()?;
    node.kill_9()?;
    Ok(Taken { branch: branched - before, start: started - branched })
}

/// Adds archived segments, each with a manifest of its own.
fn archive(node: &NodeProcess, segments: u64) -> Result<()> {
    let agent = agent();
    let records = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
    let flush = format!("{}/admin/archive/flush", node.admin_url());
    for _ in 0..segments {
        agent.post(&records).send("x")?;
        agent.post(&flush).send_empty()?;
    }
    Ok(())
}

#[test]
fn a_branch_and_a_start_on_it_take_no_more_requests_however_large_the_archive_is() -> Result<()> {
    let server = Arc::new(S3Server::in_process()?);
    let bucket = server.bucket()?;
    let directory = tempfile::tempdir()?;
    let node = settings(&directory.path().join("parent"), &bucket).start()?;
    let taken = |more: u64, name: &str| {
        archive(&node, more)?;
        let taken = measure(&server, &bucket, directory.path(), name)?;
        println!("{name}: {taken:?}");
        anyhow::Ok(taken)
    };
    let small = taken(3, "small")?;
    let between = taken(57, "between")?;
    let large = taken(198, "large")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys: Vec<ObjectMeta> = runtime.block_on(bucket.store().list(None).try_collect())?;
    let count = |part: &str| keys.iter().filter(|object| object.location.as_ref().contains(part)).count();
    let found =
        ["main/shard-0001/manifest/", "main/shard-0001/checkpoint/", "main/shard-0001/snapshots/"].map(count);
    ensure!(
        found == [259, 1, 1],
        "the large archive has other manifests, checkpoints and snapshots: {found:?}"
    );

    // The checkpoint, the snapshot, and the manifest that tells of it. How many closed objects are looked at depends on the
    // instant.
    let more = 6;
    ensure!(large.branch <= small.branch + more, "a branch: {small:?}, {large:?}");
    ensure!(large.start <= small.start + 2 * more, "a start: {small:?}, {large:?}");
    // In between, each segment adds some: its manifest, for each time that the log is opened, and what replays it.
    ensure!(between.branch <= small.branch + 2 * 57, "a branch: {small:?}, {between:?}");
    ensure!(between.start <= small.start + 6 * 57, "a start: {small:?}, {between:?}");
    Ok(())
}
