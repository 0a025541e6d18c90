//! Data directories: in use, of another node, of a newer version, and what is none.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use duramen_tests::{Deadline, S3Server};
use tempfile::TempDir;

use super::*;

/// A stopped node's directory, and its settings.
fn stopped() -> Result<(TempDir, NodeSettings)> {
    let directory = tempfile::tempdir()?;
    let settings = NodeSettings::in_directory(&directory.path().join("data"))
        .archive_in_directory(&directory.path().join("archive"))
        .set("cluster.shards", "2");
    let mut node = settings.clone().start()?;
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    Ok((directory, settings))
}

fn refused(settings: NodeSettings, parts: &[&str]) -> Result<()> {
    let (status, said) = settings.start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    for part in parts {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    Ok(())
}

/// Everything below a directory with its size, but for the lock file, which says who looked last.
fn contents(directory: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let (path, name) = {
            let file = file?;
            (file.path(), file.file_name())
        };
        if path.is_dir() {
            found.push((path.display().to_string(), 0));
            found.extend(contents(&path)?);
        } else if name != "LOCK" {
            found.push((path.display().to_string(), path.metadata()?.len()));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_directory_in_use_is_refused_by_every_program_with_who_uses_it() -> Result<()> {
    let asked = Asked::start()?;
    let data = asked.node.data().to_owned();
    let named = data.display().to_string();
    let mut asked = asked;
    let holder = format!("is in use by process {}", asked.node.process().id());
    let parts = [named.as_str(), holder.as_str(), "stop that process, or use another data directory"];
    refused(NodeSettings::in_directory(&data), &parts)?;
    let url = asked.archive_url();
    Tool::node()?.args(["doctor", "--data"]).args([data.as_os_str()]).fail(1, &parts)?;
    Tool::restore(&url)?.args(["repair", "--data"]).args([data.as_os_str()]).fail(1, &parts)?;
    Tool::archiver(&url)?.args(["run", "--data"]).args([data.as_os_str()]).fail(1, &parts)?;
    ensure!(asked.node.admin_get("/ready")?.0 == 200, "the node that has it goes on");
    Ok(())
}

#[test]
fn a_directory_of_another_node_is_refused() -> Result<()> {
    let (directory, settings) = stopped()?;
    let data = directory.path().join("data").display().to_string();
    let parts = [data.as_str(), "belongs to node 1, but this is node 2", "use that one's data directory"];
    refused(settings.clone().set("node.id", "2"), &parts)?;
    let parts = [data.as_str(), "shard count 2", "shard count 5"];
    refused(settings.clone().set("cluster.shards", "5"), &parts)?;
    let parts = ["belongs to branch main", "the configuration names other", "leave archive.branch out"];
    refused(settings.set("archive.branch", "other"), &parts)?;
    Ok(())
}

#[test]
fn a_directory_of_another_branch_is_not_started_as_main() -> Result<()> {
    let (directory, _) = stopped()?;
    let archive = directory.path().join("archive");
    Tool::restore(&format!("file://{}", archive.display()))?.line("branch beside --latest").succeed()?;
    let settings = NodeSettings::in_directory(&directory.path().join("beside"))
        .archive_in_directory(&archive)
        .set("cluster.shards", "2");
    let mut node = settings.clone().set("archive.branch", "beside").start()?;
    node.terminate()?;
    let parts = ["belongs to branch beside", "the configuration names main", "leave archive.branch out"];
    refused(settings.clone().set("archive.branch", "main"), &parts)?;
    // Where nothing is said, the directory says it.
    let mut node = settings.clone().start()?;
    ensure!(node.admin_get("/status")?.1.contains("\"branch\":\"beside\""), "{}", node.process().output());
    node.terminate()?;
    // What duramen-restore is told is no setting of a node, which says so once.
    for (restores, warns) in [("main", true), ("beside", false)] {
        let mut node = settings.clone().variable("DURAMEN_BRANCH", restores).start()?;
        ensure!(
            node.admin_get("/status")?.1.contains("\"branch\":\"beside\""),
            "{}",
            node.process().output()
        );
        node.terminate()?;
        let said = node.process().output();
        let warnings = said.matches("DURAMEN_BRANCH is for duramen-restore").count();
        ensure!(warnings == usize::from(warns), "{restores}: {said}");
    }
    Ok(())
}

#[test]
fn a_directory_of_a_newer_version_is_refused_by_every_program_and_left_alone() -> Result<()> {
    let (directory, settings) = stopped()?;
    let data = directory.path().join("data");
    let file = data.join("node.json");
    let mut node: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    node["format_version"] = 99.into();
    node["a_later_idea"] = true.into();
    #[expect(clippy::disallowed_methods, reason = "a test changes a directory behind the node's back")]
    std::fs::write(&file, node.to_string())?;
    let before = contents(&data)?;
    let named = data.display().to_string();
    let parts = [named.as_str(), "format version 99", "use a newer release"];
    refused(settings, &parts)?;
    let url = format!("file://{}", directory.path().join("archive").display());
    Tool::node()?.args(["doctor", "--data"]).args([&data]).fail(1, &parts)?;
    Tool::restore(&url)?.args(["repair", "--data"]).args([&data]).fail(1, &parts)?;
    Tool::archiver(&url)?.args(["run", "--data"]).args([&data]).fail(1, &parts)?;
    ensure!(contents(&data)? == before, "nothing in it was changed");
    Ok(())
}

#[test]
fn what_is_no_data_directory_is_refused_and_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (absent, other) = (directory.path().join("absent"), directory.path().join("other"));
    std::fs::create_dir(&other)?;
    #[expect(clippy::disallowed_methods, reason = "somebody's file")]
    std::fs::write(other.join("letter.txt"), "dear")?;
    for path in [&absent, &other] {
        let before = contents(directory.path())?;
        let named = path.display().to_string();
        Tool::node()?
            .args(["doctor", "--data"])
            .args([path])
            .fail(1, &[&named, "no node's data directory"])?;
        let run = Tool::archiver("file:///nowhere")?.args(["run", "--data"]).args([path]);
        run.fail(1, &[&named, "no node's data directory"])?;
        ensure!(contents(directory.path())? == before, "nothing was made in {named}");
    }
    Ok(())
}

#[test]
fn a_refused_start_leaves_an_empty_directory_free_for_what_the_refusal_advises() -> Result<()> {
    let (directory, _) = stopped()?;
    let empty = directory.path().join("new-disk");
    let settings = NodeSettings::in_directory(&empty)
        .archive_in_directory(&directory.path().join("archive"))
        .set("cluster.shards", "2");
    refused(settings, &["written by cluster", "branch"])?;
    ensure!(!empty.join("node.json").exists(), "it is bound to the branch that it was refused");
    Ok(())
}

#[test]
fn a_restore_into_a_directory_that_has_something_is_refused_and_leaves_it_alone() -> Result<()> {
    let asked = Asked::start()?;
    asked.ctl("append orders")?.input("x\n").succeed()?;
    asked.ctl("archive flush")?.succeed()?;
    let hydrate = |to: &Path| Ok::<_, anyhow::Error>(asked.restore("hydrate --latest --to")?.args([to]));
    let named = asked.node.data().display().to_string();
    hydrate(asked.node.data())?.fail(1, &[&named, "is not empty", "restore into an empty directory"])?;
    let (directory, _) = stopped()?;
    let data = directory.path().join("data");
    let before = contents(&data)?;
    let named = data.display().to_string();
    hydrate(&data)?.fail(1, &[&named, "is not empty", "restore into an empty directory"])?;
    ensure!(contents(&data)? == before, "nothing in it was changed");
    let other = directory.path().join("letters");
    std::fs::create_dir(&other)?;
    #[expect(clippy::disallowed_methods, reason = "somebody's file")]
    std::fs::write(other.join("letter.txt"), "dear")?;
    let named = other.display().to_string();
    hydrate(&other)?.fail(1, &[&named, "is not empty", "letter.txt", "restore into an empty directory"])?;
    let before = contents(&directory.path().join("letters"))?;
    ensure!(before.len() == 1, "nothing was made there: {before:?}");
    Ok(())
}

/// Copies a data directory of a stopped node, in the place of what is there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let mut copy = std::process::Command::new("cp");
    duramen_tests::run(copy.arg("-a").arg(from).arg(to)).map(drop)
}

/// A directory that was put back from a copy while its archive went on; `settings` say where that is.
fn put_back(directory: &Path, settings: &NodeSettings) -> Result<()> {
    let (data, old) = (directory.join("node"), directory.join("old"));
    let mut node = settings.clone().start()?;
    let append = |node: &NodeProcess| {
        Tool::ctl(node)?.line("append orders -").input("a record\n").succeed()?;
        Tool::ctl(node)?.line("archive flush").succeed()
    };
    append(&node)?;
    ensure!(node.terminate()?.success(), "it stops badly");
    copy(&data, &old)?;
    node.start_again()?;
    append(&node)?;
    ensure!(node.terminate()?.success(), "it stops badly");
    copy(&old, &data)
}

const OLDER: [&str; 2] = ["older than its archive", "duramen-restore hydrate"];

#[test]
fn a_directory_older_than_its_archive_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = NodeSettings::in_directory(&directory.path().join("node"))
        .archive_in_directory(&directory.path().join("archive"))
        .set("cluster.shards", "1");
    put_back(directory.path(), &settings)?;
    refused(settings.clone(), &OLDER)?;
    // Not even for one that tries again and again, as a supervisor does.
    for _ in 0..8 {
        refused(settings.clone(), &["duramen-restore hydrate"])?;
    }
    Ok(())
}

