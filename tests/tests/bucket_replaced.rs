//! A bucket that is emptied under a running node, or that holds another cluster's archive all at once: nothing counts as
//! archived in it, nothing local goes for it, nothing is written into it, and the node says why.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use duramen_tests::{Bucket, Deadline, NodeProcess, NodeSettings};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Every object of a bucket.
type Objects = BTreeMap<Path, Bytes>;

/// A bucket, and what is asked of it behind the node's back.
struct Behind {
    bucket: Bucket,
    runtime: Runtime,
}

impl Behind {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { bucket: Bucket::create()?, runtime })
    }

    fn objects(&self) -> Result<Objects> {
        let store = self.bucket.store();
        self.runtime.block_on(async {
            let mut objects = Objects::new();
            let mut listed = store.list(None);
            while let Some(object) = listed.try_next().await? {
                let bytes = store.get(&object.location).await?.bytes().await?;
                objects.insert(object.location, bytes);
            }
            Ok(objects)
        })
    }

    /// Makes the bucket hold these objects, and no others.
    fn replace(&self, objects: &Objects) -> Result<()> {
        let store = self.bucket.store();
        self.runtime.block_on(async {
            let there: Vec<_> = store.list(None).try_collect().await?;
            for object in there {
                store.delete(&object.location).await?;
            }
            for (key, bytes) in objects {
                store.put(key, bytes.clone().into()).await?;
            }
            Ok(())
        })
    }
}

fn agent() -> ureq::Agent {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    agent.timeout_global(Some(Duration::from_secs(120))).build().new_agent()
}

/// A node with two shards, of which streams use one.
fn settings(data: &std::path::Path, bucket: &Bucket, age: &str) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in(bucket, "log")
        .set("archive.segment_age", age)
        .set("cluster.shards", "1")
        .set("local_retention.bytes", "0B")
        .set("log.append_timeout", "4s")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "128KiB")
        .set("wal.segment_size", "1MiB")
}

fn append(node: &NodeProcess, query: &str, value: impl AsRef<[u8]>) -> Result<(u16, Value)> {
    let url = format!("{}/v1/tenants/default/streams/s/records{query}", node.client_url());
    let mut answer = agent().post(&url).send(value.as_ref())?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_str(&answer.body_mut().read_to_string()?)?))
}

