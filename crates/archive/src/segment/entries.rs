//! Entry pages: every entry's head, and for each of its batches what became of it and where it is.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use duramen_state::{BatchOutcome, Rejection};
use duramen_types::{
    DecodeError, EntryHead, EntryId, HybridTime, Index, Offset, Reader, StreamId, Term, Writer,
};

const WHAT: &str = "entry page";
const DROPPED: u8 = 0x80;

/// An entry as the entry table holds it: all but the bytes of its batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    pub id: EntryId,
    /// The effective time.
    pub time: HybridTime,
    pub head: EntryHead,
    /// The head as the log had it: what the chain covers.
    pub head_bytes: Bytes,
    /// One for each of the head's batches.
    pub batches: Vec<TableBatch>,
}

/// What the entry table says of a batch beside its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableBatch {
    pub fate: Fate,
    /// `None` once expiry has dropped the bytes.
    pub location: Option<Location>,
}

/// What became of a batch when its entry was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Appended {
        base: Offset,
    },
    /// An earlier batch was the same; that one got the offsets from `base`.
    Duplicate {
        base: Offset,
    },
    Rejected(RejectionCode),
    /// It was appended to another stream than its header names.
    Rescued {
        stream: StreamId,
        base: Offset,
    },
}

/// Why a batch was rejected: the archive's number for each [`Rejection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionCode(u8);

/// Where in its segment a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The number of the block.
    pub block: u32,
    /// The number of the batch in the block.
    pub slot: u32,
}

impl RejectionCode {
    const LAST: u8 = 15;

    pub const fn get(self) -> u8 {
        self.0
    }

    pub const fn of(rejection: &Rejection) -> Self {
        Self(match rejection {
            Rejection::UnknownStream(_) => 1,
            Rejection::StreamExists(_) => 2,
            Rejection::OffsetMismatch { .. } => 3,
            Rejection::Fenced { .. } => 4,
            Rejection::ProducerFenced { .. } => 5,
            Rejection::OutOfOrderSequence { .. } => 6,
            Rejection::UnknownProducer(_) => 7,
            Rejection::ConfigChanged(_) => 8,
            Rejection::BeyondTail { .. } => 9,
            Rejection::UnknownCursor => 10,
            Rejection::TenantExists => 11,
            Rejection::RestorePointExists(_) => 12,
            Rejection::UnknownRestorePoint => 13,
            Rejection::TooMany { .. } => 14,
            Rejection::WrongShard(_) => 15,
        })
    }
}

impl From<&BatchOutcome> for Fate {
    fn from(outcome: &BatchOutcome) -> Self {
        match outcome {
            BatchOutcome::Appended { base } => Self::Appended { base: *base },
            BatchOutcome::Duplicate { base, .. } => Self::Duplicate { base: *base },
            BatchOutcome::Rejected(rejection) => Self::Rejected(RejectionCode::of(rejection)),
            BatchOutcome::Rescued { stream, base } => Self::Rescued { stream: *stream, base: *base },
        }
    }
}

impl Fate {
    /// The stream that has the batch and the offset of its first record there; `header` is the stream that the batch's
    /// header names.
    pub const fn place(&self, header: StreamId) -> Option<(StreamId, Offset)> {
        match self {
            Self::Appended { base } => Some((header, *base)),
            Self::Rescued { stream, base } => Some((*stream, *base)),
            Self::Duplicate { .. } | Self::Rejected(_) => None,
        }
    }

    /// The stream and the base offset that a block's row has for the batch.
    pub(super) fn block_place(&self, header: StreamId) -> (StreamId, Offset) {
        match self {
            Self::Appended { base } | Self::Duplicate { base } => (header, *base),
            Self::Rejected(_) => (header, Offset::ZERO),
            Self::Rescued { stream, base } => (*stream, *base),
        }
    }
}

/// The most bytes that a fate takes.
pub(super) const LARGEST_FATE: usize = 25;

