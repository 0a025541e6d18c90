//! What can be wrong with a record batch.

use super::Codec;

/// Why bytes are not a record batch that may be stored, or records cannot become one.
///
/// None of these goes away by trying again with the same batch, and none has had an effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The batch, as encoded, exceeds the limit.
    #[error("the batch is {size} bytes, the limit is {limit}: send fewer records at once")]
    BatchTooLarge { size: usize, limit: usize },
    /// One record, encoded but not compressed and without its length prefix, exceeds the limit.
    #[error(
        "record {index} of the batch is {size} bytes, the limit is {limit}: split it, or store it elsewhere"
    )]
    RecordTooLarge { index: u32, size: usize, limit: usize },
    /// The batch has more records than allowed.
    #[error("the batch has {count} records, the limit is {limit}: send fewer records at once")]
    TooManyRecords { count: u32, limit: u32 },
    /// The records are more bytes than allowed once decompressed.
    #[error("the batch's records exceed {limit} bytes when decompressed: send fewer records at once")]
    UncompressedTooLarge { limit: usize },
    /// The batch has no records.
    #[error("the batch has no records: send at least one")]
    Empty,
    /// The bytes end before a batch header does.
    #[error("{found} bytes are too few for a batch, whose header is {needed}")]
    Truncated { needed: usize, found: usize },
    /// The length in the header is not that of the bytes: they are cut short, or hold more than one batch.
    #[error(
        "the batch states a length of {stated} bytes after its first 12, {found} are there: send exactly one batch"
    )]
    Length { stated: i32, found: usize },
    /// The message format is not record batch v2.
    #[error(
        "the batch has message format (magic) {found}, only 2 is supported: use a client of Kafka 0.11 or later"
    )]
    Magic { found: i8 },
    /// The fields outside the checksum are not as stored.
    #[error(
        "the batch is not normalised: base offset {base_offset} should be 0, leader epoch {leader_epoch} should be -1"
    )]
    NotNormalised { base_offset: i64, leader_epoch: i32 },
    /// The base offset of a batch that was served to a reader is negative.
    #[error("the batch's base offset is {found}, which is no offset")]
    BaseOffset { found: i64 },
    /// The bytes are not those that were written.
    #[error("the batch fails its checksum: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    /// The attributes ask for what is not supported.
    #[error("the batch's attributes are {bits:#06x}: {reason}")]
    Attributes { bits: u16, reason: &'static str },
    /// The count is not positive, or the last offset delta is not one less.
    #[error(
        "the batch has count {count} and last offset delta {last_offset_delta}, which should be one less"
    )]
    Count { count: i32, last_offset_delta: i32 },
    /// The producer's fields are out of range.
    #[error("the batch's producer id {id}, epoch {epoch}, sequence {sequence} is out of range")]
    Producer { id: i64, epoch: i16, sequence: i32 },
    /// The max timestamp in the header is not the largest of the records.
    #[error("the batch states max timestamp {stated}, its records' largest is {computed}")]
    MaxTimestamp { stated: i64, computed: i64 },
    /// A record is malformed.
    #[error("record {index} of the batch is malformed: {reason}")]
    Record { index: u32, reason: &'static str },
    /// Bytes are left over after the last record.
    #[error("the batch has {extra} bytes after its last record")]
    Trailing { extra: usize },
    /// The compressed records are not what the codec can read.
    #[error("the batch's {codec} data cannot be decompressed: {reason}")]
    Decompress { codec: Codec, reason: String },
    /// The codec failed to compress the records.
    #[error("the records cannot be compressed with {codec}: {reason}")]
    Compress { codec: Codec, reason: String },
}
