//! What a node says of its archive while the store fails, and after.

#![expect(clippy::disallowed_methods, reason = "a test takes a store away behind the node's back")]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Deadline, NodeSettings};
use serde_json::Value;

#[test]
fn an_archive_that_works_again_is_not_called_failing_although_nothing_more_is_appended() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = NodeSettings::in_directory(&directory.path().join("data"))
        .archive_in_directory(&directory.path().join("archive"))
        .set("archive.segment_age", "1s")
        .start()?;
    let records = format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url());
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().new_agent();
    agent.post(&records).send("before")?;

    // Segments and manifests can be written, and what closes the shards can't.
    let closed = directory.path().join("archive/main/closed");
    let away = directory.path().join("closed.away");
    node.process().wait_until(Deadline::after_secs(60), || Ok(std::fs::rename(&closed, &away)?))?;
    std::fs::write(&closed, "in the way")?;
    agent.post(&records).send("during")?;
    let admin = node.admin_url();
    let condition = || -> Result<String> {
        let health = agent.get(format!("{admin}/health")).call()?.into_body().read_to_string()?;
        let health: Value = serde_json::from_str(&health)?;
        let checks = health["checks"].as_array().context("health has checks")?;
        let archive =
            checks.iter().find(|check| check["name"] == "archive").context("one is of the archive")?;
        Ok(archive["condition"].as_str().unwrap_or_default().to_owned())
    };
    let mut wait_for = |wanted: &str| {
        node.process().wait_until(Deadline::after_secs(60), || match condition()? {
            found if found == wanted => Ok(()),
            found => bail!("the archive is {found}"),
        })
    };
    wait_for("degraded")?;

    std::fs::remove_file(&closed)?;
    std::fs::rename(&away, &closed)?;
    wait_for("ok")
}

fn failing(agent: &ureq::Agent, metrics: &str, wanted: &str) -> Result<()> {
    let text = agent.get(metrics).call()?.into_body().read_to_string()?;
    let line = text.lines().find(|line| line.starts_with("duramen_archive_failing"));
    ensure!(line == Some(&format!("duramen_archive_failing {wanted}")), "{line:?}");
    Ok(())
}

/// It has nothing to archive and no round to come, so only asking the store tells; Prometheus asks the node for metrics alone.
#[test]
fn an_idle_node_says_that_its_store_is_gone_and_that_it_is_back() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let mut node = NodeSettings::in_directory(&directory.path().join("data"))
        .archive_in_directory(&archive)
        .set("archive.segment_age", "1h")
        .set("archive.check_interval", "10s")
        .start()?;
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().new_agent();
    let records = format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url());
    agent.post(&records).send("all there is")?;
    let metrics = format!("{}/metrics", node.admin_url());
    node.process().wait_until(Deadline::after_secs(60), || failing(&agent, &metrics, "0"))?;
    let away = directory.path().join("archive.away");
    std::fs::rename(&archive, &away)?;
    node.process().wait_until(Deadline::after_secs(60), || failing(&agent, &metrics, "1"))?;
    let admin = node.admin_url();
    let page = |path: &str| -> Result<Value> {
        let url = format!("{admin}{path}");
        Ok(serde_json::from_str(&agent.get(url).call()?.into_body().read_to_string()?)?)
    };
    let (health, status) = (page("/health")?, page("/admin/archive/status")?);
    ensure!(health["condition"] == "degraded" && health.to_string().contains("store: "), "{health}");
    ensure!(status["reachable"] == false && status["troubles"][0]["part"] == "store", "{status}");
    let local = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
    agent.post(&local).send("appends go on")?;

    std::fs::rename(&away, &archive)?;
    node.process().wait_until(Deadline::after_secs(60), || failing(&agent, &metrics, "0"))?;
    ensure!(page("/health")?["condition"] == "ok", "its store is back");
    Ok(())
}

/// A disk that is unmounted under a node leaves nothing, or an empty mount point, where its archive was.
#[test]
fn nothing_counts_as_archived_while_the_archive_is_gone_and_nothing_local_goes() -> Result<()> {
    for mount_point in [false, true] {
        let directory = tempfile::tempdir()?;
        let archive = directory.path().join("archive");
        let mut node = NodeSettings::in_directory(&directory.path().join("data"))
            .archive_in_directory(&archive)
            .set("archive.segment_age", "1s")
            .set("cluster.shards", "1")
            .set("local_retention.bytes", "0B")
            .set("log.append_timeout", "5s")
            .set("log.record_limit", "64KiB")
            .set("log.batch_limit", "128KiB")
            .set("wal.segment_size", "1MiB")
            .start()?;
        let records = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
        let archived = format!("{records}?ack=archived");
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        agent.post(&archived).send("before")?;

        let away = directory.path().join("archive.away");
        std::fs::rename(&archive, &away)?;
        if mount_point {
            std::fs::create_dir(&archive)?;
        }
        for _ in 0..40 {
            agent.post(&records).send("x".repeat(60_000))?;
        }
        let during = agent.post(&archived).send("during");
        ensure!(
            during.is_err(),
            "it was acknowledged as archived in no archive (mount point: {mount_point})"
        );

        if archive.exists() {
            std::fs::remove_dir_all(&archive)?;
        }
        std::fs::rename(&away, &archive)?;
        node.process().wait_until(Deadline::after_secs(120), || {
            agent.post(&archived).send("after").map(drop).context("the archive is back")
        })?;
        node.kill_9()?;
        node.start_again()?;
        let records = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
        let value = |offset: usize| -> Result<String> {
            let url = format!("{records}?from={offset}&limit=1");
            let read: Value = serde_json::from_str(&agent.get(url).call()?.into_body().read_to_string()?)?;
            Ok(read["records"][0]["value"].as_str().context("the record is there")?.to_owned())
        };
        ensure!(value(0)? == "before");
        for offset in 1..=40 {
            let length = value(offset).with_context(|| format!("offset {offset}"))?.len();
            ensure!(length == 60_000, "offset {offset} has {length} bytes (mount point: {mount_point})");
        }
        ensure!((value(41)?, value(42)?) == ("during".to_owned(), "after".to_owned()));
    }
    Ok(())
}
