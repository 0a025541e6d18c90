//! Random operations, done to a node and to the model at once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use duramen::api::{AppendPayload, AppendRequest, Appended, Code, Error, StreamConfigPatch, StreamRef};
use duramen::{NO_TIMESTAMP, Node};
use duramen_types::batch::Record;
use duramen_types::{Acknowledgement, CursorName, HybridTime, Offset, StreamConfig, StreamName, TenantName};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use crate::{Log, Past, Seen, Stream, observe};

const CURSORS: [&str; 3] = ["billing", "späte Leser", "audit"];

pub fn stream_ref(name: &str) -> StreamRef {
    StreamRef {
        tenant: TenantName::parse("default").expect("a valid name"),
        name: StreamName::parse(name).expect("a valid name"),
    }
}

/// Plays operations on streams that are its own, one after the other, and knows what the node must hold.
///
/// An operation without an answer may have had its effect or not. Until [`Player::check`] has seen which, its stream is left
/// alone.
#[derive(Debug, Clone)]
pub struct Player {
    streams: BTreeMap<String, Tracked>,
    acknowledgements: Vec<Option<Acknowledgement>>,
    written: u64,
    played: u64,
    history: DefaultHasher,
}

#[derive(Debug, Clone, Default)]
struct Tracked {
    now: Option<Stream>,
    pending: Option<Pending>,
    past: Past,
}

/// A change that was asked for, and the highest time before.
#[derive(Debug, Clone)]
struct Pending {
    to: Option<Stream>,
    after: HybridTime,
    /// What was answered instead of an outcome.
    answer: Option<Error>,
}

impl Player {
    /// One that plays with streams of these names, and lets appends wait for one of `acknowledgements`.
    pub fn new(names: &[&str], acknowledgements: &[Option<Acknowledgement>]) -> Self {
        let streams = names.iter().map(|name| ((*name).to_owned(), Tracked::default())).collect();
        let (acknowledgements, history) = (acknowledgements.to_vec(), DefaultHasher::new());
        Self { streams, acknowledgements, written: 0, played: 0, history }
    }

    /// How many operations were acknowledged.
    pub const fn played(&self) -> u64 {
        self.played
    }

    /// A hash of every operation, of when it was asked for, and of its answer.
    pub fn history(&self) -> u64 {
        self.history.finish()
    }

