//! Messages that a person acts on: each says what is there, and what to do.

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeProcess, NodeSettings, Tool};
use serde_json::Value;

fn ctl(node: &NodeProcess, line: &str) -> Result<Tool> {
    Ok(Tool::ctl(node)?.line(line))
}

#[test]
fn what_is_done_a_second_time_says_what_the_first_did() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let node =
        NodeSettings::in_directory(&directory.path().join("node")).archive_in_directory(&archive).start()?;
    let point = ctl(&node, "restore-point create release --json")?.succeed()?;
    let point: Value = serde_json::from_str(&point)?;
    let time = point["time"].as_str().context("it has a time")?;
    let exists = format!("restore point release exists already, it names {time}");
    ctl(&node, "restore-point create release")?.fail(1, &[&exists, "[restore_point_exists]"])?;

    ctl(&node, "append orders")?.input("x\n").succeed()?;
    ctl(&node, "archive flush")?.succeed()?;
    ensure!(ctl(&node, "snapshot")?.succeed()?.contains("snapshots"));
    let again = ctl(&node, "snapshot")?.succeed()?;
    ensure!(again.starts_with("nothing to do: "), "{again}");
    let again: Value = serde_json::from_str(&ctl(&node, "snapshot --json")?.succeed()?)?;
    ensure!(again["snapshots"] == serde_json::json!([]), "{again}");

    ctl(&node, "stream delete orders")?.succeed()?;
    ctl(&node, "read orders")?.fail(1, &["`as_of`", "recovery window", "--as-of", "[unknown_stream]"])?;
    Ok(())
}

#[test]
fn a_refused_line_is_told_by_its_number_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = NodeSettings::in_directory(&directory.path().join("node"))
        .set("log.record_limit", "64KiB")
        .start()?;
    let long = "x".repeat(70_000);
    let ran = ctl(&node, "append orders")?.input(format!("a\n{long}\n")).run()?;
    ensure!(ran.code == 1, "{ran:?}");
    ensure!(
        ran.stderr.contains("line 2 of standard input: ") && ran.stderr.contains("the record is 70"),
        "{ran:?}"
    );
    ensure!(!ran.stderr.contains("of the batch"), "{ran:?}");
    Ok(())
}

#[test]
fn a_page_that_the_operators_port_does_not_have_is_looked_for_on_the_right_one() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = NodeSettings::in_directory(&directory.path().join("node")).start()?;
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let get = |url: String| -> Result<(u16, Value)> {
        let mut answer = agent.get(url).call()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&answer.body_mut().read_to_string()?)?))
    };
    let (status, body) = get(format!("{}/nope", node.admin_url()))?;
    let message = body["error"]["message"].as_str().context("it has a message")?;
    ensure!(status == 404 && message.contains("/nope: this port is for operators"), "{body}");
    ensure!(message.contains("/v1/openapi.json, on the port for clients"), "{body}");
    let (_, body) = get(format!("{}/nope", node.client_url()))?;
    ensure!(!body.to_string().contains("operators"), "{body}");
    let version = Tool::node()?.args(["--version"]).succeed()?;
    let (_, status) = get(format!("{}/status", node.admin_url()))?;
    let shown = status["version"].as_str().context("it has a version")?;
    ensure!(version.trim() == format!("duramen {shown}") && shown.contains('('), "{shown} is not {version}");
    Ok(())
}

