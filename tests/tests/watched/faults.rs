//! What goes wrong is seen: faults are caused for real, and a Prometheus sees each alert fire and data on every panel.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use duramen_tests::{Bucket, NodeProcess, S3Server, Signal, Tool, setting, tool};
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path};

use crate::load::{Load, agent};
use crate::scene::{Scene, append, records};
use crate::{dashboards, filled_in, panels, workspace};

/// How long a node stands still, again and again: longer than an append or an fsync may take.
const STANDSTILL: Duration = Duration::from_millis(110);

/// Names a directory: the dashboards are drawn there as they are at the end (docs/images).
const PICTURES: &str = "DURAMEN_TEST_PICTURES";

#[test]
fn every_fault_is_seen_by_its_alert_and_no_panel_stays_at_zero() -> Result<()> {
    let Some(program) = tool("prometheus")? else { return Ok(()) };
    let Some(server) = S3Server::minio()? else {
        eprintln!("SKIPPED: a MinIO that can be stopped is needed");
        return Ok(());
    };
    let mut scene = Scene::set(&program, server)?;
    // A histogram is there from the first upload on.
    ensure!(append(&archived(&scene.slow, "orders"), "before")? == 200);
    damage_the_archive(&scene)?;
    let load = Load::on(&scene.faulty);
    let follow = format!("{}?follow=true&from=tail", records(&scene.faulty, "orders"));
    misuse(&mut scene, &load)?;
    let follower = ureq::get(&follow).call()?;
    fail_checkpoints(&mut scene)?;
    load.end()?;
    let small = Load::of_small_appends(&scene.faulty);
    take_the_store_away(&mut scene)?;
    small.end()?;
    lose_a_node(&mut scene)?;
    ensure!(scene.unseen.is_empty(), "never seen firing: {:?}", scene.unseen);
    no_panel_stayed_at_zero(&mut scene)?;
    drop(follower);
    if let Some(directory) = setting::<String>(PICTURES)? {
        draw(&scene, &directory)?;
    }
    ensure!(scene.faulty.process().is_running(), "none of this ends a node");
    Ok(())
}

/// Where an append waits for the archive.
fn archived(node: &NodeProcess, stream: &str) -> String {
    format!("{}?ack=archived", records(node, stream))
}

/// What is in the archive by now is altered, and a verification finds it.
fn damage_the_archive(scene: &Scene) -> Result<()> {
    // Nothing but its checksums tells that the record was another one.
    let value: String = (0..1500).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    ensure!(append(&archived(&scene.faulty, "damaged"), &value)? == 200);
    damage_segments(&scene.bucket, "faulty")?;
    let verify = Tool::restore(&scene.bucket.archive_url("faulty"))?.bucket(&scene.bucket);
    verify.line("verify --full").fail(3, &[]).map(drop)
}

/// Reads of what is damaged, a full disk, a clock that is ahead, a client with another protocol.
fn misuse(scene: &mut Scene, load: &Load) -> Result<()> {
    let mut alerts = vec!["DuramenClockRefused", "DuramenCorruption", "DuramenErrors"];
    alerts.extend(["DuramenVerificationFailed", "DuramenVerificationOld"]);
    alerts.extend(["DuramenDiskFilling", "DuramenDiskFull"]);
    scene.fires(120, &alerts, |scene| {
        load.goes_on()?;
        annoy(&scene.faulty)?;
        if let Some(full) = &scene.full {
            while append(&records(full, "filling"), &"x".repeat(900_000))? == 200 {}
        }
        Ok(())
    })
}

/// Changes a byte in the middle of each segment that is archived under `prefix` by now.
fn damage_segments(bucket: &Bucket, prefix: &str) -> Result<()> {
    let store = bucket.store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let objects: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await?;
        let mut damaged = 0;
        for object in objects.iter().filter(|object| object.location.as_ref().contains("/segments/")) {
            let mut bytes = store.get(&object.location).await?.bytes().await?.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            store.put(&object.location, Bytes::from(bytes).into()).await?;
            damaged += 1;
        }
        ensure!(damaged > 0, "nothing is archived");
        Ok(())
    })
}

/// What a client with a wrong protocol, a clock somewhat ahead and a damaged stream does to a node.
fn annoy(node: &NodeProcess) -> Result<()> {
    let mut connection = TcpStream::connect(node.client_url().trim_start_matches("http://"))?;
    connection.write_all(b"\x00 this is no HTTP\r\n\r\n")?;
    connection.read_to_end(&mut Vec::new()).ok();
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_millis(450);
    let streams = format!("{}/v1/tenants/default/streams", node.client_url());
    agent().get(streams).header("duramen-seen", ahead.as_micros().to_string()).call()?;
    // As long as the record is still local this succeeds; the bytes of an answer that breaks off are of no interest.
    let damaged = agent().get(format!("{}?from=earliest", records(node, "damaged"))).call();
    damaged.map(|mut answer| answer.body_mut().read_to_string().ok()).ok();
    Ok(())
}

