//! An independent model of a shard: it keeps everything that ever happened and looks answers up in that, where the
//! state machine keeps only what it needs.

use std::collections::HashMap;

use duramen_types::{
    BatchHeader, ChainValue, ControlOp, CursorName, EntryHead, EntryId, FencingToken, HybridTime, Offset,
    ProducerId, RescueOrigin, RescuePolicy, RestorePointName, ShardId, StreamConfig, StreamId, StreamName,
    TenantName, Term, genesis, leaf,
};

use super::stream_name;
use crate::{BatchOutcome, ControlResult, Rejection};

const WEEK: u64 = 7 * 24 * 3600 * 1_000_000;

/// A batch that is in its stream.
pub(super) struct Accepted {
    pub base: u64,
    pub time: u64,
    pub header: BatchHeader,
    /// Where it was first written, if it was rescued.
    pub origin: Option<RescueOrigin>,
}

pub(super) struct ModelStream {
    pub id: StreamId,
    pub alive: bool,
    pub tenant: TenantName,
    pub name: StreamName,
    pub config: StreamConfig,
    pub created: u64,
    pub trimmed: u64,
    pub token: Option<FencingToken>,
    pub cursors: HashMap<CursorName, (u64, u64)>,
    pub accepted: Vec<Accepted>,
}

/// What is known of a producer: its epoch, and the batches that a repetition is compared with, oldest first.
pub(super) struct Known<'a> {
    pub epoch: u16,
    pub batches: Vec<&'a Accepted>,
}

impl ModelStream {
    pub fn tail(&self) -> u64 {
        self.accepted.iter().map(|batch| u64::from(batch.header.records)).sum()
    }

    /// From the whole history of the producer in this stream.
    pub fn known(&self, id: ProducerId, now: u64) -> Option<Known<'_>> {
        let mut batches: Vec<&Accepted> = Vec::new();
        let own = |batch: &&Accepted| {
            batch.origin.is_none() && batch.header.producer.is_some_and(|producer| producer.id == id)
        };
        for batch in self.accepted.iter().filter(own) {
            let restarts = batches.last().is_some_and(|before| {
                before.header.producer.unwrap().epoch != batch.header.producer.unwrap().epoch
                    || batch.time - before.time >= WEEK
            });
            if restarts {
                batches.clear();
            }
            batches.push(batch);
        }
        let last = batches.last()?;
        if now - last.time >= WEEK {
            return None;
        }
        let epoch = last.header.producer.unwrap().epoch;
        Some(Known { epoch, batches: batches.split_off(batches.len().saturating_sub(5)) })
    }

    fn decide(&self, now: u64, batch: &BatchHeader) -> BatchOutcome {
        let known = batch.producer.and_then(|producer| self.known(producer.id, now));
        if let (Some(producer), Some(known)) = (batch.producer, &known)
            && producer.epoch == known.epoch
        {
            for before in &known.batches {
                let sequence = before.header.producer.unwrap().sequence;
                if (sequence, before.header.records) == (producer.sequence, batch.records) {
                    return BatchOutcome::Duplicate {
                        base: Offset::new(before.base),
                        time: HybridTime::from_micros(before.time),
                    };
                }
            }
        }
        if self.token.is_some() && batch.fencing_token != self.token {
            return BatchOutcome::Rejected(Rejection::Fenced { current: self.token.clone() });
        }
        if let Some(producer) = batch.producer {
            let found = producer.sequence;
            let expected = match &known {
                None if found != 0 => {
                    return BatchOutcome::Rejected(Rejection::UnknownProducer(producer.id));
                }
                Some(known) if known.epoch > producer.epoch => {
                    let rejection = Rejection::ProducerFenced { found: producer.epoch, current: known.epoch };
                    return BatchOutcome::Rejected(rejection);
                }
                Some(known) if known.epoch == producer.epoch => {
                    let last = &known.batches.last().unwrap().header;
                    let end = u64::from(last.producer.unwrap().sequence) + u64::from(last.records);
                    u32::try_from(end % (1 << 31)).unwrap()
                }
                _ => 0,
            };
            if found != expected {
                return BatchOutcome::Rejected(Rejection::OutOfOrderSequence { found, expected });
            }
        }
        let tail = Offset::new(self.tail());
        match batch.match_offset {
            Some(expected) if expected != tail => {
                BatchOutcome::Rejected(Rejection::OffsetMismatch { expected, tail })
            }
            _ => BatchOutcome::Appended { base: tail },
        }
    }
}

