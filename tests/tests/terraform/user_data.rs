//! What a new machine is given to start with, and what is read out of it there.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{run, tool};
use serde_json::Value;

use crate::variables::unframed;
use crate::{Terraform, only};

/// EC2 takes no more, before Base64.
const LONGEST: usize = 16 << 10;

/// What a command makes of a text. base64(1) and gzip(1) are everywhere, and no test needs a library for two calls.
fn through(command: &[&str], text: &str) -> Result<String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("a pipe was asked for")?, text.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

/// How long what is given to EC2 is, before Base64.
fn length(resources: &[Value], name: &str) -> Result<usize> {
    let given = only(resources, "aws_launch_template", name)?["user_data"].clone();
    let base64 = given.as_str().context("it is text")?;
    Ok(base64.trim_end_matches('=').len() * 3 / 4)
}

/// What a machine of the launch template with this name gets, as cloud-init reads it.
pub(crate) fn user_data(resources: &[Value], name: &str) -> Result<String> {
    let given = only(resources, "aws_launch_template", name)?["user_data"].clone();
    // cloud-init takes what is compressed as it does what isn't.
    through(&["sh", "-c", "base64 --decode | gzip -dcf"], given.as_str().context("it is text")?)
}

/// The cloud-config in it: JSON below a line that says what it is.
pub(crate) fn cloud_config(resources: &[Value], name: &str) -> Result<Value> {
    let text = user_data(resources, name)?;
    let json = text.strip_prefix("#cloud-config\n").with_context(|| format!("no cloud-config: {text}"))?;
    Ok(serde_json::from_str(json)?)
}

/// The files that cloud-init writes on a machine, by path.
pub(crate) fn user_data_files(resources: &[Value], name: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for file in cloud_config(resources, name)?["write_files"].as_array().context("it writes files")? {
        let text =
            |key: &str| file[key].as_str().map(str::to_owned).with_context(|| format!("{key}: {file:#}"));
        files.insert(text("path")?, text("content")?);
    }
    Ok(files)
}

