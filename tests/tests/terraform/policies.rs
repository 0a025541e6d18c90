//! The archive's policies, enforced by a MinIO: what each holder can do, and what not.
//!
//! MinIO's policies know no `s3:if-none-match`. That condition is looked for in the text and then left out.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Bucket, NodeSettings, ServerKind, programs, python, run};
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::Value;

use crate::{Terraform, only, workspace};

/// Credentials that a policy limits.
struct Session(Vec<(String, String)>);

impl Session {
    /// `None` where there is no Python to ask for them.
    fn of(bucket: &Bucket, policy: &Value) -> Result<Option<Self>> {
        let Some(python) = python()? else { return Ok(None) };
        let mut child = Command::new(python)
            .arg(workspace().join("tests/terraform/session"))
            .arg(bucket.server().endpoint())
            .envs(bucket.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("a pipe was asked for")?.write_all(policy.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "no session for {policy:#}");
        let text = String::from_utf8(output.stdout)?;
        let made =
            text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
        // Those of the bucket first: the region stays, the keys are replaced.
        Ok(Some(Self(bucket.environment().into_iter().chain(made).collect())))
    }

    fn value(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    fn store(&self, bucket: &Bucket) -> Result<AmazonS3> {
        Ok(AmazonS3Builder::new()
            .with_endpoint(bucket.server().endpoint())
            .with_allow_http(true)
            .with_virtual_hosted_style_request(false)
            .with_region("us-east-1")
            .with_bucket_name(bucket.name())
            .with_access_key_id(self.value("AWS_ACCESS_KEY_ID"))
            .with_secret_access_key(self.value("AWS_SECRET_ACCESS_KEY"))
            .with_token(self.value("AWS_SESSION_TOKEN"))
            .build()?)
    }

    fn restore(&self, bucket: &Bucket, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&programs()?.duramen_restore);
        command.args(arguments).args(["--archive", &bucket.archive_url("duramen")]);
        run(command.envs(self.0.iter().cloned()))
    }
}

/// The policy as MinIO understands it.
fn for_minio(resources: &[Value], name: &str) -> Result<Value> {
    let text = only(resources, "aws_iam_policy", name)?["policy"].as_str().context("a policy is text")?;
    let mut policy: Value = serde_json::from_str(text)?;
    for statement in policy["Statement"].as_array_mut().context("a policy has statements")? {
        if statement["Action"] == "s3:PutObject" {
            ensure!(
                statement["Condition"] == serde_json::json!({ "Null": { "s3:if-none-match": "false" } }),
                "{name} may replace objects: {statement:#}"
            );
            statement.as_object_mut().context("a statement is an object")?.remove("Condition");
        }
    }
    Ok(policy)
}

fn refused<T>(what: &str, result: Result<T>) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} is allowed"),
        Err(error) => {
            let text = format!("{error:#}").to_lowercase();
            ensure!(
                text.contains("denied") || text.contains("permission") || text.contains("forbidden"),
                "{what}: {text}"
            );
            Ok(())
        }
    }
}

