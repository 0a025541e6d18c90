//! What `duramen-restore export` and `duramenctl read --json` write, `duramenctl append --import` takes: byte for byte.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeProcess, NodeSettings, Tool};

fn start(directory: &Path, name: &str) -> Result<NodeProcess> {
    NodeSettings::in_directory(&directory.join(name))
        .archive_in_directory(&directory.join(format!("{name}-archive")))
        .set("cluster.shards", "2")
        .start()
}

/// Records with everything that a record can have.
const RECORDS: [&str; 6] = [
    r#"{"timestamp":1517366430540,"key":"k1","value":"text","headers":[["source","usgs"],["source","again"]]}"#,
    r#"{"timestamp":0,"key":null,"value":null,"headers":[]}"#,
    r#"{"timestamp":-5,"key":"","value":"","headers":[["empty",""],["none",null]]}"#,
    r#"{"timestamp":9007199254740993,"key":{"base64":"AP8="},"value":{"base64":"gIGC"},"headers":[["b",{"base64":"/w=="}]]}"#,
    r#"{"timestamp":17,"key":"é\u0000\n\"","value":"{\"json\":[1,2]}","headers":[["ü\t","x"]]}"#,
    r#"{"timestamp":17,"key":"k1","value":"the same key again","headers":[]}"#,
];

/// The streams of two tenants, each with other records; one is trimmed, one is empty.
fn fill(node: &NodeProcess) -> Result<()> {
    let ctl = |line: &str| -> Result<Tool> { Ok(Tool::ctl(node)?.line(line)) };
    ctl("tenant create acme")?.succeed()?;
    ctl("append orders --import")?.input(RECORDS.join("\n")).succeed()?;
    ctl("append payments --import --batch-records 1")?.input(RECORDS.repeat(20).join("\n")).succeed()?;
    ctl("append orders --import --tenant acme")?.input(RECORDS[0]).succeed()?;
    ctl("append trimmed --import")?.input(RECORDS.join("\n")).succeed()?;
    ctl("stream trim trimmed 2")?.succeed()?;
    ctl("stream create nothing")?.succeed()?;
    ctl("archive flush")?.succeed()?;
    Ok(())
}

/// What all streams hold, without offsets.
fn contents(node: &NodeProcess) -> Result<BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::new();
    for tenant in ["default", "acme"] {
        let streams = Tool::ctl(node)?.args(["stream", "list", "--json", "--tenant", tenant]).succeed()?;
        for stream in streams.lines() {
            let stream: serde_json::Value = serde_json::from_str(stream)?;
            let name = stream["stream"].as_str().context("a name")?;
            let read = Tool::ctl(node)?.args(["read", name, "--json", "--tenant", tenant]).succeed()?;
            let record = |line: &str| line.split_once(',').map_or(String::new(), |(_, rest)| rest.to_owned());
            let records: Vec<String> = read.lines().map(record).collect();
            if !records.is_empty() {
                all.insert(format!("{tenant}/{name}"), records);
            }
        }
    }
    Ok(all)
}

#[test]
fn all_streams_of_all_tenants_are_carried_over_by_export_and_import() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = start(directory.path(), "old")?;
    fill(&node)?;
    let before = contents(&node)?;
    ensure!(before.len() == 4 && before["default/payments"].len() == 120, "{before:?}");

    let url = format!("file://{}", directory.path().join("old-archive").display());
    for (format, compressed) in [("jsonl", false), ("jsonl.gz", true)] {
        let file = directory.path().join(format!("all.{format}"));
        let export = Tool::restore(&url)?.line("export --all --latest");
        export.clone().args(["--output"]).args([&file]).succeed()?;
        ensure!(std::fs::read(&file)?.starts_with(&[0x1f, 0x8b]) == compressed, "the name says {format}");
        let other = directory.path().join(format!("{format}.other"));
        export.args(["--format", format, "--output"]).args([&other]).succeed()?;
        ensure!(std::fs::read(&other)? == std::fs::read(&file)?, "the option says {format}");

        let new = start(directory.path(), format)?;
        let import = Tool::ctl(&new)?.line("append --import --all --json").args([&file]);
        let summary: serde_json::Value = serde_json::from_str(&import.succeed()?)?;
        ensure!(summary["records"] == 131 && summary["streams"]["acme/orders"]["records"] == 1, "{summary}");
        ensure!(contents(&new)? == before, "{format}: other records came over");
        // And from a pipe.
        if !compressed {
            let piped = Tool::ctl(&new)?.line("append --import --all").input(std::fs::read(&file)?);
            piped.succeed()?;
            ensure!(contents(&new)?["default/orders"].len() == 12, "the records are there twice");
        }
    }
    Ok(())
}

#[test]
fn one_stream_is_carried_over_under_the_same_or_another_name() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = start(directory.path(), "old")?;
    fill(&node)?;
    let before = contents(&node)?;
    let url = format!("file://{}", directory.path().join("old-archive").display());
    let exported = Tool::restore(&url)?.line("export orders --latest").succeed()?;
    ensure!(exported == Tool::ctl(&node)?.line("read orders --json").succeed()?, "both write the same");
    Tool::ctl(&node)?.line("append copy --import").input(&exported).succeed()?;
    ensure!(contents(&node)?["default/copy"] == before["default/orders"], "other records came over");

    // A file in the place of the stream; one of those that are here.
    Tool::ctl(&node)?.line("append --import Cargo.toml").fail(2, &["Cargo.toml is a file", "--all"])?;

    // A line that names its stream goes to no other.
    let all = Tool::restore(&url)?.line("export --all --latest").succeed()?;
    let refused = Tool::ctl(&node)?.line("append copy --import").input(&all);
    refused.fail(
        1,
        &["line 1 of standard input", "the line is of stream", "not of default/copy", "--all in the place"],
    )?;
    let refused = Tool::ctl(&node)?.line("append --import --all").input(&exported);
    refused.fail(1, &["line 1 of standard input", "the line names no stream", "give STREAM"])?;
    Ok(())
}

#[test]
fn an_export_that_fails_leaves_no_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = start(directory.path(), "old")?;
    node.terminate()?;
    let url = format!("file://{}", directory.path().join("old-archive").display());
    let file = directory.path().join("orders.jsonl");
    let export = Tool::restore(&url)?.line("export orders --latest-per-shard --output").args([&file]);
    export.fail(5, &["default/orders", "does not exist on branch main"])?;
    ensure!(!file.exists(), "a file that looks like an empty stream");
    Ok(())
}