#[test]
fn a_directory_that_was_restored_says_from_where_and_when() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let mut node =
        NodeSettings::in_directory(&directory.path().join("node")).archive_in_directory(&archive).start()?;
    ctl(&node, "append orders")?.input("x\n").succeed()?;
    let described = ctl(&node, "stream describe orders --json")?.succeed()?;
    let described: Value = serde_json::from_str(&described)?;
    let at = described["last_append"].as_str().context("the time of the append")?.to_owned();
    ctl(&node, "archive flush")?.succeed()?;
    node.kill_9()?;
    let own = Tool::node()?.args(["doctor", "--data"]).args([directory.path().join("node")]).succeed()?;
    ensure!(!own.contains("restored"), "{own}");

    let url = format!("file://{}", archive.display());
    let to = directory.path().join("restored");
    let hydrate =
        Tool::restore(&url)?.args(["hydrate", "--target-time", &at, "--new-branch", "again", "--to"]);
    hydrate.args([&to]).succeed()?;
    let doctor = || Ok::<_, anyhow::Error>(Tool::node()?.args(["doctor", "--data"]).args([&to]));
    let said = doctor()?.succeed()?;
    for part in [format!("from branch main of {url} as of {at}"), "as branch again: activated".to_owned()] {
        ensure!(said.contains(&part), "{part:?} is not in {said}");
    }
    let json: Value = serde_json::from_str(&doctor()?.args(["--json"]).succeed()?)?;
    ensure!(json["restored"]["parent"] == "main" && json["restored"]["activated"] == true, "{json}");
    // As it is before a restore has finished.
    std::fs::remove_file(to.join("activated.json"))?;
    doctor()?.fail(3, &[])?;
    let said = doctor()?.run()?.stdout;
    ensure!(said.contains("as branch again: not activated"), "{said}");
    ensure!(said.contains("run `duramen-restore hydrate` again"), "{said}");

    let release = |id: &str| Ok::<_, anyhow::Error>(Tool::restore(&url)?.args(["hold", "release", id]));
    release("nope")?.fail(5, &["there is no hold nope", "the archive has none"])?;
    Ok(())
}

#[test]
fn what_was_rescued_is_imported_under_a_plain_name_where_that_is_asked_for() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = NodeSettings::in_directory(&directory.path().join("node")).start()?;
    let lines = "{\"tenant\":\"default\",\"stream\":\"orders\",\"value\":\"a\"}\n\
                 {\"tenant\":\"default\",\"stream\":\"orders~rescued\",\"value\":\"b\"}\n";
    let refused =
        ["line 2 of standard input", "default/orders~rescued", "--rename-rescued", "orders.rescued"];
    ctl(&node, "append --import --all")?.input(lines).fail(1, &refused)?;
    ctl(&node, "append --import --all --rename-rescued")?.input(lines).succeed()?;
    let read = ctl(&node, "read orders.rescued --json")?.succeed()?;
    ensure!(read.lines().count() == 1 && read.contains("\"value\":\"b\""), "{read}");
    ctl(&node, "append orders --import --rename-rescued")?.fail(2, &["--all"])?;
    Ok(())
}

#[test]
fn a_node_that_is_rebuilt_again_is_told_where_it_went_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let url = format!("file://{}", archive.display());
    let first = NodeSettings::in_directory(&directory.path().join("first")).archive_in_directory(&archive);
    let mut node = first.start()?;
    ctl(&node, "append orders")?.input("a\n").succeed()?;
    node.terminate()?;
    let hydrate = |to: &str| -> Result<Tool> {
        Ok(Tool::restore(&url)?.args(["hydrate", "--latest", "--to"]).args([directory.path().join(to)]))
    };
    let ran = hydrate("second")?.run()?;
    ensure!(ran.code == 0 && !ran.stderr.contains("was written later"), "{ran:?}");
    let again = NodeSettings::in_directory(&directory.path().join("second")).archive_in_directory(&archive);
    let mut node = again.start()?;
    ctl(&node, "append orders")?.input("b\n").succeed()?;
    let status: Value = serde_json::from_str(&ctl(&node, "archive status --json")?.succeed()?)?;
    let branch = status["branch"].as_str().context("it has a branch")?.to_owned();
    node.terminate()?;
    let ran = hydrate("third")?.run()?;
    let told = format!("note: branch {branch} continues main and was written later");
    ensure!(ran.code == 0 && ran.stderr.contains(&told), "{ran:?}");
    let ran = hydrate("fourth")?.args(["--branch", &branch]).run()?;
    ensure!(ran.code == 0 && !ran.stderr.contains("was written later"), "{ran:?}");
    Ok(())
}
