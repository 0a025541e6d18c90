//! The encoding of a shard's state: of archived snapshots and of local checkpoints.
//!
//! ```text
//! magic "DURSTATE" | version u32 | body | crc32 u32 (of everything before it)
//! body = shard u16 | applied option (index u64, term u64) | time u64 | chain 32 | user end u64
//!      | terms: count, (term u64, first u64)…  | rescued: count, (stream u64, term u64, index u64)…
//!      | tenants: count, (text, created u64)… | restore points: count, (text, time u64)…
//!      | streams: count, stream…
//! stream = id u64 | tenant text | name text | config | created u64 | last append u64 | next u64 | trimmed u64
//!        | appended bytes u64 | token option text | cursors: count, (text, offset u64, committed u64)…
//!        | producers: count, (id u64, epoch u16, last seen u64, batches: u8, (sequence u32, records u32, base u64, time u64)…)…
//! ```
//!
//! Version 1 lacks the times of remembered batches, and is read: they are taken to be the producer's last.
//!
//! Little-endian. Every list is in the order of its keys, none twice, so equal states give equal bytes, and what
//! decodes gives its own bytes back (of version 1 those of its successor).

use std::collections::VecDeque;

use duramen_types::{
    CursorName, DecodeError, EntryId, FencingToken, Hash, HybridTime, Index, NameError, Offset, ProducerId,
    Reader, RestorePointName, ShardId, StreamConfig, StreamId, StreamName, TenantName, Term, Writer,
};

use crate::{Cursor, ProducerState, REMEMBERED_BATCHES, RememberedBatch, ShardState, Stream};

const WHAT: &str = "shard state";
const MAGIC: &[u8; 8] = b"DURSTATE";
const VERSION: u32 = 2;
/// Of archives whose snapshots knew no times of remembered batches.
const WITHOUT_BATCH_TIMES: u32 = 1;
const CRC_LEN: usize = 4;
/// A stream with names of one character and nothing in its lists.
const SMALLEST_STREAM: usize = 69;

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
        for (stream, term, index) in &self.rescued {
            out.u64(stream.get()).u64(term.get()).u64(index.get());
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
        if !(WITHOUT_BATCH_TIMES..=VERSION).contains(&version) {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let state = decode_body(&mut reader, version)?;
        reader.finish()?;
        Ok(state)
    }
}

fn decode_body(reader: &mut Reader<'_>, version: u32) -> Result<ShardState, DecodeError> {
    let mut state = ShardState::new(ShardId::new(reader.u16()?));
    state.applied = reader
        .option(|reader| Ok(EntryId { index: Index::new(reader.u64()?), term: Term::new(reader.u64()?) }))?;
    state.time = time(reader)?;
    state.chain = Hash::from_bytes(reader.array()?);
    state.user_end = Index::new(reader.u64()?);
    state.terms = ascending(reader, 16, |reader| Ok((Term::new(reader.u64()?), Index::new(reader.u64()?))))?;
    check_terms(reader, &state)?;
    let rescued = ascending(reader, 24, |reader| {
        let stream = StreamId::new(reader.u64()?);
        Ok(((stream, Term::new(reader.u64()?), Index::new(reader.u64()?)), ()))
    })?;
    state.rescued = rescued.into_iter().map(|(origin, ())| origin).collect();
    state.tenants = ascending(reader, 11, |reader| Ok((name(reader, TenantName::parse)?, time(reader)?)))?
        .into_iter()
        .collect();
    state.restore_points =
        ascending(reader, 11, |reader| Ok((name(reader, RestorePointName::parse)?, time(reader)?)))?
            .into_iter()
            .collect();
    let streams = ascending(reader, SMALLEST_STREAM, |reader| {
        Ok((StreamId::new(reader.u64()?), decode_stream(reader, version)?))
    })?;
    for (id, stream) in &streams {
        let names = state.names.entry(stream.tenant.clone()).or_default();
        if names.insert(stream.name.clone(), *id).is_some() {
            return reader
                .invalid(format!("two streams of tenant {} are named {}", stream.tenant, stream.name));
        }
    }
    state.streams = streams.into_iter().collect();
    Ok(state)
}

