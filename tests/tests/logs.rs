//! The fields and messages that documented queries and CloudWatch's filters name are in a node's lines.

#![expect(clippy::panic, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Deadline, NodeSettings};
use serde_json::Value;

fn text(path: &str) -> String {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
    std::fs::read_to_string(workspace.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fields that queries of either language ask for, but those of CloudWatch itself (`@timestamp`).
fn asked_for(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let parts = text.split(['|', '\n']).map(str::trim);
    for part in parts {
        let list = match part.split_once(' ') {
            Some(("fields" | "json", list)) => list,
            Some(("filter", condition)) => condition.split(' ').next().unwrap_or_default(),
            Some(("stats", sums)) => sums.split_once(" by ").map_or("", |(_, list)| list),
            _ => part.split_once(" by (").and_then(|(_, rest)| rest.split(')').next()).unwrap_or_default(),
        };
        let words = list.split(',').map(str::trim);
        // Loki may give a field another name: `name="path"`.
        let words = words.map(|word| word.split_once('=').map_or(word, |(_, path)| path.trim_matches('"')));
        let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.contains('(');
        names.extend(words.filter(is_name).map(str::to_owned));
    }
    names
}

/// The fields that filters of either language compare with texts, each with all texts that stand for what is looked for.
fn compared_with(text: &str) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    // A stroke between spaces begins a filter; one without them stands for "or" in a text.
    for part in text.lines().flat_map(|line| line.split(" | ")) {
        let part = part.trim().trim_start_matches("| ");
        let part = part.strip_prefix("filter ").unwrap_or(part);
        let Some((field, rest)) = part.split_once(' ') else { continue };
        if !["=", "=~", "in"].iter().any(|operator| rest.starts_with(operator)) {
            continue;
        }
        let quote = if rest.contains('"') { '"' } else { '\'' };
        let texts = rest.split(quote).skip(1).step_by(2);
        pairs
            .extend(texts.flat_map(|texts| texts.split('|')).map(|text| (field.to_owned(), text.to_owned())));
    }
    pairs
}

/// What stands in the page's fenced blocks.
fn fenced(page: &str) -> String {
    page.split("\n```").skip(1).step_by(2).collect()
}

#[test]
fn a_line_has_the_request_and_what_it_was_about_where_queries_look_for_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let mut node = NodeSettings::in_directory(&directory.path().join("data"))
        .archive_in_directory(&archive)
        .set("archive.segment_age", "1s")
        .set("log.append_timeout", "10s")
        .set("telemetry.log_level", "debug")
        .start()?;
    let streams = format!("{}/v1/tenants/default/streams", node.client_url());
    let url = format!("{streams}/nothing/records");
    let request = ureq::get(url).header("x-request-id", "of-this-test").config().http_status_as_error(false);
    ensure!(request.build().call()?.status() == 404, "a stream that was never written to is there");
    let refused = node.process().wait_for_line(Deadline::after_secs(60), |line| {
        line.contains("a request was refused").then(|| line.to_owned())
    })?;
    let refused: Value = serde_json::from_str(&refused)?;
    ensure!(refused["request_id"] == "of-this-test" && refused["method"] == "GET", "{refused:#}");
    ensure!(refused["tenant"] == "default" && refused["stream"] == "nothing", "{refused:#}");
    ensure!(refused["code"] == "unknown_stream" && refused["node"] == 1, "{refused:#}");
    // Something about a shard, and an error.
    ureq::post(format!("{streams}/s/records?ack=archived")).send("a record")?;
    std::fs::remove_dir_all(&archive)?;
    ureq::post(format!("{streams}/s/records")).send("another record")?;
    let failing = "archiving failed; it is tried again";
    node.process().wait_for_line(Deadline::after_secs(60), |line| line.contains(failing).then_some(()))?;
    let url = format!("{streams}/s/records?ack=archived");
    let failed = ureq::post(url).config().http_status_as_error(false).build().send("not archived")?;
    ensure!(failed.status().is_server_error(), "it was archived nowhere: {}", failed.status());
    node.process()
        .wait_for_line(Deadline::after_secs(60), |line| line.contains("a request failed").then_some(()))?;
    node.kill_9()?;

    let (mut there, mut values) = (BTreeSet::new(), BTreeSet::new());
    for line in node.process().output().lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let line = line.as_object().with_context(|| format!("no object: {line}"))?;
        ensure!(line.values().all(|value| !value.is_object() && !value.is_array()), "nested: {line:?}");
        ensure!(line.get("node") == Some(&1.into()), "of no node: {line:?}");
        there.extend(line.keys().cloned());
        let texts =
            line.iter().filter_map(|(field, value)| Some((field.clone(), value.as_str()?.to_owned())));
        values.extend(texts);
    }
    let page = text("docs/operations/LOGS.md");
    let monitoring = text("terraform/modules/monitoring/main.tf");
    let query = monitoring.lines().find(|line| line.trim().starts_with("query ")).context("no query")?;
    for (file, asked) in [("LOGS.md", asked_for(&fenced(&page))), ("monitoring", asked_for(query))] {
        ensure!(asked.len() >= 6, "{file} asks for {asked:?}");
        let missing: Vec<_> = asked.difference(&there).collect();
        ensure!(missing.is_empty(), "{file} asks for {missing:?}, and lines have {there:?}");
    }
    for (file, compared) in [("LOGS.md", compared_with(&fenced(&page))), ("monitoring", compared_with(query))]
    {
        ensure!(compared.len() >= 2, "{file} compares {compared:?}");
        // An id stands for any.
        let compared = compared.into_iter().filter(|(field, _)| field != "request_id");
        let missing: Vec<_> = compared.filter(|pair| !values.contains(pair)).collect();
        ensure!(missing.is_empty(), "{file} looks for {missing:?}, and no line has that");
    }
    Ok(())
}

#[test]
fn messages_that_are_counted_are_written_somewhere() {
    let source = text("service/src/cli.rs") + &text("service/src/node/start.rs");
    let monitoring = text("terraform/modules/monitoring/main.tf");
    let patterns: Vec<_> = monitoring.lines().filter_map(|line| line.split("pattern = \"").nth(1)).collect();
    assert_eq!(patterns.len(), 2, "{patterns:?}");
    for pattern in patterns {
        let message = pattern.split("\\\"").nth(1).unwrap_or_else(|| panic!("{pattern} quotes nothing"));
        let found = message == "ERROR" || source.contains(message);
        assert!(found, "no line says {message:?}");
    }
}

#[test]
fn fields_of_both_query_languages_are_found() {
    let insights = "fields @timestamp, level, spans.1.tenant\n| filter code = \"no\"\n| stats count(*) by tenant, bin(5m)";
    let loki = "sum by (tenant, status) (count_over_time({job=\"x\"} | json message, a=\"spans[0].shard\" | shard = \"1\" [5m]))";
    let found = asked_for(&format!("{insights}\n{loki}"));
    let expected = ["code", "level", "message", "spans.1.tenant", "spans[0].shard", "status", "tenant"];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn texts_that_fields_are_compared_with_are_found() {
    let insights =
        "SOURCE 'g' | fields level | filter level in ['WARN', 'ERROR'] | sort x\n| filter code = \"no\"";
    let loki = "sum (count_over_time({job=\"x\"} | json a | level =~ \"A|B\" [5m]))";
    let found = compared_with(&format!("{insights}\n{loki}"));
    let expected = [("code", "no"), ("level", "A"), ("level", "B"), ("level", "ERROR"), ("level", "WARN")];
    assert_eq!(found, expected.map(|(field, text)| (field.to_owned(), text.to_owned())).into());
}
