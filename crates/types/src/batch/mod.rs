//! The record batch: Kafka's record batch v2 (magic 2, KIP-98), the unit on the wire, in the log and in the archive.
//!
//! ```text
//!  0 base offset        i64   0 as stored; filled in when served (not covered by the checksum)
//!  8 batch length       i32   bytes that follow this field
//! 12 leader epoch       i32   -1 as stored (not covered by the checksum)
//! 16 magic              i8    2
//! 17 checksum           u32   CRC-32C of everything from byte 21 to the end
//! 21 attributes         i16   bits 0-2 codec, bit 3 timestamp type; all others must be 0 here
//! 23 last offset delta  i32   count - 1
//! 27 base timestamp     i64   ms since 1970; records hold differences to it
//! 35 max timestamp      i64   ms since 1970; the largest of the records, or the time of arrival
//! 43 producer id        i64   -1: none
//! 51 producer epoch     i16
//! 53 base sequence      i32
//! 57 count              i32   at least 1
//! 61 records, compressed together by the codec:
//!      length varint | attributes i8 = 0 | timestamp delta varlong | offset delta varint = 0, 1, 2 …
//!      | key length varint, -1 null | key | value length varint, -1 null | value
//!      | header count varint | (key length varint | key in UTF-8 | value length varint, -1 null | value) …
//! ```
//!
//! Fixed-size integers are big-endian; varints are base 128, least significant group first, zigzag.
//! A [`Batch`] is always _normalised_: base offset 0 and leader epoch -1, so that equal batches have equal bytes
//! and one [hash](Batch::hash) wherever they are stored.
//!
//! Ways in: [`BatchBuilder`] encodes records, [`validate()`] checks bytes of unknown origin, and
//! [`Batch::from_trusted`] takes bytes whose checksum was verified by the storage that held them.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod builder;
mod compression;
mod error;
mod header;
mod record;
mod validate;
mod varint;

use std::fmt;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use bytes::{Bytes, BytesMut};

pub use builder::{BatchBuilder, Options};
pub use compression::{Codec, MAX_UNCOMPRESSED_BYTES};
pub use error::Error;
use header::Header;
pub use header::TimestampType;
pub use record::{Headers, Iter, Record, RecordRef, Records};
pub use validate::{Limits, normalise, validate};

use crate::{Hash, Offset, Producer};

const HASH_CONTEXT: &str = "duramen 2026 batch";

/// A normalised record batch whose header has been checked; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: Header,
}

impl Batch {
    /// Reads the header only, of a normalised batch whose bytes are known to be those once validated.
    ///
    /// The checksum is not computed and the records are not looked at: [`records`](Self::records) reports what is
    /// wrong with them.
    pub fn from_trusted(bytes: Bytes) -> Result<Self, Error> {
        let header = Header::parse(&bytes, header::Checksum::Trust)?;
        Ok(Self { bytes, header })
    }

    /// How many records the batch has; at least 1.
    pub const fn count(&self) -> u32 {
        self.header.count
    }

    /// What the records' timestamps are differences to: the first record's, from most encoders; ms since 1970.
    pub const fn base_timestamp(&self) -> i64 {
        self.header.base_timestamp
    }

    /// The largest timestamp of a record, or the time of arrival of all; ms since 1970.
    pub const fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// How the records are compressed.
    pub const fn compression(&self) -> Codec {
        self.header.codec
    }

    /// Whether each record has the producer's timestamp, or all of them the time of arrival.
    pub const fn timestamp_type(&self) -> TimestampType {
        self.header.timestamp_type
    }

    /// The idempotent producer's stamp; the sequence is the first record's.
    pub const fn producer(&self) -> Option<Producer> {
        self.header.producer
    }

    /// The normalised bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The normalised bytes, given away.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records, the first of which has offset `base_offset`.
    ///
    /// No bytes are copied from an uncompressed batch; others are decompressed here, once, into at most
    /// [`MAX_UNCOMPRESSED_BYTES`].
    pub fn records(&self, base_offset: Offset) -> Result<Records, Error> {
        Records::open(self, base_offset, MAX_UNCOMPRESSED_BYTES)
    }

    /// The identity of the batch's content: BLAKE3 of the normalised bytes, keyed by a context of its own.
    pub fn hash(&self) -> Hash {
        static KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(HASH_CONTEXT));
        let mut hasher = blake3::Hasher::new_from_context_key(&KEY);
        hasher.update(&self.bytes);
        Hash::from_bytes(hasher.finalize().into())
    }

    /// The bytes as served to a Kafka reader, in two parts: the base offset, and the shared rest.
    pub fn split_with_base_offset(&self, base_offset: Offset) -> ([u8; 8], Bytes) {
        (base_offset.get().to_be_bytes(), self.bytes.slice(header::BATCH_LENGTH..))
    }

    /// The bytes as served to a Kafka reader; copied unless the base offset is 0.
    pub fn with_base_offset(&self, base_offset: Offset) -> Bytes {
        if base_offset == Offset::ZERO {
            return self.bytes.clone();
        }
        let mut bytes = BytesMut::from(&*self.bytes);
        header::patch(&mut bytes, header::BASE_OFFSET, &base_offset.get().to_be_bytes());
        bytes.freeze()
    }

    /// The batch with `arrival` (ms since 1970) as the timestamp of all its records, and the checksum to match.
    ///
    /// Only the header changes: the producer's timestamps stay in the records, unread. To be called before the
    /// batch is hashed. Copies the bytes unless this is their only owner.
    #[must_use]
    pub fn stamp_arrival(self, arrival: i64) -> Self {
        let header = Header { timestamp_type: TimestampType::Arrival, max_timestamp: arrival, ..self.header };
        let mut bytes = into_mut(self.bytes);
        header.seal(&mut bytes);
        Self { bytes: bytes.freeze(), header }
    }
}

/// The bytes to write to: the same if nobody else holds them, else a copy.
fn into_mut(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared))
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("bytes", &self.bytes.len()).field("header", &self.header).finish()
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that is wrong about a length may panic"
)]
mod tests;
