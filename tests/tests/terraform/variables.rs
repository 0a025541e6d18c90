//! What variables refuse: a wrong value is told of before anything is made.

use anyhow::{Context, Result, ensure};

use crate::{Terraform, workspace};

/// Variables that can hold nothing wrong, or nothing that could be told here.
fn needs_no_validation(name: &str, body: &str) -> bool {
    name == "tags" || body.contains("\n  type        = bool\n")
}

#[test]
fn every_variable_says_what_it_takes() -> Result<()> {
    let mut seen = 0;
    for kind in ["modules", "examples"] {
        for folder in std::fs::read_dir(workspace().join("terraform").join(kind))? {
            let file = folder?.path().join("variables.tf");
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            for block in text.split("\nvariable \"").flat_map(|block| block.split("variable \"").last()) {
                let (name, body) = block.split_once('"').with_context(|| format!("a name in {block}"))?;
                for argument in ["description", "type"] {
                    let is_there = body.lines().any(|line| line.starts_with(&format!("  {argument} ")));
                    ensure!(is_there, "{}: {name} has no {argument}", file.display());
                }
                let is_checked = body.contains("\n  validation {\n") && body.contains("error_message = ");
                ensure!(
                    is_checked || needs_no_validation(name, body),
                    "{}: {name} takes anything",
                    file.display()
                );
                seen += 1;
            }
        }
    }
    ensure!(seen > 50, "{seen} variables were found");
    Ok(())
}

/// Terraform's messages without the frame around them.
pub(crate) fn unframed(said: &str) -> String {
    let lines = said.lines().map(|line| line.trim_start_matches(['│', '╷', '╵']).trim());
    lines.collect::<Vec<_>>().join(" ")
}

#[test]
fn examples_refuse_values_that_aws_would_refuse_later() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    terraform.run("ecs", &["init", "-input=false", "-no-color"])?;
    for (wrong, says) in [
        ("name=Acme_Duramen", "lower-case letters, digits and hyphens"),
        // Load balancers may not be called so.
        ("name=acme-", "not ending with a hyphen"),
        ("name=internal-acme", "may not begin with internal-"),
        ("bucket_name=acme.duramen", "no dots"),
        ("region=Frankfurt", "like eu-central-1"),
        ("subnet_id=vpc-1", "like subnet-"),
        ("client_cidrs=[\"0.0.0.0/0\"]", "never the whole internet"),
        ("operator_cidrs=[\"everybody\"]", "never the whole internet"),
        ("alarm_actions=[\"me@acme.example\"]", "such as of an SNS topic"),
        ("image=registry.example/duramen:latest", "a tag other than latest"),
    ] {
        let error = terraform.apply_with("ecs", "acme-duramen", &[&format!("-var={wrong}")]);
        let error = format!("{:#}", error.err().with_context(|| format!("{wrong} is taken"))?);
        ensure!(error.contains("Invalid value for variable"), "{wrong}: {error}");
        ensure!(unframed(&error).contains(says), "{wrong}: {error}");
    }
    Ok(())
}

const POLICY: &str = "arn:aws:iam::123456789012:policy/acme";
const GROUP: &str = "arn:aws:logs:eu-central-1:123456789012:log-group:/duramen/duramen";

/// Values that a module takes, in Terraform's syntax.
fn right(module: &str) -> Vec<(&'static str, String)> {
    let policies = format!("{{ archive = \"{POLICY}\" }}");
    let group = format!("{{ name = \"/duramen/duramen\", arn = \"{GROUP}\" }}");
    let of_a_node = vec![
        ("nodes", "{ \"1\" = { subnet_id = \"subnet-0123456789abcdef0\" } }".to_owned()),
        ("archive_url", "s3://acme-duramen/duramen".to_owned()),
        ("policy_arns", policies.clone()),
        ("log_group", group),
        ("client_cidrs", "[\"10.0.0.0/8\"]".to_owned()),
        ("kms_key_arn", "arn:aws:kms:eu-central-1:123456789012:key/0123".to_owned()),
    ];
    let package =
        format!("{{ bucket = \"acme\", key = \"a/duramen.tar.gz\", sha256 = \"{}\" }}", "a".repeat(64));
    match module {
        "archive" => vec![("bucket_name", "acme-duramen".to_owned())],
        "vm" => [of_a_node, vec![("package", package)]].concat(),
        "ecs" => {
            let secret = "{ TOKEN = \"arn:aws:ssm:eu-central-1:123456789012:parameter/token\" }".to_owned();
            let more = vec![
                ("image", "registry.example/duramen:0.1.0".to_owned()),
                ("verify_policy_arns", policies),
                ("secrets", secret),
            ];
            [of_a_node, more].concat()
        }
        _ => vec![
            ("autoscaling_groups", "{ \"1\" = \"duramen-1\" }".to_owned()),
            ("alarm_actions", "[\"arn:aws:sns:eu-central-1:123456789012:alarms\"]".to_owned()),
        ],
    }
}