#[test]
fn a_node_that_finds_out_late_that_its_directory_is_older_ends() -> Result<()> {
    let Some(server) = S3Server::minio()?.map(Arc::new) else { return Ok(()) };
    let (directory, bucket) = (tempfile::tempdir()?, server.bucket()?);
    let settings = NodeSettings::in_directory(&directory.path().join("node"))
        .archive_in(&bucket, "log")
        .set("cluster.shards", "1");
    put_back(directory.path(), &settings)?;
    server.kill()?;
    let mut node = settings.clone().start()?;
    server.start_again()?;
    let status = node.process().wait(Deadline::after_secs(120))?;
    let said = node.process().output();
    ensure!(status.code() == Some(1) && OLDER.iter().all(|part| said.contains(part)), "{status}: {said}");
    for _ in 0..4 {
        refused(settings.clone(), &["duramen-restore hydrate"])?;
    }
    Ok(())
}

#[test]
fn the_number_of_shards_is_the_directorys_or_the_archives_where_nobody_says_it() -> Result<()> {
    let (directory, _) = stopped()?;
    let archive = directory.path().join("archive");
    let url = format!("file://{}", archive.display());
    Tool::restore(&url)?.line("branch beside --latest").succeed()?;
    let hydrated = directory.path().join("hydrated");
    Tool::restore(&url)?.args(["hydrate", "--latest", "--to"]).args([&hydrated]).succeed()?;
    // Each as `branch` and `hydrate` print it, which is without a number.
    let beside = NodeSettings::in_directory(&directory.path().join("beside")).set("archive.branch", "beside");
    for settings in [NodeSettings::in_directory(&hydrated), beside] {
        let node = settings.archive_in_directory(&archive).start()?;
        let status = Tool::ctl(&node)?.line("status --json").succeed()?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        ensure!(status["shards"].as_array().map(Vec::len) == Some(3), "{status}");
    }
    let other = NodeSettings::in_directory(&directory.path().join("other")).archive_in_directory(&archive);
    refused(
        other.set("cluster.shards", "5"),
        &["created with 2 shards", "leave cluster.shards out for a new directory"],
    )?;
    Ok(())
}