/// For each example, what its roles have by the name of the attachment: the role, and the policy of the archive.
#[test]
fn each_role_has_the_policy_of_its_work_and_no_other() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    for (example, expected) in [
        ("single-vm", &[("archive", "node", "node")] as &[_]),
        ("ecs", &[("task", "task", "node"), ("verify", "verify", "verify")]),
    ] {
        let resources = terraform.apply(example, "acme-duramen")?;
        for (attachment, role, policy) in expected {
            let attached = only(&resources, "aws_iam_role_policy_attachment", attachment)?;
            ensure!(
                attached["policy_arn"] == only(&resources, "aws_iam_policy", policy)?["arn"],
                "{attached:#}"
            );
            ensure!(attached["role"] == only(&resources, "aws_iam_role", role)?["name"], "{attached:#}");
        }
        // Nobody may delete, but by an attachment that somebody makes on purpose.
        let expiry = &only(&resources, "aws_iam_policy", "expiry")?["arn"];
        let given = resources.iter().filter(|resource| resource["type"] == "aws_iam_role_policy_attachment");
        let given = given.filter(|resource| &resource["values"]["policy_arn"] == expiry).count();
        ensure!(given == 0, "{example} gives the leave to delete");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_may_fetch_its_package_and_nothing_beside_it() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let bucket = Bucket::create()?;
    if bucket.server().kind() == ServerKind::InProcess {
        println!("passed over: only a MinIO enforces policies");
        return Ok(());
    }
    terraform.run("single-vm", &["init", "-input=false", "-no-color"])?;
    let package = format!(
        "-var=package={{ bucket = \"{}\", key = \"builds/duramen.tar.gz\", sha256 = \"{}\" }}",
        bucket.name(),
        "a".repeat(64)
    );
    terraform.apply_with("single-vm", "acme-duramen", &[&package])?;
    let resources = terraform.resources("single-vm")?;
    let text = only(&resources, "aws_iam_role_policy", "boot")?["policy"].as_str().context("it is text")?;
    let mut policy: Value = serde_json::from_str(text)?;
    // What MinIO knows of it.
    let statements = policy["Statement"].as_array_mut().context("a policy has statements")?;
    statements
        .retain(|statement| statement["Action"].as_str().is_some_and(|action| action.starts_with("s3:")));
    ensure!(statements.len() == 1, "{text}");
    let Some(machine) = Session::of(&bucket, &policy)? else { return Ok(()) };
    let (mine, theirs) = (Path::from("builds/duramen.tar.gz"), Path::from("builds/other.tar.gz"));
    for key in [&mine, &theirs] {
        bucket.store().put(key, "x".into()).await?;
    }
    let store = machine.store(&bucket)?;
    store.get(&mine).await?;
    refused("another object", store.get(&theirs).await.map_err(Into::into))?;
    refused("replacing the package", store.put(&mine, "y".into()).await.map_err(Into::into))?;
    let listed: Result<Vec<_>, _> = store.list(None).try_collect().await;
    refused("a list of packages", listed.map_err(Into::into))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_append_and_archive_but_not_delete_and_a_reader_can_only_read() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let bucket = Bucket::create()?;
    if bucket.server().kind() == ServerKind::InProcess {
        println!("passed over: only a MinIO enforces policies");
        return Ok(());
    }
    let resources = terraform.apply("archive-only", bucket.name())?;
    let session = |name| Session::of(&bucket, &for_minio(&resources, name)?);
    let (Some(node), Some(reader), Some(expiry), Some(verifier)) =
        (session("node")?, session("restore")?, session("expiry")?, session("verify")?)
    else {
        return Ok(());
    };

    // A node with nothing but its policy: it starts, archives, reads back, restarts, and says that it may not delete.
    let directory = tempfile::tempdir()?;
    let mut settings = NodeSettings::in_directory(directory.path())
        .archive_in(&bucket, "duramen")
        .set("archive.segment_age", "1s")
        .set("log.append_timeout", "2m");
    for (name, value) in &node.0 {
        settings = settings.variable(name, value);
    }
    let mut running = settings.start()?;
    let records = format!("{}/v1/tenants/default/streams/s/records", running.client_url());
    let agent = ureq::Agent::config_builder().timeout_global(Some(std::time::Duration::from_secs(180)));
    let agent = agent.build().new_agent();
    agent.post(format!("{records}?ack=archived")).send("a record")?;
    let check = agent.post(format!("{}/admin/archive/check", running.admin_url())).send_empty()?;
    let check = check.into_body().read_to_string()?;
    ensure!(!check.contains("failed") && check.contains("noted"), "{check}");
    agent.post(format!("{}/admin/archive/flush", running.admin_url())).send_empty()?;
    ensure!(running.terminate()?.success(), "the node stops badly");
    running.start_again()?;
    ensure!(running.terminate()?.success(), "the node stops badly");
    let identity = Path::from("duramen/archive.json");
    let mine = node.store(&bucket)?;
    refused("the node's delete", mine.delete(&identity).await.map_err(Into::into))?;
    let elsewhere = Path::from("elsewhere/object");
    refused("writing beside the archive", mine.put(&elsewhere, "x".into()).await.map_err(Into::into))?;

    // Who only reads: everything that changes nothing works, a branch is refused.
    for arguments in [
        &["list"] as &[_],
        &["plan", "--latest"],
        &["export", "--all", "--latest"],
        &["verify", "--full", "--dry-run"],
        &["show", "archive.json"],
    ] {
        reader.restore(&bucket, arguments)?;
    }
    refused("a reader's branch", reader.restore(&bucket, &["branch", "mine", "--latest"]))?;
    refused("a reader's delete", reader.store(&bucket)?.delete(&identity).await.map_err(Into::into))?;

    // Who verifies reads everything and records what it found, and goes on from there the next time.
    verifier.restore(&bucket, &["verify", "--full", "--since"])?;
    let of_verdicts = Path::from("duramen/verdicts");
    let verdicts: Vec<_> = bucket.store().list(Some(&of_verdicts)).try_collect().await?;
    ensure!(verdicts.len() == 1, "{verdicts:?}");
    verifier.restore(&bucket, &["verify", "--full", "--since"])?;
    refused("a verifier's branch", verifier.restore(&bucket, &["branch", "mine", "--latest"]))?;
    let store = verifier.store(&bucket)?;
    refused("a verifier's delete", store.delete(&verdicts[0].location).await.map_err(Into::into))?;
    let other = Path::from("duramen/holds/of-a-verifier");
    refused("a verifier's hold", store.put(&other, "x".into()).await.map_err(Into::into))?;

    // Who expires deletes, inside the archive only.
    let theirs = expiry.store(&bucket)?;
    let probe = Path::from("duramen/checks/00000000-0000-4000-8000-000000000000");
    mine.put(&probe, "x".into()).await?;
    theirs.delete(&probe).await?;
    bucket.store().put(&elsewhere, "x".into()).await?;
    refused("a delete beside the archive", theirs.delete(&elsewhere).await.map_err(Into::into))?;
    let listed: Result<Vec<_>, _> = theirs.list(Some(&Path::from("elsewhere"))).try_collect().await;
    refused("a list beside the archive", listed.map_err(Into::into))
}
