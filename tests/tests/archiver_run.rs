//! `duramen-archiver run`: what a dead node has left gets into the archive, and can be restored by time.

use anyhow::{Result, ensure};
use duramen_tests::{NodeSettings, Tool};

#[test]
fn what_a_killed_node_left_is_archived_and_latest_restores_all_of_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("node");
    let archive = directory.path().join("archive");
    let url = format!("file://{}", archive.display());
    // So that the node itself archives nothing after the flush.
    let settings = NodeSettings::in_directory(&data)
        .archive_in_directory(&archive)
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1h");
    let mut node = settings.clone().start()?;
    Tool::ctl(&node)?.line("append orders").input("archived\n").succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    for stream in ["orders", "payments", "audit"] {
        Tool::ctl(&node)?.args(["append", stream]).input("left behind\n").succeed()?;
    }
    let whole = Tool::ctl(&node)?.line("read orders --json").succeed()?;
    node.kill_9()?;

    let export =
        |stream: &str| -> Result<_> { Tool::restore(&url)?.args(["export", stream, "--latest"]).run() };
    ensure!(export("orders")?.stdout.lines().count() == 1, "the rest is not archived yet");
    let run = Tool::archiver(&url)?.args(["run", "--data"]).args([&data]);
    let said = run.succeed()?;
    ensure!(said.contains("complete on every shard through"), "{said}");
    ensure!(export("orders")?.stdout == whole, "--latest restores what was left");
    for stream in ["payments", "audit"] {
        ensure!(export(stream)?.stdout.lines().count() == 1, "{stream} is restored");
    }
    Tool::restore(&url)?.line("verify --full").succeed()?;

    // Again: there is nothing left to do.
    let objects = |directory: &std::path::Path| walk(directory).map(|found| found.len());
    let before = objects(&archive)?;
    let said = run.clone().args(["--json"]).succeed()?;
    ensure!(said.lines().count() == 4 && said.contains("\"closed_through\""), "{said}");
    ensure!(objects(&archive)? == before, "a second run writes nothing");

    // The node goes on where it was, and what it writes then is later than what was closed.
    node.start_again()?;
    Tool::ctl(&node)?.line("append orders").input("it goes on\n").succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    ensure!(export("orders")?.stdout.lines().count() == 3, "the node's own round closes later");
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    // A node that closed everything itself leaves nothing to do either.
    let before = objects(&archive)?;
    run.succeed()?;
    let added = objects(&archive)? - before;
    ensure!(added <= 1, "{added} objects for what was closed already");
    Tool::restore(&url)?.line("verify --full").succeed()?;
    Ok(())
}

fn walk(directory: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
