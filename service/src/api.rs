//! What a node offers inside its process: the words that gRPC, HTTP, the admin pages and the demo share.

use std::time::Duration;

use bytes::Bytes;
use duramen_types::{
    Acknowledgement, Compression, CursorName, FencingToken, HybridTime, Offset, Producer, RescuePolicy,
    ShardId, StreamConfig, StreamId, StreamName, TenantName, Term, TimestampPolicy,
};

/// A stream as its users name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    pub tenant: TenantName,
    pub name: StreamName,
}

impl std::fmt::Display for StreamRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// What a stream looks like now, with every default filled in beside what was set.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub stream: StreamRef,
    pub id: StreamId,
    pub shard: ShardId,
    /// What was set explicitly.
    pub config: StreamConfig,
    /// The level that applies to an append which names none.
    pub acknowledgement: Acknowledgement,
    pub compression: Compression,
    pub timestamps: TimestampPolicy,
    pub created: HybridTime,
    pub last_append: HybridTime,
    /// The first readable offset.
    pub first: Offset,
    /// The tail: the offset that the next record gets.
    pub next: Offset,
    /// Bytes of all batches ever appended.
    pub appended_bytes: u64,
    pub fenced: bool,
    pub cursors: usize,
}

/// Changes of a stream's configuration: the outer `None` leaves a field alone, `Some(None)` returns it to the default.
#[derive(Debug, Clone, Default)]
pub struct StreamConfigPatch {
    pub acknowledgement: Option<Option<Acknowledgement>>,
    pub retention_age_seconds: Option<Option<u64>>,
    pub retention_bytes: Option<Option<u64>>,
    pub compression: Option<Option<Compression>>,
    pub timestamps: Option<Option<TimestampPolicy>>,
    pub rescue: Option<Option<RescuePolicy>>,
}

/// One page of streams, by name.
#[derive(Debug, Clone)]
pub struct StreamPage {
    pub streams: Vec<StreamInfo>,
    /// Pass it as `after` for the next page; `None` when this was the last.
    pub next: Option<StreamName>,
}

/// The records of one append.
#[derive(Debug, Clone)]
pub enum AppendPayload {
    /// An encoded record batch (Kafka v2): validated, never re-encoded.
    Encoded(Bytes),
    /// Plain records, encoded here.
    Records(Vec<duramen_types::batch::Record>),
}

/// One append to one stream.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    pub stream: StreamRef,
    pub payload: AppendPayload,
    /// `None` takes the stream's default.
    pub acknowledgement: Option<Acknowledgement>,
    /// Append only if the tail is at this offset.
    pub match_offset: Option<Offset>,
    pub fencing_token: Option<FencingToken>,
    /// For plain records; an encoded batch carries its own.
    pub producer: Option<Producer>,
    /// The highest hybrid time that the session has seen.
    pub seen: HybridTime,
}

/// The acknowledgement of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub first: Offset,
    /// The offset after the batch's last record.
    pub next: Offset,
    pub time: HybridTime,
    pub term: Term,
    /// The ack is `local`: replication has not been waited for.
    pub provisional: bool,
    /// The batch had been appended before; these are its first answer's offsets.
    pub duplicate: bool,
}

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// The first readable record.
    Earliest,
    Offset(Offset),
    /// The first record whose timestamp is at or after this one, milliseconds since 1970.
    Timestamp(i64),
    /// After the last record.
    Tail,
    Cursor(CursorName),
}

/// A read of one stream.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    pub stream: StreamRef,
    pub from: ReadFrom,
    /// Ends the read after this many records.
    pub max_records: Option<u64>,
    /// Ends the read before the batch that would exceed this many bytes; at least one batch is served.
    pub max_bytes: Option<u64>,
    /// Waits for new records instead of ending at the tail.
    pub follow: bool,
    /// Reads the stream as it was at this instant; not together with `follow`.
    pub as_of: Option<HybridTime>,
    pub seen: HybridTime,
}

/// A batch as it is served: its base offset filled in.
#[derive(Debug, Clone)]
pub struct ReadBatch {
    /// The encoded record batch.
    pub batch: Bytes,
    pub base: Offset,
    pub records: u32,
    /// Records of the batch below this offset were not asked for: skip them.
    pub from: Offset,
    /// Records of the batch at or above this offset were not asked for: skip them.
    pub end: Offset,
    /// The hybrid time of the append.
    pub time: HybridTime,
    /// The stream's tail when the batch was read.
    pub tail: Offset,
}

/// A named consumer position with its lag.
#[derive(Debug, Clone)]
pub struct CursorInfo {
    pub cursor: CursorName,
    pub offset: Offset,
    pub committed: HybridTime,
    /// Records between the cursor and the tail.
    pub lag_records: u64,
    /// Age of the oldest record that the cursor has yet to read; zero when it has read everything.
    pub lag: Duration,
}

