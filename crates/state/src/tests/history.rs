//! Random histories: steps whose references ("the stream's third batch again") are resolved against the model while
//! it runs, so that most of them meet the rule that they are about.

use duramen_types::{
    Acknowledgement, BatchHeader, Compression, ControlOp, CursorName, EntryBody, FencingToken, HybridTime,
    Index, ManifestNumber, Offset, Producer, ProducerId, RescueOrigin, RescuePolicy, RestorePointName,
    RetentionPolicy, StreamConfig, StreamId, Term, TimestampPolicy,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::Model;
use super::{header, stream_name, tenant};

const DAY: u64 = 24 * 3600 * 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Microseconds since the last timed entry.
    pub gap: u64,
    /// How far the term rises.
    pub terms: u64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Create { tenant: usize, name: usize, config: u8 },
    Configure { stream: usize, stale: bool, config: u8 },
    Trim { stream: usize, to: Spot },
    Delete { stream: usize },
    Commit { stream: usize, cursor: u8, to: Spot },
    DropCursor { stream: usize, cursor: u8 },
    SetToken { stream: usize, expected: Token, token: Option<u8> },
    Append(Vec<Batch>),
    Rescue { stream: usize, origin: Origin, records: Vec<u32> },
    Untimed(u8),
    Tick,
    Meta(u8, u8),
}

/// An offset of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spot {
    /// So many thousandths of the way from 0 to the tail.
    Inside(u64),
    Tail,
    Beyond(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Token {
    Right,
    Missing,
    Other(u8),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// An entry of this log, counted from its end.
    InLog(usize),
    /// So many terms back, and so many entries before two behind the log's end.
    Displaced { terms: u64, back: usize },
}

#[derive(Debug, Clone)]
pub(super) struct Batch {
    stream: usize,
    records: u32,
    token: Token,
    condition: Option<Spot>,
    producer: Option<(u64, Sequence)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Sequence {
    Next,
    /// The n-th last accepted batch again, however long ago.
    Again(usize),
    /// The same with a record more.
    AgainButLonger(usize),
    Ahead(u32),
    NewEpoch {
        begins_with: u32,
    },
    OldEpoch,
    First,
    /// Not a sequence number at all.
    OutOfRange,
}

pub(super) fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..len)
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![
        12 => 1_u64..1000,
        1 => select(vec![3 * DAY, 7 * DAY - 1, 7 * DAY, 7 * DAY + 1, 40 * DAY]),
    ];
    let terms = prop_oneof![8 => Just(0_u64), 1 => 1_u64..4];
    (gap, terms, what()).prop_map(|(gap, terms, what)| Step { gap, terms, what })
}

fn what() -> impl Strategy<Value = What> {
    let stream = || 0_usize..4;
    prop_oneof![
        4 => (0_usize..2, 0..NAMES.len(), 0_u8..4).prop_map(|(tenant, name, config)| What::Create { tenant, name, config }),
        1 => (stream(), any::<bool>(), 0_u8..4).prop_map(|(stream, stale, config)| What::Configure { stream, stale, config }),
        2 => (stream(), spot()).prop_map(|(stream, to)| What::Trim { stream, to }),
        1 => stream().prop_map(|stream| What::Delete { stream }),
        2 => (stream(), 0_u8..3, spot()).prop_map(|(stream, cursor, to)| What::Commit { stream, cursor, to }),
        1 => (stream(), 0_u8..3).prop_map(|(stream, cursor)| What::DropCursor { stream, cursor }),
        2 => (stream(), token(), proptest::option::weighted(0.4, 0_u8..2))
            .prop_map(|(stream, expected, token)| What::SetToken { stream, expected, token }),
        12 => vec(batch(), 1..6).prop_map(What::Append),
        4 => (stream(), origin(), vec(1_u32..5, 1..3))
            .prop_map(|(stream, origin, records)| What::Rescue { stream, origin, records }),
        2 => (0_u8..3).prop_map(What::Untimed),
        1 => Just(What::Tick),
        2 => (0_u8..4, 0_u8..3).prop_map(|(op, name)| What::Meta(op, name)),
    ]
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        4 => (0_u64..=1000).prop_map(Spot::Inside),
        1 => Just(Spot::Tail),
        1 => (1_u64..4).prop_map(Spot::Beyond),
    ]
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![6 => Just(Token::Right), 1 => Just(Token::Missing), 1 => (0_u8..2).prop_map(Token::Other)]
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        1 => (0_usize..6).prop_map(Origin::InLog),
        3 => (0_u64..3, 0_usize..8).prop_map(|(terms, back)| Origin::Displaced { terms, back }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let records = prop_oneof![
        10 => 1_u32..5,
        1 => select(vec![1 << 30, (1 << 31) - 3, (1 << 31) - 1, 1 << 31, u32::MAX]),
    ];
    let sequence = prop_oneof![
        12 => Just(Sequence::Next),
        5 => (0_usize..8).prop_map(Sequence::Again),
        1 => (0_usize..3).prop_map(Sequence::AgainButLonger),
        1 => (1_u32..4).prop_map(Sequence::Ahead),
        2 => prop_oneof![4 => Just(0_u32), 1 => 1_u32..3].prop_map(|begins_with| Sequence::NewEpoch { begins_with }),
        1 => Just(Sequence::OldEpoch),
        1 => Just(Sequence::First),
        1 => Just(Sequence::OutOfRange),
    ];
    let producer = proptest::option::weighted(0.7, (0_u64..2, sequence));
    (0_usize..4, records, token(), proptest::option::weighted(0.2, spot()), producer).prop_map(
        |(stream, records, token, condition, producer)| Batch { stream, records, token, condition, producer },
    )
}

