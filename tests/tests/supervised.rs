//! A node under a service manager: it says when it is ready, alive, reloading and stopping, and reloads on SIGHUP.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Deadline, NodeProcess, NodeSettings, Signal};

/// The node's reports within this time keep it alive.
const WATCHDOG: Duration = Duration::from_secs(3);

/// The service manager's end of the socket that `NOTIFY_SOCKET` names.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(socket))
    }

    /// Waits for a message that has the line; those before it are dropped.
    fn wait_for(&self, line: &str) -> Result<String> {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).with_context(|| format!("{line} was never said"))?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|found| found == line) {
                return Ok(message);
            }
        }
    }
}

fn start(directory: &Path, config: &str) -> Result<(NodeProcess, Manager)> {
    let socket = directory.join("notify");
    let manager = Manager::listen(&socket)?;
    let file = directory.join("duramen.toml");
    std::fs::write(&file, config)?;
    let node = NodeSettings::in_directory(&directory.join("data"))
        .archive_in_directory(&directory.join("archive"))
        .set("archive.segment_age", "1s")
        .variable("NOTIFY_SOCKET", &socket.display().to_string())
        .variable("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())
        .argument("--config")
        .argument(&file.display().to_string())
        .start()?;
    Ok((node, manager))
}

#[test]
fn a_node_says_that_it_is_ready_alive_and_stopping_and_is_silent_while_it_is_unhealthy() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut node, manager) = start(directory.path(), "")?;
    manager.wait_for("READY=1")?;
    manager.wait_for("WATCHDOG=1")?;
    manager.wait_for("WATCHDOG=1")?;

    // The probe of the data directory can't be written where a directory lies.
    let probe = directory.path().join("data/health.probe");
    node.process().wait_until(Deadline::after_secs(60), || {
        let _ = std::fs::remove_file(&probe);
        Ok(std::fs::create_dir(&probe)?)
    })?;
    node.process().wait_for_line(Deadline::after_secs(60), |line| {
        line.contains("not reported to the service manager").then_some(())
    })?;
    std::fs::remove_dir(&probe)?;
    manager.wait_for("WATCHDOG=1")?;

    ensure!(node.terminate()?.success(), "a stop is no failure");
    manager.wait_for("STOPPING=1")?;
    Ok(())
}

#[test]
fn a_hang_up_reloads_the_log_level_and_the_schedule_and_says_what_waits_for_a_restart() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let yearly = "[archive]\nsnapshot_schedule = \"0 0 0 1 1 *\"\n";
    let (mut node, manager) = start(directory.path(), yearly)?;
    manager.wait_for("READY=1")?;
    let appended =
        ureq::post(format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url()))
            .send("a record")?;
    ensure!(appended.status() == 200, "an append fails");
    let archived = node.admin_get("/admin/archive/status")?.1;
    ensure!(!snapshot_taken(&archived)?, "a snapshot before its time: {archived}");

    let file = directory.path().join("duramen.toml");
    let mut hang_up = |config: &str, said: &str| -> Result<String> {
        std::fs::write(&file, config)?;
        node.process().signal(Signal::HangUp)?;
        let message = manager.wait_for("RELOADING=1")?;
        ensure!(message.contains("MONOTONIC_USEC="), "newer service managers ask for the time: {message}");
        manager.wait_for("READY=1")?;
        node.process()
            .wait_for_line(Deadline::after_secs(60), |line| line.contains(said).then(|| line.to_owned()))
    };
    let line = hang_up("[archive]\nsnapshot_schedule = \"often\"\n", "the configuration has mistakes")?;
    ensure!(line.contains("duramen.toml:2: archive.snapshot_schedule"), "{line}");
    let wanted = "[archive]\nsnapshot_schedule = \"* * * * * *\"\n[wal]\ncache = \"32MiB\"\n\
                  [telemetry]\nlog_level = \"info,duramen=debug\"\n";
    let line = hang_up(wanted, "the configuration was reloaded")?;
    ensure!(line.contains("archive.snapshot_schedule, telemetry.log_level"), "{line}");
    let line = hang_up(wanted, "these settings change with the next restart only")?;
    ensure!(line.contains("\"wal.cache\""), "{line}");

    // The schedule: a snapshot now comes by itself. The level: what archiving does is told.
    let admin = node.admin_url();
    node.process().wait_until(Deadline::after_secs(60), || {
        let status =
            ureq::get(format!("{admin}/admin/archive/status")).call()?.body_mut().read_to_string()?;
        if snapshot_taken(&status)? { Ok(()) } else { bail!("no snapshot: {status}") }
    })?;
    let url = format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url());
    ureq::post(url).send("another")?;
    node.process().wait_for_line(Deadline::after_secs(60), |line| {
        (line.contains("\"level\":\"DEBUG\"") && line.contains("archived")).then_some(())
    })?;
    ensure!(node.terminate()?.success(), "a stop is no failure");
    Ok(())
}

fn snapshot_taken(status: &str) -> Result<bool> {
    let status: serde_json::Value = serde_json::from_str(status)?;
    let shards = status["shards"].as_array().context("the status has shards")?;
    Ok(shards.iter().any(|shard| shard["snapshot"].is_number()))
}
