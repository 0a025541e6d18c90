//! Records: what the log is told.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use duramen_types::{DecodeError, EntryId, Index, ShardId, Term};

use super::RECORD_HEAD_BYTES;
use super::input::{Input, len_u32};

const WHAT: &str = "WAL record";

/// The largest payload of one record, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

/// One thing the log is told about one shard. Write order is replay order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Appends an entry. Its index follows the shard's last one.
    Entry { shard: ShardId, id: EntryId, payload: Bytes },
    /// Removes the entries from `from` on.
    Truncate { shard: ShardId, from: Index },
    /// Keeps the bytes of an entry that is about to be truncated or purged, until it is [`Record::Released`].
    Displaced { shard: ShardId, id: EntryId },
    /// Lets go of a displaced entry's bytes.
    Released { shard: ShardId, id: EntryId },
    /// Replaces the shard's vote.
    Vote { shard: ShardId, bytes: Bytes },
    /// Replaces the id of the shard's last known committed entry.
    Committed { shard: ShardId, id: EntryId },
    /// Removes the entries up to and including `id`, which may lie beyond the last one (a snapshot was installed).
    Purged { shard: ShardId, id: EntryId },
    /// A displaced entry that was moved here from a segment about to be deleted. Only the log itself writes it.
    DisplacedCopy { shard: ShardId, id: EntryId, payload: Bytes },
}

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const DISPLACED: u8 = 3;
const VOTE: u8 = 4;
const COMMITTED: u8 = 5;
const PURGED: u8 = 6;
const RELEASED: u8 = 7;
const DISPLACED_COPY: u8 = 8;

const NO_ID: EntryId = EntryId { index: Index::ZERO, term: Term::ZERO };

impl Record {
    /// The shard that the record is about.
    pub fn shard(&self) -> ShardId {
        match self {
            Self::Entry { shard, .. }
            | Self::Truncate { shard, .. }
            | Self::Displaced { shard, .. }
            | Self::Released { shard, .. }
            | Self::Vote { shard, .. }
            | Self::Committed { shard, .. }
            | Self::Purged { shard, .. }
            | Self::DisplacedCopy { shard, .. } => *shard,
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Self::Entry { payload, .. } | Self::DisplacedCopy { payload, .. } => payload,
            Self::Vote { bytes, .. } => bytes,
            Self::Truncate { .. }
            | Self::Displaced { .. }
            | Self::Released { .. }
            | Self::Committed { .. }
            | Self::Purged { .. } => &[],
        }
    }

    pub(crate) fn view(&self) -> RecordView<'_> {
        match self {
            Self::Entry { shard, id, payload } => RecordView::Entry { shard: *shard, id: *id, payload },
            Self::Truncate { shard, from } => RecordView::Truncate { shard: *shard, from: *from },
            Self::Displaced { shard, id } => RecordView::Displaced { shard: *shard, id: *id },
            Self::Released { shard, id } => RecordView::Released { shard: *shard, id: *id },
            Self::Vote { shard, bytes } => RecordView::Vote { shard: *shard, bytes },
            Self::Committed { shard, id } => RecordView::Committed { shard: *shard, id: *id },
            Self::Purged { shard, id } => RecordView::Purged { shard: *shard, id: *id },
            Self::DisplacedCopy { shard, id, payload } => {
                RecordView::DisplacedCopy { shard: *shard, id: *id, payload }
            }
        }
    }

    fn head(&self) -> (u8, EntryId) {
        match self {
            Self::Entry { id, .. } => (ENTRY, *id),
            Self::Truncate { from, .. } => (TRUNCATE, EntryId { index: *from, term: Term::ZERO }),
            Self::Displaced { id, .. } => (DISPLACED, *id),
            Self::Released { id, .. } => (RELEASED, *id),
            Self::Vote { .. } => (VOTE, NO_ID),
            Self::Committed { id, .. } => (COMMITTED, *id),
            Self::Purged { id, .. } => (PURGED, *id),
            Self::DisplacedCopy { id, .. } => (DISPLACED_COPY, *id),
        }
    }
}

