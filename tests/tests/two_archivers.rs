//! Two archivers of one branch at once, as when a data directory was copied and both copies run: one of them wins, the other
//! says why it can't go on and what to do, what either calls archived is in the archive, and the archive verifies.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, Tool};
use serde_json::Value;

/// What whoever lost is told.
const TOLD: [&str; 3] = ["another node archives", "copy of this data directory", "duramen-restore hydrate"];

fn agent() -> ureq::Agent {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    agent.timeout_global(Some(Duration::from_secs(60))).build().new_agent()
}

fn settings(data: &Path, bucket: &Bucket) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, "log")
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1s")
        .set("log.append_timeout", "3s")
}

fn append(node: &NodeProcess, stream: &str, ack: &str, value: &str) -> Result<()> {
    let url = format!("{}/v1/tenants/default/streams/{stream}/records?ack={ack}", node.client_url());
    let mut answer = agent().post(&url).send(value)?;
    let said = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 200, "{} {said}", answer.status());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        let there = to.join(file.file_name());
        match file.file_type()?.is_dir() {
            true => copy(&file.path(), &there)?,
            false => std::fs::copy(file.path(), there).map(drop)?,
        }
    }
    Ok(())
}

/// A node's directory and a copy of it, of which some is archived.
fn twins(directory: &Path, bucket: &Bucket) -> Result<[NodeSettings; 2]> {
    let (one, two) = (directory.join("one"), directory.join("two"));
    let mut node = settings(&one, bucket).start()?;
    for number in 0..3 {
        append(&node, "orders", "archived", &format!("common {number}"))?;
    }
    ensure!(node.terminate()?.success(), "{}", node.process().output());
    copy(&one, &two)?;
    Ok([settings(&one, bucket), settings(&two, bucket)])
}

/// Appends until `count` records are archived, or one is not; which were.
fn append_archived(node: &NodeProcess, name: &str, count: usize) -> Vec<String> {
    let mut archived = Vec::new();
    for number in 0..count {
        let value = format!("{name} {number}");
        if append(node, "orders", "archived", &value).is_err() {
            break;
        }
        archived.push(value);
    }
    archived
}

fn wait_until_told(node: &mut NodeProcess, told: &[&str]) -> Result<()> {
    let admin = node.admin_url();
    node.process().wait_until(Deadline::after_secs(60), || {
        let read = |path| -> Result<String> {
            Ok(agent().get(format!("{admin}{path}")).call()?.into_body().read_to_string()?)
        };
        let status: Value = serde_json::from_str(&read("/admin/archive/status")?)?;
        let troubles = status["troubles"].to_string();
        for part in told {
            ensure!(troubles.contains(part), "its status does not say {part:?}: {troubles}");
        }
        ensure!(read("/metrics")?.contains("\nduramen_archive_failing 1"), "the metric does not say it");
        ensure!(read("/health")?.contains("degraded"), "its health does not say it");
        Ok(())
    })
}

/// What the archive holds of the stream, after it was verified.
fn archived(bucket: &Bucket) -> Result<Vec<String>> {
    let restore = || Tool::restore(&bucket.archive_url("log")).map(|tool| tool.bucket(bucket));
    restore()?.line("verify --full").succeed()?;
    let exported = restore()?.line("export orders --latest-per-shard").succeed()?;
    let value = |line: &str| -> Result<String> {
        let record: Value = serde_json::from_str(line)?;
        Ok(record["value"].as_str().with_context(|| line.to_owned())?.to_owned())
    };
    exported.lines().map(value).collect()
}

fn common() -> Vec<String> {
    (0..3).map(|number| format!("common {number}")).collect()
}

#[test]
fn of_two_nodes_on_copies_of_one_directory_one_archives_and_the_other_says_why_it_does_not() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bucket = Bucket::create()?;
    let [one, two] = twins(directory.path(), &bucket)?;
    let (mut one, mut two) = (one.start()?, two.start()?);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| append_archived(&one, "one", 6));
        let second = scope.spawn(|| append_archived(&two, "two", 6));
        (first.join().unwrap_or_default(), second.join().unwrap_or_default())
    });
    let (winner, loser, won, lost) = match (first.len(), second.len()) {
        (6, 0..6) => (&mut one, &mut two, first, second),
        (0..6, 6) => (&mut two, &mut one, second, first),
        _ => bail!("of one {first:?} is archived, and of two {second:?}"),
    };
    ensure!(lost.is_empty(), "both were told that their records are archived: {won:?}, {lost:?}");
    wait_until_told(loser, &TOLD)?;
    append(loser, "orders", "local", "only here")?;
    let (status, _) = loser.admin_get("/ready")?;
    ensure!(status == 200, "the loser goes on serving: {status}");
    append(winner, "orders", "archived", "the winner goes on")?;

    let mut expected = common();
    expected.extend(won);
    expected.push("the winner goes on".to_owned());
    ensure!(archived(&bucket)? == expected, "the archive holds {:?}", archived(&bucket)?);

    // After a restart it meets an archive that is ahead of it, or beside it.
    loser.kill_9()?;
    let refused = loser.start_again().err().context("it starts on a history that is not its own")?;
    ensure!(format!("{refused:#}").contains("duramen-restore hydrate"), "{refused:#}");
    ensure!(winner.terminate()?.success(), "{}", winner.process().output());
    ensure!(archived(&bucket)? == expected, "the archive holds {:?}", archived(&bucket)?);
    Ok(())
}

#[test]
fn an_archiver_that_is_run_on_a_copy_while_its_node_goes_on_does_not_archive_another_history() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bucket = Bucket::create()?;
    let [one, two] = twins(directory.path(), &bucket)?;
    // The copy has something that is archived nowhere.
    let mut copied = two.set("archive.segment_age", "1h").start()?;
    append(&copied, "orders", "local", "only in the copy")?;
    copied.kill_9()?;
    let mut node = one.start()?;
    for number in 0..3 {
        append(&node, "orders", "archived", &format!("node {number}"))?;
    }
    let run = Tool::archiver(&bucket.archive_url("log"))?.bucket(&bucket);
    run.line("run --data").args([directory.path().join("two")]).fail(1, &TOLD)?;
    append(&node, "orders", "archived", "it goes on")?;
    ensure!(node.terminate()?.success(), "{}", node.process().output());
    let mut expected = common();
    expected.extend((0..3).map(|number| format!("node {number}")).chain(["it goes on".to_owned()]));
    ensure!(archived(&bucket)? == expected, "the archive holds {:?}", archived(&bucket)?);
    Ok(())
}
