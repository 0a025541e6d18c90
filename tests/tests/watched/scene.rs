//! The nodes that faults are caused on, and the Prometheus that watches them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, S3Server, SmallDisk};
use tempfile::TempDir;

use crate::load::agent;
use crate::prometheus::Prometheus;
use crate::text;

/// Before it is looked again at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Nodes, of which each is alone in its cluster, and how they are watched.
pub struct Scene {
    /// Soon gives up on its store, in cluster `faulty`.
    pub faulty: NodeProcess,
    /// Waits for its store, in cluster `slow`.
    pub slow: NodeProcess,
    /// Its disk is small, in cluster `full`; `None` where this machine permits none.
    pub full: Option<NodeProcess>,
    /// Of the first two, on a MinIO of its own.
    pub bucket: Bucket,
    pub prometheus: Prometheus,
    /// The alerts that have not been seen firing yet.
    pub unseen: BTreeSet<String>,
    pub directory: TempDir,
    _disk: Option<SmallDisk>,
}

impl Scene {
    pub fn set(prometheus: &std::path::Path, server: S3Server) -> Result<Self> {
        let bucket = std::sync::Arc::new(server).bucket()?;
        let directory = tempfile::tempdir()?;
        let node = |name: &str, store: &str| {
            NodeSettings::in_directory(&directory.path().join(name))
                .archive_in(&bucket, name)
                .set("archive.url", &format!("{}&{store}", bucket.archive_url(name)))
                .set("archive.segment_age", "1s")
                .set("cluster.shards", "1")
                .set("local_retention.bytes", "0B")
                .set("log.append_timeout", "10m")
                .set("log.record_limit", "64KiB")
                .set("log.batch_limit", "64KiB")
                .set("wal.checkpoint_bytes", "1MiB")
                .set("wal.segment_size", "1MiB")
        };
        let faulty = node("faulty", "request_timeout=1s&attempts=2&max_backoff=200ms");
        let faulty = faulty.set("archive.snapshot_schedule", "*/2 * * * * *").start()?;
        let slow = node("slow", "request_timeout=10m").start()?;
        let disk = SmallDisk::mount(48 << 20)?;
        let full = disk.as_ref().map(|disk| {
            NodeSettings::in_directory(&disk.path().join("data"))
                .set("cluster.shards", "1")
                .set("log.record_limit", "1MiB")
                .set("log.batch_limit", "2MiB")
                .set("wal.reserve", "2MiB")
                .set("wal.segment_size", "4MiB")
                .start()
        });
        let full = full.transpose()?;

        let rules = directory.path().join("hurried.yaml");
        std::fs::write(&rules, hurried())?;
        let mut targets = vec![("faulty", faulty.admin_url()), ("slow", slow.admin_url())];
        targets.extend(full.iter().map(|full| ("full", full.admin_url())));
        let prometheus = Prometheus::start(prometheus, &targets, &rules)?;
        let names = prometheus.client().alerts()?;
        let mut unseen: BTreeSet<String> =
            names.iter().filter_map(|rule| rule["name"].as_str().map(str::to_owned)).collect();
        ensure!(unseen.len() >= 11, "Prometheus has the alerts {unseen:?}");
        if full.is_none() {
            unseen.retain(|name| !name.starts_with("DuramenDisk"));
        }
        Ok(Self { faulty, slow, full, bucket, prometheus, unseen, directory, _disk: disk })
    }

    /// Does `cause` again and again until each of the `alerts` has been seen firing.
    pub fn fires(
        &mut self,
        seconds: u64,
        alerts: &[&str],
        mut cause: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let deadline = Deadline::after_secs(seconds);
        self.until(deadline, |scene| {
            cause(scene)?;
            scene.look()?;
            let missing: Vec<_> = alerts.iter().filter(|name| scene.unseen.contains(**name)).collect();
            if missing.is_empty() { Ok(()) } else { bail!("not seen firing: {missing:?}") }
        })
    }

    /// Waits until the query gives something, and does `cause` meanwhile.
    pub fn shows(
        &mut self,
        seconds: u64,
        query: &str,
        mut cause: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.until(Deadline::after_secs(seconds), |scene| {
            cause(scene)?;
            let found = scene.prometheus.client().query(query)?;
            if found.is_empty() { bail!("not so: {query}") } else { Ok(()) }
        })
    }

    fn until(
        &mut self,
        deadline: Deadline,
        mut condition: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        loop {
            let Err(error) = condition(self) else { return Ok(()) };
            ensure!(self.prometheus.is_running(), "Prometheus has ended");
            if deadline.has_passed() {
                return Err(error.context(format!("not so within {:?}", deadline.allowed())));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Crosses off what fires now.
    fn look(&mut self) -> Result<()> {
        for rule in self.prometheus.client().alerts()? {
            ensure!(rule["health"] == "ok" || rule["health"] == "unknown", "{rule:#}");
            for alert in rule["alerts"].as_array().into_iter().flatten() {
                let said = alert["annotations"].to_string();
                ensure!(!said.contains("<error") && !said.contains("NaN"), "{said}");
                if alert["state"] == "firing" {
                    self.unseen.remove(rule["name"].as_str().context("an alert has a name")?);
                }
            }
        }
        Ok(())
    }
}

/// The alerts as they are, but for how long they wait, how far they look back, and the two ages of a day and of a week.
fn hurried() -> String {
    let mut rules = text("grafana/alerts/duramen.yaml");
    for (patient, hurried) in [
        ("[5m]", "[15s]"),
        ("[10m]", "[15s]"),
        ("[15m]", "[15s]"),
        ("for: 1m\n", "for: 1s\n"),
        ("for: 2m\n", "for: 1s\n"),
        ("for: 5m\n", "for: 1s\n"),
        ("> 86400\n", "> 10\n"),
        ("> 691200\n", "> 10\n"),
    ] {
        assert!(rules.contains(patient), "no alert has {patient:?}");
        rules = rules.replace(patient, hurried);
    }
    rules
}

/// Where a stream's records of a node are.
pub fn records(node: &NodeProcess, stream: &str) -> String {
    format!("{}/v1/tenants/default/streams/{stream}/records", node.client_url())
}

/// The status of an append.
pub fn append(to: &str, value: &str) -> Result<u16> {
    Ok(agent().post(to).content_type("text/plain").send(value)?.status().as_u16())
}
