//! Terraform's files, checked by Terraform itself against the AWS provider's schema; what they render, by what will read it; and the
//! archive's policies, by a MinIO that enforces them.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]

mod boot;
mod cloudwatch;
mod examples;
mod lost_volume;
mod network;
mod policies;
mod rendered;
mod roles;
mod user_data;
mod variables;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{python, run, tool};
use serde_json::Value;
use tempfile::TempDir;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package")
}

/// The made-up values of the examples' variables.
fn variables(example: &str, bucket: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![("bucket_name", bucket.to_owned())];
    if example != "archive-only" {
        variables.push(("subnet_id", "subnet-0123456789abcdef0".to_owned()));
        variables.push(("client_cidrs", "[\"10.0.0.0/8\"]".to_owned()));
        variables.push(("operator_cidrs", "[\"10.1.0.0/16\"]".to_owned()));
    }
    match example {
        "single-vm" => {
            let package =
                format!("{{ bucket = \"acme\", key = \"duramen.tar.gz\", sha256 = \"{}\" }}", "a".repeat(64));
            variables.push(("package", package));
        }
        "ecs" => variables.push(("image", "registry.example/duramen:0.1.0".to_owned())),
        _ => {}
    }
    variables
}

/// A copy of what Terraform reads, and the programs to read it with.
struct Terraform {
    program: PathBuf,
    /// What `tests/terraform/build` made.
    made: PathBuf,
    copy: TempDir,
}

impl Terraform {
    /// `None` where Terraform or its provider can't be had, which was said.
    fn find() -> Result<Option<Self>> {
        let Some(program) = tool("terraform")? else { return Ok(None) };
        for needed in ["go", "npm"] {
            if tool(needed)?.is_none() {
                return Ok(None);
            }
        }
        let made = run(&mut Command::new(workspace().join("tests/terraform/build")))?;
        let made = PathBuf::from(made.trim());
        let copy = tempfile::Builder::new().prefix("duramen-terraform-").tempdir()?;
        for part in ["terraform", "deploy"] {
            run(Command::new("cp").arg("-r").arg(workspace().join(part)).arg(copy.path()))?;
        }
        let mirror = made.join("mirror");
        let config = format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
            mirror.display()
        );
        std::fs::write(copy.path().join("terraform.rc"), config)?;
        Ok(Some(Self { program, made, copy }))
    }

    fn example(&self, name: &str) -> PathBuf {
        self.copy.path().join("terraform/examples").join(name)
    }

    /// Gives arguments to the example's node, in place of its settings.
    fn give_node(&self, example: &str, arguments: &str) -> Result<()> {
        let file = self.example(example).join("main.tf");
        let text = std::fs::read_to_string(&file)?;
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("  settings ")).collect();
        let module = lines.iter().position(|line| *line == "module \"node\" {").context("it has a node")?;
        let (before, after) = lines.split_at(module + 2);
        ensure!(before.last().is_some_and(|line| line.starts_with("  source = ")), "{text}");
        Ok(std::fs::write(&file, format!("{}\n{arguments}\n{}\n", before.join("\n"), after.join("\n")))?)
    }

    fn run(&self, example: &str, arguments: &[&str]) -> Result<String> {
        self.run_in(&format!("examples/{example}"), arguments)
    }

    /// Runs it in a folder of `terraform/`.
    fn run_in(&self, folder: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.current_dir(self.copy.path().join("terraform").join(folder)).args(arguments);
        run(self.environment(&mut command))
    }

    /// What Terraform needs to find the made-up AWS.
    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("TF_CLI_CONFIG_FILE", self.copy.path().join("terraform.rc"))
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .env("DURAMEN_PROVIDER_SCHEMA", self.made.join("schema.json"))
    }

    /// `terraform apply` with the made-up values and these options; gives what it said.
    fn apply_with(&self, example: &str, bucket: &str, options: &[&str]) -> Result<String> {
        let variables: Vec<_> =
            variables(example, bucket).iter().map(|(name, value)| format!("-var={name}={value}")).collect();
        let mut arguments = vec!["apply", "-input=false", "-auto-approve", "-no-color"];
        arguments.extend(variables.iter().map(String::as_str));
        arguments.extend(options);
        self.run(example, &arguments)
    }

    /// Applies the example to a made-up AWS; gives the resulting resources with all their values.
    fn apply(&self, example: &str, bucket: &str) -> Result<Vec<Value>> {
        self.run(example, &["init", "-input=false", "-no-color"])?;
        self.apply_with(example, bucket, &[])?;
        self.resources(example)
    }

    /// What was made, with all values.
    fn resources(&self, example: &str) -> Result<Vec<Value>> {
        let state: Value = serde_json::from_str(&self.run(example, &["show", "-json"])?)?;
        let mut resources = Vec::new();
        collect(&state["values"]["root_module"], &mut resources);
        ensure!(!resources.is_empty(), "{example} makes nothing");
        Ok(resources)
    }
}

