//! Starts, and what a node takes that does nothing or little.

use std::time::Duration;

use anyhow::Result;
use duramen_types::{StreamConfig, StreamName};
use futures::future::try_join_all;

use super::{Bench, Workload};
use crate::produce;
use crate::report::{Counted, Measurement, Running};

const STREAMS: usize = 100_000;
const CONNECTIONS: usize = 10_000;
/// Calls at once while streams are created.
const CREATORS: usize = 64;
/// How long a node is left alone before it is looked at.
const REST: Duration = Duration::from_secs(2);

pub async fn restart(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let name = workload.name();
    bench.maker.need(bench.local_bytes)?;
    let mut node = bench.maker.prepare()?;
    let mut all = Vec::new();
    let mut measured = |node: &mut crate::node::OwnNode, what: &str| -> Result<()> {
        let running = Running::begin(None);
        let took = node.start()?;
        let target = node.target()?;
        let cpu = target.cpu().unwrap_or_default().as_secs_f64();
        let mut measurement = running.end(&name, what.to_owned(), Counted::default());
        measurement.seconds = took.as_secs_f64();
        measurement = measurement.with("ready ms", took.as_secs_f64() * 1e3).with("cpu ms", cpu * 1e3);
        if let Some(memory) = target.memory() {
            measurement = measurement.with("rss mib", memory.resident as f64 / 1_048_576.0);
        }
        all.push(measurement);
        Ok(())
    };
    measured(&mut node, "empty directory")?;
    let mib = bench.local_bytes >> 20;
    let how =
        produce::Batches { bytes: bench.local_bytes, seconds: Duration::from_secs(240), ..bench.batches() };
    let filled = produce::batches(&node.target()?, &name, how).await?;
    node.stop()?;
    measured(&mut node, &format!("{mib} MiB local, after a stop"))?;
    node.kill()?;
    measured(&mut node, &format!("{mib} MiB local, after kill -9 of an idle node"))?;
    // The open segment has frames, and the state has moved on since its checkpoint.
    let how = produce::Batches { bytes: 200 << 20, ..how };
    produce::batches(&node.target()?, &name, how).await?;
    node.kill()?;
    measured(&mut node, &format!("{mib} MiB local, after kill -9 with 200 MiB since the last start"))?;
    all.push(filled);
    Ok(all)
}

pub async fn idle(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let node = bench.maker.start(None, &[])?;
    let target = node.target()?;
    tokio::time::sleep(REST).await;
    let running = Running::begin(Some(&target));
    tokio::time::sleep(bench.seconds.max(Duration::from_secs(10))).await;
    let setting = "a fresh node, no clients".to_owned();
    let fresh = running.end(&workload.name(), setting, Counted::default());
    // After work: what was taken for it is given back, or not.
    produce::batches(&target, &workload.name(), bench.batches()).await?;
    tokio::time::sleep(REST).await;
    let running = Running::begin(Some(&target));
    tokio::time::sleep(bench.seconds.max(Duration::from_secs(10))).await;
    let setting = "after the batches workload".to_owned();
    let after = running.end(&workload.name(), setting, Counted::default());
    Ok(vec![percent(fresh), percent(after)])
}

fn percent(measured: Measurement) -> Measurement {
    let cores = measured.server.map_or(0.0, |server| server.cores);
    measured.with("% of a core", cores * 100.0)
}

pub async fn streams(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let node = bench.maker.start(None, &[])?;
    let target = node.target()?;
    let running = Running::begin(Some(&target));
    try_join_all((0..CREATORS).map(|creator| {
        let target = target.clone();
        async move {
            let client = target.connect().await?;
            for number in (creator..STREAMS).step_by(CREATORS) {
                let name = StreamName::parse(&format!("stream-{number:06}"))?;
                client.create_stream(&name, &StreamConfig::default()).await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    }))
    .await?;
    let counted = Counted { records: STREAMS as u64, ..Counted::default() };
    let setting = format!("{STREAMS} streams created over {CREATORS} connections");
    Ok(vec![running.end(&workload.name(), setting, counted)])
}

pub async fn connections(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let limit = format!("listen.connections={}", CONNECTIONS + 100);
    let node = bench.maker.start(None, &[&limit])?;
    let target = node.target()?;
    let before = target.memory().unwrap_or_default();
    let running = Running::begin(Some(&target));
    let mut open = Vec::with_capacity(CONNECTIONS);
    while open.len() < CONNECTIONS {
        let more = try_join_all((0..100).map(|_| target.connect())).await?;
        // A first call, so that the node has everything that a connection in use has.
        try_join_all(more.iter().map(|client| client.list_streams("", 1, None))).await?;
        open.extend(more);
    }
    tokio::time::sleep(REST).await;
    let setting = format!("{CONNECTIONS} connections that made one call and idle");
    let measured = running.end(&workload.name(), setting, Counted::default());
    Ok(vec![measured.with("rss before mib", before.resident as f64 / 1_048_576.0)])
}
