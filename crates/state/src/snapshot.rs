//! The encoding of a shard's state: of archived snapshots and of local checkpoints.
//!
//! ```text
//! magic "DURSTATE" | version u32 | body | crc32 u32 (of everything before it)
//! body = shard u16 | applied option (index u64, term u64) | time u64 | chain 32 | user end u64
//!      | terms: count, (term u64, first u64)…  | rescued: count, (term u64, index u64)…
//!      | tenants: count, (text, created u64)… | restore points: count, (text, time u64)…
//!      | streams: count, stream…
//! stream = id u64 | tenant text | name text | config | created u64 | last append u64 | next u64 | trimmed u64
//!        | appended bytes u64 | token option text | cursors: count, (text, offset u64, committed u64)…
//!        | producers: count, (id u64, epoch u16, last seen u64, batches: u8, (sequence u32, records u32, base u64)…)…
//! ```
//!
//! Little-endian; every list is in the order of its keys, so equal states give equal bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use duramen_types::{
    CursorName, DecodeError, EntryId, FencingToken, Hash, HybridTime, Index, NameError, Offset, ProducerId, Reader,
    RestorePointName, ShardId, StreamConfig, StreamId, StreamName, TenantName, Term, Writer,
};

use crate::{Cursor, ProducerState, REMEMBERED_BATCHES, RememberedBatch, ShardState, Stream};

const WHAT: &str = "shard state";
const MAGIC: &[u8; 8] = b"DURSTATE";
const VERSION: u32 = 1;
const CRC_LEN: usize = 4;

impl ShardState {
    /// The state as bytes; equal states give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(256 + self.streams.len() * 128);
        out.put(MAGIC).u32(VERSION).u16(self.shard.get());
        out.option(self.applied.as_ref(), |out, id| {
            out.u64(id.index.get()).u64(id.term.get());
        });
        out.u64(self.time.as_micros()).put(self.chain.as_bytes()).u64(self.user_end.get());
        out.count(self.terms.len());
        for (term, first) in &self.terms {
            out.u64(term.get()).u64(first.get());
        }
        out.count(self.rescued.len());
        for (term, index) in &self.rescued {
            out.u64(term.get()).u64(index.get());
        }
        out.count(self.tenants.len());
        for (tenant, created) in &self.tenants {
            out.short_bytes(tenant.as_str().as_bytes()).u64(created.as_micros());
        }
        out.count(self.restore_points.len());
        for (name, time) in &self.restore_points {
            out.short_bytes(name.as_str().as_bytes()).u64(time.as_micros());
        }
        out.count(self.streams.len());
        for (id, stream) in &self.streams {
            out.u64(id.get());
            encode_stream(stream, &mut out);
        }
        let mut bytes = out.into_bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`ShardState::encode`] wrote; any damage is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body_len = bytes.len().checked_sub(CRC_LEN);
        let Some((body, crc)) = body_len.and_then(|len| bytes.split_at_checked(len)) else {
            return Err(DecodeError::Truncated { what: WHAT, at: 0, needed: CRC_LEN });
        };
        let mut reader = Reader::new(WHAT, body);
        if reader.array()? != *MAGIC {
            return reader.invalid("it does not begin with DURSTATE");
        }
        let stored = Reader::new(WHAT, crc).u32()?;
        let computed = crc32fast::hash(body);
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let state = decode_body(&mut reader)?;
        reader.finish()?;
        Ok(state)
    }
}

fn decode_body(reader: &mut Reader<'_>) -> Result<ShardState, DecodeError> {
    let mut state = ShardState::new(ShardId::new(reader.u16()?));
    state.applied = reader.option(|reader| {
        Ok(EntryId { index: Index::new(reader.u64()?), term: Term::new(reader.u64()?) })
    })?;
    state.time = time(reader)?;
    state.chain = Hash::from_bytes(reader.array()?);
    state.user_end = Index::new(reader.u64()?);
    state.terms = (0..reader.count(16)?)
        .map(|_| Ok((Term::new(reader.u64()?), Index::new(reader.u64()?))))
        .collect::<Result<_, DecodeError>>()?;
    state.rescued = (0..reader.count(16)?)
        .map(|_| Ok((Term::new(reader.u64()?), Index::new(reader.u64()?))))
        .collect::<Result<BTreeSet<_>, DecodeError>>()?;
    state.tenants = (0..reader.count(10)?)
        .map(|_| Ok((name(reader, TenantName::parse)?, time(reader)?)))
        .collect::<Result<BTreeMap<_, _>, DecodeError>>()?;
    state.restore_points = (0..reader.count(10)?)
        .map(|_| Ok((name(reader, RestorePointName::parse)?, time(reader)?)))
        .collect::<Result<BTreeMap<_, _>, DecodeError>>()?;
    for _ in 0..reader.count(64)? {
        let id = StreamId::new(reader.u64()?);
        let stream = decode_stream(reader)?;
        let names = state.names.entry(stream.tenant.clone()).or_default();
        if names.insert(stream.name.clone(), id).is_some() || state.streams.insert(id, stream).is_some() {
            return reader.invalid(format!("stream {id} or its name occurs twice"));
        }
    }
    Ok(state)
}