fn config(number: u8) -> StreamConfig {
    match number {
        0 => StreamConfig::default(),
        1 => StreamConfig {
            acknowledgement: Some(Acknowledgement::Quorum),
            compression: Some(Compression::None),
            rescue: Some(RescuePolicy::Separate),
            ..StreamConfig::default()
        },
        2 => StreamConfig {
            retention: RetentionPolicy { age_seconds: Some(60), bytes: Some(1 << 40) },
            timestamps: Some(TimestampPolicy::Arrival),
            ..StreamConfig::default()
        },
        _ => StreamConfig { rescue: Some(RescuePolicy::Append), ..StreamConfig::default() },
    }
}

fn fencing_token(number: u8) -> FencingToken {
    FencingToken::parse(&format!("writer {number}")).unwrap()
}

pub(super) const TENANTS: [&str; 2] = ["default", "other"];
pub(super) const NAMES: [&str; 6] = ["a", "a.b", "ab", "b", "A-", "a~rescued"];

impl Model {
    /// The n-th newest stream ever created (dead or alive), or one that never was.
    fn pick(&self, n: usize) -> StreamId {
        self.streams.iter().rev().nth(n).map_or(StreamId::new(999_999), |stream| stream.id)
    }

    fn spot(&self, stream: StreamId, spot: Spot) -> Offset {
        let tail = self.stream(stream).map_or(0, |stream| stream.tail());
        Offset::new(match spot {
            Spot::Inside(thousandths) => {
                u64::try_from(u128::from(tail) * u128::from(thousandths) / 1000).unwrap()
            }
            Spot::Tail => tail,
            Spot::Beyond(by) => tail + by,
        })
    }

    fn token(&self, stream: StreamId, token: Token) -> Option<FencingToken> {
        match token {
            Token::Right => self.stream(stream).and_then(|stream| stream.token.clone()),
            Token::Missing => None,
            Token::Other(number) => Some(fencing_token(number)),
        }
    }

    pub fn resolve_batch(&self, now: u64, batch: &Batch) -> BatchHeader {
        let stream = self.pick(batch.stream);
        let mut found = BatchHeader {
            fencing_token: self.token(stream, batch.token),
            match_offset: batch.condition.map(|spot| self.spot(stream, spot)),
            ..header(stream, batch.records)
        };
        if let Some((id, sequence)) = batch.producer {
            let id = ProducerId::new(id);
            let (producer, records) = self.resolve_sequence(now, stream, id, sequence, batch.records);
            found.producer = Some(producer);
            found.records = records;
        }
        found
    }

