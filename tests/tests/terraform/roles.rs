//! What machines and tasks may beside the archive: exactly what they do.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Terraform, one, only};

const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/0123";

fn statements(resources: &[Value], name: &str) -> Result<Vec<Value>> {
    let text =
        only(resources, "aws_iam_role_policy", name)?["policy"].as_str().context("a policy is text")?;
    let policy: Value = serde_json::from_str(text)?;
    Ok(policy["Statement"].as_array().context("it has statements")?.clone())
}

/// The one statement with this name.
fn statement(statements: &[Value], sid: &str) -> Result<Value> {
    one(statements.iter().filter(|statement| statement["Sid"] == sid).cloned(), sid)
}

/// `duramen-test` is another cluster than `duramen`, whose machines can't take its volumes.
#[test]
fn a_machine_attaches_the_volumes_of_its_own_cluster_alone() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, policy) in [("single-vm", "boot"), ("ecs", "attach")] {
        let resources = terraform.apply(example, "acme-duramen")?;
        let attach = statement(&statements(&resources, policy)?, "AttachTheVolume")?;
        let condition = json!({ "StringEquals": { "aws:ResourceTag/duramen:node": ["duramen-1"] } });
        ensure!(attach["Condition"] == condition, "{attach:#}");
        let volume = only(&resources, "aws_ebs_volume", "data")?;
        ensure!(volume["tags"]["duramen:node"] == "duramen-1", "{volume:#}");
    }
    Ok(())
}

/// Whoever attaches an encrypted volume needs its key, and what EC2 does with the key for it.
#[test]
fn a_machine_may_use_the_key_of_its_volume_through_ec2_and_no_other() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, policy) in [("single-vm", "boot"), ("ecs", "attach")] {
        let resources = terraform.apply(example, "acme-duramen")?;
        let of_the_account = statements(&resources, policy)?;
        ensure!(!json!(of_the_account).to_string().contains("kms:"), "{of_the_account:#?}");

        terraform.give_node(example, &format!("  kms_key_arn = \"{KEY}\""))?;
        let resources = terraform.apply(example, "acme-duramen")?;
        let statements = statements(&resources, policy)?;
        let grant = statement(&statements, "GrantTheKeyToTheVolume")?;
        ensure!(grant["Action"] == "kms:CreateGrant" && grant["Resource"] == KEY, "{grant:#}");
        ensure!(
            grant["Condition"] == json!({ "Bool": { "kms:GrantIsForAWSResource": "true" } }),
            "{grant:#}"
        );
        let key = statement(&statements, "UseTheKeyOfTheVolume")?;
        let actions =
            ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*"];
        ensure!(key["Action"] == json!(actions) && key["Resource"] == KEY, "{key:#}");
        let through = json!({ "StringEquals": { "kms:ViaService": "ec2.eu-central-1.amazonaws.com" } });
        ensure!(key["Condition"] == through, "{key:#}");
        ensure!(only(&resources, "aws_ebs_volume", "data")?["kms_key_id"] == KEY, "it is another key");
    }
    Ok(())
}

fn container(resources: &[Value], task: &str) -> Result<Value> {
    let text = only(resources, "aws_ecs_task_definition", task)?["container_definitions"].as_str();
    let containers: Value = serde_json::from_str(text.context("it has containers")?)?;
    one(containers.as_array().context("containers are a list")?.iter().cloned(), "container")
}

/// ECS reads the secrets for every task that works with the archive, by the secrets' own ARNs and with their keys.
#[test]
fn every_task_has_the_secrets_and_ecs_may_read_them() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:store-AbCdEf";
    let parameter = "arn:aws:ssm:eu-central-1:123456789012:parameter/store/id";
    let arguments = format!(
        "  secrets = {{ AWS_SECRET_ACCESS_KEY = \"{secret}:key::\", AWS_ACCESS_KEY_ID = \"{parameter}\" }}\n  secrets_kms_key_arns = [\"{KEY}\"]"
    );
    terraform.give_node("ecs", &arguments)?;
    let resources = terraform.apply("ecs", "acme-duramen")?;
    let statements = statements(&resources, "secrets")?;
    let read = statement(&statements, "ReadSecrets")?;
    ensure!(read["Resource"] == json!([parameter, secret]), "{read:#}");
    let decrypt = statement(&statements, "DecryptSecrets")?;
    ensure!(decrypt["Action"] == "kms:Decrypt" && decrypt["Resource"] == json!([KEY]), "{decrypt:#}");
    let given = json!([
        { "name": "AWS_ACCESS_KEY_ID", "valueFrom": parameter },
        { "name": "AWS_SECRET_ACCESS_KEY", "valueFrom": format!("{secret}:key::") },
    ]);
    for task in ["node", "hydrate", "verify"] {
        let container = container(&resources, task)?;
        ensure!(container["secrets"] == given, "{task}: {container:#}");
    }
    Ok(())
}
