//! Workloads that need nothing but a node.

use std::time::Duration;

use anyhow::{Context, Result};
use duramen_client::{ReadFrom, ReadOptions};
use duramen_types::{Clock as _, Offset, StreamName, SystemClock};

use super::{Bench, STEADY_BYTES, STEADY_RATE, TAIL_RATE, Workload};
use crate::latency::{From, Latencies};
use crate::node::Target;
use crate::produce::{self, Batches, DUE_BYTES, Schedule};
use crate::report::{Counted, Measurement, Running};

/// What a catch-up reads, in bytes of values.
const CATCH_UP_BYTES: u64 = 1 << 30;
/// Batches of one record take longer to write.
const CATCH_UP_SINGLE_BYTES: u64 = 256 << 20;
/// A rate is too much for the node once a record waits this long.
const TOO_LATE_MS: f64 = 50.0;

pub async fn append(bench: &Bench, workload: Workload, producers: usize) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let measured = produce::one_at_a_time(
        &target,
        &workload.name(),
        producers,
        bench.connections,
        bench.record_bytes,
        bench.seconds,
    )
    .await?;
    let rate = measured.records_per_second;
    let echo = match producers {
        1 => bench.ceilings.echo_1,
        10 => bench.ceilings.echo_10,
        _ => bench.ceilings.echo_100,
    };
    let measured = measured.share("of gRPC echo", rate, echo.map(|echo| echo.messages_per_second));
    Ok(vec![match producers {
        1 => measured.share("of disk 4 KiB", rate, bench.ceilings.disk_4k.map(|disk| disk.writes_per_second)),
        _ => measured,
    }])
}

pub async fn batches(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let measured = produce::batches(&target, &workload.name(), bench.batches()).await?;
    let rate = measured.mib_per_second;
    Ok(vec![
        measured.share("of disk 1 MiB", rate, bench.ceilings.disk_1m.map(|disk| disk.mib_per_second)).share(
            "of gRPC echo",
            rate,
            bench.ceilings.echo_bulk.map(|echo| echo.mib_per_second),
        ),
    ])
}

pub async fn steady(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let how = steady_schedule(bench.seconds);
    Ok(vec![produce::scheduled(&target, &workload.name(), how).await?])
}

pub fn steady_schedule(seconds: Duration) -> Schedule {
    Schedule {
        producers: 1,
        rate: STEADY_RATE,
        record_bytes: STEADY_BYTES,
        seconds,
        clock: SystemClock::new(),
    }
}

pub async fn sweep(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let mut all = Vec::new();
    for rate in [500.0, 1e3, 2e3, 4e3, 6e3, 8e3, 12e3, 16e3, 20e3, 25e3, 30e3, 35e3, 40e3, 50e3, 60e3] {
        let how = Schedule {
            producers: 10,
            rate,
            record_bytes: bench.record_bytes,
            seconds: bench.seconds.min(Duration::from_secs(4)),
            clock: SystemClock::new(),
        };
        let measured = produce::scheduled(&target, &workload.name(), how).await?;
        let late = measured.latency.is_some_and(|latency| latency.p50 > TOO_LATE_MS);
        all.push(measured);
        if late {
            break;
        }
    }
    Ok(all)
}

pub async fn tail(bench: &Bench, workload: Workload) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let name = workload.name();
    let stream = produce::stream(&name, 0)?;
    let reader = target.connect().await?;
    // The stream exists once it has a record.
    let appender = reader.appender(&stream, duramen_client::AppenderOptions::default());
    appender.append(&crate::content::record(vec![0; 16], 0)).await?.await?;
    let mut follow =
        reader.reader(&stream, ReadOptions { from: ReadFrom::Tail, follow: true, ..ReadOptions::default() });
    follow.start().await?;
    let clock = SystemClock::new();
    let delivered = tokio::spawn(async move {
        let mut latencies = Latencies::new()?;
        // Until it is stopped: it has read everything by then, or the count tells.
        while let Some(batch) = follow.next_batch().await? {
            for record in &batch.decode()? {
                let value = record?.value.and_then(|value| value.first_chunk::<DUE_BYTES>());
                match value.map(|due| u64::from_le_bytes(*due)) {
                    Some(0) => {}
                    Some(u64::MAX) => return Ok(latencies),
                    Some(due) => {
                        latencies.record(clock.monotonic().saturating_sub(Duration::from_nanos(due)))
                    }
                    None => {}
                }
            }
        }
        Ok::<_, anyhow::Error>(latencies)
    });
    let how = Schedule {
        producers: 1,
        rate: TAIL_RATE,
        record_bytes: bench.record_bytes,
        seconds: bench.seconds,
        clock,
    };
    let appended = produce::scheduled(&target, &name, how).await?;
    appender.append(&crate::content::record(vec![0xff; DUE_BYTES], 0)).await?.await?;
    let delivered = delivered.await??.summary(From::Schedule);
    let acknowledged = appended.latency;
    let mut measured = appended.with("delivered records", delivered.count as f64);
    if let Some(latency) = acknowledged {
        measured = measured.with("ack p50 ms", latency.p50).with("ack p99 ms", latency.p99);
    }
    measured.latency = Some(delivered);
    Ok(vec![measured])
}

pub async fn catch_up(bench: &Bench, workload: Workload, records: usize) -> Result<Vec<Measurement>> {
    let subject = bench.subject()?;
    let target = subject.target()?;
    let name = workload.name();
    let bytes = if records == 1 { CATCH_UP_SINGLE_BYTES } else { CATCH_UP_BYTES };
    fill(&target, &name, bench, records, bytes).await?;
    let stream = produce::stream(&name, 0)?;
    let measured = read_all(&target, &name, &stream, records).await?;
    Ok(vec![measured])
}

/// Gives one stream this many bytes of values.
pub async fn fill(
    target: &Target,
    name: &str,
    bench: &Bench,
    records: usize,
    bytes: u64,
) -> Result<Measurement> {
    let how = Batches {
        producers: 1,
        records,
        in_flight: if records == 1 { 200 } else { 16 },
        seconds: Duration::from_secs(240),
        bytes,
        ..bench.batches()
    };
    produce::batches(target, name, how).await
}

/// Reads a stream from its first record to its tail, and looks at every record.
pub async fn read_all(
    target: &Target,
    name: &str,
    stream: &StreamName,
    records: usize,
) -> Result<Measurement> {
    let client = target.connect().await?;
    let mut reader =
        client.reader(stream, ReadOptions { from: ReadFrom::Earliest, ..ReadOptions::default() });
    let running = Running::begin(Some(target));
    let clock = SystemClock::new();
    let (mut next, mut bytes, mut first) = (Offset::ZERO, 0, None);
    while let Some(batch) = reader.next_batch().await? {
        first.get_or_insert_with(|| clock.monotonic());
        for record in &batch.decode()? {
            let record = record?;
            anyhow::ensure!(record.offset == next, "offset {} came where {next} was due", record.offset);
            next = next.next();
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
        }
    }
    let counted = Counted { records: next.get(), bytes, latency: None };
    let setting = format!("1 reader, {} MiB in batches of {records} records", bytes >> 20);
    let first = first.context("the stream is empty")?;
    Ok(running.end(name, setting, counted).with("first batch ms", first.as_secs_f64() * 1e3))
}
