//! Checking bytes of unknown origin.

use bytes::Bytes;

use super::header::{self, Checksum, Header, TimestampType};
use super::{Batch, Error, MAX_UNCOMPRESSED_BYTES, Records, into_mut};
use crate::Offset;

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the batch as encoded, compressed as it is; 10 MiB by default.
    pub max_batch_bytes: usize,
    /// Bytes of one record as encoded, uncompressed and without its length prefix; 1 MiB by default.
    pub max_record_bytes: usize,
    /// Records in one batch; 1,000,000 by default.
    pub max_records: u32,
    /// Bytes of all records, decompressed; 64 MiB by default, and never more than [`MAX_UNCOMPRESSED_BYTES`].
    ///
    /// Validating a compressed batch takes up to about three times as much memory for as long as it lasts.
    pub max_uncompressed_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch_bytes: 10 << 20,
            max_record_bytes: 1 << 20,
            max_records: 1_000_000,
            max_uncompressed_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// The limit on decompressed bytes that is in force.
    pub(super) fn uncompressed(&self) -> usize {
        self.max_uncompressed_bytes.min(MAX_UNCOMPRESSED_BYTES)
    }
}

/// Accepts `bytes` if they are exactly one normalised batch, sound in every byte and within the limits.
///
/// Checked are: lengths, format, checksum, attributes, counts, dense offsets, the max timestamp, and the structure
/// of every record (decompressed, within bounded memory). A batch of a producer is to be [`normalise`]d first.
pub fn validate(bytes: Bytes, limits: &Limits) -> Result<Batch, Error> {
    let size = bytes.len();
    if size > limits.max_batch_bytes {
        return Err(Error::BatchTooLarge { size, limit: limits.max_batch_bytes });
    }
    let header = Header::parse(&bytes, Checksum::Verify)?;
    if header.count > limits.max_records {
        return Err(Error::TooManyRecords { count: header.count, limit: limits.max_records });
    }
    let batch = Batch { bytes, header };
    let records = Records::open(&batch, Offset::ZERO, limits.uncompressed())?;
    let mut computed = i64::MIN;
    for (index, record) in (0_u32..).zip(&records) {
        let record = record?;
        let size = record.encoded_len();
        if size > limits.max_record_bytes {
            return Err(Error::RecordTooLarge { index, size, limit: limits.max_record_bytes });
        }
        computed = computed.max(record.timestamp);
    }
    let stated = header.max_timestamp;
    if header.timestamp_type == TimestampType::Create && stated != computed {
        return Err(Error::MaxTimestamp { stated, computed });
    }
    Ok(batch)
}

/// Sets the two fields that the checksum does not cover to what is stored, and gives the base offset that was there.
///
/// That is what a producer's batch needs, whose client may have put anything there, and a batch as served to a
/// reader, whose base offset is then the first record's offset. Nothing else is checked. Copies the bytes only if
/// there is something to change and this is not their only owner.
pub fn normalise(bytes: Bytes) -> Result<(Offset, Bytes), Error> {
    let Some(head) = bytes.first_chunk::<{ header::LEN }>() else {
        return Err(Error::Truncated { needed: header::LEN, found: bytes.len() });
    };
    let found = i64::from_be_bytes(field(head, header::BASE_OFFSET));
    let leader_epoch = i32::from_be_bytes(field(head, header::LEADER_EPOCH));
    let base_offset = u64::try_from(found).map_err(|_| Error::BaseOffset { found })?;
    if found == header::NORMAL_BASE_OFFSET && leader_epoch == header::NORMAL_LEADER_EPOCH {
        return Ok((Offset::ZERO, bytes));
    }
    let mut bytes = into_mut(bytes);
    header::patch(&mut bytes, header::BASE_OFFSET, &header::NORMAL_BASE_OFFSET.to_be_bytes());
    header::patch(&mut bytes, header::LEADER_EPOCH, &header::NORMAL_LEADER_EPOCH.to_be_bytes());
    Ok((Offset::new(base_offset), bytes.freeze()))
}

fn field<const N: usize>(head: &[u8; header::LEN], at: usize) -> [u8; N] {
    *head.get(at..).and_then(|tail| tail.first_chunk()).expect("the fields lie inside the header")
}
