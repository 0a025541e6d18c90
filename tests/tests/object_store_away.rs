//! A MinIO that is killed, stands still, comes back, comes back empty, or refuses what it allowed, under load: appends go on, the
//! lag is reported, it is caught up with, and nothing is lost, doubled, or begun anew.

#![expect(clippy::disallowed_methods, reason = "a test takes a store's data away behind its back")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use duramen_tests::{
    Bucket, Deadline, Load, NodeProcess, NodeSettings, S3Server, Signal, Tool, Written, agent, number_of,
};
use futures::TryStreamExt as _;
use object_store::ObjectStore as _;
use serde_json::Value;

/// How far the archive is behind, as dashboards and alerts have it.
const LAG: &str = "duramen_archive_lag_seconds";
/// How often archiving was tried in vain.
const ATTEMPTS: &str = "duramen_archive_uploads_total{result=\"failed\"";

const STREAMS: [(&str, &str); 2] = [("quick", "local"), ("sure", "archived")];

fn settings(data: &std::path::Path, bucket: &Bucket) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, "log")
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1s")
        .set("archive.check_interval", "10s")
        .set("local_retention.bytes", "0B")
        .set("log.append_timeout", "2s")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "128KiB")
        .set("wal.segment_size", "1MiB")
        .set("wal.reserve", "1MiB")
}

/// Waits until so many more records of a stream were acknowledged.
fn wait_for(node: &mut NodeProcess, load: &Load, stream: usize, more: u64) -> Result<()> {
    let owed = load.acknowledged()[stream] + more;
    node.process().wait_until(Deadline::after_secs(90), || {
        let acknowledged = load.acknowledged();
        ensure!(acknowledged[stream] >= owed, "{acknowledged:?} are acknowledged, {owed} are waited for");
        Ok(())
    })
}

fn page(admin: &str, path: &str) -> Result<String> {
    Ok(agent().get(format!("{admin}{path}")).call()?.into_body().read_to_string()?)
}

fn metric(admin: &str, name: &str) -> Result<f64> {
    let page = page(admin, "/metrics")?;
    let lines = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok());
    values.reduce(f64::max).with_context(|| format!("there is no {name}"))
}

/// Waits until the node says that archiving fails, how long it has been, and each of `parts` about why.
fn wait_for_complaint(node: &mut NodeProcess, parts: &[&str]) -> Result<()> {
    let admin = node.admin_url();
    node.process().wait_until(Deadline::after_secs(90), || {
        ensure!(metric(&admin, "duramen_archive_failing")? > 0.0, "the metric says that all is well");
        ensure!(metric(&admin, LAG)? > 1.0, "no lag is reported: {}", metric(&admin, LAG)?);
        let status: Value = serde_json::from_str(&page(&admin, "/admin/archive/status")?)?;
        let troubles = status["troubles"].to_string();
        for part in parts {
            ensure!(troubles.contains(part), "its status does not say {part:?}: {troubles}");
        }
        Ok(())
    })
}

/// Waits until everything is archived again, and says so.
fn wait_until_caught_up(node: &mut NodeProcess) -> Result<()> {
    let admin = node.admin_url();
    node.process().wait_until(Deadline::after_secs(120), || {
        let flushed = agent().post(format!("{admin}/admin/archive/flush")).send_empty()?;
        ensure!(flushed.status() == 200, "{flushed:?}");
        ensure!(metric(&admin, "duramen_archive_failing")? == 0.0, "the metric says that it fails");
        Ok(())
    })
}

