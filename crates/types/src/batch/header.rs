//! The 61 bytes before the records.

use super::{Codec, Error};
use crate::{Producer, ProducerId};

pub(super) const BASE_OFFSET: usize = 0;
pub(super) const BATCH_LENGTH: usize = 8;
pub(super) const LEADER_EPOCH: usize = 12;
const CHECKSUM: usize = 17;
/// From here on the checksum covers everything.
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;
/// The header's length: where the records begin.
pub(super) const LEN: usize = 61;

pub(super) const NORMAL_BASE_OFFSET: i64 = 0;
pub(super) const NORMAL_LEADER_EPOCH: i32 = -1;
const MAGIC: i8 = 2;
const NO_PRODUCER: i64 = -1;

const CODEC_BITS: u16 = 0b111;
const ARRIVAL_BIT: u16 = 1 << 3;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
const DELETE_HORIZON_BIT: u16 = 1 << 6;

/// Whose clock a batch's timestamps are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Each record has the timestamp that its producer gave it (Kafka's `CreateTime`).
    Create,
    /// All records have the time at which the batch arrived (Kafka's `LogAppendTime`).
    Arrival,
}

/// Whether [`Header::parse`] computes the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Verify,
    Trust,
}

/// What the header says, without what is the same in every normalised batch or follows from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) codec: Codec,
    pub(super) timestamp_type: TimestampType,
    pub(super) count: u32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) producer: Option<Producer>,
}

impl Header {
    /// Reads and checks the header of a normalised batch; `bytes` must be exactly one batch.
    pub(super) fn parse(bytes: &[u8], checksum: Checksum) -> Result<Self, Error> {
        let mut fields = Fields { rest: bytes, whole: bytes.len() };
        let base_offset = i64::from_be_bytes(fields.next()?);
        let stated = i32::from_be_bytes(fields.next()?);
        let found = fields.rest.len();
        let leader_epoch = i32::from_be_bytes(fields.next()?);
        let magic = i8::from_be_bytes(fields.next()?);
        let stored = u32::from_be_bytes(fields.next()?);
        let covered = fields.rest;
        let bits = u16::from_be_bytes(fields.next()?);
        let last_offset_delta = i32::from_be_bytes(fields.next()?);
        let base_timestamp = i64::from_be_bytes(fields.next()?);
        let max_timestamp = i64::from_be_bytes(fields.next()?);
        let id = i64::from_be_bytes(fields.next()?);
        let epoch = i16::from_be_bytes(fields.next()?);
        let sequence = i32::from_be_bytes(fields.next()?);
        let count = i32::from_be_bytes(fields.next()?);

        if magic != MAGIC {
            return Err(Error::Magic { found: magic });
        }
        if usize::try_from(stated) != Ok(found) {
            return Err(Error::Length { stated, found });
        }
        if base_offset != NORMAL_BASE_OFFSET || leader_epoch != NORMAL_LEADER_EPOCH {
            return Err(Error::NotNormalised { base_offset, leader_epoch });
        }
        if checksum == Checksum::Verify {
            let computed = crc32c::crc32c(covered);
            if computed != stored {
                return Err(Error::Checksum { stored, computed });
            }
        }
        let (codec, timestamp_type) = parse_attributes(bits)?;
        Ok(Self {
            codec,
            timestamp_type,
            count: parse_count(count, last_offset_delta)?,
            base_timestamp,
            max_timestamp,
            producer: parse_producer(id, epoch, sequence)?,
        })
    }

    fn attributes(&self) -> u16 {
        let arrival = match self.timestamp_type {
            TimestampType::Create => 0,
            TimestampType::Arrival => ARRIVAL_BIT,
        };
        u16::from(self.codec.id()) | arrival
    }

