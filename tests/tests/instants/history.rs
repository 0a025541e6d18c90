//! Random operations, done to a node and to the model at once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use duramen::api::{AppendPayload, AppendRequest, Code, StreamConfigPatch, StreamRef};
use duramen::{NO_TIMESTAMP, Node};
use duramen_types::batch::Record;
use duramen_types::{CursorName, HybridTime, Offset, StreamConfig, StreamName, TenantName};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::model::{Past, Stream};

const NAMES: [&str; 6] = ["orders", "payments", "ci", "us", "a.b_c-d", "events"];
const CURSORS: [&str; 3] = ["billing", "späte Leser", "audit"];

pub fn stream_ref(name: &str) -> StreamRef {
    StreamRef {
        tenant: TenantName::parse("default").expect("a valid name"),
        name: StreamName::parse(name).expect("a valid name"),
    }
}

/// Plays operations on a node and remembers what the log was after each of them.
#[derive(Debug)]
pub struct Player {
    node: Node,
    streams: BTreeMap<String, Stream>,
    past: Past,
    written: u64,
}

impl Player {
    pub fn new(node: Node) -> Self {
        Self { node, streams: BTreeMap::new(), past: Past::default(), written: 0 }
    }

    pub fn into_past(self) -> Past {
        self.past
    }

    /// One random operation, acknowledged.
    pub async fn play(&mut self, random: &mut StdRng) -> Result<()> {
        let existing = self.streams.keys().choose(random).cloned();
        match (random.random_range(0..100), existing) {
            (0..10, _) | (_, None) => self.create(random).await?,
            (10..65, Some(name)) => self.append(&name, random).await?,
            (65..75, Some(name)) => self.trim(&name, random).await?,
            (75..88, Some(name)) => self.commit_cursor(&name, random).await?,
            (88..93, Some(name)) => self.configure(&name, random).await?,
            (93..96, Some(name)) => self.conflict(&name).await?,
            (_, Some(name)) => {
                self.node.delete_stream(&stream_ref(&name)).await?;
                self.streams.remove(&name);
            }
        }
        let log = self.streams.iter().map(|(name, stream)| (name.clone(), stream.seen())).collect();
        self.past.push(self.node.latest_time(), log);
        Ok(())
    }

    async fn create(&mut self, random: &mut StdRng) -> Result<()> {
        let name = NAMES.choose(random).expect("there are names");
        let created = self.node.create_stream(&stream_ref(name), StreamConfig::default()).await;
        if self.streams.contains_key(*name) {
            ensure!(created.is_err_and(|error| error.code == Code::StreamExists), "{name} was created twice");
        } else {
            created?;
            self.streams.insert((*name).to_owned(), Stream::default());
        }
        Ok(())
    }

    fn request(&mut self, name: &str, records: usize) -> (AppendRequest, Vec<String>) {
        let values: Vec<String> = (0..records)
            .map(|_| {
                self.written += 1;
                // Some text that compresses and some length, so that segments have several blocks.
                format!("{name} {} {}", self.written, "x".repeat((self.written % 700) as usize))
            })
            .collect();
        let record = |value: &String| Record {
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
            timestamp: NO_TIMESTAMP,
        };
        let request = AppendRequest {
            stream: stream_ref(name),
            payload: AppendPayload::Records(values.iter().map(record).collect()),
            acknowledgement: None,
            match_offset: None,
            fencing_token: None,
            producer: None,
            seen: HybridTime::ZERO,
        };
        (request, values)
    }

    async fn append(&mut self, name: &str, random: &mut StdRng) -> Result<()> {
        let (request, values) = self.request(name, random.random_range(1..40));
        let appended = self.node.append(request, true).await?.acknowledged().await?;
        let stream = self.streams.get_mut(name).expect("the stream exists in the model");
        ensure!(appended.first.get() == stream.values.len() as u64, "{name}: offsets are not dense");
        stream.values.extend(values);
        Ok(())
    }

    /// A conditional append that must fail: it is in the log, and in no stream.
    async fn conflict(&mut self, name: &str) -> Result<()> {
        let (mut request, _) = self.request(name, 3);
        request.match_offset = Some(Offset::new(1 << 40));
        let failed = self.node.append(request, true).await?.acknowledged().await;
        ensure!(
            failed.is_err_and(|error| error.code == Code::OffsetMismatch),
            "{name}: the condition was ignored"
        );
        Ok(())
    }

    async fn trim(&mut self, name: &str, random: &mut StdRng) -> Result<()> {
        let stream = self.streams.get_mut(name).expect("the stream exists in the model");
        let to = random.random_range(0..=stream.values.len() as u64);
        let (first, _) = self.node.trim_stream(&stream_ref(name), Offset::new(to)).await?;
        stream.first = stream.first.max(to);
        ensure!(first.get() == stream.first, "{name}: trimmed to {first}, not to {}", stream.first);
        Ok(())
    }

    async fn commit_cursor(&mut self, name: &str, random: &mut StdRng) -> Result<()> {
        let cursor = CURSORS.choose(random).expect("there are cursors");
        let stream = self.streams.get_mut(name).expect("the stream exists in the model");
        let parsed = CursorName::parse(cursor)?;
        if stream.cursors.contains_key(*cursor) && random.random_bool(0.2) {
            self.node.delete_cursor(&stream_ref(name), &parsed).await?;
            stream.cursors.remove(*cursor);
            return Ok(());
        }
        let offset = random.random_range(0..=stream.values.len() as u64);
        self.node.commit_cursor(&stream_ref(name), &parsed, Offset::new(offset)).await?;
        stream.cursors.insert((*cursor).to_owned(), offset);
        Ok(())
    }

    async fn configure(&mut self, name: &str, random: &mut StdRng) -> Result<()> {
        let bytes = random.random_bool(0.7).then(|| random.random_range(1 << 30..1 << 40));
        let patch = StreamConfigPatch { retention_bytes: Some(bytes), ..StreamConfigPatch::default() };
        self.node.configure_stream(&stream_ref(name), patch).await?;
        self.streams.get_mut(name).expect("the stream exists in the model").retention_bytes = bytes;
        Ok(())
    }
}