/// What a shell has after it read the file, of what is in the file.
pub(crate) fn sourced(environment: &str) -> Result<BTreeMap<String, String>> {
    let names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("duramen.env");
    std::fs::write(&file, environment)?;
    // Where it would execute something, that has nothing to work on.
    let said = run(Command::new("env")
        .args(["-i", "/bin/sh", "-euc", "set -a; . ./duramen.env; set +a; exec /usr/bin/env -0"])
        .current_dir(directory.path()))?;
    let beside: Vec<_> = std::fs::read_dir(directory.path())?.collect::<Result<Vec<_>, _>>()?;
    ensure!(beside.len() == 1, "reading it makes files: {beside:?}");
    let all = said.split('\0').filter_map(|entry| entry.split_once('='));
    let all = all.filter(|(name, _)| names.contains(name));
    Ok(all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Values that mean something to a shell or to systemd.
const STRANGE: [(&str, &str); 9] = [
    ("archive.snapshot_schedule", "0 0 * * * *"),
    ("strange.spaces", "between  and after  "),
    ("strange.command", "a;touch X & touch Y | touch Z"),
    ("strange.dollar", "$HOME ${HOME} $(touch X) %{HOME} %n %"),
    ("strange.single", "it's 'quoted'"),
    ("strange.double", "\"quoted\" \\\"and escaped\\\""),
    ("strange.backslash", "C:\\new\\table \\\\ \\$ \\"),
    ("strange.backquote", "`touch X`"),
    ("strange.rest", "#no comment !! ~ é * ? [a] {b,c} <in >out ="),
];

/// Whether systemd takes this value for the variable, in the file by which it tells what system this is: its files of environment variables
/// have the same reader.
fn systemd_reads(file: &std::path::Path, name: &str, value: &str) -> Result<Option<bool>> {
    let Some(systemd) = tool("systemd-analyze")? else { return Ok(None) };
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    let condition = format!("ConditionOSRelease=\"{name}={quoted}\"");
    let output =
        Command::new(systemd).env("SYSTEMD_OS_RELEASE", file).args(["condition", &condition]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("onditions "), "{condition}: {said}");
    Ok(Some(output.status.success()))
}

#[test]
fn a_shell_and_systemd_read_each_setting_as_it_was_written() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let settings = STRANGE.map(|(key, value)| {
        // As Terraform writes a text.
        let text = Value::from(value).to_string().replace("${", "$${").replace("%{", "%%{");
        format!("\"{key}\" = {text}")
    });
    terraform.give_node("single-vm", &format!("  settings = {{ {} }}", settings.join(", ")))?;
    let files = user_data_files(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let environment = files.get("/etc/duramen/duramen.env").context("it has an environment")?;
    let shell = sourced(environment)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("duramen.env");
    std::fs::write(&file, environment)?;
    let of_node = [("node.id", "1"), ("archive.url", "s3://acme-duramen/duramen")];
    for (key, value) in STRANGE.into_iter().chain(of_node) {
        let name = format!("DURAMEN_{}", key.replace('.', "__").to_uppercase());
        ensure!(
            shell.get(&name).is_some_and(|read| read == value),
            "{key}: {value} is {:?}",
            shell.get(&name)
        );
        ensure!(
            systemd_reads(&file, &name, value)?.unwrap_or(true),
            "{key}: systemd reads it otherwise:\n{environment}"
        );
        let other = format!("{value}.");
        ensure!(
            !systemd_reads(&file, &name, &other)?.unwrap_or(false),
            "{key}: everything is the same to systemd"
        );
    }
    Ok(())
}

/// A setting of which nothing can be left out: each is another sequence of digits.
fn settings(count: u32) -> String {
    let settings: Vec<_> = (0..count)
        .map(|number| {
            let digits: Vec<_> = (0..8)
                .map(|at| format!("{:08x}", (number * 8 + at + 1).wrapping_mul(2_654_435_761)))
                .collect();
            format!(
                "\"some_section.a_setting_{}\" = \"{}\"",
                digits[0].replace(|digit: char| digit.is_ascii_digit(), "x"),
                digits.concat()
            )
        })
        .collect();
    format!("  settings = {{ {} }}", settings.join(", "))
}

#[test]
fn what_a_machine_is_given_fits_also_with_long_names_and_many_settings() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, name) in [("single-vm", "node"), ("ecs", "machine")] {
        terraform.give_node(example, &settings(50))?;
        terraform.run(example, &["init", "-input=false", "-no-color"])?;
        let bucket = "a".repeat(63);
        let package = format!(
            "-var=package={{ bucket = \"{bucket}\", key = \"{}/duramen.tar.gz\", sha256 = \"{}\" }}",
            "builds/of/a/team".repeat(10),
            "a".repeat(64)
        );
        let long = format!("-var=name={}", "n".repeat(31));
        let mut options = vec![long.as_str()];
        if example == "single-vm" {
            options.push(&package);
        }
        terraform.apply_with(example, &bucket, &options)?;
        let length = length(&terraform.resources(example)?, name)?;
        // Something is left for what is added to the units.
        ensure!(length < LONGEST * 3 / 4, "{example}: {length} of {LONGEST} bytes");
        println!("{example}: {length} of {LONGEST} bytes");
    }
    // Settings of which a machine can't be told are refused before it is made.
    let terraform = Terraform::find()?.context("it was there")?;
    terraform.give_node("single-vm", &settings(400))?;
    let error = terraform.apply("single-vm", "acme-duramen").err().context("EC2 would refuse it")?;
    let error = unframed(&format!("{error:#}"));
    ensure!(error.contains("Resource precondition failed") && error.contains("16,384 bytes"), "{error}");
    Ok(())
}

/// What stops a node waits as long as the node may take: twice `shutdown.timeout`, and some.
#[test]
fn a_longer_shutdown_gets_the_time_that_it_takes() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (timeout, seconds) in [("10m", 1230), ("1500ms", 90)] {
        let settings = format!("  settings = {{ \"shutdown.timeout\" = \"{timeout}\" }}");
        terraform.give_node("single-vm", &settings)?;
        let files = user_data_files(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
        let unit = files.get("/etc/systemd/system/duramen.service.d/stop.conf").context("systemd knows")?;
        ensure!(*unit == format!("[Service]\nTimeoutStopSec={seconds}s\n"), "{timeout}: {unit}");

        terraform.give_node("ecs", &settings)?;
        let resources = terraform.apply("ecs", "acme-duramen")?;
        let containers =
            only(&resources, "aws_ecs_task_definition", "node")?["container_definitions"].as_str();
        let containers: Value = serde_json::from_str(containers.context("it has containers")?)?;
        ensure!(containers[0]["stopTimeout"] == seconds, "{timeout}: {:#}", containers[0]);
        let files = user_data_files(&resources, "machine")?;
        let agent = files.get("/etc/ecs/ecs.config").context("the agent has settings")?;
        ensure!(agent.contains(&format!("ECS_CONTAINER_STOP_TIMEOUT={seconds}s\n")), "{timeout}: {agent}");
    }
    Ok(())
}
