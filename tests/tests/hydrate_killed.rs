//! `kill -9` of `duramen-restore hydrate` at random moments, with its archive in a bucket: run again, it finishes; until then
//! no node starts there; and then the directory is what an undisturbed restore makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, Process, Tool, programs, setting};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often a directory is left with some of its objects where `DURAMEN_KILLS` says nothing else.
const KILLS: u64 = 12;
const SEGMENTS: u64 = 24;
const STREAM: &str = "orders";

/// A node on a directory, for the bucket's archive.
fn settings(data: &Path, bucket: &Bucket) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, "log")
        .set("cluster.shards", "2")
        .set("log.batch_limit", "2MiB")
        .set("wal.segment_size", "8MiB")
        .set("wal.reserve", "8MiB")
}

/// A record's value: of some size, so that a download takes a while, and no two alike.
fn record(number: u64) -> String {
    let mut random = StdRng::seed_from_u64(number);
    (0..40_000).map(|_| format!("{:08x}", random.random::<u32>())).collect()
}

/// An archive of many segments, whose node is gone.
fn archive(directory: &Path, bucket: &Bucket) -> Result<()> {
    let node = settings(&directory.join("origin"), bucket).start()?;
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().new_agent();
    let records = format!("{}/v1/tenants/default/streams/{STREAM}/records", node.client_url());
    for number in 0..SEGMENTS {
        agent.post(&records).send(record(number))?;
        agent.post(format!("{}/admin/archive/flush", node.admin_url())).send_empty()?;
    }
    Tool::ctl(&node)?.line(&format!("cursor commit {STREAM} billing 7")).succeed()?;
    agent.post(format!("{}/admin/snapshot", node.admin_url())).send_empty()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    Ok(())
}

fn hydrate(bucket: &Bucket, to: &Path, branch: &str) -> Result<Process> {
    let mut command = Command::new(&programs()?.duramen_restore);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    command.args(["hydrate", "--latest", "--parallelism", "2", "--new-branch", branch, "--to"]).arg(to);
    command.args(["--archive", &bucket.archive_url("log")]).envs(bucket.environment());
    Process::start("duramen-restore hydrate", &mut command)
}

/// Every file below a directory, with what is in it.
fn files(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(&folder)? {
            let path = file?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(directory)?.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// What of a directory is the same for every restore of one target: every archived object, and which files there are.
fn comparable(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = files(directory)?;
    for (path, content) in &mut files {
        // They name the branch and the cluster, which are new with each restore, and times.
        if !path.starts_with("hydrated") {
            content.clear();
        }
    }
    Ok(files)
}

/// How many archived objects are among these files under their own names.
fn restored(files: &BTreeMap<PathBuf, Vec<u8>>) -> usize {
    let unfinished = |path: &Path| path.extension().is_some_and(|extension| extension == "tmp");
    files.keys().filter(|path| path.starts_with("hydrated") && !unfinished(path)).count()
}

/// Where a killed restore left a directory.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// Nothing is there that would make a directory more than empty.
    Nothing,
    Half,
    Done,
}

fn left(to: &Path) -> Left {
    if to.join("activated.json").exists() {
        Left::Done
    } else if to.join("restore.json").exists() {
        Left::Half
    } else {
        Left::Nothing
    }
}

fn check_refused(bucket: &Bucket, to: &Path, branch: &str) -> Result<()> {
    let before = files(to)?;
    let node = settings(to, bucket).set("archive.branch", branch);
    let (status, said) = node.start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    let todo = format!("run `duramen-restore hydrate --to {}` again", to.display());
    for part in ["is half restored", "from branch main of s3://", "downloaded", &todo] {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    let mut after = files(to)?;
    // Who looked last.
    after.insert("LOCK".into(), before.get(Path::new("LOCK")).cloned().unwrap_or_default());
    ensure!(before.keys().eq(after.keys()) && before == after, "the refused start changed the directory");
    Ok(())
}

/// The node starts on the directory, goes on there, and has every record.
fn check_starts(bucket: &Bucket, to: &Path, branch: &str) -> Result<()> {
    let mut node: NodeProcess = settings(to, bucket).set("archive.branch", branch).start()?;
    let read = Tool::ctl(&node)?.line(&format!("read {STREAM}")).succeed()?;
    let read: Vec<&str> = read.lines().collect();
    ensure!(read.len() as u64 == SEGMENTS, "{} records", read.len());
    for (number, value) in (0..).zip(read) {
        ensure!(value.ends_with(&record(number)), "record {number} is another one");
    }
    let cursor = Tool::ctl(&node)?.line(&format!("cursor get {STREAM} billing")).succeed()?;
    ensure!(cursor.contains('7'), "{cursor}");
    Tool::ctl(&node)?.line(&format!("append {STREAM}")).input("goes on\n").succeed()?;
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    Ok(())
}

#[test]
fn a_killed_hydrate_does_not_start_and_is_finished_by_running_it_again() -> Result<()> {
    let seed: u64 = setting("DURAMEN_TEST_SEED")?.unwrap_or(20_211_121);
    let kills: u64 = setting("DURAMEN_KILLS")?.unwrap_or(KILLS);
    println!("DURAMEN_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let bucket = Bucket::create()?;
    archive(directory.path(), &bucket)?;

    let undisturbed = directory.path().join("undisturbed");
    let clock = Deadline::after_secs(120);
    let status = hydrate(&bucket, &undisturbed, "undisturbed")?.wait(clock)?;
    ensure!(status.success(), "{status}");
    // How far a restore comes before it is killed is a part of how long it takes here.
    let whole = clock.allowed() - clock.left();
    let expected = comparable(&undisturbed)?;
    let objects = restored(&expected);
    ensure!(objects as u64 > SEGMENTS, "there are {objects} archived objects");

    let (mut half, mut round) = (0, 0);
    while half < kills {
        round += 1;
        ensure!(round <= 20 * kills, "{half} of {round} restores could be killed halfway");
        let branch = format!("killed-{round}");
        let to = directory.path().join(&branch);
        loop {
            let mut process = hydrate(&bucket, &to, &branch)?;
            let moment = Deadline::after(whole.mul_f64(random.random_range(0.0..1.0)));
            let ended = process.wait(moment).is_ok();
            let status = process.kill_9()?;
            match left(&to) {
                Left::Nothing => ensure!(!ended, "it did nothing, and ended with {status}"),
                Left::Half if ended => {
                    anyhow::bail!("it gave up halfway with {status}: {}", process.output());
                }
                Left::Half => {
                    // Also one that has everything and does not say so yet must not start; but it is not halfway.
                    half += u64::from((1..objects).contains(&restored(&comparable(&to)?)));
                    check_refused(&bucket, &to, &branch).with_context(|| branch.clone())?;
                }
                Left::Done => break,
            }
        }
        let found = comparable(&to)?;
        ensure!(found.keys().eq(expected.keys()), "{branch} has other files: {:?}", found.keys());
        ensure!(found == expected, "{branch} has another content than an undisturbed restore");
        let again = hydrate(&bucket, &to, &branch)?.wait(Deadline::after_secs(60))?;
        ensure!(!again.success(), "a finished restore is restored again");
        if round == 1 || half >= kills {
            check_starts(&bucket, &to, &branch).with_context(|| branch.clone())?;
        }
        std::fs::remove_dir_all(&to)?;
    }
    println!("{round} restores were killed {half} times halfway");
    Ok(())
}