    fn resolve_sequence(
        &self,
        now: u64,
        stream: StreamId,
        id: ProducerId,
        sequence: Sequence,
        records: u32,
    ) -> (Producer, u32) {
        let producer = |epoch, sequence| Producer { id, epoch, sequence };
        let fresh = (producer(0, 0), records);
        let Some(stream) = self.stream(stream) else { return fresh };
        let sent: Vec<_> = stream.accepted.iter().filter(|batch| batch.origin.is_none()).collect();
        let own = |n: usize| {
            let mut own = sent.iter().rev().filter(|batch| batch.header.producer.is_some_and(|p| p.id == id));
            own.nth(n).map(|batch| (batch.header.producer.unwrap(), batch.header.records))
        };
        let Some((last, last_records)) = own(0) else {
            return match sequence {
                Sequence::Ahead(by) => (producer(0, by), records),
                _ => fresh,
            };
        };
        let next = last.sequence.wrapping_add(last_records) & 0x7fff_ffff;
        match sequence {
            // A producer that was silent for long enough is told to begin anew; half of the time it knows.
            Sequence::Next if stream.known(id, now).is_none() && now.is_multiple_of(2) => {
                (producer(last.epoch, 0), records)
            }
            Sequence::Next => (producer(last.epoch, next), records),
            Sequence::Again(n) => own(n).unwrap_or(fresh),
            Sequence::AgainButLonger(n) => {
                own(n).map_or(fresh, |(producer, records)| (producer, records.saturating_add(1)))
            }
            Sequence::Ahead(by) => (producer(last.epoch, next.wrapping_add(by)), records),
            Sequence::NewEpoch { begins_with } => {
                (producer(last.epoch.saturating_add(1), begins_with), records)
            }
            Sequence::OldEpoch => (producer(last.epoch.saturating_sub(1), next), records),
            Sequence::First => (producer(last.epoch, 0), records),
            Sequence::OutOfRange => (producer(last.epoch, next | 1 << 31), records),
        }
    }

    /// The body of any step but an append, whose batches are resolved one after the other.
    pub fn resolve(&self, term: Term, what: &What) -> EntryBody {
        EntryBody::Control(match what {
            What::Create { tenant: owner, name, config: number } => ControlOp::CreateStream {
                tenant: tenant(TENANTS[*owner]),
                name: stream_name(NAMES[*name]),
                config: config(*number),
            },
            What::Configure { stream, stale, config: number } => {
                let stream = self.pick(*stream);
                let current = self.stream(stream).map(|stream| stream.config.clone()).unwrap_or_default();
                let expected = if *stale { config(*number) } else { current };
                ControlOp::ConfigureStream { stream, expected, config: config(*number) }
            }
            What::Trim { stream, to } => {
                let stream = self.pick(*stream);
                ControlOp::TrimStream { stream, to: self.spot(stream, *to) }
            }
            What::Delete { stream } => ControlOp::DeleteStream { stream: self.pick(*stream) },
            What::Commit { stream, cursor, to } => {
                let stream = self.pick(*stream);
                ControlOp::CommitCursor {
                    stream,
                    cursor: cursor_name(*cursor),
                    offset: self.spot(stream, *to),
                }
            }
            What::DropCursor { stream, cursor } => {
                ControlOp::DeleteCursor { stream: self.pick(*stream), cursor: cursor_name(*cursor) }
            }
            What::SetToken { stream, expected, token } => {
                let stream = self.pick(*stream);
                let expected = self.token(stream, *expected);
                ControlOp::SetFencingToken { stream, expected, token: token.map(fencing_token) }
            }
            What::Meta(op, name) => {
                let point = RestorePointName::parse(&format!("point-{name}")).unwrap();
                match op {
                    0 => ControlOp::AllocateProducer,
                    1 => ControlOp::CreateTenant { tenant: tenant(&format!("tenant-{name}")) },
                    2 => {
                        let time = HybridTime::from_micros(self.time / 2);
                        ControlOp::CreateRestorePoint { name: point, time }
                    }
                    _ => ControlOp::DeleteRestorePoint { name: point },
                }
            }
            What::Rescue { stream, origin, records } => {
                let stream = self.pick(*stream);
                let batches = records.iter().map(|records| header(stream, *records)).collect();
                return EntryBody::Rescue { origin: self.resolve_origin(term, *origin), batches };
            }
            What::Untimed(0) => return EntryBody::Blank,
            What::Untimed(1) => return EntryBody::Membership(vec![1, 2, 3].into()),
            What::Untimed(_) => {
                return EntryBody::Archived { manifest: ManifestNumber::new(3), end: Index::new(1) };
            }
            What::Tick => return EntryBody::Tick,
            What::Append(_) => unreachable!("its batches are resolved one by one"),
        })
    }

    fn resolve_origin(&self, term: Term, origin: Origin) -> RescueOrigin {
        match origin {
            Origin::InLog(back) => match self.log.iter().rev().nth(back) {
                Some((id, _)) => RescueOrigin { term: id.term, index: id.index },
                None => RescueOrigin { term: Term::ZERO, index: Index::ZERO },
            },
            Origin::Displaced { terms, back } => {
                let term = Term::new(term.get().saturating_sub(terms));
                let index = u64::try_from((self.log.len() + 2).saturating_sub(back)).unwrap();
                RescueOrigin { term, index: Index::new(index) }
            }
        }
    }
}

pub(super) fn cursor_name(number: u8) -> CursorName {
    CursorName::parse(&format!("reader {number}")).unwrap()
}
