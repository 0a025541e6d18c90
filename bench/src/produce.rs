//! Producers: one record at a time, pipelined batches, and on a schedule.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use duramen_client::{AckFuture, Appender, AppenderOptions, Client};
use duramen_types::{Clock as _, StreamName, SystemClock};
use futures::future::try_join_all;
use tokio::sync::mpsc;

use crate::content::{Content, Records, milliseconds, record};
use crate::latency::{From, Latencies};
use crate::node::Target;
use crate::pace::Pacer;
use crate::report::{Counted, Measurement, Running};

/// The bytes at the beginning of a record of a schedule that say when it was due, on the schedule's own clock.
pub const DUE_BYTES: usize = 8;

/// A stream of a workload.
pub fn stream(workload: &str, number: usize) -> Result<StreamName> {
    Ok(StreamName::parse(&format!("bench-{workload}-{number}"))?)
}

/// Each with a session and a stream of its own, opened by a first record; spread over `connections`.
async fn producers(
    target: &Target,
    workload: &str,
    count: usize,
    connections: usize,
    options: &AppenderOptions,
) -> Result<Vec<(Client, Appender)>> {
    let clients = try_join_all((0..connections.min(count)).map(|_| target.connect())).await?;
    try_join_all((0..count).zip(clients.iter().cycle()).map(|(number, client)| async move {
        let appender = client.appender(&stream(workload, number)?, options.clone());
        appender.append(&record(vec![0; 16], 0)).await?.await?;
        Ok((client.clone(), appender))
    }))
    .await
}

/// Producers that each send a record when the one before it is acknowledged.
pub async fn one_at_a_time(
    target: &Target,
    workload: &str,
    count: usize,
    connections: usize,
    record_bytes: usize,
    seconds: Duration,
) -> Result<Measurement> {
    let all = producers(target, workload, count, connections, &AppenderOptions::default()).await?;
    let records: Vec<_> =
        (0..count).map(|seed| Records::new(Content::Text, record_bytes, seed as u64)).collect();
    let running = Running::begin(Some(target));
    let clock = SystemClock::new();
    let tasks: Vec<_> = all
        .into_iter()
        .zip(records)
        .map(|((client, appender), mut records)| {
            tokio::spawn(async move {
                let mut latencies = Latencies::new()?;
                let mut begun = clock.monotonic();
                while begun < seconds {
                    appender.append(records.next()).await?.await?;
                    let now = clock.monotonic();
                    latencies.record(now.saturating_sub(begun));
                    begun = now;
                }
                drop(client);
                Ok::<_, anyhow::Error>(latencies)
            })
        })
        .collect();
    let mut latencies = Latencies::new()?;
    for task in tasks {
        latencies.add(&task.await??)?;
    }
    let setting =
        format!("{count} connections, sessions and streams; {record_bytes} B records, one at a time each");
    let counted = Counted {
        records: latencies.count(),
        bytes: latencies.count() * record_bytes as u64,
        latency: Some(latencies.summary(From::Call)),
    };
    Ok(running.end(workload, setting, counted))
}

/// How batches are sent.
#[derive(Debug, Clone, Copy)]
pub struct Batches {
    pub producers: usize,
    /// Records in each batch, and bytes of each record.
    pub records: usize,
    pub record_bytes: usize,
    /// Batches of one producer that wait for their acknowledgement at once.
    pub in_flight: usize,
    pub content: Content,
    /// MiB of values a second, of all producers together; as fast as they are taken where there is none.
    pub rate: Option<f64>,
    /// When it is enough, whatever comes first.
    pub seconds: Duration,
    pub bytes: u64,
}

