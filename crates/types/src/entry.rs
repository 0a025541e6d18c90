//! Log entries: what a shard's Raft log carries, and what the WAL stores as a record's payload.
//!
//! ```text
//! payload = head length u32 | head | batch bytes, in the order of their headers
//! head    = kind u8 | time u64 | body
//!   0 blank       -
//!   1 membership  length u32 | bytes of the consensus library
//!   2 append      count u32 | batch header …
//!   3 control     op
//!   4 rescue      origin term u64 | origin index u64 | count u32 | batch header …   (all of one stream)
//!   5 tick        -
//!   6 archived    manifest u64 | end u64
//! batch header = stream u64 | records u32 | bytes u32 | base timestamp i64 | max timestamp i64 | hash 32
//!              | flags u8 (1 producer, 2 match_offset, 4 fencing token)
//!              | id u64, epoch u16, sequence u32 | match_offset u64 | fencing token text
//! ```
//!
//! Little-endian. A head suffices to replay the state and to extend the chain: no batch is decoded for either.
//! Blank, membership and archived entries carry time 0 and inherit their predecessor's.

use bytes::Bytes;

use crate::{
    ControlOp, DecodeError, EntryId, FencingToken, Hash, HybridTime, Index, ManifestNumber, Offset,
    ProducerId, Reader, StreamId, Term, Writer, leaf,
};

const WHAT: &str = "log entry";
const SMALLEST_BATCH_HEADER: usize = 65;

/// An idempotent producer's stamp on a batch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: u16,
    /// The sequence number of the batch's first record.
    pub sequence: u32,
}

/// Everything the state machine must know of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    pub stream: StreamId,
    /// How many records the batch has; at least 1.
    pub records: u32,
    /// The batch's encoded length in bytes.
    pub bytes: u32,
    /// The first record's timestamp, milliseconds since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp of a record, milliseconds since 1970.
    pub max_timestamp: i64,
    /// The hash of the normalised batch.
    pub hash: Hash,
    pub producer: Option<Producer>,
    /// Append only if the stream's next offset is this one.
    pub match_offset: Option<Offset>,
    pub fencing_token: Option<FencingToken>,
}

/// A batch beside its header, on its way into an entry.
#[derive(Debug, Clone)]
pub struct AppendItem {
    pub header: BatchHeader,
    pub batch: Bytes,
}

/// Where rescued batches were first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RescueOrigin {
    pub term: Term,
    pub index: Index,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryBody {
    /// A new leader's first entry.
    Blank,
    /// The shard's voters and learners, in the consensus library's encoding; never applied from an archive.
    Membership(Bytes),
    Append(Vec<BatchHeader>),
    Control(ControlOp),
    /// Batches that another leader had acknowledged `local` and that its successor's log displaced; all of one stream.
    Rescue {
        origin: RescueOrigin,
        batches: Vec<BatchHeader>,
    },
    /// Nothing but its time: closes the shard through it.
    Tick,
    /// A hint that the archive holds every entry before `end`.
    Archived {
        manifest: ManifestNumber,
        end: Index,
    },
}

impl EntryBody {
    /// Whether users caused this entry: only these start the archive's age timer.
    pub const fn is_user(&self) -> bool {
        match self {
            Self::Append(_) | Self::Control(_) | Self::Rescue { .. } => true,
            Self::Blank | Self::Membership(_) | Self::Tick | Self::Archived { .. } => false,
        }
    }

    /// Whether the entry has a time of its own.
    pub const fn is_timed(&self) -> bool {
        self.is_user() || matches!(self, Self::Tick)
    }

    /// The headers of the batches that the entry carries.
    pub fn batches(&self) -> &[BatchHeader] {
        match self {
            Self::Append(batches) | Self::Rescue { batches, .. } => batches,
            Self::Blank | Self::Membership(_) | Self::Control(_) | Self::Tick | Self::Archived { .. } => &[],
        }
    }
}

/// An entry without its batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHead {
    /// The entry's own time; zero where it has none ([`EntryBody::is_timed`]).
    pub time: HybridTime,
    pub body: EntryBody,
}

