//! What the modules render: cloud-init, scripts, units, a task definition.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{programs, python, run, tool};
use serde_json::Value;

use crate::{Terraform, one, only, workspace};

/// EC2 takes no more, before Base64.
const LONGEST_USER_DATA: usize = 16 << 10;

fn decoded(base64: &Value) -> Result<String> {
    let text = base64.as_str().context("it is text")?;
    // base64(1) is everywhere, and no test needs a library for this one call.
    let mut child = Command::new("base64")
        .arg("--decode")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("a pipe was asked for")?, text.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

fn shellcheck(directory: &Path, name: &str, script: &str) -> Result<()> {
    let file = directory.join(name);
    std::fs::write(&file, script)?;
    if let Some(shellcheck) = tool("shellcheck")? {
        run(Command::new(shellcheck).arg(&file))?;
    }
    Ok(())
}

/// A node takes these variables as its settings.
fn settings_are_taken(environment: &BTreeMap<String, String>) -> Result<()> {
    let mut command = Command::new(&programs()?.duramen);
    command.args(["serve", "--validate", "--config"]).arg(workspace().join("deploy/duramen.toml"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DURAMEN_") {
            command.env_remove(name);
        }
    }
    let shown = run(command.envs(environment))?;
    for name in environment.keys().filter(|name| name.starts_with("DURAMEN_") && name.contains("__")) {
        ensure!(shown.contains(&format!("# {name}")), "{name} sets nothing:\n{shown}");
    }
    Ok(())
}

#[test]
fn a_virtual_machine_gets_a_valid_cloud_config_with_the_units_of_the_package() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let (Some(cloud_init), Some(python)) = (tool("cloud-init")?, python()?) else { return Ok(()) };
    let resources = terraform.apply("single-vm", "acme-duramen")?;
    let user_data = decoded(&only(&resources, "aws_launch_template", "node")?["user_data"])?;
    ensure!(user_data.len() < LONGEST_USER_DATA, "user data has {} bytes", user_data.len());
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("user-data.yaml");
    std::fs::write(&file, &user_data)?;
    let said = run(Command::new(cloud_init).args(["schema", "--config-file"]).arg(&file))?;
    ensure!(said.contains("Valid"), "{said}");

    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let config: Value = serde_json::from_str(&run(Command::new(python).args(["-c", script]).arg(&file))?)?;
    let mut files = BTreeMap::new();
    for file in config["write_files"].as_array().context("it writes files")? {
        files.insert(
            file["path"].as_str().context("a file has a path")?.to_owned(),
            decoded(&file["content"])?,
        );
    }
    for (path, source) in [
        ("/etc/systemd/system/duramen.service", "deploy/systemd/duramen.service"),
        ("/etc/systemd/system/duramen-verify.service", "deploy/systemd/duramen-verify.service"),
        ("/etc/systemd/system/duramen-verify.timer", "deploy/systemd/duramen-verify.timer"),
        ("/etc/sysusers.d/duramen.conf", "deploy/sysusers/duramen.conf"),
        ("/etc/duramen/duramen.toml", "deploy/duramen.toml"),
    ] {
        let expected = std::fs::read_to_string(workspace().join(source))?;
        ensure!(files.get(path) == Some(&expected), "{path} is not {source}");
    }
    let boot = files.get("/usr/local/sbin/duramen-boot").context("it has a boot script")?;
    ensure!(config["runcmd"][0][0] == "/usr/local/sbin/duramen-boot", "nobody runs the boot script");
    ensure!(boot.contains("vol-0123456789abcdef0"), "the script doesn't know its volume:\n{boot}");
    shellcheck(directory.path(), "boot", boot)?;
    let environment = files.get("/etc/duramen/duramen.env").context("it has an environment")?;
    let lines = environment.lines().filter_map(|line| line.split_once('='));
    settings_are_taken(&lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn a_task_has_settings_that_a_node_takes_and_time_to_stop() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let directory = tempfile::tempdir()?;
    let user_data = decoded(&only(&resources, "aws_launch_template", "machine")?["user_data"])?;
    shellcheck(directory.path(), "user-data", &user_data)?;

    let task = only(&resources, "aws_ecs_task_definition", "node")?;
    let containers: Value =
        serde_json::from_str(task["container_definitions"].as_str().context("it has containers")?)?;
    let container = one(containers.as_array().context("containers are a list")?.iter(), "container")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let environment = container["environment"].as_array().context("it has an environment")?;
    settings_are_taken(
        &environment.iter().map(|entry| (text(&entry["name"]), text(&entry["value"]))).collect(),
    )?;
    // Requests under way, and then the archiver, may take shutdown.timeout each: 30 s by default.
    ensure!(container["stopTimeout"].as_u64().is_some_and(|seconds| seconds >= 75), "{container:#}");
    let dockerfile = std::fs::read_to_string(workspace().join("deploy/docker/Dockerfile"))?;
    let check: Vec<_> =
        container["healthCheck"]["command"].as_array().into_iter().flatten().map(text).collect();
    let written =
        format!("CMD [{}]", check[1..].iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "));
    ensure!(dockerfile.contains(&written), "the image checks its health otherwise than {written}");
    ensure!(dockerfile.contains(&format!("USER {}", text(&container["user"]))), "the image has another user");
    let mount = text(&container["mountPoints"][0]["containerPath"]);
    ensure!(
        dockerfile.contains(&format!("VOLUME {mount}")),
        "the image keeps its data elsewhere than {mount}"
    );
    ensure!(
        user_data.contains(&format!("chown {} ", text(&container["user"]))),
        "the volume is another user's"
    );
    ensure!(user_data.contains("\"duramen.node\": \"1\""), "the task finds no machine:\n{user_data}");
    Ok(())
}
