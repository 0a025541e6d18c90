//! A random, valid log of one shard, for the tests of segments and of what reads them.

use duramen_state::{BatchOutcome, ShardState};
use duramen_types::batch::{Batch, BatchBuilder, Limits, Options};
use duramen_types::{
    AppendItem, BatchHeader, Compression, ControlOp, CursorName, Entry, EntryBody, EntryHead, EntryId,
    FencingToken, HybridTime, Index, ManifestNumber, Offset, Producer, ProducerId, RescueOrigin,
    RescuePolicy, ShardId, StreamConfig, StreamId, StreamName, TenantName, Term,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// An entry of a log and what applying it gave.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub id: EntryId,
    pub time: HybridTime,
    pub entry: Entry,
    pub outcomes: Vec<BatchOutcome>,
}

/// Makes entries and applies them.
#[derive(Debug)]
pub(crate) struct RandomLog {
    rng: SmallRng,
    pub state: ShardState,
    term: u64,
    time: u64,
    sent: Vec<BatchHeader>,
    batches: Vec<bytes::Bytes>,
}

impl RandomLog {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            state: ShardState::new(ShardId::new(3)),
            term: 1,
            time: 1_000_000,
            sent: Vec::new(),
            batches: Vec::new(),
        }
    }

    /// Goes on from `state`, as a branch does, with other entries.
    pub(crate) fn branch(seed: u64, state: ShardState) -> Self {
        let term = state.applied().map_or(1, |id| id.term.get() + 1);
        Self { time: state.time().as_micros(), state, term, ..Self::new(seed) }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Logged> {
        (0..count).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Logged {
        if self.rng.random_ratio(1, 20) {
            self.term += 1;
        }
        self.time += self.rng.random_range(1..1000);
        let id = EntryId { index: self.state.end(), term: Term::new(self.term) };
        let entry = match self.rng.random_range(0..100) {
            _ if self.state.streams().len() < 2 => self.control_create(),
            0..55 => self.append(),
            55..60 => self.repeat(),
            60..65 => self.rescue(),
            65..80 => self.control(),
            80..85 => self.control_create(),
            85..90 => Entry::new(self.head(EntryBody::Tick)),
            90..93 => Entry::new(EntryHead { time: HybridTime::ZERO, body: EntryBody::Blank }),
            93..96 => {
                let body = EntryBody::Membership(bytes::Bytes::from_static(b"voters"));
                Entry::new(EntryHead { time: HybridTime::ZERO, body })
            }
            _ => {
                let body = EntryBody::Archived { manifest: ManifestNumber::new(7), end: Index::new(1) };
                Entry::new(EntryHead { time: HybridTime::ZERO, body })
            }
        };
        let applied = self.state.apply(id, entry.head(), &entry.head_bytes()).expect("the entry is the next");
        Logged { id, time: applied.time, entry, outcomes: applied.batches }
    }

    fn head(&self, body: EntryBody) -> EntryHead {
        EntryHead { time: HybridTime::from_micros(self.time), body }
    }

    fn stream(&mut self) -> StreamId {
        if self.rng.random_ratio(1, 25) {
            return StreamId::new(999_999);
        }
        let ids: Vec<StreamId> = self.state.streams().map(|(id, _)| id).collect();
        ids[self.rng.random_range(0..ids.len())]
    }

    fn batch(&mut self) -> Batch {
        let mut builder = BatchBuilder::new(Limits::default());
        let incompressible = self.rng.random_ratio(1, 4);
        for _ in 0..self.rng.random_range(1..6) {
            let len = self.rng.random_range(0..400);
            let value: Vec<u8> =
                (0..len).map(|_| if incompressible { self.rng.random() } else { b'x' }).collect();
            let timestamp = (self.time / 1000) as i64 + self.rng.random_range(-3..4);
            builder.push(timestamp, Some(b"key"), Some(&value), []).unwrap();
        }
        builder.finish(Options::default()).unwrap()
    }

    fn item(&mut self, stream: StreamId) -> AppendItem {
        let batch = self.batch();
        let next = self.state.stream(stream).map_or(0, |stream| stream.next.get());
        let producer = self.rng.random_ratio(1, 3).then(|| Producer {
            id: ProducerId::new(self.rng.random_range(0..3)),
            epoch: 0,
            sequence: self.rng.random_range(0..4) / 3,
        });
        let match_offset =
            self.rng.random_ratio(1, 6).then(|| Offset::new(next + self.rng.random_range(0..2)));
        let fencing_token = self.state.stream(stream).and_then(|stream| stream.fencing_token.clone());
        let header = BatchHeader {
            stream,
            records: batch.count(),
            bytes: batch.bytes().len() as u32,
            base_timestamp: batch.base_timestamp(),
            max_timestamp: batch.max_timestamp(),
            hash: batch.hash(),
            producer,
            match_offset,
            fencing_token: fencing_token.filter(|_| self.rng.random_ratio(3, 4)),
        };
        self.sent.push(header.clone());
        self.batches.push(batch.bytes().clone());
        AppendItem { header, batch: batch.into_bytes() }
    }

    fn append(&mut self) -> Entry {
        let items = (0..self.rng.random_range(1..5))
            .map(|_| {
                let stream = self.stream();
                self.item(stream)
            })
            .collect();
        Entry::append(HybridTime::from_micros(self.time), items)
    }

    /// Sends something again: a duplicate if it has a producer.
    fn repeat(&mut self) -> Entry {
        if self.sent.is_empty() {
            return self.append();
        }
        let at = self.rng.random_range(0..self.sent.len());
        let item = AppendItem { header: self.sent[at].clone(), batch: self.batches[at].clone() };
        Entry::append(HybridTime::from_micros(self.time), vec![item])
    }

    fn rescue(&mut self) -> Entry {
        let stream = self.stream();
        let items: Vec<AppendItem> = (0..self.rng.random_range(1..3)).map(|_| self.item(stream)).collect();
        let origin = RescueOrigin {
            term: Term::new(self.rng.random_range(self.term.saturating_sub(3)..=self.term)),
            index: Index::new(self.rng.random_range(self.state.end().get() / 2..=self.state.end().get() + 3)),
        };
        let (batches, data): (Vec<_>, Vec<_>) =
            items.into_iter().map(|item| (item.header, item.batch)).unzip();
        Entry::with_batches(self.head(EntryBody::Rescue { origin, batches }), &data)
    }

    fn control_create(&mut self) -> Entry {
        let name = format!("stream-{}", self.rng.random_range(0..8));
        let compression = self.rng.random_ratio(1, 3).then_some(Compression::None);
        let rescue = self.rng.random_ratio(1, 3).then_some(RescuePolicy::Append);
        let op = ControlOp::CreateStream {
            tenant: TenantName::parse("default").unwrap(),
            name: StreamName::parse(&name).unwrap(),
            config: StreamConfig { compression, rescue, ..StreamConfig::default() },
        };
        Entry::new(self.head(EntryBody::Control(op)))
    }

    fn control(&mut self) -> Entry {
        let stream = self.stream();
        let next = self.state.stream(stream).map_or(0, |stream| stream.next.get());
        let token = |present: bool| present.then(|| FencingToken::parse("token").unwrap());
        let current = self.state.stream(stream).and_then(|stream| stream.fencing_token.clone());
        let op = match self.rng.random_range(0..10) {
            0..4 => ControlOp::CommitCursor {
                stream,
                cursor: CursorName::parse("cursor").unwrap(),
                offset: Offset::new(self.rng.random_range(0..=next)),
            },
            4..6 => ControlOp::TrimStream { stream, to: Offset::new(self.rng.random_range(0..=next)) },
            6..8 => ControlOp::SetFencingToken { stream, token: token(current.is_none()), expected: current },
            _ => ControlOp::DeleteStream { stream },
        };
        Entry::new(self.head(EntryBody::Control(op)))
    }
}