pub(super) struct Model {
    pub shard: ShardId,
    pub log: Vec<(EntryId, EntryHead)>,
    pub time: u64,
    pub chain: ChainValue,
    /// Every stream there ever was.
    pub streams: Vec<ModelStream>,
    /// Which entries were rescued of which streams.
    pub rescues: Vec<(StreamId, RescueOrigin)>,
    pub tenants: HashMap<TenantName, u64>,
    pub restore_points: HashMap<RestorePointName, HybridTime>,
}

impl Model {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            log: Vec::new(),
            time: 0,
            chain: genesis(shard),
            streams: Vec::new(),
            rescues: Vec::new(),
            tenants: HashMap::new(),
            restore_points: HashMap::new(),
        }
    }

    pub fn alive(&self) -> impl Iterator<Item = &ModelStream> {
        self.streams.iter().filter(|stream| stream.alive)
    }

    pub fn stream(&self, id: StreamId) -> Option<&ModelStream> {
        self.alive().find(|stream| stream.id == id)
    }

    fn stream_mut(&mut self, id: StreamId) -> Result<&mut ModelStream, Rejection> {
        self.streams
            .iter_mut()
            .find(|stream| stream.alive && stream.id == id)
            .ok_or(Rejection::UnknownStream(id))
    }

    pub fn append(&mut self, now: u64, batch: &BatchHeader) -> BatchOutcome {
        let Ok(stream) = self.stream_mut(batch.stream) else {
            return BatchOutcome::Rejected(Rejection::UnknownStream(batch.stream));
        };
        let outcome = stream.decide(now, batch);
        if let BatchOutcome::Appended { base } = outcome {
            stream.accepted.push(Accepted {
                base: base.get(),
                time: now,
                header: batch.clone(),
                origin: None,
            });
        }
        outcome
    }

    pub fn rescue(
        &mut self,
        entry: EntryId,
        now: u64,
        origin: RescueOrigin,
        batches: &[BatchHeader],
    ) -> Vec<BatchOutcome> {
        let of = batches[0].stream;
        let in_log = self.log.iter().any(|(id, _)| (id.term, id.index) == (origin.term, origin.index));
        let came_before = self.rescues.contains(&(of, origin));
        let creation = self.log.iter().find(|(id, _)| id.index.get() == of.get()).map(|(id, _)| *id);
        let older = creation.is_some_and(|id| id.index < origin.index && id.term <= origin.term);
        let Some(found) = self.stream(of).filter(|_| older) else {
            return vec![BatchOutcome::Rejected(Rejection::UnknownStream(of)); batches.len()];
        };
        if in_log || came_before {
            return vec![
                BatchOutcome::Duplicate {
                    base: Offset::new(found.tail()),
                    time: HybridTime::from_micros(now),
                };
                batches.len()
            ];
        }
        let own_tail = found.config.rescue == Some(RescuePolicy::Append);
        let target = if own_tail || found.name.as_str().ends_with("~rescued") {
            of
        } else {
            let name = stream_name(&format!("{}~rescued", found.name));
            let existing = self.alive().find(|other| other.tenant == found.tenant && other.name == name);
            let existing = existing.map(|other| other.id);
            let config = StreamConfig {
                retention: found.config.retention,
                compression: found.config.compression,
                ..StreamConfig::default()
            };
            let tenant = found.tenant.clone();
            existing.unwrap_or_else(|| self.create(entry, now, tenant, name, config))
        };
        self.rescues.push((of, origin));
        let stream = self.stream_mut(target).unwrap();
        let take = |batch: &BatchHeader| {
            let base = stream.tail();
            stream.accepted.push(Accepted { base, time: now, header: batch.clone(), origin: Some(origin) });
            let base = Offset::new(base);
            if target == of {
                BatchOutcome::Appended { base }
            } else {
                BatchOutcome::Rescued { stream: target, base }
            }
        };
        batches.iter().map(take).collect()
    }

    fn create(
        &mut self,
        entry: EntryId,
        now: u64,
        tenant: TenantName,
        name: StreamName,
        config: StreamConfig,
    ) -> StreamId {
        let id = StreamId::new(entry.index.get());
        self.streams.push(ModelStream {
            id,
            alive: true,
            tenant,
            name,
            config,
            created: now,
            trimmed: 0,
            token: None,
            cursors: HashMap::new(),
            accepted: Vec::new(),
        });
        id
    }

    pub fn control(&mut self, id: EntryId, now: u64, op: &ControlOp) -> Result<ControlResult, Rejection> {
        let meta = self.shard == ShardId::META;
        match op {
            ControlOp::CreateStream { .. } if meta => Err(Rejection::WrongShard("data")),
            ControlOp::CreateStream { tenant, name, config } => {
                let namesake = self.alive().find(|stream| stream.tenant == *tenant && stream.name == *name);
                if let Some(stream) = namesake {
                    return Err(Rejection::StreamExists(stream.id));
                }
                let created = self.create(id, now, tenant.clone(), name.clone(), config.clone());
                Ok(ControlResult::Created(created))
            }
            ControlOp::ConfigureStream { stream, expected, config } => {
                let stream = self.stream_mut(*stream)?;
                if stream.config != *expected {
                    return Err(Rejection::ConfigChanged(Box::new(stream.config.clone())));
                }
                stream.config = config.clone();
                Ok(ControlResult::Done)
            }
            ControlOp::TrimStream { stream, to } => {
                let stream = self.stream_mut(*stream)?;
                beyond(stream, *to)?;
                if to.get() > stream.trimmed {
                    stream.trimmed = to.get();
                }
                Ok(ControlResult::Trimmed(Offset::new(stream.trimmed)))
            }
            ControlOp::DeleteStream { stream } => {
                self.stream_mut(*stream)?.alive = false;
                Ok(ControlResult::Done)
            }
            ControlOp::CommitCursor { stream, cursor, offset } => {
                let stream = self.stream_mut(*stream)?;
                beyond(stream, *offset)?;
                stream.cursors.insert(cursor.clone(), (offset.get(), now));
                Ok(ControlResult::Done)
            }
            ControlOp::DeleteCursor { stream, cursor } => {
                match self.stream_mut(*stream)?.cursors.remove(cursor) {
                    Some(_) => Ok(ControlResult::Done),
                    None => Err(Rejection::UnknownCursor),
                }
            }
            ControlOp::SetFencingToken { stream, expected, token } => {
                let stream = self.stream_mut(*stream)?;
                if stream.token != *expected {
                    return Err(Rejection::Fenced { current: stream.token.clone() });
                }
                stream.token = token.clone();
                Ok(ControlResult::Done)
            }
            _ if !meta => Err(Rejection::WrongShard("meta")),
            ControlOp::AllocateProducer => Ok(ControlResult::Producer(ProducerId::new(id.index.get()))),
            ControlOp::CreateTenant { tenant } => match self.tenants.get(tenant) {
                Some(_) => Err(Rejection::TenantExists),
                None => {
                    self.tenants.insert(tenant.clone(), now);
                    Ok(ControlResult::Done)
                }
            },
            ControlOp::CreateRestorePoint { name, time } => match self.restore_points.get(name) {
                Some(existing) => Err(Rejection::RestorePointExists(*existing)),
                None => {
                    self.restore_points.insert(name.clone(), *time);
                    Ok(ControlResult::Done)
                }
            },
            ControlOp::DeleteRestorePoint { name } => match self.restore_points.remove(name) {
                Some(_) => Ok(ControlResult::Done),
                None => Err(Rejection::UnknownRestorePoint),
            },
        }
    }

    /// The entry is in the log now.
    pub fn push(&mut self, id: EntryId, time: u64, head: EntryHead) {
        self.chain = self.chain.extend(&leaf(id, HybridTime::from_micros(time), &head.encode()));
        self.time = time;
        self.log.push((id, head));
    }

    pub fn term(&self) -> Term {
        self.log.last().map_or(Term::new(1), |(id, _)| id.term)
    }
}

fn beyond(stream: &ModelStream, offset: Offset) -> Result<(), Rejection> {
    let tail = Offset::new(stream.tail());
    if offset > tail { Err(Rejection::BeyondTail { offset, tail }) } else { Ok(()) }
}