/// Everything is there once, in the node, after a crash of it, and in the archive, which verifies.
fn check(mut node: NodeProcess, bucket: &Bucket, load: Load) -> Result<Vec<Written>> {
    let written = load.stop()?;
    wait_until_caught_up(&mut node)?;
    node.kill_9()?;
    node.start_again()?;
    let restore = || Tool::restore(&bucket.archive_url("log")).map(|tool| tool.bucket(bucket));
    restore()?.line("verify --full").succeed()?;
    for written in &written {
        let there = written.check_node(&node.client_url())?;
        let exported = restore()?.args(["export", &written.stream, "--latest"]).succeed()?;
        let numbers = exported.lines().map(|line| number_of(&serde_json::from_str(line)?));
        let archived = written.check(&numbers.collect::<Result<Vec<_>>>()?).context("in the archive")?;
        ensure!(archived == there, "{}: {there} are in the node, {archived} archived", written.stream);
    }
    ensure!(node.terminate()?.success(), "{}", node.process().output());
    Ok(written)
}

/// A MinIO of its own, or none where this run has none.
fn minio() -> Result<Option<(Arc<S3Server>, Bucket)>> {
    let Some(server) = S3Server::minio()? else { return Ok(None) };
    let server = Arc::new(server);
    let bucket = server.bucket()?;
    Ok(Some((server, bucket)))
}

#[test]
fn a_minio_that_is_killed_or_stands_still_under_load_is_caught_up_with() -> Result<()> {
    let Some((server, bucket)) = minio()? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut node = settings(directory.path(), &bucket).start()?;
    let load = Load::start(&node.client_url(), &STREAMS, 20_000);
    wait_for(&mut node, &load, 1, 2)?;
    for round in 0..3 {
        if round == 1 {
            // Connections are taken, and nothing is answered.
            server.signal(Signal::Stop)?;
        } else {
            server.kill()?;
        }
        wait_for(&mut node, &load, 0, 60).context("appends go on")?;
        if round == 0 {
            wait_for_complaint(&mut node, &[])?;
        }
        if round == 1 {
            server.signal(Signal::Continue)?;
        } else {
            server.start_again()?;
        }
        wait_for(&mut node, &load, 1, 2).context("archived appends go on")?;
    }
    let written = check(node, &bucket, load)?;
    ensure!(written[0].refused == 0, "local appends were refused: {}", written[0].refused);
    Ok(())
}

#[test]
fn a_minio_that_comes_back_without_its_data_is_refused_and_the_old_one_caught_up_with() -> Result<()> {
    let Some((server, bucket)) = minio()? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut node = settings(directory.path(), &bucket).start()?;
    let load = Load::start(&node.client_url(), &STREAMS, 20_000);
    wait_for(&mut node, &load, 1, 2)?;

    server.kill()?;
    let (data, away) = (server.data()?, server.data()?.with_extension("away"));
    std::fs::rename(&data, &away)?;
    server.start_again()?;
    wait_for_complaint(&mut node, &[bucket.name()]).context("without the bucket")?;
    server.make_bucket(bucket.name())?;
    wait_for_complaint(&mut node, &["there is no archive at s3://", "check the URL and its prefix"])?;
    let (archived, admin) = (load.acknowledged()[1], node.admin_url());
    // It has tried again, and not only been asked.
    let attempts = metric(&admin, ATTEMPTS)? + 3.0;
    node.process().wait_until(Deadline::after_secs(90), || {
        ensure!(metric(&admin, ATTEMPTS)? >= attempts, "archiving is not tried again");
        Ok(())
    })?;
    wait_for(&mut node, &load, 0, 50).context("appends go on")?;
    ensure!(load.acknowledged()[1] == archived, "something counts as archived in an empty bucket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let there: Vec<_> = runtime.block_on(bucket.store().list(None).try_collect())?;
    ensure!(there.is_empty(), "the node wrote into what is not its archive: {there:?}");

    server.kill()?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&away, &data)?;
    server.start_again()?;
    wait_for(&mut node, &load, 1, 2).context("archived appends go on")?;
    check(node, &bucket, load)?;
    Ok(())
}