fn collect(module: &Value, resources: &mut Vec<Value>) {
    resources.extend(module["resources"].as_array().into_iter().flatten().cloned());
    for child in module["child_modules"].as_array().into_iter().flatten() {
        collect(child, resources);
    }
}

/// The one resource of its type and name that is made for `index`.
fn indexed<'a>(resources: &'a [Value], kind: &str, name: &str, index: &str) -> Result<&'a Value> {
    let found = resources
        .iter()
        .filter(|found| found["type"] == kind && found["name"] == name && found["index"] == index);
    Ok(&one(found, &format!("{kind}.{name}[{index:?}]"))?["values"])
}

/// The only resource of its type and name.
fn only<'a>(resources: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let mut found = resources.iter().filter(|resource| resource["type"] == kind && resource["name"] == name);
    let one = found.next().with_context(|| format!("there is no {kind}.{name}"))?;
    ensure!(found.next().is_none(), "there is more than one {kind}.{name}");
    Ok(&one["values"])
}

#[test]
fn files_are_formatted() -> Result<()> {
    let Some(terraform) = tool("terraform")? else { return Ok(()) };
    run(Command::new(terraform)
        .args(["fmt", "-check", "-recursive", "-diff"])
        .arg(workspace().join("terraform")))?;
    Ok(())
}

#[test]
fn examples_are_valid_by_the_providers_schema_and_can_be_applied() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for example in ["archive-only", "single-vm", "ecs"] {
        terraform.apply(example, "acme-duramen").with_context(|| example.to_owned())?;
        let said = terraform.run(example, &["validate", "-no-color"])?;
        ensure!(said.contains("Success!") && !said.contains("Warning"), "{said}");
    }

    // The check has teeth: an argument that no bucket has, and a number of nodes that this version doesn't run.
    let file = terraform.copy.path().join("terraform/modules/archive/main.tf");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("bucket_key_enabled", "bucket_keys_enabled"))?;
    let error = terraform.run("archive-only", &["validate", "-no-color"]).expect_err("a typo is no argument");
    ensure!(format!("{error:#}").contains("bucket_keys_enabled"), "{error:#}");
    std::fs::write(&file, text)?;
    let file = terraform.example("single-vm").join("main.tf");
    let text = std::fs::read_to_string(&file)?;
    let two = "\"1\" = { subnet_id = var.subnet_id }, \"2\" = { subnet_id = var.subnet_id }";
    std::fs::write(&file, text.replace("\"1\" = { subnet_id = var.subnet_id }", two))?;
    let error = terraform.apply("single-vm", "acme-duramen").expect_err("one node is what this version runs");
    ensure!(format!("{error:#}").contains("runs one node"), "{error:#}");
    Ok(())
}

