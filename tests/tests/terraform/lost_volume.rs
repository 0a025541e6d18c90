//! What the READMEs say to do after the loss of a volume.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{programs, run};
use serde_json::Value;

use crate::user_data::{sourced, user_data_files};
use crate::variables::unframed;
use crate::{Terraform, one, only, workspace};

const VOLUME: &str = "module.node.aws_ebs_volume.data[\"1\"]";

#[test]
fn a_volume_out_of_terraforms_hands_is_made_anew_and_one_in_them_is_never_replaced() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, module) in [("single-vm", "vm"), ("ecs", "ecs")] {
        let bucket = "acme-duramen";
        terraform.apply(example, bucket)?;
        let error = terraform.apply_with(example, bucket, &[&format!("-replace={VOLUME}")]);
        let error = error.expect_err("the volume holds what is not archived yet");
        ensure!(format!("{error:#}").contains("prevent_destroy"), "{example}: {error:#}");

        let readme =
            std::fs::read_to_string(workspace().join(format!("terraform/modules/{module}/README.md")))?;
        let forget = format!("terraform state rm '{VOLUME}' ");
        ensure!(readme.contains(&forget), "{example}: the README says it otherwise than {forget}");
        terraform.run(example, &["state", "rm", VOLUME])?;
        let said = terraform.apply_with(example, bucket, &[])?;
        // The made-up AWS answers some arguments otherwise than they were given, so there are changes too.
        let end = said.lines().rfind(|line| line.starts_with("Apply complete!")).unwrap_or_default();
        ensure!(end.contains(" 1 added,") && end.ends_with(" 0 destroyed."), "{example}: {said}");
        ensure!(said.contains(&format!("# {VOLUME} will be created")), "{example}: {said}");
    }
    Ok(())
}

fn containers(task: &Value) -> Result<Value> {
    let text = task["container_definitions"].as_str().context("it has containers")?;
    let containers: Value = serde_json::from_str(text)?;
    one(containers.as_array().context("containers are a list")?.iter().cloned(), "container")
}

/// The task that rebuilds a node's directory has the node's volume, role and machine, and words that the program takes.
#[test]
fn a_task_hydrates_the_directory_that_the_node_then_finds() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let (node, hydrate) = (
        only(&resources, "aws_ecs_task_definition", "node")?,
        only(&resources, "aws_ecs_task_definition", "hydrate")?,
    );
    for same in ["task_role_arn", "execution_role_arn", "volume", "placement_constraints", "network_mode"] {
        ensure!(!node[same].is_null() && node[same] == hydrate[same], "{same}: {hydrate:#}");
    }
    let (of_node, container) = (containers(node)?, containers(hydrate)?);
    for same in ["image", "user", "mountPoints", "secrets"] {
        ensure!(of_node[same] == container[same], "{same}: {container:#}");
    }
    let readme = std::fs::read_to_string(workspace().join("terraform/modules/ecs/README.md"))?;
    let family = hydrate["family"].as_str().context("the task has a family")?;
    ensure!(readme.contains(&format!("--task-definition {family} ")), "the README doesn't start {family}");
    let service = only(&resources, "aws_ecs_service", "node")?["name"].as_str().context("it has a name")?;
    ensure!(readme.contains(&format!("--service {service} ")), "the README doesn't stop {service}");

    ensure!(container["entryPoint"] == serde_json::json!(["/usr/bin/duramen-restore"]), "{container:#}");
    // It gets as far as the archive, which isn't there.
    let archive = tempfile::tempdir()?;
    let data = of_node["mountPoints"][0]["containerPath"].as_str().context("the volume is mounted")?;
    let to = archive.path().join("data");
    let mut command = Command::new(&programs()?.duramen_restore);
    for word in container["command"].as_array().context("it has words")? {
        let word = word.as_str().context("a word is text")?;
        command.arg(if word == data { to.as_os_str() } else { word.as_ref() });
    }
    ensure!(command.get_args().any(|word| word == to), "it hydrates elsewhere than {data}: {container:#}");
    for entry in container["environment"].as_array().context("it has an environment")? {
        command.env(entry["name"].as_str().unwrap_or_default(), entry["value"].as_str().unwrap_or_default());
    }
    let url = format!("file://{}", archive.path().display());
    let error = run(command.env("DURAMEN_ARCHIVE", url)).expect_err("there is no archive");
    ensure!(format!("{error:#}").contains("has no branch main"), "{error:#}");
    Ok(())
}

