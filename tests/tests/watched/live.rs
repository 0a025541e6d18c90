//! Every query gives data: a Prometheus scrapes a node that is used, and asks it all.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings, programs, run, tool};
use serde_json::json;

use crate::prometheus::Prometheus;
use crate::{dashboards, panels, workspace};

/// Long enough for a scrape a second, short enough that what happened at the start doesn't count for long.
const RATE_INTERVAL: &str = "15s";

/// What is done to the node for as long as the value lives, so that rates are not zero.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Load {
    fn on(node: &NodeProcess) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, url) = (Arc::clone(&stop), node.client_url());
            move || use_node(&url, &stop)
        });
        Self { stop, thread: Some(thread) }
    }

    /// An error if it ended by itself: the node refused something that it should not have.
    fn goes_on(&self) -> Result<()> {
        match &self.thread {
            Some(thread) if thread.is_finished() => bail!("the load has ended"),
            _ => Ok(()),
        }
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().context("it runs")?.join().expect("the load does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Appends with every level, reads hot and cold, moves a cursor, asks for what isn't there; again and again.
fn use_node(url: &str, stop: &AtomicBool) -> Result<()> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = agent.timeout_global(Some(Duration::from_secs(180))).build().new_agent();
    let streams = format!("{url}/v1/tenants/default/streams");
    let value = "0123456789abcdef".repeat(2048);
    let mut past = 0;
    while !stop.load(Ordering::Relaxed) {
        for level in ["local", "quorum", "archived"] {
            let mut answer = agent
                .post(format!("{streams}/orders/records?ack={level}"))
                .content_type("text/plain")
                .send(&value)?;
            ensure!(answer.status() == 200, "append: {}", answer.body_mut().read_to_string()?);
        }
        for from in ["earliest", "tail"] {
            agent
                .get(format!("{streams}/orders/records?from={from}&limit=20"))
                .call()?
                .body_mut()
                .read_to_string()?;
        }
        let cursor = json!({ "offset": 1 }).to_string();
        let cursors = format!("{streams}/orders/cursors/slow");
        agent.put(cursors).content_type("application/json").send(cursor)?.body_mut().read_to_string()?;
        let missing = agent.get(format!("{streams}/nothing/records")).call()?;
        ensure!(missing.status() == 404, "a stream that was never written to is there");
        past += 1;
        let ahead =
            agent.get(&streams).header("duramen-seen", u64::MAX.saturating_sub(past).to_string()).call()?;
        ensure!(ahead.status().is_client_error() || ahead.status().is_server_error(), "a wild time is taken");
    }
    Ok(())
}

/// What Grafana would put in for variables.
fn filled_in(query: &str) -> String {
    let variables =
        [("$__rate_interval", RATE_INTERVAL), ("$cluster", ".*"), ("$node", ".*"), ("$tenant", ".*")];
    let query = variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "{query}");
    query
}

/// The sides of an alert's comparison that come from metrics: they must have values for it to be able to fire.
fn sides(expression: &str) -> Vec<String> {
    let mut depth = 0;
    let mut quoted = false;
    for (at, character) in expression.char_indices().collect::<Vec<_>>().into_iter().rev() {
        match character {
            '"' => quoted = !quoted,
            ')' | '}' | ']' if !quoted => depth += 1,
            '(' | '{' | '[' if !quoted => depth -= 1,
            '>' | '=' if !quoted && depth == 0 => {
                let (left, right) = (&expression[..at], &expression[at + 1..]);
                let sides = [left.trim_end_matches(['=', '>', ' ']), right.trim()].map(str::to_owned);
                return sides
                    .into_iter()
                    .filter(|side| side.contains(['{', '(']) || side.contains('_'))
                    .collect();
            }
            _ => {}
        }
    }
    panic!("{expression} compares nothing")
}

#[test]
fn the_sides_of_a_comparison_are_found() {
    assert_eq!(sides("up{job=\"duramen\"} == 0"), ["up{job=\"duramen\"}"]);
    assert_eq!(sides("time() - (a_b > 0) > 86400"), ["time() - (a_b > 0)"]);
    assert_eq!(sides("a_b > 5 * (c_d > 0)"), ["a_b", "5 * (c_d > 0)"]);
}

#[test]
fn every_query_of_every_panel_and_alert_gives_data_on_a_node_in_use() -> Result<()> {
    let Some(program) = tool("prometheus")? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let bucket = Bucket::create()?;
    let node = NodeSettings::in_directory(directory.path())
        .archive_in(&bucket, "watched")
        // So that old records soon are in the archive only.
        .set("wal.segment_size", "1MiB")
        .set("local_retention.bytes", "0B")
        .set("archive.segment_age", "1s")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "64KiB")
        .set("archive.snapshot_schedule", "*/5 * * * * *")
        // A busy machine is slow, not wrong.
        .set("log.append_timeout", "2m")
        .start()?;
    let rules = workspace().join("grafana/alerts/duramen.yaml");
    let target = node.admin_url().replace("http://", "");
    let mut prometheus = Prometheus::start(&program, &target, &rules)?;
    let client = prometheus.client();
    let load = Load::on(&node);
    // A reader that follows for as long as the test runs.
    let follow =
        format!("{}/v1/tenants/default/streams/orders/records?follow=true&from=tail", node.client_url());
    let follower = prometheus.wait_until(Deadline::after_secs(60), || Ok(ureq::get(&follow).call()?))?;
    let mut verify = Command::new(&programs()?.duramen_restore);
    verify.args(["verify", "--archive", &bucket.archive_url("watched")]);
    let environment = bucket.environment();
    prometheus.wait_until(Deadline::after_secs(60), || run(verify.envs(environment.iter().cloned())))?;

    let mut queries: BTreeMap<String, String> = BTreeMap::new();
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().context("a panel has queries")? {
                let place = format!("{}: {}", path.display(), panel["title"]);
                queries.insert(filled_in(target["expr"].as_str().context("a query is text")?), place);
            }
        }
    }
    let alerts = client.alerts()?;
    ensure!(alerts.len() >= 11, "Prometheus has {} alerts", alerts.len());
    for alert in &alerts {
        for side in sides(alert["query"].as_str().context("an alert has a query")?) {
            queries.insert(side, format!("alert {}", alert["name"]));
        }
    }
    let answered = prometheus.wait_until(Deadline::after_secs(180), || {
        if load.goes_on().is_err() {
            return Ok(());
        }
        queries.retain(|query, place| match client.query(query) {
            Ok(samples) => samples.is_empty(),
            Err(error) => {
                *place = format!("{place} ({error:#})");
                true
            }
        });
        match queries.len() {
            0 => Ok(()),
            empty => bail!("{empty} queries give no data: {queries:#?}"),
        }
    });
    if load.goes_on().is_err() {
        return load.end();
    }
    answered?;

    // A healthy node sets off none of them but those of its load's deliberate mistakes.
    let expected = ["DuramenClockRefused"];
    for alert in client.alerts()? {
        let name = alert["name"].as_str().unwrap_or_default();
        let healthy = alert["health"] == "ok" && (alert["state"] != "firing" || expected.contains(&name));
        ensure!(healthy, "{alert:#}");
    }
    prometheus.wait_until(Deadline::after_secs(60), || {
        let firing = client.query("ALERTS{alertname=\"DuramenClockRefused\",alertstate=\"firing\"}")?;
        if firing.is_empty() { bail!("a refused clock sets off no alert") } else { Ok(()) }
    })?;
    drop(follower);
    load.end()
}