#[test]
fn no_security_check_fails_without_a_reason_beside_the_resource() -> Result<()> {
    let Some(python) = python()? else { return Ok(()) };
    let directory = workspace().join("terraform");
    let mut command = Command::new(python.with_file_name("checkov"));
    command.arg("-d").arg(&directory);
    let output =
        command.args(["--framework", "terraform", "--output", "json", "--skip-download"]).output()?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("checkov: {}", String::from_utf8_lossy(&output.stderr)))?;
    let results = |kind: &str| said["results"][kind].as_array().map(Vec::as_slice).unwrap_or_default();
    let failed: Vec<_> = results("failed_checks")
        .iter()
        .map(|check| format!("{} of {} in {}", check["check_id"], check["resource"], check["file_path"]))
        .collect();
    ensure!(failed.is_empty() && output.status.success(), "{failed:#?}");
    // What it can't read it passes over, with everything in it.
    let unread = results("parsing_errors");
    ensure!(unread.is_empty() && said["summary"]["parsing_errors"] == 0, "checkov can't read {unread:?}");
    let read = results("passed_checks").iter().chain(results("skipped_checks"));
    let read: Vec<_> = read.filter_map(|check| check["file_path"].as_str()).collect();
    for file in terraform_files(&directory)? {
        let holds_resources =
            std::fs::read_to_string(&file)?.lines().any(|line| line.starts_with("resource \""));
        let name = format!("/{}", file.strip_prefix(&directory)?.display());
        ensure!(!holds_resources || read.contains(&name.as_str()), "checkov says nothing of {name}");
    }
    // checkov itself takes one without a reason too.
    let (mut skipped, mut without) = (0, Vec::new());
    for file in terraform_files(&workspace().join("terraform"))? {
        let text = std::fs::read_to_string(&file)?;
        skipped += text.matches("checkov:skip").count();
        without.extend(
            skips_without_reason(&text).into_iter().map(|line| format!("{}: {line}", file.display())),
        );
    }
    ensure!(
        skipped >= 5 && without.is_empty(),
        "{skipped} checks are left out, without a reason: {without:?}"
    );
    Ok(())
}

/// Every `.tf` file below a directory.
fn terraform_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let found =
        run(Command::new("find").arg(directory).args(["-name", "*.tf", "-not", "-path", "*/.terraform/*"]))?;
    let files: Vec<_> = found.lines().map(PathBuf::from).collect();
    ensure!(files.len() >= 10, "{files:?}");
    Ok(files)
}

/// Comments that leave out a check of checkov and don't say why, in a sentence of three words at least.
fn skips_without_reason(text: &str) -> Vec<&str> {
    let skips = text.lines().map(str::trim).filter(|line| line.contains("checkov:skip"));
    skips
        .filter(|line| {
            let reason = line.split_once("checkov:skip=").and_then(|(_, rest)| rest.split_once(':'));
            !reason.is_some_and(|(check, reason)| {
                check.starts_with("CKV") && reason.split_whitespace().count() >= 3
            })
        })
        .collect()
}

#[test]
fn a_check_that_is_left_out_without_a_reason_is_told_of() {
    let with = "  #checkov:skip=CKV_AWS_144:Replication is a choice\n  count = 1\n";
    assert!(skips_without_reason(with).is_empty());
    for without in [
        "#checkov:skip=CKV_AWS_144",
        "#checkov:skip=CKV_AWS_144:",
        "  # checkov:skip=CKV2_AWS_5: todo ",
        "#checkov:skip",
    ] {
        assert_eq!(skips_without_reason(&format!("{with}{without}\n")), [without.trim()]);
    }
}

#[test]
fn tflint_has_nothing_to_say() -> Result<()> {
    let Some(tflint) = tool("tflint")? else { return Ok(()) };
    let terraform = workspace().join("terraform");
    let config = format!("--config={}", terraform.join(".tflint.hcl").display());
    run(Command::new(tflint).current_dir(&terraform).args(["--recursive", &config]))?;
    Ok(())
}

#[test]
fn readmes_list_the_variables_and_outputs_that_there_are() -> Result<()> {
    let Some(python) = tool("python3")? else { return Ok(()) };
    run(Command::new(python).arg(workspace().join("terraform/readmes")).arg("--check"))?;
    Ok(())
}

/// The only one of some values.
fn one<T>(mut values: impl Iterator<Item = T>, what: &str) -> Result<T> {
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => bail!("there is not exactly one {what}"),
    }
}