/// Nothing can be written into a folder that is none.
fn fail_checkpoints(scene: &mut Scene) -> Result<()> {
    let checkpoints = scene.faulty.data().join("checkpoint");
    let away = scene.directory.path().join("away");
    std::fs::rename(&checkpoints, &away)?;
    std::fs::write(&checkpoints, "in the way")?;
    scene.shows(120, "duramen_checkpoint_failures_total > 0", |scene| {
        append(&records(&scene.faulty, "orders"), &"x".repeat(60_000)).map(drop)
    })?;
    std::fs::remove_file(&checkpoints)?;
    Ok(std::fs::rename(&away, &checkpoints)?)
}

/// The store does not answer, and a machine stands still again and again.
fn take_the_store_away(scene: &mut Scene) -> Result<()> {
    // Nothing but the upload that comes next is to wait for the store. Its requests are counted every five seconds.
    let idle = "sum(rate(duramen_archive_requests_total{cluster=\"slow\"}[11s])) == 0";
    scene.shows(120, idle, |_| Ok(()))?;
    scene.bucket.server().signal(Signal::Stop)?;
    // Rounds begin with a read; who waits for the archive has an upload begin at once.
    let waiting = [archived(&scene.faulty, "orders"), archived(&scene.slow, "orders")]
        .map(|records| std::thread::spawn(move || append(&records, "waits for the store")));
    let small = Load::of_small_appends(&scene.slow);
    scene.fires(120, &["DuramenAppendSlow", "DuramenWalSlow"], |scene| {
        scene.slow.process().signal(Signal::Stop)?;
        // It is the fault itself that takes this long.
        std::thread::sleep(STANDSTILL);
        scene.slow.process().signal(Signal::Continue)
    })?;
    let alerts =
        ["DuramenArchiveFailing", "DuramenArchiveLagAge", "DuramenArchiveLagEntries", "DuramenSnapshotOld"];
    scene.fires(300, &alerts, |_| Ok(()))?;
    scene.shows(60, "duramen_archive_lag_seconds{cluster=\"slow\"} > 36", |_| Ok(()))?;
    scene.bucket.server().signal(Signal::Continue)?;
    scene.fires(120, &["DuramenUploadSlow"], |_| Ok(()))?;
    for append in waiting {
        let status = append.join().expect("an append does not panic")?;
        ensure!(status == 200, "an append that waited for the store is answered with {status}");
    }
    small.end()
}

/// A node dies, and then Prometheus is not told of it any more.
fn lose_a_node(scene: &mut Scene) -> Result<()> {
    // Of this node: one that stands still may look down as well, and all are missing before the first is scraped.
    let fires = |alert| format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",cluster=\"slow\"}}");
    scene.slow.kill_9()?;
    scene.shows(60, &fires("DuramenNodeDown"), |_| Ok(()))?;
    scene.fires(60, &["DuramenNodeDown"], |_| Ok(()))?;
    scene.prometheus.discover(&[("faulty", scene.faulty.admin_url())])?;
    scene.shows(60, &fires("DuramenNodesMissing"), |_| Ok(()))?;
    scene.fires(60, &["DuramenNodesMissing"], |_| Ok(()))
}

/// Each query of each panel had a value that was not zero at some time.
fn no_panel_stayed_at_zero(scene: &mut Scene) -> Result<()> {
    let client = scene.prometheus.client();
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().context("a panel has queries")? {
                let query = filled_in(target["expr"].as_str().context("a query is text")?);
                if scene.full.is_none() && query.contains("duramen_disk_full") {
                    continue;
                }
                let ever = client.query(&format!("max_over_time(abs({query})[10m:1s]) > 0"))?;
                if ever.is_empty() {
                    bail!("{}: {} was always zero: {query}", path.display(), panel["title"]);
                }
            }
        }
    }
    let failed = client.query("max_over_time(duramen_archive_uploads_total{result=\"failed\"}[10m]) > 0")?;
    ensure!(!failed.is_empty(), "no upload failed while the store was away");
    Ok(())
}

fn draw(scene: &Scene, directory: &str) -> Result<()> {
    for name in ["overview", "archive", "log"] {
        let mut plot = std::process::Command::new("python3");
        plot.arg(workspace().join("tests/grafana/plot")).arg(scene.prometheus.url());
        plot.arg(workspace().join(format!("grafana/dashboards/{name}.json")));
        plot.arg(std::path::Path::new(directory).join(format!("dashboard-{name}.png"))).arg("5");
        duramen_tests::run(&mut plot)?;
    }
    Ok(())
}
