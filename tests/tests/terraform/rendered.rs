//! What the modules render: cloud-init, scripts, units, a task definition.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{programs, python, run, tool};
use serde_json::Value;

use crate::user_data::{cloud_config, sourced, user_data, user_data_files};
use crate::{Terraform, indexed, one, only, workspace};

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

/// The unit passes systemd's check with this program in place of the one that it names.
fn unit_is_accepted(directory: &Path, name: &str, unit: &str, program: (&str, &str)) -> Result<()> {
    let Some(systemd) = tool("systemd-analyze")? else { return Ok(()) };
    let file = directory.join(name);
    std::fs::write(&file, unit.replace(program.0, program.1))?;
    let said = run(Command::new(&systemd).args(["verify", "--man=no"]).arg(&file))?;
    ensure!(said.trim().is_empty(), "{said}");
    Ok(())
}

/// It is accepted and hardened.
fn unit_is_valid(directory: &Path, name: &str, unit: &str, program: (&str, &str)) -> Result<()> {
    unit_is_accepted(directory, name, unit, program)?;
    let Some(systemd) = tool("systemd-analyze")? else { return Ok(()) };
    run(Command::new(&systemd)
        .args(["security", "--offline=yes", "--threshold=30", "--no-pager"])
        .arg(directory.join(name)))?;
    Ok(())
}

/// What brings a virtual machine's log to CloudWatch: the copy of the journal, the agent's settings, and leave to write.
#[test]
fn a_virtual_machines_journal_goes_to_the_log_group() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("single-vm", "acme-duramen")?;
    let files = user_data_files(&resources, "node")?;
    let file = |path: &str| files.get(path).with_context(|| format!("{path} is not written"));
    let directory = tempfile::tempdir()?;
    let script = file("/usr/local/sbin/duramen-journal")?;
    shellcheck(directory.path(), "journal", script)?;
    let unit = file("/etc/systemd/system/duramen-journal.service")?;
    unit_is_valid(
        directory.path(),
        "duramen-journal.service",
        unit,
        ("/usr/local/sbin/duramen-journal", "/bin/true"),
    )?;
    for unit in ["duramen.service", "duramen-verify.service", "duramen-verify-all.service"] {
        ensure!(script.contains(&format!("--unit={unit} ")), "{unit} is left out:\n{script}");
        file(&format!("/etc/systemd/system/{unit}"))?;
    }

    let agent: Value = serde_json::from_str(file("/etc/duramen/cloudwatch-agent.json")?)?;
    let collected = agent["logs"]["logs_collected"]["files"]["collect_list"].as_array();
    let collected = one(collected.context("the agent collects files")?.iter(), "file")?;
    ensure!(unit.contains("LogsDirectory=duramen\n") && script.contains("$directory/node.log"), "{script}");
    ensure!(collected["file_path"] == "/var/log/duramen/node.log", "{collected:#}");
    let group = only(&resources, "aws_cloudwatch_log_group", "node")?;
    ensure!(collected["log_group_name"] == group["name"], "{collected:#}");
    let boot = file("/usr/local/sbin/duramen-boot")?;
    ensure!(boot.contains("-c file:/etc/duramen/cloudwatch-agent.json"), "the agent reads nothing:\n{boot}");
    // What keeps the node from starting is in the log group too; what keeps the agent from it doesn't stop the node.
    let shipping = boot.find("\nship || ").context("a failing agent would end the script")?;
    let node = boot.find("start --no-block duramen.service").context("the node is started")?;
    ensure!(
        shipping < node && boot.contains("timeout 300 dnf "),
        "a failing first boot is not logged:\n{boot}"
    );

    let policy =
        only(&resources, "aws_iam_role_policy", "logs")?["policy"].as_str().context("a policy is text")?;
    let policy: Value = serde_json::from_str(policy)?;
    let statement = one(policy["Statement"].as_array().context("it has statements")?.iter(), "statement")?;
    let streams = format!("{}:log-stream:node-*", group["arn"].as_str().unwrap_or_default());
    ensure!(statement["Resource"] == streams.as_str(), "{statement:#}");
    let stream = collected["log_stream_name"].as_str().unwrap_or_default();
    ensure!(stream.starts_with("node-1/"), "the policy doesn't cover {stream}");
    Ok(())
}

