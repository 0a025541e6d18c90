//! What a node says of its archive while the store fails, and after.

#![expect(clippy::disallowed_methods, reason = "a test takes a store away behind the node's back")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
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