#[test]
fn a_permission_that_is_lost_under_load_and_given_back_is_caught_up_with() -> Result<()> {
    const ALL: [&str; 4] = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"];
    let bucket = Bucket::create()?;
    if !bucket.allow_anonymous(&ALL)? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let anonymous = format!("{}&anonymous=true", bucket.archive_url("log"));
    let mut node = settings(directory.path(), &bucket).set("archive.url", &anonymous).start()?;
    let load = Load::start(&node.client_url(), &STREAMS, 20_000);
    wait_for(&mut node, &load, 1, 2)?;
    for left in [&ALL[..1], &ALL[1..2], &[]] {
        bucket.allow_anonymous(left)?;
        wait_for_complaint(&mut node, &["denied"]).with_context(|| format!("with {left:?}"))?;
        let archived = load.acknowledged()[1];
        wait_for(&mut node, &load, 0, 60).context("appends go on")?;
        ensure!(load.acknowledged()[1] <= archived + 1, "with {left:?} records are archived");
        bucket.allow_anonymous(&ALL)?;
        wait_for(&mut node, &load, 1, 2).context("archived appends go on")?;
    }
    let written = check(node, &bucket, load)?;
    ensure!(written[0].refused == 0, "local appends were refused: {}", written[0].refused);
    Ok(())
}

/// What the archive lacks is no less for a restart, whichever way the node ended; and no more than since the last round.
#[test]
fn a_node_that_starts_while_its_store_is_away_says_how_much_is_not_archived_and_how_old_that_is() -> Result<()>
{
    const ALL: [&str; 3] = [LAG, "duramen_archive_lag_entries", "duramen_archive_lag_bytes"];
    const SEGMENT_AGE: f64 = 1.0;
    let Some((server, bucket)) = minio()? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let mut node = NodeSettings::in_directory(directory.path())
        .archive_in(&bucket, "log")
        .set("archive.segment_age", "1s")
        .set("cluster.shards", "1")
        .set("shutdown.timeout", "2s")
        .start()?;
    let append = |node: &NodeProcess, level: &str, size: usize| -> Result<()> {
        let records = format!("{}/v1/tenants/default/streams/s/records?ack={level}", node.client_url());
        agent().post(records).send("x".repeat(size))?;
        Ok(())
    };
    append(&node, "archived", 300_000)?;
    ensure!(node.terminate()?.success(), "{}", node.process().output());
    node.start_again()?;
    let cut = Instant::now();
    append(&node, "archived", 10)?;

    server.kill()?;
    append(&node, "local", 100_000)?;
    let oldest = Instant::now();
    for gracefully in [false, true] {
        if gracefully {
            node.terminate()?;
        } else {
            node.kill_9()?;
        }
        node.start_again()?;
        let (admin, least) = (node.admin_url(), oldest.elapsed().as_secs_f64());
        let status: Value = serde_json::from_str(&page(&admin, "/admin/archive/status")?)?;
        let most = cut.elapsed().as_secs_f64();
        let lag = status["lag_seconds"].as_f64().context("it has a lag")?;
        ensure!((least..=most).contains(&lag), "{least} to {most} s (gracefully: {gracefully}): {status}");
        let bytes = status["lag_bytes"].as_u64().context("it has a lag")?;
        ensure!((100_000..300_000).contains(&bytes), "gracefully: {gracefully}: {status}");
        ensure!(status["shards"][1]["archived"].is_null(), "where the archive ends can't be known: {status}");
        // As DuramenArchiveLagAge has it; and it goes on growing.
        for at_least in [5.0 * SEGMENT_AGE, least + 2.0] {
            node.process().wait_until(Deadline::after_secs(60), || {
                let lag = metric(&admin, LAG)?;
                ensure!(lag > at_least, "the lag is {lag} s, {at_least} s are waited for");
                Ok(())
            })?;
        }
    }

    server.start_again()?;
    let admin = node.admin_url();
    node.process().wait_until(Deadline::after_secs(120), || {
        for name in ALL {
            let lag = metric(&admin, name)?;
            ensure!(lag == 0.0, "{name} is {lag}");
        }
        Ok(())
    })
}