#[derive(Debug, Clone)]
pub struct TenantInfo {
    pub tenant: TenantName,
    pub created: HybridTime,
}

#[derive(Debug, Clone)]
pub struct RestorePointInfo {
    pub name: duramen_types::RestorePointName,
    pub time: HybridTime,
}

/// What went wrong, as every interface reports it. The codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidArgument,
    RecordTooLarge,
    BatchTooLarge,
    EmptyBatch,
    UnknownTenant,
    UnknownStream,
    UnknownCursor,
    UnknownRestorePoint,
    StreamExists,
    TenantExists,
    RestorePointExists,
    OffsetMismatch,
    Fenced,
    ProducerFenced,
    OutOfOrderSequence,
    UnknownProducer,
    ConfigChanged,
    /// A read below the trim point or beyond the tail, a trim or cursor beyond the tail.
    OutOfRange,
    /// There are as many streams, cursors, tenants or restore points as there may be.
    LimitReached,
    ResourceExhausted,
    DiskFull,
    Unavailable,
    /// The operation may or may not have had its effect.
    UnknownOutcome,
    /// `as_of` or a target that the history at hand cannot prove.
    NotCovered,
    FutureTime,
    /// A client's or peer's clock is too far ahead.
    ClockRefused,
    Corruption,
    Unimplemented,
    Internal,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::RecordTooLarge => "record_too_large",
            Self::BatchTooLarge => "batch_too_large",
            Self::EmptyBatch => "empty_batch",
            Self::UnknownTenant => "unknown_tenant",
            Self::UnknownStream => "unknown_stream",
            Self::UnknownCursor => "unknown_cursor",
            Self::UnknownRestorePoint => "unknown_restore_point",
            Self::StreamExists => "stream_exists",
            Self::TenantExists => "tenant_exists",
            Self::RestorePointExists => "restore_point_exists",
            Self::OffsetMismatch => "offset_mismatch",
            Self::Fenced => "fenced",
            Self::ProducerFenced => "producer_fenced",
            Self::OutOfOrderSequence => "out_of_order_sequence",
            Self::UnknownProducer => "unknown_producer",
            Self::ConfigChanged => "config_changed",
            Self::OutOfRange => "out_of_range",
            Self::LimitReached => "limit_reached",
            Self::ResourceExhausted => "resource_exhausted",
            Self::DiskFull => "disk_full",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::NotCovered => "not_covered",
            Self::FutureTime => "future_time",
            Self::ClockRefused => "clock_refused",
            Self::Corruption => "corruption",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request can succeed later without a change.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ResourceExhausted
                | Self::DiskFull
                | Self::Unavailable
                | Self::UnknownOutcome
                | Self::ConfigChanged
        )
    }

    /// Whether the operation may have been carried out although it failed.
    pub const fn may_have_had_effect(self) -> bool {
        matches!(self, Self::UnknownOutcome)
    }
}

/// A failed operation: a stable code, a sentence that says what happened and what to do, and the position that helps.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
    /// The stream's actual tail, where it explains the failure.
    pub tail: Option<Offset>,
    /// The first readable offset, where it explains the failure.
    pub first_readable: Option<Offset>,
    /// The sequence number that the producer should send next, where it explains the failure.
    pub expected_sequence: Option<u32>,
    /// What else explains the failure; boxed, because it seldom does.
    pub more: Option<Box<More>>,
}

/// What explains a failure beside the usual positions.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// The producer's current epoch.
    pub producer_epoch: Option<u16>,
    /// The stream's current fencing token.
    pub fencing_token: Option<FencingToken>,
    /// The limit that was met, in the unit of the code.
    pub limit: Option<u64>,
    /// Which record of the batch is meant, from 0.
    pub record: Option<u32>,
    /// The nearest instant that can be asked for, or that of what exists already.
    pub time: Option<HybridTime>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            tail: None,
            first_readable: None,
            expected_sequence: None,
            more: None,
        }
    }

    #[must_use]
    pub fn with_more(mut self, more: More) -> Self {
        self.more = Some(Box::new(more));
        self
    }

    /// What else explains the failure; nothing, where there is none.
    pub fn more(&self) -> More {
        self.more.as_deref().cloned().unwrap_or_default()
    }

    #[must_use]
    pub const fn with_tail(mut self, tail: Offset) -> Self {
        self.tail = Some(tail);
        self
    }

    #[must_use]
    pub const fn with_first_readable(mut self, first: Offset) -> Self {
        self.first_readable = Some(first);
        self
    }
}

pub type Result<T> = std::result::Result<T, Error>;
