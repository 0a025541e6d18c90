//! A node that is killed, with its archive in a bucket.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use duramen_failpoint::Point;
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, Tool};
use serde_json::Value;

use crate::{Scene, WITHOUT, cases, check_said, killed_at, play};

/// One stream is appended to with each acknowledgement.
const STREAMS: [(&str, &str); 2] = [("quick", "local"), ("sure", "archived")];

fn agent() -> ureq::Agent {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    agent.timeout_global(Some(Duration::from_secs(60))).build().new_agent()
}

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

/// A record's value: its number, and more where it is to be large.
fn value(number: usize, large: bool) -> String {
    let rest = if large { "x".repeat(60_000) } else { String::new() };
    format!("{number} {rest}")
}

fn append(agent: &ureq::Agent, url: &str, (stream, ack): (&str, &str), value: &str) -> Result<()> {
    let url = format!("{url}/v1/tenants/default/streams/{stream}/records?ack={ack}");
    let mut answer = agent.post(&url).send(value)?;
    let said = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 200, "{stream}: {} {said}", answer.status());
    Ok(())
}

/// Appends numbered records until one is not acknowledged; how many were.
fn append_until_killed(url: &str, stream: (&str, &str), large: bool) -> usize {
    let agent = agent();
    let mut number = 0;
    while append(&agent, url, stream, &value(number, large)).is_ok() {
        number += 1;
    }
    number
}

/// Asks for snapshots until there is no answer.
fn snapshot_until_killed(admin: &str) {
    let agent = agent();
    while agent.post(format!("{admin}/admin/snapshot")).send_empty().is_ok() {
        // Each is of a later end only after an append.
        let _ = agent.get(format!("{admin}/health")).call();
    }
}

/// The numbers of the records in a stream.
fn numbers(url: &str, stream: &str) -> Result<Vec<usize>> {
    let (agent, mut numbers) = (agent(), Vec::new());
    loop {
        let url =
            format!("{url}/v1/tenants/default/streams/{stream}/records?from={}&limit=100", numbers.len());
        let mut answer = agent.get(&url).call()?;
        let said = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let read: Value = serde_json::from_str(&said)?;
        let records = read["records"].as_array().with_context(|| format!("{stream}: {said}"))?;
        if records.is_empty() {
            return Ok(numbers);
        }
        for record in records {
            let number = record["value"].as_str().and_then(|value| value.split(' ').next());
            numbers.push(number.context("a record has its number")?.parse()?);
        }
    }
}

/// Has the node killed at the point, and gives how many records of each stream were acknowledged.
fn killed(settings: &NodeSettings, point: Point, scene: Scene) -> Result<[usize; STREAMS.len()]> {
    let (before, large) = match scene {
        Scene::Load { before, large } => (before, large),
        _ => (0, false),
    };
    let settings = settings.clone().variable("FAILPOINTS", &killed_at(point, before));
    if scene == Scene::FirstStart {
        let (_, said) = settings.start_expecting_refusal()?;
        check_said(point, &said)?;
        return Ok([0; STREAMS.len()]);
    }
    let mut node = settings.start()?;
    let (url, admin) = (node.client_url(), node.admin_url());
    let mut acknowledged = [0; STREAMS.len()];
    std::thread::scope(|scope| -> Result<()> {
        let writers = STREAMS.map(|stream| {
            let url = url.clone();
            scope.spawn(move || append_until_killed(&url, stream, large))
        });
        let snapshots = matches!(point, Point::SnapshotCreated | Point::SnapshotCommitted)
            .then(|| scope.spawn(|| snapshot_until_killed(&admin)));
        let ended = node.process().wait(Deadline::after_secs(60));
        // What waits for answers goes on only once there are none.
        node.kill_9()?;
        for (writer, acknowledged) in writers.into_iter().zip(&mut acknowledged) {
            *acknowledged = writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
        }
        drop(snapshots);
        ended.with_context(|| format!("{acknowledged:?} records were acknowledged"))?;
        Ok(())
    })?;
    check_said(point, &node.process().output())?;
    Ok(acknowledged)
}

/// Everything acknowledged is there once and in order, and at most the one that was on its way with it.
fn check_streams(node: &NodeProcess, acknowledged: [usize; STREAMS.len()]) -> Result<[usize; STREAMS.len()]> {
    let mut found = [0; STREAMS.len()];
    for (at, (stream, _)) in STREAMS.iter().enumerate() {
        if acknowledged[at] == 0 {
            // It may not even exist.
            found[at] = numbers(&node.client_url(), stream).map_or(0, |numbers| numbers.len());
            continue;
        }
        let numbers = numbers(&node.client_url(), stream)?;
        ensure!(numbers.iter().copied().eq(0..numbers.len()), "{stream} holds {numbers:?}");
        let (there, owed) = (numbers.len(), acknowledged[at]);
        ensure!(there == owed || there == owed + 1, "{stream}: {owed} were acknowledged, {there} are there");
        found[at] = there;
    }
    Ok(found)
}

fn play_one(bucket: &Bucket, point: Point, scene: Scene) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = settings(directory.path(), bucket, point.name());
    let acknowledged = killed(&settings, point, scene)?;

    let mut node = settings.variable("FAILPOINTS", WITHOUT).start()?;
    let found = check_streams(&node, acknowledged).context("after the restart")?;
    for (stream, number) in STREAMS.iter().zip(found) {
        append(&agent(), &node.client_url(), (stream.0, "archived"), &value(number, false))?;
    }
    let flushed = agent().post(format!("{}/admin/archive/flush", node.admin_url())).send_empty()?;
    ensure!(flushed.status() == 200, "{flushed:?}");
    let now = found.map(|there| there + 1);
    ensure!(check_streams(&node, now)? == now, "what was appended then is there");
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