/// The command for a shell on a virtual machine, with the machine's environment: it rebuilds the directory of this node.
#[test]
fn a_shell_on_the_machine_hydrates_the_directory_of_its_own_node() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let file = terraform.example("single-vm").join("main.tf");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("{ \"1\" = { subnet_id"), "{text}");
    std::fs::write(&file, text.replace("{ \"1\" = { subnet_id", "{ \"7\" = { subnet_id"))?;
    let files = user_data_files(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let environment = sourced(files.get("/etc/duramen/duramen.env").context("it has an environment")?)?;
    let readme = std::fs::read_to_string(workspace().join("terraform/modules/vm/README.md"))?;
    let command = readme.lines().find(|line| line.starts_with("duramen-restore hydrate "));
    let command = command.context("the README hydrates")?;
    let archive = tempfile::tempdir()?;
    let to = archive.path().join("data").display().to_string();
    // It gets as far as the archive, which isn't there.
    let program = programs()?.duramen_restore.display().to_string();
    let command = command.replace("duramen-restore", &program).replace("/var/lib/duramen", &to);
    let error = run(Command::new("sh")
        .args(["-euxc", &command])
        .envs(&environment)
        .env("DURAMEN_ARCHIVE", format!("file://{}", archive.path().display())))
    .expect_err("there is no archive");
    let error = format!("{error:#}");
    ensure!(error.contains("has no branch main") && error.contains("--node-id 7\n"), "{error}");
    Ok(())
}

/// What verifies and restores is told of the branch of an earlier restore; the node, whose directory knows better, is not.
#[test]
fn the_branch_of_a_restore_is_for_what_restores_and_verifies_and_not_for_the_node() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let branch = "main-20261126t194124-602446";
    let told = format!("  restore_branch = \"{branch}\"");
    terraform.give_node("single-vm", &told)?;
    let files = user_data_files(&terraform.apply("single-vm", "acme-duramen")?, "node")?;
    let environment = sourced(files.get("/etc/duramen/duramen.env").context("it has an environment")?)?;
    ensure!(environment.get("DURAMEN_BRANCH").is_some_and(|name| name == branch), "{environment:?}");
    ensure!(!environment.contains_key("DURAMEN_ARCHIVE__BRANCH"), "{environment:?}");

    terraform.give_node("ecs", &told)?;
    let resources = terraform.apply("ecs", "acme-duramen")?;
    for (task, is_told) in [("node", false), ("hydrate", true), ("verify", true)] {
        let container = containers(only(&resources, "aws_ecs_task_definition", task)?)?;
        let environment = container["environment"].as_array().context("it has an environment")?;
        let told: Vec<_> = environment.iter().filter(|entry| entry["value"] == branch).collect();
        ensure!(told.len() == usize::from(is_told), "{task}: {container:#}");
        ensure!(told.iter().all(|entry| entry["name"] == "DURAMEN_BRANCH"), "{task}: {container:#}");
    }

    // A new node may be given a branch; one that was restored is not started with that of before.
    for (restore_branch, refusal) in
        [("back", None), (branch, Some("take it out of settings")), ("Back", Some("A branch's name"))]
    {
        let terraform = Terraform::find()?.context("it was there")?;
        for example in ["single-vm", "ecs"] {
            let arguments = format!(
                "  settings = {{ \"archive.branch\" = \"back\" }}\n  restore_branch = \"{restore_branch}\""
            );
            terraform.give_node(example, &arguments)?;
            match (terraform.apply(example, "acme-duramen"), refusal) {
                (Ok(_), None) => {}
                (Err(error), Some(refusal)) => {
                    let error = unframed(&format!("{error:#}"));
                    ensure!(error.contains(refusal), "{example}: {error}");
                }
                (applied, _) => anyhow::bail!("{example} with {restore_branch}: {applied:?}"),
            }
        }
    }
    Ok(())
}
