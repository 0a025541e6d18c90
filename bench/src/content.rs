//! Records as the workloads append them.

use bytes::Bytes;
use clap::ValueEnum;
use duramen_types::batch::Record;
use duramen_types::{Clock as _, HybridTime, SystemClock};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use serde::Serialize;

/// How well records compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Lines like those of a service's log: about a quarter is left of them.
    Text,
    /// Random bytes: nothing is gained.
    Random,
    /// One of each, in turn.
    Mixed,
}

/// Enough different records that a compressor doesn't find the same one twice in its window of a block.
const DIFFERENT: usize = 4096;

/// Records of one size, made once and given out in turn; stamped with the time at which they were made.
#[derive(Debug)]
pub struct Records {
    all: Vec<Record>,
    next: usize,
}

impl Records {
    /// Records with values of `bytes` bytes; the same for the same `seed`.
    pub fn new(content: Content, bytes: usize, seed: u64) -> Self {
        let now = milliseconds(SystemClock::new().now());
        let mut random = SmallRng::seed_from_u64(seed);
        let different = DIFFERENT.min((64 << 20) / bytes.max(1)).max(2);
        let all = (0..different).map(|number| {
            let value = match content {
                Content::Random => noise(&mut random, bytes),
                Content::Mixed if number % 2 == 1 => noise(&mut random, bytes),
                Content::Text | Content::Mixed => text(&mut random, bytes),
            };
            record(value, now)
        });
        Self { all: all.collect(), next: 0 }
    }

    pub fn next(&mut self) -> &Record {
        self.next = (self.next + 1) % self.all.len();
        &self.all[self.next]
    }

    /// `count` records that follow each other; their bytes are shared.
    pub fn batch(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.next().clone()).collect()
    }
}

/// A record of a value and a timestamp in milliseconds.
pub fn record(value: impl Into<Bytes>, timestamp: i64) -> Record {
    Record { value: Some(value.into()), timestamp, ..Record::default() }
}

/// An instant as records have it.
pub fn milliseconds(time: HybridTime) -> i64 {
    i64::try_from(time.as_micros() / 1000).unwrap_or(i64::MAX)
}

fn noise(random: &mut SmallRng, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    random.fill_bytes(&mut value);
    value
}

fn text(random: &mut SmallRng, bytes: usize) -> Vec<u8> {
    const VERBS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];
    const PATHS: [&str; 6] = ["orders", "customers", "invoices", "parcels", "stock", "sessions"];
    let mut value = String::with_capacity(bytes + 160);
    while value.len() < bytes {
        let (verb, path) = (VERBS[random.random_range(0..5)], PATHS[random.random_range(0..6)]);
        let (id, micros, user) =
            (random.random_range(0..10_000_000), random.random_range(90..90_000), random.random::<u32>());
        value.push_str(&format!(
            "{{\"level\":\"info\",\"method\":\"{verb}\",\"path\":\"/v1/{path}/{id}\",\"status\":200,\
             \"micros\":{micros},\"user\":\"{user:08x}\"}}\n"
        ));
    }
    value.truncate(bytes);
    value.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_asked_for_and_differ() {
        for content in [Content::Text, Content::Random, Content::Mixed] {
            let mut records = Records::new(content, 1024, 1);
            let (first, second) = (records.next().clone(), records.next().clone());
            assert_eq!(first.value.as_ref().unwrap().len(), 1024);
            assert_ne!(first, second);
        }
    }
}