/// The copy of the journal with a journal of a few lines, of which each look gives those that are new.
#[test]
fn the_copy_of_the_journal_has_every_line_once_and_is_moved_when_it_is_long() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs)?;
    // In place of the journal: one more line for each look, and the number of lines given so far as the cursor.
    let stub = r#"#!/bin/bash
for word in "$@"; do case $word in --cursor-file=*) cursor=${word#*=};; esac; done
count=$(($(cat "$cursor" 2>/dev/null || echo 0) + 1))
echo "line $count"
echo "$count" >"$cursor"
[ "$count" -lt 5 ] || kill "$PPID"
"#;
    let script = std::fs::read_to_string(workspace().join("terraform/modules/vm/templates/journal.sh"))?;
    // The test waits for nothing, and a line is long.
    ensure!(script.contains("$((64 << 20))") && script.contains("sleep 5"), "{script}");
    let script = script.replace("$((64 << 20))", "20").replace("sleep 5", ":");
    for (name, text) in [("journalctl", stub), ("copy", script.as_str())] {
        let file = directory.path().join(name);
        std::fs::write(&file, text)?;
        run(Command::new("chmod").arg("+x").arg(&file))?;
    }
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut copy = Command::new(directory.path().join("copy"));
    // It ends by the signal.
    let ended = copy.env("PATH", path).env("LOGS_DIRECTORY", &logs).status()?;
    ensure!(!ended.success(), "it goes on for ever");
    let read = |name: &str| std::fs::read_to_string(logs.join(name));
    let (moved, rest) = (read("node.log.1")?, read("node.log")?);
    ensure!(moved == "line 1\nline 2\nline 3\n" && rest == "line 4\nline 5\n", "{moved:?} and {rest:?}");

    // The real one has these options.
    let Some(journalctl) = tool("journalctl")? else { return Ok(()) };
    let help = run(Command::new(journalctl).arg("--help"))?;
    for option in ["--quiet", "--no-pager", "--output=", "--unit=", "--cursor-file="] {
        ensure!(help.contains(option), "journalctl has no {option}");
    }
    Ok(())
}

