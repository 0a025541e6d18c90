//! The metrics that a node writes for CloudWatch are what its specification wants, all of them are there, and lines of the
//! log don't come in between.

#![expect(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "what fails here fails the test; a test's own files"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Deadline, Process, Signal, programs, run};
use serde_json::Value;

/// The units that CloudWatch knows, but those of rates and of other multiples, which no metric here has.
const UNITS: [&str; 5] = ["Seconds", "Bytes", "Percent", "Count", "None"];
/// CloudWatch's limits: of metrics in a line, of dimensions in a set, of characters in a name.
const METRICS: usize = 100;
const DIMENSIONS: usize = 30;
const NAME: usize = 255;
/// CloudWatch drops metrics that are older than two weeks or more than two hours ahead; here they are of now.
const FRESH: Duration = Duration::from_secs(600);

/// The metrics that `docs/METRICS.md` promises, with their units.
fn documented() -> BTreeMap<String, String> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
    let page = std::fs::read_to_string(workspace.join("docs/METRICS.md"))
        .unwrap_or_else(|error| panic!("docs/METRICS.md: {error}"));
    let part = page.split("\n## CloudWatch\n").nth(1).unwrap_or_default().to_owned();
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
    })
    .collect()
}

fn name(value: &Value) -> Result<&str> {
    let name = value.as_str().with_context(|| format!("{value} is no string"))?;
    ensure!(!name.is_empty() && name.len() <= NAME, "{name:?} has {} characters", name.len());
    Ok(name)
}

fn members(value: &Value, expected: &[&str]) -> Result<()> {
    let object = value.as_object().with_context(|| format!("{value} is no object"))?;
    let there: BTreeSet<_> = object.keys().map(String::as_str).collect();
    ensure!(there == expected.iter().copied().collect(), "{value} has other members than {expected:?}");
    Ok(())
}

/// Checks a line by the rules of the Embedded Metric Format; gives its metrics with their units.
fn metrics_of(line: &Value) -> Result<BTreeMap<String, String>> {
    let metadata = &line["_aws"];
    members(metadata, &["Timestamp", "CloudWatchMetrics"])?;
    ensure!(metadata["Timestamp"].is_u64(), "the timestamp is {}", metadata["Timestamp"]);
    let directives = metadata["CloudWatchMetrics"].as_array().context("directives are a list")?;
    let mut found = BTreeMap::new();
    for directive in directives {
        members(directive, &["Namespace", "Dimensions", "Metrics"])?;
        name(&directive["Namespace"])?;
        let sets = directive["Dimensions"].as_array().context("dimensions are a list of lists")?;
        ensure!(!sets.is_empty(), "there is no set of dimensions");
        for set in sets {
            let set = set.as_array().context("a set of dimensions is a list")?;
            ensure!(set.len() <= DIMENSIONS, "a set has {} dimensions", set.len());
            for dimension in set {
                // Only members of the root, and only strings.
                name(&line[name(dimension)?]).with_context(|| format!("dimension {dimension}"))?;
            }
        }
        let metrics = directive["Metrics"].as_array().context("metrics are a list")?;
        ensure!(metrics.len() <= METRICS, "there are {} metrics", metrics.len());
        for metric in metrics {
            members(metric, &["Name", "Unit"])?;
            let unit = metric["Unit"].as_str().unwrap_or_default();
            ensure!(UNITS.contains(&unit), "{metric} has an unknown unit");
            let name = name(&metric["Name"])?;
            ensure!(line[name].is_number(), "{name} is {}", line[name]);
            ensure!(found.insert(name.to_owned(), unit.to_owned()).is_none(), "{name} is there twice");
        }
    }
    Ok(found)
}

#[test]
fn the_rules_find_what_breaks_them() -> Result<()> {
    let sound = serde_json::json!({
        "_aws": { "Timestamp": 1, "CloudWatchMetrics": [{
            "Namespace": "Duramen", "Dimensions": [["node"]], "Metrics": [{ "Name": "appends", "Unit": "Count" }],
        }]},
        "node": "1", "appends": 2,
    });
    ensure!(metrics_of(&sound)? == [("appends".to_owned(), "Count".to_owned())].into(), "{sound:#}");
    let broken: [(&str, Value); 8] = [
        ("/node", 1.into()),
        ("/appends", "2".into()),
        ("/appends", Value::Null),
        ("/_aws/Timestamp", 1.5.into()),
        ("/_aws/CloudWatchMetrics/0/Namespace", "".into()),
        ("/_aws/CloudWatchMetrics/0/Dimensions/0/0", "cluster".into()),
        ("/_aws/CloudWatchMetrics/0/Dimensions", "node".into()),
        ("/_aws/CloudWatchMetrics/0/Metrics/0/Unit", "Records".into()),
    ];
    for (pointer, value) in broken {
        let mut line = sound.clone();
        *line.pointer_mut(pointer).context("it is there")? = value;
        ensure!(metrics_of(&line).is_err(), "passes: {line:#}");
    }
    Ok(())
}

/// The command of a node that writes a line a second if `settings` switch that on.
fn command(data: &Path, settings: &[(&str, &str)]) -> Result<Command> {
    let mut command = Command::new(&programs()?.duramen);
    command.arg("serve");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    let data = data.display().to_string();
    let common = [
        ("node.data", data.as_str()),
        ("listen.clients", "127.0.0.1:0"),
        ("listen.admin", "127.0.0.1:0"),
        ("telemetry.log_format", "json"),
        ("cloudwatch.interval", "1s"),
    ];
    for (key, value) in common.iter().chain(settings) {
        command.env(format!("DURAMEN_{}", key.to_ascii_uppercase().replace('.', "__")), value);
    }
    Ok(command)
}

