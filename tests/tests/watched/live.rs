//! Every query gives data: a Prometheus scrapes a node that is used, and asks it all.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Bucket, Deadline, NodeSettings, programs, run, tool};

use crate::load::Load;
use crate::prometheus::Prometheus;
use crate::{dashboards, filled_in, panels, workspace};

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
    // One that fires for what is not there has no sides on a node that is.
    Vec::new()
}

/// The query that gives what Grafana's `label_values(series, label)` offers.
fn values_of(query: &str) -> Result<String> {
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (series, label) =
        inner.and_then(|inner| inner.rsplit_once(", ")).with_context(|| query.to_owned())?;
    // A label that a series doesn't have is an empty one.
    let series = if series.contains('{') { series.to_owned() } else { format!("{series}{{}}") };
    Ok(format!("group by ({label}) ({})", series.replacen('{', &format!("{{{label}!=\"\","), 1)))
}

#[test]
fn the_sides_of_a_comparison_are_found() {
    assert_eq!(sides("up{job=\"duramen\"} == 0"), ["up{job=\"duramen\"}"]);
    assert_eq!(sides("time() - (a_b > 0) > 86400"), ["time() - (a_b > 0)"]);
    assert_eq!(sides("a_b > 5 * (c_d > 0)"), ["a_b", "5 * (c_d > 0)"]);
    assert_eq!(sides("a_b and c_d == 1"), ["a_b and c_d"]);
    assert!(sides("absent(up{job=\"duramen\"})").is_empty());
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
    let mut prometheus = Prometheus::start(&program, &[("test", node.admin_url())], &rules)?;
    let client = prometheus.client();
    let load = Load::on(&node);
    // A reader that follows for as long as the test runs.
    let follow =
        format!("{}/v1/tenants/default/streams/orders/records?follow=true&from=tail", node.client_url());
    let follower = prometheus.wait_until(Deadline::after_secs(60), || Ok(ureq::get(&follow).call()?))?;
    let mut verify = Command::new(&programs()?.duramen_restore);
    verify.args(["verify", "--full", "--archive", &bucket.archive_url("watched")]);
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
    for (path, dashboard) in dashboards() {
        for variable in dashboard["templating"]["list"].as_array().context("a dashboard has variables")? {
            if let Some(query) = variable["query"]["query"].as_str() {
                let place = format!("{}: variable {}", path.display(), variable["name"]);
                queries.insert(values_of(&filled_in(query))?, place);
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