/// The bytes that a record takes in a frame.
pub(crate) fn encoded_len(record: &Record) -> usize {
    record.payload().len().saturating_add(RECORD_HEAD_BYTES)
}

/// Appends a record to a frame's body: one copy of its payload, and no allocation when `out` has room.
pub(crate) fn encode_record(out: &mut Vec<u8>, record: &Record) {
    let payload = record.payload();
    let (kind, id) = record.head();
    let length = len_u32(payload.len()).to_le_bytes();
    let mut head = [0; 19];
    let parts = [
        &record.shard().get().to_le_bytes()[..],
        &[kind],
        &id.index.get().to_le_bytes(),
        &id.term.get().to_le_bytes(),
    ];
    for (to, from) in head.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&head);
    hasher.update(payload);
    out.extend_from_slice(&length);
    out.extend_from_slice(&hasher.finalize().to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

/// A record that was read, its payload borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordView<'a> {
    Entry { shard: ShardId, id: EntryId, payload: &'a [u8] },
    Truncate { shard: ShardId, from: Index },
    Displaced { shard: ShardId, id: EntryId },
    Released { shard: ShardId, id: EntryId },
    Vote { shard: ShardId, bytes: &'a [u8] },
    Committed { shard: ShardId, id: EntryId },
    Purged { shard: ShardId, id: EntryId },
    DisplacedCopy { shard: ShardId, id: EntryId, payload: &'a [u8] },
}

impl RecordView<'_> {
    /// The record with its payload as a part of `whole`, which the view was decoded from.
    pub(crate) fn to_record(self, whole: &Bytes) -> Record {
        match self {
            Self::Entry { shard, id, payload } => {
                Record::Entry { shard, id, payload: whole.slice_ref(payload) }
            }
            Self::Truncate { shard, from } => Record::Truncate { shard, from },
            Self::Displaced { shard, id } => Record::Displaced { shard, id },
            Self::Released { shard, id } => Record::Released { shard, id },
            Self::Vote { shard, bytes } => Record::Vote { shard, bytes: whole.slice_ref(bytes) },
            Self::Committed { shard, id } => Record::Committed { shard, id },
            Self::Purged { shard, id } => Record::Purged { shard, id },
            Self::DisplacedCopy { shard, id, payload } => {
                Record::DisplacedCopy { shard, id, payload: whole.slice_ref(payload) }
            }
        }
    }
}

/// The record at the start of `bytes`, and how many bytes it takes.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<(RecordView<'_>, usize), DecodeError> {
    let mut input = Input::new(WHAT, bytes);
    let length = input.u32()?;
    let stored = input.u32()?;
    let body_at = input.at();
    let shard = ShardId::new(input.u16()?);
    let kind = input.u8()?;
    let id = input.entry_id()?;
    let payload_len = usize::try_from(length).unwrap_or(usize::MAX);
    if payload_len > MAX_PAYLOAD_BYTES {
        return Err(DecodeError::TooLarge {
            what: WHAT,
            size: length.into(),
            limit: MAX_PAYLOAD_BYTES as u64,
        });
    }
    let payload = input.take(payload_len)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes.get(body_at..input.at()).unwrap_or_default());
    let computed = hasher.finalize();
    if stored != computed {
        return Err(DecodeError::Checksum { what: WHAT, stored, computed });
    }
    let record = match kind {
        ENTRY => RecordView::Entry { shard, id, payload },
        TRUNCATE => RecordView::Truncate { shard, from: id.index },
        DISPLACED => RecordView::Displaced { shard, id },
        VOTE => RecordView::Vote { shard, bytes: payload },
        COMMITTED => RecordView::Committed { shard, id },
        PURGED => RecordView::Purged { shard, id },
        RELEASED => RecordView::Released { shard, id },
        DISPLACED_COPY => RecordView::DisplacedCopy { shard, id, payload },
        other => return Err(DecodeError::invalid(WHAT, format!("kind {other} is unknown"))),
    };
    Ok((record, input.at()))
}