/// For a module: wrong values of its variables, and what is said of each.
fn wrong(module: &str) -> Vec<(&'static str, String, &'static str)> {
    let group = |name: &str, arn: &str| format!("{{ name = \"{name}\", arn = \"{arn}\" }}");
    let text = |name, value: &str, says| (name, value.to_owned(), says);
    let of_a_node = vec![
        text("policy_arns", "{ archive = \"acme-duramen-node\" }", "ARNs of IAM policies"),
        text("policy_arns", "{ archive = \"arn:aws:s3:::acme-duramen\" }", "ARNs of IAM policies"),
        text("policy_arns", "{}", "the node may do nothing"),
        ("log_group", group("/duramen/duramen", "/duramen/duramen"), "and the ARN of the same one"),
        ("log_group", group("/duramen/duramen", &format!("{GROUP}:*")), "and the ARN of the same one"),
        ("log_group", group("/duramen/other", GROUP), "and the ARN of the same one"),
        text("kms_key_arn", "arn:aws:kms:eu-central-1:123456789012:0123", "ARN of a KMS key"),
        // A policy that names an alias allows nothing.
        text("kms_key_arn", "arn:aws:kms:eu-central-1:123456789012:alias/volumes", "not of an alias"),
        text("settings", "{ \"shutdown.timeout\" = \"soon\" }", "shutdown.timeout is a duration"),
        text("name", "acme-", "not ending with a hyphen"),
        text("archive_url", "s3://acme-duramen/it's", "An s3:// URL of a bucket and a prefix"),
        text("nodes", "{ \"1\" = { subnet_id = \"vpc-1\" } }", "The id of a subnet"),
        text("settings", "{ \"node.id\" = \"1\\nDURAMEN_X=2\" }", "A value is one line"),
    ];
    match module {
        "archive" => vec![
            text("kms_key_arn", "alias/archive", "ARN of a KMS key"),
            text("kms_key_arn", "arn:aws:kms:eu-central-1:123456789012:alias/archive", "not of an alias"),
        ],
        "vm" => {
            let package = |bucket: &str, key: &str| {
                format!("{{ bucket = \"{bucket}\", key = \"{key}\", sha256 = \"{}\" }}", "a".repeat(64))
            };
            let more = vec![
                ("package", package("acme", "it's.tar.gz"), "both stand in a script"),
                ("package", package("acme; reboot", "a.tar.gz"), "both stand in a script"),
            ];
            [of_a_node, more].concat()
        }
        "ecs" => {
            let more = vec![
                text("name", "internal-acme", "may not begin with internal-"),
                text("verify_policy_arns", "{ archive = \"made-up\" }", "ARNs of IAM policies"),
                text("verify_policy_arns", "{}", "the verification may do nothing"),
                text("task", "{ cpu = 2 }", "at least 256 CPU units"),
                text("task", "{ memory = 1024.5 }", "at least 256 CPU units"),
                text("secrets", "{ TOKEN = \"arn:aws:ssm:token\" }", "ARNs of parameters"),
                text(
                    "secrets",
                    "{ \"A TOKEN\" = \"arn:aws:ssm:eu-central-1:123456789012:parameter/a\" }",
                    "Names of environment",
                ),
                text(
                    "secrets_kms_key_arns",
                    "[\"arn:aws:kms:eu-central-1:123456789012:alias/a\"]",
                    "not of an alias",
                ),
            ];
            [of_a_node, more].concat()
        }
        _ => vec![
            text("name", "acme-", "not ending with a hyphen"),
            text("autoscaling_groups", "{ \"1\" = \"arn:aws:autoscaling:x\" }", "not their ARNs"),
            text("alarm_actions", "[\"arn:aws:sns:\"]", "such as of an SNS topic"),
            text("kms_key_arn", "arn:aws:kms:", "ARN of a KMS key"),
            text("kms_key_arn", "arn:aws:kms:eu-central-1:123456789012:alias/logs", "not of an alias"),
        ],
    }
}

#[test]
fn modules_refuse_what_is_no_arn_and_what_would_break_a_script() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for module in ["archive", "vm", "ecs", "monitoring"] {
        let folder = format!("modules/{module}");
        terraform.run_in(&folder, &["init", "-input=false", "-no-color"])?;
        let plan = |variables: &[(&str, &str)]| {
            let values: Vec<_> =
                variables.iter().map(|(name, value)| format!("-var={name}={value}")).collect();
            let mut arguments = vec!["plan", "-input=false", "-no-color"];
            arguments.extend(values.iter().map(String::as_str));
            terraform.run_in(&folder, &arguments)
        };
        let right = right(module);
        let right: Vec<_> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
        plan(&right).with_context(|| format!("{module} takes what is right"))?;
        // All mistakes are told of at once, but a variable has one value: as many rounds as the most wrong values of one.
        let wrong = wrong(module);
        let mut rest: Vec<_> = wrong.iter().collect();
        while !rest.is_empty() {
            let mut round: Vec<&(&str, String, &str)> = Vec::new();
            rest.retain(|next| {
                let is_next = round.iter().all(|taken| taken.0 != next.0);
                if is_next {
                    round.push(next);
                }
                !is_next
            });
            // The last of several values for a variable counts.
            let values: Vec<_> = right
                .iter()
                .copied()
                .chain(round.iter().map(|(name, value, _)| (*name, value.as_str())))
                .collect();
            let error = plan(&values).err().with_context(|| format!("{module} takes {round:?}"))?;
            let error = unframed(&format!("{error:#}"));
            let told = error.matches("Error: Invalid value for variable").count();
            ensure!(
                told == round.len(),
                "{module}: {told} of {} are told of: {round:?}: {error}",
                round.len()
            );
            for (name, value, says) in round {
                ensure!(error.contains(says), "{module}: nothing is said of {name} = {value}: {error}");
            }
        }
    }
    Ok(())
}
