//! A node as a process: it starts, says where it listens, survives being killed, and stops when asked. What it refuses to
//! start on is in `bad_input`.

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, Tool};

#[test]
fn a_node_gets_ready_stops_when_asked_and_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).start().unwrap();
    assert_eq!(node.admin_get("/ready").unwrap().0, 200);
    let address = node.client_url().strip_prefix("http://").unwrap().to_owned();
    TcpStream::connect(&address).expect("it listens for clients");

    assert_eq!(node.terminate().unwrap().code(), Some(0), "{}", node.process().output());
    TcpStream::connect(&address).expect_err("nobody listens any more");
    node.start_again().unwrap();
    assert_eq!(node.admin_get("/ready").unwrap().0, 200);
}

#[test]
fn a_killed_node_starts_again_on_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).start().unwrap();
    for _ in 0..3 {
        node.kill_9().unwrap();
        assert!(!node.process().is_running());
        node.start_again().unwrap();
    }
}

#[test]
fn a_node_gets_ready_with_an_archive_in_a_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).archive_in(&bucket, "log").start().unwrap();
    assert_eq!(node.terminate().unwrap().code(), Some(0), "{}", node.process().output());
}

#[test]
fn an_idle_node_that_starts_again_knows_up_to_where_it_is_archived() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let settings = NodeSettings::in_directory(&directory.path().join("node"))
        .archive_in_directory(&directory.path().join("archive"));
    let mut node = settings.start()?;
    Tool::ctl(&node)?.line("append orders -").input("one\n").succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    let closed_through = |node: &NodeProcess| -> Result<_> {
        let status = Tool::ctl(node)?.line("archive status --json");
        Ok(move || {
            let status: serde_json::Value = serde_json::from_str(&status.clone().succeed()?)?;
            status["closed_through"].as_u64().context("it is not known")
        })
    };
    let before = closed_through(&node)?()?;
    node.kill_9()?;
    node.start_again()?;
    let closed_through = closed_through(&node)?;
    let after = node.process().wait_until(Deadline::after_secs(60), closed_through)?;
    ensure!(after >= before, "{after} after the start, {before} before");
    Ok(())
}
