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

/// Paths below `spans` in either query language, as JSON pointers.
fn span_paths(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for part in text.split("spans").skip(1) {
        let rest = part.trim_start_matches(['.', '[']);
        let Some((number, rest)) = rest.split_once(['.', ']']) else { continue };
        let name = rest.trim_start_matches('.');
        let name: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        if number.parse::<u8>().is_ok() && !name.is_empty() {
            paths.insert(format!("/spans/{number}/{name}"));
        }
    }
    paths
}

#[test]
fn a_line_has_the_request_and_what_it_was_about_where_queries_look_for_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node =
        NodeSettings::in_directory(directory.path()).set("telemetry.log_level", "debug").start()?;
    let url = format!("{}/v1/tenants/default/streams/nothing/records", node.client_url());
    let request = ureq::get(url).header("x-request-id", "of-this-test").config().http_status_as_error(false);
    ensure!(request.build().call()?.status() == 404, "a stream that was never written to is there");
    let refused = node.process().wait_for_line(Deadline::after_secs(60), |line| {
        line.contains("a request was refused").then(|| line.to_owned())
    })?;
    let refused: Value = serde_json::from_str(&refused)?;
    let request = &refused["spans"][1];
    ensure!(request["request_id"] == "of-this-test", "{refused:#}");
    ensure!(request["tenant"] == "default" && request["stream"] == "nothing", "{refused:#}");
    ensure!(refused["code"] == "unknown_stream" && refused["spans"][0]["node"] == 1, "{refused:#}");
    ensure!(node.terminate()?.success(), "the node stops badly");
    for line in node.process().output().lines() {
        serde_json::from_str::<Value>(line).with_context(|| format!("no JSON: {line}"))?;
    }

    for file in ["docs/operations/LOGS.md", "terraform/modules/monitoring/main.tf"] {
        let paths = span_paths(&text(file));
        ensure!(paths.len() >= 3, "{file} asks for {paths:?}");
        for path in paths {
            ensure!(refused.pointer(&path).is_some(), "{file} asks for {path}, and a line has {refused:#}");
        }
    }
    Ok(())
}

#[test]
fn messages_that_are_counted_are_written_somewhere() {
    let sources =
        ["cli.rs", "http/layer.rs", "archive/rounds.rs"].map(|file| text(&format!("service/src/{file}")));
    let monitoring = text("terraform/modules/monitoring/main.tf");
    let patterns: Vec<_> = monitoring.lines().filter_map(|line| line.split("pattern = \"").nth(1)).collect();
    assert_eq!(patterns.len(), 4, "{patterns:?}");
    for pattern in patterns {
        let message = pattern.split("\\\"").nth(1).unwrap_or_else(|| panic!("{pattern} quotes nothing"));
        let found = message == "ERROR" || sources.iter().any(|source| source.contains(message));
        assert!(found, "no line says {message:?}");
    }
}

#[test]
fn paths_of_both_query_languages_are_found() {
    let found = span_paths("spans.1.tenant, a=\"spans[0].node\" and spans of time");
    assert_eq!(found, ["/spans/0/node", "/spans/1/tenant"].map(str::to_owned).into());
}