    /// The streams that there are, as far as it is certain.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &Stream)> {
        let certain = self.streams.iter().filter(|(_, stream)| stream.pending.is_none());
        certain.filter_map(|(name, stream)| stream.now.as_ref().map(|stream| (name.as_str(), stream)))
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        self.streams.keys().cloned()
    }

    /// What the node said of an operation whose outcome isn't known yet.
    pub fn uncertain(&self) -> Option<&Error> {
        self.streams.values().find_map(|stream| stream.pending.as_ref()?.answer.as_ref())
    }

    /// One random operation; whether it was acknowledged. An error is an answer that no log may give.
    pub async fn play(&mut self, node: &Node, random: &mut StdRng) -> Result<bool> {
        let certain = self.streams.iter().filter(|(_, stream)| stream.pending.is_none());
        let Some((name, stream)) = certain.choose(random) else { return Ok(false) };
        let (name, stream) = (name.clone(), stream.now.clone());
        (&name, node.latest_time()).hash(&mut self.history);
        let played = match stream {
            Some(stream) => self.play_on(node, &name, stream, random).await,
            None => self.create(node, &name).await,
        };
        (played.as_ref().ok(), node.latest_time()).hash(&mut self.history);
        self.played += u64::from(matches!(played, Ok(true)));
        played.with_context(|| format!("stream {name}"))
    }

    async fn play_on(
        &mut self,
        node: &Node,
        name: &str,
        stream: Stream,
        random: &mut StdRng,
    ) -> Result<bool> {
        match random.random_range(0..100) {
            0..60 => self.append(node, name, stream, random).await,
            60..72 => self.trim(node, name, stream, random).await,
            72..86 => self.commit_cursor(node, name, stream, random).await,
            86..91 => self.configure(node, name, stream, random).await,
            91..95 => self.conflict(node, name).await,
            _ => {
                let reference = stream_ref(name);
                let delete = node.delete_stream(&reference);
                self.change(node, name, None, delete).await.map(|done| done.is_some())
            }
        }
    }

    /// Asks for a change of a stream to `to`; `None` where it had no effect, or may have had none.
    async fn change<T>(
        &mut self,
        node: &Node,
        name: &str,
        to: Option<Stream>,
        operation: impl Future<Output = duramen::api::Result<T>>,
    ) -> Result<Option<T>> {
        let stream = self.streams.get_mut(name).expect("the stream is this player's");
        stream.pending = Some(Pending { to, after: node.latest_time(), answer: None });
        match operation.await {
            Ok(answer) => {
                stream.settle(node.latest_time(), true);
                Ok(Some(answer))
            }
            Err(error) if error.code.may_have_had_effect() => {
                stream.pending =
                    stream.pending.take().map(|pending| Pending { answer: Some(error), ..pending });
                Ok(None)
            }
            Err(error) => {
                stream.pending = None;
                if error.code.is_retryable() { Ok(None) } else { Err(error.into()) }
            }
        }
    }

    async fn create(&mut self, node: &Node, name: &str) -> Result<bool> {
        let reference = stream_ref(name);
        let create = node.create_stream(&reference, StreamConfig::default());
        Ok(self.change(node, name, Some(Stream::default()), create).await?.is_some())
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

    async fn append(
        &mut self,
        node: &Node,
        name: &str,
        mut stream: Stream,
        random: &mut StdRng,
    ) -> Result<bool> {
        let (mut request, values) = self.request(name, random.random_range(1..40));
        request.acknowledgement = self.acknowledgements.choose(random).copied().flatten();
        let expected = stream.values.len() as u64;
        stream.values.extend(values);
        let append = async { acknowledged(node, request).await };
        let Some(appended) = self.change(node, name, Some(stream), append).await? else { return Ok(false) };
        ensure!(appended.first.get() == expected, "an append at {expected} was answered {}", appended.first);
        Ok(true)
    }

    /// What must be refused: a second creation, and a conditional append, which is in the log and in no stream.
    async fn conflict(&mut self, node: &Node, name: &str) -> Result<bool> {
        match node.create_stream(&stream_ref(name), StreamConfig::default()).await {
            Err(error) if error.code == Code::StreamExists => {}
            Err(error) if error.code.is_retryable() => return Ok(false),
            answer => anyhow::bail!("a second creation was answered {answer:?}"),
        }
        let (mut request, _) = self.request(name, 3);
        request.match_offset = Some(Offset::new(1 << 40));
        match acknowledged(node, request).await {
            Err(error) if error.code == Code::OffsetMismatch => Ok(true),
            Err(error) if error.code.is_retryable() => Ok(false),
            answer => anyhow::bail!("a condition that does not hold was answered {answer:?}"),
        }
    }

    async fn trim(
        &mut self,
        node: &Node,
        name: &str,
        mut stream: Stream,
        random: &mut StdRng,
    ) -> Result<bool> {
        let to = random.random_range(0..=stream.values.len() as u64);
        stream.first = stream.first.max(to);
        let expected = stream.first;
        let reference = stream_ref(name);
        let trim = node.trim_stream(&reference, Offset::new(to));
        let Some((first, _)) = self.change(node, name, Some(stream), trim).await? else { return Ok(false) };
        ensure!(first.get() == expected, "trimmed to {first}, not to {expected}");
        Ok(true)
    }

    async fn commit_cursor(
        &mut self,
        node: &Node,
        name: &str,
        mut stream: Stream,
        random: &mut StdRng,
    ) -> Result<bool> {
        let cursor = CURSORS.choose(random).expect("there are cursors");
        let (parsed, reference) = (CursorName::parse(cursor)?, stream_ref(name));
        if stream.cursors.contains_key(*cursor) && random.random_bool(0.2) {
            stream.cursors.remove(*cursor);
            let delete = node.delete_cursor(&reference, &parsed);
            return Ok(self.change(node, name, Some(stream), delete).await?.is_some());
        }
        let offset = random.random_range(0..=stream.values.len() as u64);
        stream.cursors.insert((*cursor).to_owned(), offset);
        let commit = node.commit_cursor(&reference, &parsed, Offset::new(offset));
        Ok(self.change(node, name, Some(stream), commit).await?.is_some())
    }

    async fn configure(
        &mut self,
        node: &Node,
        name: &str,
        mut stream: Stream,
        random: &mut StdRng,
    ) -> Result<bool> {
        let bytes = random.random_bool(0.7).then(|| random.random_range(1 << 30..1 << 40));
        stream.retention_bytes = bytes;
        let patch = StreamConfigPatch { retention_bytes: Some(bytes), ..StreamConfigPatch::default() };
        let reference = stream_ref(name);
        let configure = node.configure_stream(&reference, patch);
        Ok(self.change(node, name, Some(stream), configure).await?.is_some())
    }

    /// Compares all that the node shows with the model, and learns what became of operations that had no answer: nobody may
    /// still be working on them, as after a restart.
    pub async fn check(&mut self, node: &Node) -> Result<()> {
        let found = observe::now(node).await?;
        self.learn(&found, node.latest_time())
    }

    /// Like [`Player::check`], with what was observed, at the latest at `by`.
    pub fn learn(&mut self, found: &Log, by: HybridTime) -> Result<()> {
        for (name, stream) in &mut self.streams {
            let seen = found.get(name);
            let expected = stream.now.as_ref().map(Stream::seen);
            let possible = stream.pending.as_ref().map(|pending| pending.to.as_ref().map(Stream::seen));
            if possible.as_ref().is_some_and(|possible| possible.as_ref() == seen) {
                stream.settle(by, true);
            } else if expected.as_ref() == seen {
                stream.settle(by, false);
            } else {
                let (seen, expected) = (short(seen), short(expected.as_ref()));
                let possible = possible.map(|possible| short(possible.as_ref()));
                anyhow::bail!("stream {name} is {seen}, it should be {expected} (or {possible:?})");
            }
        }
        Ok(())
    }

    /// Compares what the node shows of the instant `time` with the model.
    pub async fn check_as_of(&self, node: &Node, time: HybridTime) -> Result<()> {
        let found = observe::as_of(node, time, self.names()).await?;
        for (name, stream) in &self.streams {
            let possible = stream.past.at(time);
            let values = found.get(name);
            let fits = possible.iter().any(|seen| seen.as_ref().map(|seen| &seen.values) == values);
            ensure!(
                fits || stream.may_be_changing(time),
                "stream {name} as of {time} has {:?} records, it should be one of {:?}",
                values.map(Vec::len),
                possible.iter().map(|seen| short(seen.as_ref())).collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// Compares a log that was restored to `time` with the model.
    pub fn check_restored(&self, log: &Log, time: HybridTime) -> Result<()> {
        for (name, stream) in &self.streams {
            let possible = stream.past.at(time);
            let seen = log.get(name);
            ensure!(
                possible.iter().any(|possible| possible.as_ref() == seen) || stream.may_be_changing(time),
                "stream {name} restored to {time} is {}, it should be one of {:?}",
                short(seen),
                possible.iter().map(|seen| short(seen.as_ref())).collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// Some instant at which something was done.
    pub fn some_instant(&self, random: &mut StdRng) -> Option<HybridTime> {
        self.streams.values().flat_map(|stream| stream.past.instants()).choose(random)
    }
}

impl Tracked {
    /// Whether the change without an answer may have been made by `time`.
    fn may_be_changing(&self, time: HybridTime) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.after < time)
    }

    /// The pending change, if any, was made by `by`, or never.
    fn settle(&mut self, by: HybridTime, made: bool) {
        if let Some(Pending { to, after, .. }) = self.pending.take()
            && made
        {
            self.now = to;
            self.past.push(after, by, self.now.as_ref());
        }
    }
}

async fn acknowledged(node: &Node, request: AppendRequest) -> Result<Appended, Error> {
    node.append(request, true).await?.acknowledged().await
}

/// A stream for a message: what can be counted.
fn short(seen: Option<&Seen>) -> String {
    match seen {
        None => "absent".to_owned(),
        Some(seen) => {
            let last = seen.values.last().map(|value| value.chars().take(20).collect::<String>());
            let Seen { first, next, retention_bytes, cursors, .. } = seen;
            format!("{first}..{next} ending {last:?}, retention {retention_bytes:?}, cursors {cursors:?}")
        }
    }
}