impl EntryHead {
    /// The head as the log, the chain and the archive's entry tables hold it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(16 + self.body.batches().len() * 96);
        self.encode_into(&mut out);
        out.into_bytes()
    }

    fn encode_into(&self, out: &mut Writer) {
        let kind = match &self.body {
            EntryBody::Blank => 0,
            EntryBody::Membership(_) => 1,
            EntryBody::Append(_) => 2,
            EntryBody::Control(_) => 3,
            EntryBody::Rescue { .. } => 4,
            EntryBody::Tick => 5,
            EntryBody::Archived { .. } => 6,
        };
        out.u8(kind).u64(self.time.as_micros());
        match &self.body {
            EntryBody::Blank | EntryBody::Tick => {}
            EntryBody::Membership(bytes) => {
                out.long_bytes(bytes);
            }
            EntryBody::Append(batches) => encode_headers(batches, out),
            EntryBody::Control(op) => op.encode(out),
            EntryBody::Rescue { origin, batches } => {
                out.u64(origin.term.get()).u64(origin.index.get());
                encode_headers(batches, out);
            }
            EntryBody::Archived { manifest, end } => {
                out.u64(manifest.get()).u64(end.get());
            }
        }
    }

    /// Reads a head; the bytes must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes);
        let kind = reader.u8()?;
        let time = HybridTime::from_micros(reader.u64()?);
        let body = match kind {
            0 => EntryBody::Blank,
            1 => EntryBody::Membership(Bytes::copy_from_slice(reader.long_bytes()?)),
            2 => EntryBody::Append(decode_headers(&mut reader)?),
            3 => EntryBody::Control(ControlOp::decode(&mut reader)?),
            4 => EntryBody::Rescue {
                origin: RescueOrigin { term: Term::new(reader.u64()?), index: Index::new(reader.u64()?) },
                batches: decode_headers(&mut reader)?,
            },
            5 => EntryBody::Tick,
            6 => EntryBody::Archived {
                manifest: ManifestNumber::new(reader.u64()?),
                end: Index::new(reader.u64()?),
            },
            other => return reader.invalid(format!("entry kind {other} is unknown")),
        };
        reader.finish()?;
        if body.is_timed() == (time == HybridTime::ZERO) {
            return Err(DecodeError::invalid(WHAT, format!("time {time} does not fit entry kind {kind}")));
        }
        if let EntryBody::Rescue { batches, .. } = &body
            && batches.windows(2).any(|pair| pair.first().map(|b| b.stream) != pair.last().map(|b| b.stream))
        {
            return Err(DecodeError::invalid(WHAT, "a rescue holds batches of more than one stream"));
        }
        Ok(Self { time, body })
    }

    /// The entry's effective time, given its predecessor's.
    pub fn effective_time(&self, predecessor: HybridTime) -> HybridTime {
        if self.body.is_timed() { self.time } else { predecessor }
    }
}

fn encode_headers(headers: &[BatchHeader], out: &mut Writer) {
    out.count(headers.len());
    for header in headers {
        header.encode(out);
    }
}

fn decode_headers(reader: &mut Reader<'_>) -> Result<Vec<BatchHeader>, DecodeError> {
    let count = reader.count(SMALLEST_BATCH_HEADER)?;
    if count == 0 {
        return reader.invalid("an entry that carries batches has none");
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push(BatchHeader::decode(reader)?);
    }
    Ok(headers)
}

impl BatchHeader {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.stream.get()).u32(self.records).u32(self.bytes);
        out.i64(self.base_timestamp).i64(self.max_timestamp).put(self.hash.as_bytes());
        let flags = u8::from(self.producer.is_some())
            | (u8::from(self.match_offset.is_some()) << 1)
            | (u8::from(self.fencing_token.is_some()) << 2);
        out.u8(flags);
        if let Some(producer) = &self.producer {
            out.u64(producer.id.get()).u16(producer.epoch).u32(producer.sequence);
        }
        if let Some(offset) = self.match_offset {
            out.u64(offset.get());
        }
        if let Some(token) = &self.fencing_token {
            out.short_bytes(token.as_str().as_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let stream = StreamId::new(reader.u64()?);
        let records = reader.u32()?;
        let bytes = reader.u32()?;
        let base_timestamp = reader.i64()?;
        let max_timestamp = reader.i64()?;
        let hash = Hash::from_bytes(reader.array()?);
        let flags = reader.u8()?;
        if flags > 7 {
            return reader.invalid(format!("batch header flags {flags:#04x} are unknown"));
        }
        if records == 0 || bytes == 0 {
            return reader.invalid(format!("a batch has {records} records in {bytes} bytes"));
        }
        let producer = if flags & 1 != 0 {
            Some(Producer {
                id: ProducerId::new(reader.u64()?),
                epoch: reader.u16()?,
                sequence: reader.u32()?,
            })
        } else {
            None
        };
        let match_offset = if flags & 2 != 0 { Some(Offset::new(reader.u64()?)) } else { None };
        let fencing_token = if flags & 4 != 0 {
            let token = reader.short_text()?;
            Some(FencingToken::parse(token).map_err(|error| DecodeError::invalid(WHAT, error.to_string()))?)
        } else {
            None
        };
        Ok(Self {
            stream,
            records,
            bytes,
            base_timestamp,
            max_timestamp,
            hash,
            producer,
            match_offset,
            fencing_token,
        })
    }
}