    /// Writes the whole header into the first [`LEN`] bytes of `batch`, whose records are complete.
    pub(super) fn write(&self, batch: &mut [u8]) -> Result<(), Error> {
        let size = batch.len();
        let limit = i32::MAX.unsigned_abs();
        let too_large = || Error::BatchTooLarge { size, limit: usize::try_from(limit).unwrap_or(usize::MAX) };
        let length = i32::try_from(size.saturating_sub(LEADER_EPOCH)).map_err(|_| too_large())?;
        let too_many = || Error::TooManyRecords { count: self.count, limit };
        let count = i32::try_from(self.count).map_err(|_| too_many())?;
        let (id, epoch, sequence) = self.producer_fields()?;

        let mut header = Vec::with_capacity(LEN);
        header.extend(NORMAL_BASE_OFFSET.to_be_bytes());
        header.extend(length.to_be_bytes());
        header.extend(NORMAL_LEADER_EPOCH.to_be_bytes());
        header.extend(MAGIC.to_be_bytes());
        header.extend([0; 4]);
        header.extend(self.attributes().to_be_bytes());
        header.extend(count.saturating_sub(1).to_be_bytes());
        header.extend(self.base_timestamp.to_be_bytes());
        header.extend(self.max_timestamp.to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend(epoch.to_be_bytes());
        header.extend(sequence.to_be_bytes());
        header.extend(count.to_be_bytes());
        patch(batch, BASE_OFFSET, &header);
        self.seal(batch);
        Ok(())
    }

    /// Writes attributes, max timestamp and checksum into a batch that is complete otherwise.
    pub(super) fn seal(&self, batch: &mut [u8]) {
        patch(batch, ATTRIBUTES, &self.attributes().to_be_bytes());
        patch(batch, MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        let checksum = crc32c::crc32c(batch.get(ATTRIBUTES..).unwrap_or_default());
        patch(batch, CHECKSUM, &checksum.to_be_bytes());
    }

    /// The producer's fields as Kafka's signed ones; a stamp that does not fit them is refused.
    fn producer_fields(&self) -> Result<(i64, i16, i32), Error> {
        let Some(producer) = self.producer else {
            return Ok((NO_PRODUCER, -1, -1));
        };
        let id = producer.id.get().cast_signed();
        let (epoch, sequence) = (producer.epoch.cast_signed(), producer.sequence.cast_signed());
        if id < 0 || epoch < 0 || sequence < 0 {
            return Err(Error::Producer { id, epoch, sequence });
        }
        Ok((id, epoch, sequence))
    }
}

fn parse_attributes(bits: u16) -> Result<(Codec, TimestampType), Error> {
    let refuse = |reason| Err(Error::Attributes { bits, reason });
    if bits & TRANSACTIONAL_BIT != 0 {
        return refuse("transactions are not supported");
    }
    if bits & CONTROL_BIT != 0 {
        return refuse("control batches are not accepted");
    }
    if bits & DELETE_HORIZON_BIT != 0 {
        return refuse("a delete horizon is not accepted: it belongs to compacted logs");
    }
    if bits & !(CODEC_BITS | ARRIVAL_BIT) != 0 {
        return refuse("bits 7 to 15 must be 0");
    }
    let Some(codec) = Codec::from_id(bits & CODEC_BITS) else {
        return refuse("the codec is unknown: use none, gzip, snappy, lz4 or zstd");
    };
    Ok((codec, if bits & ARRIVAL_BIT == 0 { TimestampType::Create } else { TimestampType::Arrival }))
}

fn parse_count(count: i32, last_offset_delta: i32) -> Result<u32, Error> {
    if count == 0 {
        return Err(Error::Empty);
    }
    match u32::try_from(count) {
        Ok(positive) if count.checked_sub(1) == Some(last_offset_delta) => Ok(positive),
        _ => Err(Error::Count { count, last_offset_delta }),
    }
}

/// Without a producer id the other two mean nothing, and clients put different things there.
fn parse_producer(id: i64, epoch: i16, sequence: i32) -> Result<Option<Producer>, Error> {
    if id == NO_PRODUCER {
        return Ok(None);
    }
    let out_of_range = Error::Producer { id, epoch, sequence };
    let (Ok(id), Ok(epoch), Ok(sequence)) =
        (u64::try_from(id), u16::try_from(epoch), u32::try_from(sequence))
    else {
        return Err(out_of_range);
    };
    Ok(Some(Producer { id: ProducerId::new(id), epoch, sequence }))
}

/// Overwrites the bytes of a batch from `at` on.
pub(super) fn patch(batch: &mut [u8], at: usize, with: &[u8]) {
    batch
        .get_mut(at..)
        .and_then(|tail| tail.get_mut(..with.len()))
        .expect("a batch is at least as long as its header, where all patched fields are")
        .copy_from_slice(with);
}

/// The header's fields, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (field, rest) =
            self.rest.split_first_chunk().ok_or(Error::Truncated { needed: LEN, found: self.whole })?;
        self.rest = rest;
        Ok(*field)
    }
}
