//! `kill -9` of a node in a loop, under load, with its archive in a bucket: every acknowledged record is there again,
//! offsets are dense, nothing is there twice, and the archive has no gap and verifies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use duramen_archive::{Depth, Random, Store};
use duramen_client::{Appender, AppenderOptions, Client, ReadOptions};
use duramen_restore::VerifyOptions;
use duramen_tests::{Bucket, Deadline, NodeSettings, setting};
use duramen_types::batch::Record;
use duramen_types::{BranchName, StreamName, SystemClock};

/// How often the node is killed where `DURAMEN_KILLS` says nothing else.
const KILLS: u64 = 12;
const STREAMS: [&str; 3] = ["orders", "payments", "audit"];
/// Records acknowledged between two kills, at least.
const PROGRESS: u64 = 300;

/// Appends numbered records until the node is gone; gives the highest number that was acknowledged, and the first
/// that was not sent.
async fn append_until_killed(
    url: String,
    stream: StreamName,
    from: u64,
    progress: Arc<AtomicU64>,
) -> (u64, u64) {
    let Ok(client) = Client::connect(&url).await else { return (from, from) };
    let options = AppenderOptions { batch_records: 7, ..AppenderOptions::default() };
    let appender: Appender = client.appender(&stream, options);
    let (mut next, mut acknowledged) = (from, from);
    let mut waiting = std::collections::VecDeque::new();
    loop {
        let record = Record {
            value: Some(Bytes::from(format!("{next}"))),
            timestamp: i64::try_from(next).unwrap_or(0),
            ..Record::default()
        };
        let sent = tokio::time::timeout(Duration::from_secs(2), appender.append(&record)).await;
        let Ok(Ok(ack)) = sent else { break };
        next += 1;
        waiting.push_back((next, ack));
        if waiting.len() < 50 {
            continue;
        }
        let (number, ack) = waiting.pop_front().expect("it has fifty");
        match tokio::time::timeout(Duration::from_secs(2), ack).await {
            Ok(Ok(_)) => {
                acknowledged = number;
                progress.fetch_add(1, Ordering::Relaxed);
            }
            _ => break,
        }
    }
    (acknowledged, next)
}

async fn read_numbers(client: &Client, stream: &StreamName) -> Result<Vec<u64>> {
    let mut reader = client.reader(stream, ReadOptions::default());
    let mut numbers = Vec::new();
    while let Some(read) = reader.next().await? {
        ensure!(
            read.offset.get() == numbers.len() as u64,
            "stream {stream}: offset {} is not dense",
            read.offset
        );
        numbers.push(std::str::from_utf8(&read.record.value.unwrap_or_default())?.parse()?);
    }
    Ok(numbers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_under_load_keeps_every_acknowledged_record() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bucket = Bucket::create()?;
    let settings = NodeSettings::in_directory(directory.path())
        .archive_in(&bucket, "log")
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1s")
        .set("archive.segment_size", "64KiB")
        .set("log.record_limit", "256KiB")
        .set("log.batch_limit", "512KiB")
        .set("wal.segment_size", "1MiB")
        .set("local_retention.bytes", "2MiB");
    let mut node = settings.start()?;
    // Per stream: the numbers acknowledged in each life, and the first number of the next one.
    let mut acknowledged: Vec<Vec<std::ops::Range<u64>>> = vec![Vec::new(); STREAMS.len()];
    let mut next = [0u64; STREAMS.len()];
    for life in 0..setting("DURAMEN_KILLS")?.unwrap_or(KILLS) {
        let progress = Arc::new(AtomicU64::new(0));
        // An appender that is dropped goes on with what it was given: it must not find a later life at the same port.
        let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let writers: Vec<_> = STREAMS
            .iter()
            .zip(next)
            .map(|(stream, from)| {
                let stream = StreamName::parse(stream).expect("a valid name");
                clients.spawn(append_until_killed(node.client_url(), stream, from, Arc::clone(&progress)))
            })
            .collect();
        let deadline = Deadline::after_secs(60);
        tokio::task::block_in_place(|| {
            node.process().wait_until(deadline, || {
                let done = progress.load(Ordering::Relaxed);
                ensure!(done >= PROGRESS * (life + 1), "{done} records are acknowledged");
                Ok(())
            })
        })?;
        tokio::task::block_in_place(|| node.kill_9())?;
        for (at, writer) in writers.into_iter().enumerate() {
            let (through, sent) = writer.await?;
            acknowledged[at].push(next[at]..through);
            // A gap in the numbers tells the lives apart.
            next[at] = sent + 1_000_000;
        }
        clients.shutdown_background();
        tokio::task::block_in_place(|| node.start_again())?;
        let client = Client::connect(&node.client_url()).await?;
        for (stream, acknowledged) in STREAMS.iter().zip(&acknowledged) {
            let found = read_numbers(&client, &StreamName::parse(stream)?).await?;
            if let Some(at) = found.windows(2).position(|pair| pair[0] >= pair[1]) {
                let around = found.get(at.saturating_sub(8)..found.len().min(at + 16)).unwrap_or_default();
                bail!("{stream}: offset {} has a record again, or one of before: {around:?}", at + 1);
            }
            for number in acknowledged.iter().cloned().flatten() {
                ensure!(
                    found.binary_search(&number).is_ok(),
                    "{stream}: {number} was acknowledged and is gone after kill {life}"
                );
            }
        }
    }
    let admin = node.admin_url();
    tokio::task::block_in_place(|| {
        ureq::post(&format!("{admin}/admin/archive/flush")).send_empty().context("flushing the archive")
    })?;

    let store = Store::new(
        bucket.store(),
        object_store::path::Path::from("log"),
        Arc::new(SystemClock::new()),
        Random::from_seed(1),
    );
    let report =
        duramen_restore::verify(&store, &BranchName::parse("main")?, &VerifyOptions::new(Depth::Full))
            .await?;
    ensure!(report.is_clean(), "the archive is damaged: {:?}", report.verdict.findings);
    let shards = &report.verdict.shards;
    ensure!(shards.iter().any(|shard| shard.end.get() > 0), "something is archived");
    Ok(())
}