/// The archive is verified once a week by a task that the programs and policies know.
#[test]
fn a_schedule_starts_a_verification_with_leave_to_read_and_to_record() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let task = only(&resources, "aws_ecs_task_definition", "verify")?;
    let containers: Value =
        serde_json::from_str(task["container_definitions"].as_str().context("it has containers")?)?;
    let container = one(containers.as_array().context("containers are a list")?.iter(), "container")?;
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let dockerfile = std::fs::read_to_string(workspace().join("deploy/docker/Dockerfile"))?;
    let program = words(&container["entryPoint"]).concat();
    ensure!(
        program == "/usr/bin/duramen-restore" && dockerfile.contains("target/release/duramen-restore"),
        "{program}"
    );
    // The program takes these words and variables: it gets as far as the archive, which isn't there.
    let archive = tempfile::tempdir()?;
    let mut verify = Command::new(&programs()?.duramen_restore);
    verify.args(words(&container["command"]));
    for entry in container["environment"].as_array().context("it has an environment")? {
        verify.env(entry["name"].as_str().unwrap_or_default(), entry["value"].as_str().unwrap_or_default());
    }
    let url = format!("file://{}", archive.path().display());
    let error = run(verify.env("DURAMEN_ARCHIVE", url)).expect_err("there is no archive");
    ensure!(format!("{error:#}").contains("archive.json"), "{error:#}");
    // As the timer of a virtual machine does it.
    let unit = std::fs::read_to_string(workspace().join("deploy/systemd/duramen-verify.service"))?;
    let line = format!("ExecStart={program} {}\n", words(&container["command"]).join(" "));
    ensure!(unit.contains(&line), "{unit}");

    let schedule = indexed(&resources, "aws_scheduler_schedule", "verify", "weekly")?;
    let target = &schedule["target"][0];
    // Monthly the same task with the words of the other timer's service.
    let monthly = indexed(&resources, "aws_scheduler_schedule", "verify", "monthly")?;
    ensure!(
        schedule["name"] != monthly["name"] && target["input"].as_str().is_none_or(str::is_empty),
        "{schedule:#}"
    );
    let input = monthly["target"][0]["input"].as_str().context("the monthly run has words of its own")?;
    let input: Value = serde_json::from_str(input)?;
    let instead = one(input["containerOverrides"].as_array().context("a list")?.iter(), "container")?;
    ensure!(instead["name"] == container["name"], "{input:#}");
    let unit = std::fs::read_to_string(workspace().join("deploy/systemd/duramen-verify-all.service"))?;
    let line = format!("ExecStart={program} {}\n", words(&instead["command"]).join(" "));
    ensure!(unit.contains(&line), "{unit}");
    for same in ["arn", "role_arn", "ecs_parameters"] {
        ensure!(monthly["target"][0][same] == target[same], "{same}: {monthly:#}");
    }
    let parameters = &target["ecs_parameters"][0];
    ensure!(parameters["task_definition_arn"] == task["arn"], "{schedule:#}");
    ensure!(task["requires_compatibilities"] == serde_json::json!([parameters["launch_type"]]), "{task:#}");
    let role = |name: &str| Ok::<_, anyhow::Error>(only(&resources, "aws_iam_role", name)?["arn"].clone());
    ensure!(
        target["role_arn"] == role("scheduler")? && task["task_role_arn"] == role("verify")?,
        "{schedule:#}"
    );
    let attached = only(&resources, "aws_iam_role_policy_attachment", "verify")?;
    ensure!(attached["policy_arn"] == only(&resources, "aws_iam_policy", "verify")?["arn"], "{attached:#}");
    ensure!(attached["role"] == only(&resources, "aws_iam_role", "verify")?["name"], "{attached:#}");
    // What the schedule may: start this task, and give it the two roles that it has.
    let policy =
        only(&resources, "aws_iam_role_policy", "scheduler")?["policy"].as_str().context("it is text")?;
    let policy: Value = serde_json::from_str(policy)?;
    let family = task["family"].as_str().context("the task has a family")?;
    for statement in policy["Statement"].as_array().context("it has statements")? {
        let resource = &statement["Resource"];
        match statement["Action"].as_str() {
            Some("ecs:RunTask") => {
                let suffix = format!(":task-definition/{family}:*");
                ensure!(resource.as_str().is_some_and(|arn| arn.ends_with(&suffix)), "{statement:#}");
            }
            Some("iam:PassRole") => {
                ensure!(
                    *resource == serde_json::json!([task["execution_role_arn"], task["task_role_arn"]]),
                    "{statement:#}"
                );
            }
            _ => anyhow::bail!("the schedule may more than it must: {statement:#}"),
        }
    }
    Ok(())
}