/// A whole entry: its payload as stored, beside its decoded head. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    payload: Bytes,
    head: std::sync::Arc<EntryHead>,
    head_len: usize,
}

const LENGTH_PREFIX: usize = 4;

impl Entry {
    /// Encodes an entry that carries no batches.
    pub fn new(head: EntryHead) -> Self {
        Self::with_batches(head, &[])
    }

    /// Encodes an append of `items` at `time`; there is at least one item.
    pub fn append(time: HybridTime, items: Vec<AppendItem>) -> Self {
        let (headers, batches): (Vec<_>, Vec<_>) =
            items.into_iter().map(|item| (item.header, item.batch)).unzip();
        Self::with_batches(EntryHead { time, body: EntryBody::Append(headers) }, &batches)
    }

    /// Encodes an entry with its batches, one for each of the head's headers and of the length it states.
    pub fn with_batches(head: EntryHead, batches: &[Bytes]) -> Self {
        debug_assert!(
            head.body
                .batches()
                .iter()
                .map(|header| usize::try_from(header.bytes).ok())
                .eq(batches.iter().map(|batch| Some(batch.len()))),
            "one batch for each header, of the length it states"
        );
        let encoded = head.encode();
        let data: usize = batches.iter().map(Bytes::len).sum();
        let mut out = Writer::with_capacity(LENGTH_PREFIX + encoded.len() + data);
        out.long_bytes(&encoded);
        for batch in batches {
            out.put(batch);
        }
        Self { payload: out.into_bytes().into(), head: std::sync::Arc::new(head), head_len: encoded.len() }
    }

    /// Reads a payload and checks that its batches have the lengths that its headers state.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, &payload);
        let encoded = reader.long_bytes()?;
        let head_len = encoded.len();
        let head = EntryHead::decode(encoded)?;
        let stated: u64 = head.body.batches().iter().map(|batch| u64::from(batch.bytes)).sum();
        let found = u64::try_from(reader.remaining()).unwrap_or(u64::MAX);
        if stated != found {
            return reader.invalid(format!("its headers state {stated} bytes of batches, {found} are there"));
        }
        Ok(Self { payload, head: std::sync::Arc::new(head), head_len })
    }

    /// Puts an entry together again from the encoded head and the concatenated batches that an archive keeps apart.
    pub fn from_parts(head: &[u8], data: &[u8]) -> Result<Self, DecodeError> {
        if u32::try_from(head.len()).is_err() {
            let size = u64::try_from(head.len()).unwrap_or(u64::MAX);
            return Err(DecodeError::TooLarge { what: WHAT, size, limit: u32::MAX.into() });
        }
        let mut out =
            Writer::with_capacity(LENGTH_PREFIX.saturating_add(head.len()).saturating_add(data.len()));
        out.long_bytes(head).put(data);
        Self::decode(out.into_bytes().into())
    }

    /// The bytes that the WAL stores.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub fn head(&self) -> &EntryHead {
        &self.head
    }

    pub fn body(&self) -> &EntryBody {
        &self.head.body
    }

    /// The encoded head: what the chain covers and an archive's entry table keeps.
    pub fn head_bytes(&self) -> Bytes {
        self.payload.slice(LENGTH_PREFIX..LENGTH_PREFIX.saturating_add(self.head_len))
    }

    /// The batches with their headers, as slices of the payload.
    pub fn batches(&self) -> impl Iterator<Item = (&BatchHeader, Bytes)> {
        let mut at = LENGTH_PREFIX.saturating_add(self.head_len);
        self.head.body.batches().iter().map(move |header| {
            let start = at;
            at = at.saturating_add(usize::try_from(header.bytes).unwrap_or(usize::MAX));
            (header, self.payload.slice(start..at))
        })
    }

    /// The chain's leaf of this entry at `id` and its effective time.
    pub fn leaf(&self, id: EntryId, time: HybridTime) -> Hash {
        leaf(id, time, &self.head_bytes())
    }
}

#[cfg(test)]
mod tests;