/// The node, running, and its address for clients.
fn start(command: &mut Command) -> Result<(Process, String)> {
    let mut process = Process::start("duramen serve", command)?;
    let clients = process.wait_for_line(Deadline::after_secs(60), |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line.get("clients")?.as_str().map(str::to_owned)
    })?;
    Ok((process, format!("http://{clients}")))
}

/// Ends with its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A datagram socket keeps what was written apart: what is received at once is one write of the node.
#[test]
fn every_line_is_written_at_once_so_that_log_and_metrics_can_share_a_pipe() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (reader, output) = UnixDatagram::pair()?;
    let errors = output.try_clone()?;
    reader.set_read_timeout(Some(Duration::from_secs(60)))?;
    let settings = [("cloudwatch.emf", "true"), ("telemetry.log_level", "debug")];
    let mut command = command(directory.path(), &settings)?;
    command.stdin(Stdio::null()).stdout(OwnedFd::from(output)).stderr(OwnedFd::from(errors));
    let _node = Killed(command.spawn()?);
    let mut buffer = vec![0; 1 << 20];
    let (mut of_the_log, mut of_metrics) = (0, 0);
    while of_the_log == 0 || of_metrics < 3 {
        let length = reader.recv(&mut buffer).context("the node says nothing any more")?;
        let written = std::str::from_utf8(&buffer[..length])?;
        let line = written.strip_suffix('\n').with_context(|| format!("no whole line: {written:?}"))?;
        let line: Value = serde_json::from_str(line).with_context(|| format!("no whole line: {line}"))?;
        match line.get("_aws") {
            Some(_) => of_metrics += 1,
            None => of_the_log += 1,
        }
    }
    Ok(())
}

#[test]
fn every_metric_is_in_lines_that_cloudwatch_takes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = format!("file://{}", directory.path().join("archive").display());
    let settings = [
        ("cloudwatch.emf", "true"),
        ("cloudwatch.cluster", "of-this-test"),
        ("node.id", "7"),
        ("archive.url", archive.as_str()),
        ("archive.segment_age", "1s"),
        ("log.append_timeout", "2m"),
    ];
    let (mut node, url) = start(&mut command(&directory.path().join("data"), &settings)?)?;
    let stream = format!("{url}/v1/tenants/default/streams/s/records");
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let documented = documented();
    ensure!(documented.len() > 20, "{documented:?}");

    let mut missing: BTreeSet<_> = documented.keys().cloned().collect();
    let (mut seen, mut appends, mut counted) = (0, 0, 0.0);
    let deadline = Deadline::after_secs(120);
    while !missing.is_empty() {
        if deadline.has_passed() {
            bail!("{missing:?} are in none of {seen} lines");
        }
        for level in ["local", "quorum", "archived"] {
            agent.post(format!("{stream}?ack={level}")).send("a record")?.body_mut().read_to_string()?;
            appends += 1;
        }
        let output = node.output();
        let lines: Vec<_> = output.lines().filter(|line| line.contains("\"_aws\"")).collect();
        for line in lines.iter().skip(seen) {
            let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            for (name, unit) in metrics_of(&line).with_context(|| line.to_string())? {
                ensure!(documented.get(&name) == Some(&unit), "{name} in {unit} is not documented");
                missing.remove(&name);
            }
            ensure!(line["cluster"] == "of-this-test" && line["node"] == "7", "{line:#}");
            ensure!(line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Duramen", "{line:#}");
            let at = Duration::from_millis(line["_aws"]["Timestamp"].as_u64().unwrap_or_default());
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            ensure!(now.abs_diff(at) < FRESH, "{at:?} is not now, which is {now:?}");
            ensure!(line["health"].as_f64().is_some_and(|health| health <= 1.0), "{line:#}");
            counted += line["appends"].as_f64().context("appends are counted")?;
        }
        seen = lines.len();
    }
    ensure!(counted > 0.0 && counted <= f64::from(appends), "{counted} of {appends} appends were counted");
    node.signal(Signal::Terminate)?;
    ensure!(node.wait(Deadline::after_secs(60))?.success(), "the node stops badly");
    Ok(())
}

#[test]
fn without_the_setting_nothing_is_written_on_standard_output() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut node, url) = start(&mut command(&directory.path().join("data"), &[])?)?;
    ureq::post(format!("{url}/v1/tenants/default/streams/s/records")).send("a record")?;
    node.signal(Signal::Terminate)?;
    ensure!(node.wait(Deadline::after_secs(60))?.success(), "the node stops badly");
    ensure!(!node.output().contains("_aws"), "{}", node.output());
    Ok(())
}

#[test]
fn names_that_cloudwatch_would_not_take_are_refused_at_the_start() -> Result<()> {
    let mut command = Command::new(&programs()?.duramen);
    command.args(["serve", "--validate", "--set", "cloudwatch.namespace=AWS/Duramen"]);
    let said = run(command.args(["--set", "cloudwatch.cluster="]));
    let said = format!("{:#}", said.err().context("both are taken")?);
    for key in ["cloudwatch.namespace", "cloudwatch.cluster"] {
        ensure!(said.contains(key), "{key} is not in {said}");
    }
    Ok(())
}