fn append_archived(node: &NodeProcess, value: &str) -> Result<()> {
    let (status, answer) = append(node, "?ack=archived", value)?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

/// An append that nothing could be archived for: it must say that it may be there, and what to do.
fn not_archived(node: &NodeProcess, value: &str) -> Result<()> {
    let (status, answer) = append(node, "?ack=archived", value)?;
    ensure!(status == 504, "it was answered with {status} {answer}");
    let error = &answer["error"];
    ensure!(error["code"] == "unknown_outcome" && error["may_have_had_effect"] == true, "{answer}");
    let message = error["message"].as_str().unwrap_or_default();
    ensure!(message.contains("append to default/s: ") && message.contains("may or may not"), "{message}");
    Ok(())
}

fn value(node: &NodeProcess, offset: u64) -> Result<String> {
    let url = format!("{}/v1/tenants/default/streams/s/records?from={offset}&limit=1", node.client_url());
    let read: Value = serde_json::from_str(&agent().get(&url).call()?.into_body().read_to_string()?)?;
    Ok(read["records"][0]["value"].as_str().with_context(|| format!("offset {offset}: {read}"))?.to_owned())
}

fn page(node: &NodeProcess, path: &str) -> Result<Value> {
    let (status, body) = node.admin_get(path)?;
    ensure!(status == 200, "{path}: {status} {body}");
    Ok(serde_json::from_str(&body)?)
}

/// For each shard, the end of the archived history and the first index that is still local.
fn watermarks(node: &NodeProcess) -> Result<Vec<(u64, u64)>> {
    let status = page(node, "/status")?;
    let shards = status["shards"].as_array().context("the status has shards")?;
    let number = |value: &Value| value.as_u64().context("a watermark is a number");
    shards.iter().map(|shard| Ok((number(&shard["archived"])?, number(&shard["local_first"])?))).collect()
}

/// Waits until the node says everywhere that archiving fails, and each of `parts` about why.
fn wait_for_complaint(node: &mut NodeProcess, parts: &[&str]) -> Result<()> {
    let admin = node.admin_url();
    let get = |path: &str| -> Result<Value> {
        Ok(serde_json::from_str(
            &agent().get(format!("{admin}{path}")).call()?.into_body().read_to_string()?,
        )?)
    };
    node.process().wait_until(Deadline::after_secs(60), || {
        let status = get("/admin/archive/status")?;
        let error = status["troubles"].to_string();
        for part in parts {
            ensure!(error.contains(part), "the archive's status does not say {part:?}: {status}");
        }
        ensure!(status["reachable"] == false, "{status}");
        let health = get("/health")?;
        let checks = health["checks"].as_array().context("health has checks")?;
        let archive =
            checks.iter().find(|check| check["name"] == "archive").context("one is of the archive")?;
        ensure!(archive["condition"] == "degraded", "{archive}");
        Ok(())
    })
}

fn flush(node: &NodeProcess) -> Result<(u16, String)> {
    let mut answer = agent().post(format!("{}/admin/archive/flush", node.admin_url())).send_empty()?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

#[test]
fn nothing_counts_as_archived_in_an_emptied_bucket_and_nothing_local_goes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let behind = Behind::new()?;
    let mut node = settings(directory.path(), &behind.bucket, "1s").start()?;
    append_archived(&node, "before")?;
    let (status, said) = flush(&node)?;
    ensure!(status == 200, "{said}");

    let archive = behind.objects()?;
    behind.replace(&Objects::new())?;
    let before = watermarks(&node)?;
    // Far more than is kept locally once it is archived.
    for _ in 0..40 {
        let (status, answer) = append(&node, "", "x".repeat(60_000))?;
        ensure!(status == 200, "appends go on: {status} {answer}");
    }
    not_archived(&node, "during")?;
    wait_for_complaint(&mut node, &["there is no archive at s3://", "check the URL and its prefix"])?;
    let (status, said) = flush(&node)?;
    ensure!(status == 503 && said.contains("could not be flushed"), "{status} {said}");
    let during = watermarks(&node)?;
    ensure!(
        during == before,
        "an end of the archive moved, or local entries went: {before:?}, then {during:?}"
    );
    ensure!(value(&node, 41)? == "during", "what was refused as archived is in the log");
    let there: Vec<_> = behind.objects()?.into_keys().collect();
    ensure!(there.is_empty(), "the node wrote into what is not its archive: {there:?}");

    behind.replace(&archive)?;
    goes_on(&mut node, 40)
}

#[test]
fn nothing_is_archived_into_another_cluster_s_archive_that_took_the_place() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (behind, other) = (Behind::new()?, Behind::new()?);
    // Nothing is archived unless it is asked for: both histories have as many manifests.
    let mut node = settings(&directory.path().join("one"), &behind.bucket, "1h").start()?;
    let foreign = settings(&directory.path().join("two"), &other.bucket, "1h").start()?;
    append_archived(&node, "before")?;
    append_archived(&foreign, "foreign")?;
    for node in [&node, &foreign] {
        let (status, said) = flush(node)?;
        ensure!(status == 200, "{said}");
    }
    drop(foreign);
    let (archive, foreign) = (behind.objects()?, other.objects()?);
    let manifests = |objects: &Objects| -> Vec<Path> {
        objects.keys().filter(|key| key.as_ref().contains("/manifest/")).cloned().collect()
    };
    ensure!(
        !manifests(&archive).is_empty() && manifests(&archive) == manifests(&foreign),
        "they go on alike"
    );

    behind.replace(&foreign)?;
    let before = watermarks(&node)?;
    // Nothing is left to archive, and still nothing is said about what the other archive holds.
    let (status, said) = flush(&node)?;
    ensure!(status == 503 && said.contains("this node's data belongs to archive"), "{status} {said}");
    not_archived(&node, "during")?;
    wait_for_complaint(&mut node, &["another archive took this one's place"])?;
    let (status, said) = flush(&node)?;
    ensure!(status == 503 && said.contains("could not be flushed"), "{status} {said}");
    ensure!(watermarks(&node)? == before, "an end of the archive moved");
    let now = behind.objects()?;
    let written: Vec<_> = now.keys().filter(|key| !foreign.contains_key(*key)).collect();
    ensure!(now == foreign, "the node wrote into another cluster's archive: {written:?}");

    behind.replace(&archive)?;
    goes_on(&mut node, 0)
}

/// The archive is back: archiving goes on by itself, and everything is there, also after a crash.
fn goes_on(node: &mut NodeProcess, large: u64) -> Result<()> {
    let (client, admin) = (node.client_url(), node.admin_url());
    let url = format!("{client}/v1/tenants/default/streams/s/records?ack=archived");
    node.process().wait_until(Deadline::after_secs(120), || {
        let answer = agent().post(&url).send("after")?;
        if answer.status() == 200 { Ok(()) } else { bail!("the archive is back, and {answer:?}") }
    })?;
    let flushed = agent().post(format!("{admin}/admin/archive/flush")).send_empty()?;
    ensure!(flushed.status() == 200, "{flushed:?}");
    let status = page(node, "/admin/archive/status")?;
    ensure!(
        status["reachable"] == true && status["troubles"].as_array().is_some_and(Vec::is_empty),
        "{status}"
    );
    node.kill_9()?;
    node.start_again()?;
    ensure!(value(node, 0)? == "before", "the first record");
    for offset in 1..=large {
        ensure!(value(node, offset)?.len() == 60_000, "offset {offset}");
    }
    ensure!(value(node, large + 1)? == "during" && value(node, large + 2)? == "after", "the last records");
    Ok(())
}
