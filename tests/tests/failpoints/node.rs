//! A node that is killed, with its archive in a bucket.

use anyhow::{Context as _, Result, bail, ensure};
use duramen_failpoint::Point;
use duramen_tests::{Bucket, Deadline, Load, NodeSettings, Tool, Written, agent};

use crate::{Scene, WITHOUT, cases, check_said, killed_at, play};

/// One stream is appended to with each acknowledgement.
const STREAMS: [(&str, &str); 2] = [("quick", "local"), ("sure", "archived")];

fn settings(data: &std::path::Path, bucket: &Bucket, prefix: &str) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, prefix)
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1s")
        .set("local_retention.bytes", "0B")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "128KiB")
        .set("wal.segment_size", "1MiB")
        .set("wal.reserve", "1MiB")
}

/// Asks for snapshots until there is no answer.
fn snapshot_until_killed(admin: &str) {
    let agent = agent();
    while agent.post(format!("{admin}/admin/snapshot")).send_empty().is_ok() {
        // Each is of a later end only after an append.
        let _ = agent.get(format!("{admin}/health")).call();
    }
}

/// Has the node killed at the point, and gives what was appended to it.
fn killed(settings: &NodeSettings, point: Point, scene: Scene) -> Result<Vec<Written>> {
    let (before, large) = match scene {
        Scene::Load { before, large } => (before, large),
        _ => (0, false),
    };
    let settings = settings.clone().variable("FAILPOINTS", &killed_at(point, before));
    if scene == Scene::FirstStart {
        let (_, said) = settings.start_expecting_refusal()?;
        check_said(point, &said)?;
        return Ok(Vec::new());
    }
    let mut node = settings.start()?;
    let admin = node.admin_url();
    let load = Load::start(&node.client_url(), &STREAMS, if large { 60_000 } else { 10 });
    let ended = std::thread::scope(|scope| -> Result<_> {
        if matches!(point, Point::SnapshotCreated | Point::SnapshotCommitted) {
            scope.spawn(|| snapshot_until_killed(&admin));
        }
        let ended = node.process().wait(Deadline::after_secs(60));
        // What waits for answers goes on only once there are none.
        node.kill_9()?;
        Ok(ended)
    })?;
    let acknowledged = load.acknowledged();
    let written = load.stop()?;
    ended.with_context(|| format!("{acknowledged:?} records were acknowledged"))?;
    check_said(point, &node.process().output())?;
    Ok(written)
}

fn play_one(bucket: &Bucket, point: Point, scene: Scene) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = settings(directory.path(), bucket, point.name());
    let killed = killed(&settings, point, scene)?;

    let mut node = settings.variable("FAILPOINTS", WITHOUT).start()?;
    for written in &killed {
        written.check_node(&node.client_url()).context("after the restart")?;
    }
    // It goes on, on both streams and in its archive.
    let more = format!("{}/v1/tenants/default/streams/more/records?ack=archived", node.client_url());
    let flush = format!("{}/admin/archive/flush", node.admin_url());
    for url in [&more, &flush] {
        let answer = agent().post(url).send("more")?;
        ensure!(answer.status() == 200, "{url}: {answer:?}");
    }
    for written in &killed {
        written.check_node(&node.client_url()).context("after it went on")?;
    }
    ensure!(node.terminate()?.success(), "{}", node.process().output());

    let url = bucket.archive_url(point.name());
    let verify = || Tool::restore(&url).map(|tool| tool.bucket(bucket).line("verify --full"));
    verify()?.succeed()?;
    // What the killed one left behind is no harm, and can be tidied up.
    let orphans = Tool::archiver(&url)?.bucket(bucket).line("orphans --delete --json").succeed()?;
    let left = matches!(point, Point::UploadCreated | Point::UploadVerified);
    if left && orphans.lines().all(|line| line.contains("\"keys\":[]")) {
        bail!("no upload of the killed node was found: {orphans}");
    }
    verify()?.succeed()?;
    Ok(())
}

#[test]
fn a_node_killed_at_any_step_of_archiving_goes_on_and_has_lost_nothing() -> Result<()> {
    let bucket = Bucket::create()?;
    let cases = cases(|scene| matches!(scene, Scene::FirstStart | Scene::Load { .. }));
    play(&cases, |point, scene| play_one(&bucket, point, scene));
    Ok(())
}