#[test]
fn machines_get_a_valid_cloud_config_and_virtual_ones_the_units_of_the_package() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let (Some(cloud_init), Some(python)) = (tool("cloud-init")?, python()?) else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    for (example, name) in [("single-vm", "node"), ("ecs", "machine")] {
        let resources = terraform.apply(example, "acme-duramen")?;
        let file = directory.path().join("user-data.yaml");
        std::fs::write(&file, user_data(&resources, name)?)?;
        let said = run(Command::new(&cloud_init).args(["schema", "--config-file"]).arg(&file))?;
        ensure!(said.contains("Valid"), "{said}");
        // For YAML, which cloud-init reads, it is the same as for JSON.
        let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
        let config: Value =
            serde_json::from_str(&run(Command::new(&python).args(["-c", script]).arg(&file))?)?;
        ensure!(config == cloud_config(&resources, name)?, "{config:#}");
        // What tries the boot until it succeeds, also after a restart in the middle of it.
        let runs = serde_json::json!([
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "--no-block", "duramen-boot.service"]
        ]);
        ensure!(config["runcmd"] == runs, "{config:#}");
        let files = user_data_files(&resources, name)?;
        let unit = files.get("/etc/systemd/system/duramen-boot.service").context("there is a unit")?;
        for line in [
            "Type=oneshot",
            "Restart=on-failure",
            "RestartSec=30s",
            "StartLimitIntervalSec=0",
            "WantedBy=multi-user.target",
        ] {
            ensure!(unit.lines().any(|found| found == line), "no {line} in {unit}");
        }
        let program = ("/usr/local/sbin/duramen-boot", "/bin/true");
        ensure!(unit.contains(&format!("ExecStart={}\n", program.0)), "{unit}");
        unit_is_accepted(directory.path(), "duramen-boot.service", unit, program)?;
        shellcheck(directory.path(), "boot", files.get(program.0).context("it has a boot script")?)?;
        for file in config["write_files"].as_array().into_iter().flatten() {
            let mode = match file["path"].as_str().unwrap_or_default() {
                path if path.starts_with("/usr/local/sbin/") => "0755",
                "/etc/duramen/duramen.env" => "0600",
                _ => "0644",
            };
            ensure!(file["permissions"] == mode, "{file:#}");
        }
    }
    let resources = terraform.resources("single-vm")?;
    let files = user_data_files(&resources, "node")?;
    for (path, source) in [
        ("/etc/systemd/system/duramen.service", "deploy/systemd/duramen.service"),
        ("/etc/systemd/system/duramen-verify.service", "deploy/systemd/duramen-verify.service"),
        ("/etc/systemd/system/duramen-verify.timer", "deploy/systemd/duramen-verify.timer"),
        ("/etc/systemd/system/duramen-verify-all.service", "deploy/systemd/duramen-verify-all.service"),
        ("/etc/systemd/system/duramen-verify-all.timer", "deploy/systemd/duramen-verify-all.timer"),
        ("/etc/sysusers.d/duramen.conf", "deploy/sysusers/duramen.conf"),
        ("/etc/duramen/duramen.toml", "deploy/duramen.toml"),
    ] {
        let expected = std::fs::read_to_string(workspace().join(source))?;
        ensure!(files.get(path) == Some(&expected), "{path} is not {source}");
    }
    let boot = files.get("/usr/local/sbin/duramen-boot").context("it has a boot script")?;
    for timer in files.keys().filter_map(|path| path.strip_prefix("/etc/systemd/system/")) {
        let started = boot.lines().any(|line| line.starts_with("systemctl enable ") && line.contains(timer));
        ensure!(started || !timer.ends_with(".timer"), "nobody enables {timer}:\n{boot}");
    }
    ensure!(boot.contains("vol-0123456789abcdef0"), "the script doesn't know its volume:\n{boot}");
    settings_are_taken(&sourced(files.get("/etc/duramen/duramen.env").context("it has an environment")?)?)
}

#[test]
fn a_task_has_settings_that_a_node_takes_and_time_to_stop() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let files = user_data_files(&resources, "machine")?;
    let file = |path: &str| files.get(path).with_context(|| format!("{path} is not written"));

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
        file("/usr/local/sbin/duramen-boot")?.contains(&format!("chown -R {} ", text(&container["user"]))),
        "the volume is another user's"
    );
    let agent = file("/etc/ecs/ecs.config")?;
    for line in [
        "ECS_CLUSTER=duramen",
        "ECS_INSTANCE_ATTRIBUTES={\"duramen.node\": \"1\"}",
        "ECS_CONTAINER_STOP_TIMEOUT=90s",
        "ECS_AWSVPC_BLOCK_IMDS=true",
    ] {
        ensure!(agent.lines().any(|found| found == line), "no {line} in {agent}");
    }
    // Not even after a restart does the agent take a task before the volume is there.
    let waits = file("/etc/systemd/system/ecs.service.d/duramen.conf")?;
    ensure!(waits.contains("ConditionPathExists=/run/duramen-volume\n"), "{waits}");
    ensure!(
        file("/usr/local/sbin/duramen-boot")?.contains("\ntouch /run/duramen-volume\n"),
        "nobody makes it"
    );
    Ok(())
}