/// A list in the strict order of its keys, of items that take at least `smallest` bytes each.
fn ascending<K: Ord, V>(
    reader: &mut Reader<'_>,
    smallest: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<(K, V), DecodeError>,
) -> Result<Vec<(K, V)>, DecodeError> {
    let count = reader.count(smallest)?;
    let mut items: Vec<(K, V)> = Vec::with_capacity(count);
    for _ in 0..count {
        let item = read(reader)?;
        if items.last().is_some_and(|last| last.0 >= item.0) {
            return reader.invalid("a list is not in the order of its keys");
        }
        items.push(item);
    }
    Ok(items)
}

/// The terms reach from the log's first index to the last applied entry, each from a later index than the one before.
fn check_terms(reader: &Reader<'_>, state: &ShardState) -> Result<(), DecodeError> {
    let starts_at_zero = state.terms.first().is_none_or(|(_, first)| *first == Index::ZERO);
    let ordered = state.terms.is_sorted_by(|(_, one), (_, other)| one < other);
    let reaches_applied = match (state.terms.last(), state.applied) {
        (None, None) => true,
        (Some((term, first)), Some(applied)) => *term == applied.term && *first <= applied.index,
        _ => false,
    };
    if starts_at_zero && ordered && reaches_applied && state.user_end <= state.end() {
        Ok(())
    } else {
        reader.invalid("its terms are not those of a log through the last applied entry")
    }
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
            out.u32(batch.sequence).u32(batch.records).u64(batch.base.get()).u64(batch.time.as_micros());
        }
    }
}

fn decode_stream(reader: &mut Reader<'_>, version: u32) -> Result<Stream, DecodeError> {
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
    stream.cursors = ascending(reader, 19, |reader| {
        let cursor = name(reader, CursorName::parse)?;
        Ok((cursor, Cursor { offset: Offset::new(reader.u64()?), committed: time(reader)? }))
    })?
    .into_iter()
    .collect();
    if stream.cursors.values().any(|cursor| cursor.offset > stream.next) {
        return reader.invalid(format!("a cursor of stream {} is beyond its tail", stream.name));
    }
    stream.producers = ascending(reader, 35, |reader| {
        Ok((ProducerId::new(reader.u64()?), decode_producer(reader, version)?))
    })?
    .into_iter()
    .collect();
    Ok(stream)
}

fn decode_producer(reader: &mut Reader<'_>, version: u32) -> Result<ProducerState, DecodeError> {
    let epoch = reader.u16()?;
    let last_seen = time(reader)?;
    let count = usize::from(reader.u8()?);
    if count == 0 || count > REMEMBERED_BATCHES {
        return reader.invalid(format!("a producer remembers {count} batches"));
    }
    let mut batches = VecDeque::with_capacity(REMEMBERED_BATCHES);
    for _ in 0..count {
        let (sequence, records, base) = (reader.u32()?, reader.u32()?, Offset::new(reader.u64()?));
        let time = if version == WITHOUT_BATCH_TIMES { last_seen } else { time(reader)? };
        batches.push_back(RememberedBatch { sequence, records, base, time });
    }
    Ok(ProducerState { epoch, last_seen, batches })
}

fn time(reader: &mut Reader<'_>) -> Result<HybridTime, DecodeError> {
    Ok(HybridTime::from_micros(reader.u64()?))
}

fn name<T>(reader: &mut Reader<'_>, parse: fn(&str) -> Result<T, NameError>) -> Result<T, DecodeError> {
    let text = reader.short_text()?;
    parse(text).map_err(|error| DecodeError::invalid(WHAT, error.to_string()))
}
