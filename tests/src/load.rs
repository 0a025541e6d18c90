//! Appending under load, and what a node owes to whoever appended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Writers of numbered records, each on a stream and a thread of its own, one record after the other.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<(Arc<AtomicU64>, JoinHandle<Written>)>,
}

/// What one writer did.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub stream: String,
    /// The numbers of the records that were acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// The number that the next record would have: each below it was sent, once.
    pub next: u64,
    /// How many were answered with something else.
    pub refused: u64,
}

impl Load {
    /// Appends to each stream with the acknowledgement that stands beside it, until [`Load::stop`] or until the node is gone;
    /// each record has about `bytes` bytes. One that is not acknowledged is not sent again: it may be there.
    pub fn start(url: &str, streams: &[(&str, &str)], bytes: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = streams.iter().map(|(stream, ack)| {
            let url = format!("{url}/v1/tenants/default/streams/{stream}/records?ack={ack}");
            let (stop, stream) = (Arc::clone(&stop), (*stream).to_owned());
            let acknowledged = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&acknowledged);
            let write = move || {
                let agent = agent();
                let mut written = Written { stream, ..Written::default() };
                while !stop.load(Ordering::Relaxed) {
                    let value = format!("{} {}", written.next, "x".repeat(bytes));
                    let number = written.next;
                    written.next += 1;
                    match agent.post(&url).send(value) {
                        Ok(answer) if answer.status() == 200 => {
                            written.acknowledged.insert(number);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => written.refused += 1,
                        Err(_) => break,
                    }
                }
                written
            };
            (acknowledged, std::thread::spawn(write))
        });
        let writers = writers.collect();
        Self { stop, writers }
    }

    /// How many records of each stream were acknowledged so far.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.writers.iter().map(|(acknowledged, _)| acknowledged.load(Ordering::Relaxed)).collect()
    }

    /// Ends the writers once the record that each has under way is answered, or the node is gone.
    pub fn stop(self) -> Result<Vec<Written>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.writers.into_iter().map(|(_, writer)| writer.join());
        ended.map(|written| written.map_err(|_| anyhow::anyhow!("a writer panicked"))).collect()
    }
}

impl Written {
    /// Every acknowledged record is in the stream, each record at most once and in order, and nothing that was not sent.
    /// Gives how many there are.
    pub fn check(&self, found: &[u64]) -> Result<usize> {
        let stream = &self.stream;
        ensure!(
            found.windows(2).all(|pair| pair[0] < pair[1]),
            "{stream}: a record is there twice or out of order: {found:?}"
        );
        let there: BTreeSet<u64> = found.iter().copied().collect();
        let lost: Vec<_> = self.acknowledged.difference(&there).collect();
        ensure!(lost.is_empty(), "{stream}: {lost:?} were acknowledged and are gone");
        ensure!(
            there.last().is_none_or(|last| *last < self.next),
            "{stream} has what nobody sent: {found:?}"
        );
        Ok(there.len())
    }

    /// The same of what a node serves.
    pub fn check_node(&self, url: &str) -> Result<usize> {
        self.check(&numbers(url, &self.stream)?)
    }
}

/// The numbers of the records of a stream that a [`Load`] appended to, as a node serves them; none where there is no stream.
pub fn numbers(url: &str, stream: &str) -> Result<Vec<u64>> {
    let (agent, mut numbers) = (agent(), Vec::new());
    loop {
        let from = numbers.len();
        let url = format!("{url}/v1/tenants/default/streams/{stream}/records?from={from}&limit=100");
        let mut answer = agent.get(&url).call()?;
        let said = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        if from == 0 && answer.status() == 404 {
            return Ok(numbers);
        }
        let read: Value = serde_json::from_str(&said)?;
        let records = read["records"].as_array().with_context(|| format!("{stream}: {said}"))?;
        if records.is_empty() {
            return Ok(numbers);
        }
        for record in records {
            numbers.push(number_of(record)?);
        }
    }
}

/// The number of a record, as JSON has it, that a [`Load`] appended.
pub fn number_of(record: &Value) -> Result<u64> {
    let number = record["value"].as_str().and_then(|value| value.split(' ').next());
    Ok(number.with_context(|| format!("a record has its number: {record}"))?.parse()?)
}

/// A client that gives up after a minute, and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    agent.timeout_global(Some(Duration::from_secs(60))).build().new_agent()
}