/// The encoded size of an entry whose batches all have a place.
pub(super) fn encoded_len(head: usize, fates: &[Fate]) -> usize {
    let fate = |fate: &Fate| match fate {
        Fate::Appended { .. } | Fate::Duplicate { .. } => 17,
        Fate::Rejected(_) => 10_usize,
        Fate::Rescued { .. } => LARGEST_FATE,
    };
    fates.iter().map(fate).fold(head.saturating_add(28), usize::saturating_add)
}

pub(super) fn encode(
    id: EntryId,
    time: HybridTime,
    head: &[u8],
    batches: impl Iterator<Item = TableBatch>,
    out: &mut Writer,
) {
    out.u64(id.index.get()).u64(id.term.get()).u64(time.as_micros()).long_bytes(head);
    for batch in batches {
        let dropped = if batch.location.is_none() { DROPPED } else { 0 };
        match batch.fate {
            Fate::Appended { base } => out.u8(dropped).u64(base.get()),
            Fate::Duplicate { base } => out.u8(dropped | 1).u64(base.get()),
            Fate::Rejected(code) => out.u8(dropped | 2).u8(code.0),
            Fate::Rescued { stream, base } => out.u8(dropped | 3).u64(stream.get()).u64(base.get()),
        };
        if let Some(location) = batch.location {
            out.u32(location.block).u32(location.slot);
        }
    }
}

/// Reads a raw page of `count` entries, the first of which is `first`.
pub(super) fn decode_page(raw: &Bytes, first: Index, count: u32) -> Result<Vec<EntryRow>, DecodeError> {
    let mut reader = Reader::new(WHAT, raw);
    let mut rows: Vec<EntryRow> = Vec::new();
    let mut next = first;
    while reader.remaining() > 0 {
        let row = decode_row(raw, &mut reader)?;
        if row.id.index != next {
            return reader.invalid(format!("entry {} is where {next} should be", row.id));
        }
        if rows.last().is_some_and(|last| last.id.term > row.id.term || last.time > row.time) {
            return reader.invalid(format!("term or time of entry {} runs backwards", row.id));
        }
        next = next.next();
        rows.push(row);
    }
    if next != first.plus(count.into()) {
        return reader.invalid(format!("it ends before entry {next}, its directory states {count} entries"));
    }
    Ok(rows)
}

fn decode_row(raw: &Bytes, reader: &mut Reader<'_>) -> Result<EntryRow, DecodeError> {
    let index = Index::new(reader.u64()?);
    let term = Term::new(reader.u64()?);
    let time = HybridTime::from_micros(reader.u64()?);
    let head_bytes = raw.slice_ref(reader.long_bytes()?);
    let head = EntryHead::decode(&head_bytes)?;
    if head.effective_time(time) != time {
        return reader.invalid(format!("entry {index} has time {time}, its head says {}", head.time));
    }
    let mut batches = Vec::with_capacity(head.body.batches().len());
    for _ in head.body.batches() {
        batches.push(decode_batch(reader)?);
    }
    Ok(EntryRow { id: EntryId { index, term }, time, head, head_bytes, batches })
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<TableBatch, DecodeError> {
    let tag = reader.u8()?;
    let fate = match tag & !DROPPED {
        0 => Fate::Appended { base: Offset::new(reader.u64()?) },
        1 => Fate::Duplicate { base: Offset::new(reader.u64()?) },
        2 => match reader.u8()? {
            code @ 1..=RejectionCode::LAST => Fate::Rejected(RejectionCode(code)),
            other => return reader.invalid(format!("reason {other} is unknown")),
        },
        3 => Fate::Rescued { stream: StreamId::new(reader.u64()?), base: Offset::new(reader.u64()?) },
        other => return reader.invalid(format!("outcome {other} is unknown")),
    };
    let location =
        if tag & DROPPED == 0 { Some(Location { block: reader.u32()?, slot: reader.u32()? }) } else { None };
    Ok(TableBatch { fate, location })
}