/// Producers that send batches, several at once.
#[expect(clippy::cast_precision_loss, reason = "sizes are far below that")]
pub async fn batches(target: &Target, workload: &str, how: Batches) -> Result<Measurement> {
    let options = AppenderOptions {
        max_in_flight: how.in_flight,
        idempotent: how.in_flight <= 5,
        ..AppenderOptions::default()
    };
    let all = producers(target, workload, how.producers, how.producers, &options).await?;
    let contents: Vec<_> = (0..how.producers)
        .map(|seed| {
            let mut records = Records::new(how.content, how.record_bytes, seed as u64);
            (0..40).map(|_| records.batch(how.records)).collect::<Vec<_>>()
        })
        .collect();
    let left = Arc::new(AtomicU64::new(how.bytes));
    let batch_bytes = (how.records * how.record_bytes) as u64;
    let step = how.rate.map(|rate| {
        let mib = batch_bytes as f64 / f64::from(1 << 20);
        Duration::from_secs_f64(mib * how.producers as f64 / rate)
    });
    let running = Running::begin(Some(target));
    let clock = SystemClock::new();
    let tasks: Vec<_> = all
        .into_iter()
        .zip(contents)
        .map(|((client, appender), contents)| {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let mut latencies = Latencies::new()?;
                let mut waiting: VecDeque<(Duration, AckFuture)> = VecDeque::new();
                let mut settle = async |(begun, answer): (Duration, AckFuture)| {
                    answer.await?;
                    latencies.record(clock.monotonic().saturating_sub(begun));
                    Ok::<_, anyhow::Error>(())
                };
                let pacer = Pacer::new(clock)?;
                for (turn, batch) in (0_u32..).zip(contents.iter().cycle()) {
                    if let Some(step) = step {
                        pacer.until(step * turn).await?;
                    }
                    let enough = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(batch_bytes)
                        })
                        .is_err();
                    if enough || clock.monotonic() >= how.seconds {
                        break;
                    }
                    if waiting.len() >= how.in_flight
                        && let Some(oldest) = waiting.pop_front()
                    {
                        settle(oldest).await?;
                    }
                    waiting.push_back((clock.monotonic(), appender.append_batch(batch).await?));
                }
                while let Some(oldest) = waiting.pop_front() {
                    settle(oldest).await?;
                }
                drop(client);
                Ok::<_, anyhow::Error>(latencies)
            })
        })
        .collect();
    let mut latencies = Latencies::new()?;
    for task in tasks {
        latencies.add(&task.await??)?;
    }
    let Batches { producers, records, record_bytes, in_flight, content, .. } = how;
    let rate = how.rate.map_or(String::new(), |rate| format!(", {rate:.0} MiB/s asked for"));
    let setting = format!(
        "{producers} connections and streams; batches of {records} records of {record_bytes} B ({content:?}), \
         {in_flight} in flight each{rate}"
    );
    let batches = latencies.count();
    let counted = Counted {
        records: batches * records as u64,
        bytes: batches * batch_bytes,
        latency: Some(latencies.summary(From::Call)),
    };
    Ok(running.end(workload, setting, counted))
}

/// A schedule of single records, evenly spaced.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub producers: usize,
    /// Records a second, of all producers together.
    pub rate: f64,
    pub record_bytes: usize,
    pub seconds: Duration,
    /// Where the schedule's time comes from: [`DUE_BYTES`] of each record say when it was due.
    pub clock: SystemClock,
}

/// Producers that send single records on a schedule, whether earlier ones are acknowledged or not.
///
/// Latencies count from the moment at which a record was due.
pub async fn scheduled(target: &Target, workload: &str, how: Schedule) -> Result<Measurement> {
    let options = AppenderOptions { max_in_flight: 64, idempotent: false, ..AppenderOptions::default() };
    let all = producers(target, workload, how.producers, how.producers, &options).await?;
    let running = Running::begin(Some(target));
    let begin = how.clock.monotonic() + Duration::from_millis(20);
    let tasks: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(number, (client, appender))| {
            let (due, mut answers) = mpsc::unbounded_channel::<(Duration, AckFuture)>();
            tokio::spawn(async move {
                let sent = send_on_schedule(&appender, how, begin, number, due);
                let told = async {
                    let mut latencies = Latencies::new()?;
                    while let Some((due, answer)) = answers.recv().await {
                        answer.await?;
                        latencies.record(how.clock.monotonic().saturating_sub(due));
                    }
                    Ok::<_, anyhow::Error>(latencies)
                };
                let (sent, latencies) = tokio::join!(sent, told);
                drop(client);
                sent?;
                latencies
            })
        })
        .collect();
    let mut latencies = Latencies::new()?;
    for task in tasks {
        latencies.add(&task.await??)?;
    }
    let Schedule { producers, rate, record_bytes, .. } = how;
    let setting = format!(
        "{rate:.0} records/s of {record_bytes} B on a schedule, over {producers} connections and streams"
    );
    let counted = Counted {
        records: latencies.count(),
        bytes: latencies.count() * record_bytes as u64,
        latency: Some(latencies.summary(From::Schedule)),
    };
    Ok(running.end(workload, setting, counted))
}

async fn send_on_schedule(
    appender: &Appender,
    how: Schedule,
    begin: Duration,
    number: usize,
    told: mpsc::UnboundedSender<(Duration, AckFuture)>,
) -> Result<()> {
    let pacer = Pacer::new(how.clock)?;
    let mut records = Records::new(Content::Text, how.record_bytes.saturating_sub(DUE_BYTES), number as u64);
    let now = milliseconds(how.clock.now());
    let step = how.producers as f64 / how.rate;
    let first = begin.as_secs_f64() + step * number as f64 / how.producers as f64;
    for turn in 0_u32.. {
        let due = Duration::from_secs_f64(first + step * f64::from(turn));
        if due >= begin + how.seconds {
            break;
        }
        pacer.until(due).await?;
        let mut value = Vec::with_capacity(how.record_bytes);
        value.extend_from_slice(&u64::try_from(due.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        value.extend_from_slice(records.next().value.as_deref().unwrap_or_default());
        let answer = appender.append(&record(value, now)).await?;
        told.send((due, answer)).ok().context("nobody waits for answers any more")?;
    }
    Ok(())
}