fn encode_stream(stream: &Stream, out: &mut Writer) {
    out.short_bytes(stream.tenant.as_str().as_bytes()).short_bytes(stream.name.as_str().as_bytes());
    stream.config.encode(out);
    out.u64(stream.created.as_micros()).u64(stream.last_append.as_micros());
    out.u64(stream.next.get()).u64(stream.trimmed.get()).u64(stream.appended_bytes);
    out.option(stream.fencing_token.as_ref(), |out, token| {
        out.short_bytes(token.as_str().as_bytes());
    });
    out.count(stream.cursors.len());
    for (cursor, position) in &stream.cursors {
        out.short_bytes(cursor.as_str().as_bytes());
        out.u64(position.offset.get()).u64(position.committed.as_micros());
    }
    out.count(stream.producers.len());
    for (id, producer) in &stream.producers {
        out.u64(id.get()).u16(producer.epoch).u64(producer.last_seen.as_micros());
        out.u8(u8::try_from(producer.batches.len()).expect("at most REMEMBERED_BATCHES are kept"));
        for batch in &producer.batches {
            out.u32(batch.sequence).u32(batch.records).u64(batch.base.get());
        }
    }
}

fn decode_stream(reader: &mut Reader<'_>) -> Result<Stream, DecodeError> {
    let tenant = name(reader, TenantName::parse)?;
    let stream_name = name(reader, StreamName::parse)?;
    let config = StreamConfig::decode(reader)?;
    let mut stream = Stream::new(tenant, stream_name, config, time(reader)?);
    stream.last_append = time(reader)?;
    stream.next = Offset::new(reader.u64()?);
    stream.trimmed = Offset::new(reader.u64()?);
    if stream.trimmed > stream.next {
        return reader.invalid(format!("stream {} is trimmed beyond its tail", stream.name));
    }
    stream.appended_bytes = reader.u64()?;
    stream.fencing_token = reader.option(|reader| name(reader, FencingToken::parse))?;
    stream.cursors = (0..reader.count(18)?)
        .map(|_| {
            let cursor = name(reader, CursorName::parse)?;
            Ok((cursor, Cursor { offset: Offset::new(reader.u64()?), committed: time(reader)? }))
        })
        .collect::<Result<BTreeMap<_, _>, DecodeError>>()?;
    stream.producers = (0..reader.count(19)?)
        .map(|_| {
            let id = ProducerId::new(reader.u64()?);
            Ok((id, decode_producer(reader)?))
        })
        .collect::<Result<BTreeMap<_, _>, DecodeError>>()?;
    Ok(stream)
}

fn decode_producer(reader: &mut Reader<'_>) -> Result<ProducerState, DecodeError> {
    let epoch = reader.u16()?;
    let last_seen = time(reader)?;
    let count = usize::from(reader.u8()?);
    if count == 0 || count > REMEMBERED_BATCHES {
        return reader.invalid(format!("a producer remembers {count} batches"));
    }
    let batches = (0..count)
        .map(|_| {
            Ok(RememberedBatch { sequence: reader.u32()?, records: reader.u32()?, base: Offset::new(reader.u64()?) })
        })
        .collect::<Result<VecDeque<_>, DecodeError>>()?;
    Ok(ProducerState { epoch, last_seen, batches })
}

fn time(reader: &mut Reader<'_>) -> Result<HybridTime, DecodeError> {
    Ok(HybridTime::from_micros(reader.u64()?))
}

fn name<T>(reader: &mut Reader<'_>, parse: fn(&str) -> Result<T, NameError>) -> Result<T, DecodeError> {
    let text = reader.short_text()?;
    parse(text).map_err(|error| DecodeError::invalid(WHAT, error.to_string()))
}
