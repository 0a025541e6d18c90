//! What applying an entry gives.

use duramen_types::{
    ChainValue, EntryId, FencingToken, HybridTime, Index, Offset, ProducerId, StreamConfig, StreamId,
};

/// The outcome of one applied entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry's effective hybrid time.
    pub time: HybridTime,
    /// The chain value after the entry.
    pub chain: ChainValue,
    /// One for each batch that the entry carries, in their order.
    pub batches: Vec<BatchOutcome>,
    /// For a control entry.
    pub control: Option<Result<ControlResult, Rejection>>,
}

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// It got the offsets from `base`.
    Appended { base: Offset },
    /// It was rescued into another stream than its header names, and there got the offsets from `base`.
    Rescued { stream: StreamId, base: Offset },
    /// An idempotent producer sent it before; it then, at `time`, got the offsets from `base`.
    ///
    /// Of a rescue it says that nothing was taken, and `base` is the tail of the stream that its header names and
    /// `time` the entry's: where its records are is not remembered.
    Duplicate { base: Offset, time: HybridTime },
    /// It is in the log but not in its stream.
    Rejected(Rejection),
}

impl BatchOutcome {
    /// The stream that the batch is in now and the offset of its first record there; `header` is the stream that its
    /// header names.
    pub const fn place(&self, header: StreamId) -> Option<(StreamId, Offset)> {
        match self {
            Self::Appended { base } => Some((header, *base)),
            Self::Rescued { stream, base } => Some((*stream, *base)),
            Self::Duplicate { .. } | Self::Rejected(_) => None,
        }
    }
}

/// What a control operation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlResult {
    Done,
    Created(StreamId),
    /// The first readable offset from now on.
    Trimmed(Offset),
    Producer(ProducerId),
}

/// Why an operation had no effect; deterministic, and itself part of history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("stream {0} does not exist")]
    UnknownStream(StreamId),
    #[error("the stream exists already")]
    StreamExists(StreamId),
    #[error("the append expected the tail at offset {expected}, it is at {tail}")]
    OffsetMismatch { expected: Offset, tail: Offset },
    #[error("the fencing token does not match the stream's")]
    Fenced { current: Option<FencingToken> },
    #[error("producer epoch {found} is fenced: epoch {current} has taken over")]
    ProducerFenced { found: u16, current: u16 },
    #[error("producer sequence {found} is out of order: {expected} was expected")]
    OutOfOrderSequence { found: u32, expected: u32 },
    #[error("producer {0} is not known to the stream: begin anew with sequence 0")]
    UnknownProducer(ProducerId),
    #[error("the stream's configuration was changed meanwhile")]
    ConfigChanged(Box<StreamConfig>),
    #[error("offset {offset} is beyond the tail {tail}")]
    BeyondTail { offset: Offset, tail: Offset },
    #[error("the cursor does not exist")]
    UnknownCursor,
    #[error("the tenant exists already")]
    TenantExists,
    #[error("the restore point exists already")]
    RestorePointExists(HybridTime),
    #[error("the restore point does not exist")]
    UnknownRestorePoint,
    #[error("there are {limit} {what} already: delete some first")]
    TooMany { what: &'static str, limit: usize },
    #[error("the operation belongs to the {0} shard")]
    WrongShard(&'static str),
}

/// Entries that are not the continuation of this shard's log: damage, or a bug of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("entry {found} does not follow the applied log, whose end is {expected}")]
    NotNext { expected: Index, found: EntryId },
    #[error("entry {found} has a lower term than its predecessor {previous}")]
    TermRegressed { previous: EntryId, found: EntryId },
    #[error("entry {found} has time {time}, not after its predecessor's {previous}")]
    TimeRegressed { found: EntryId, time: HybridTime, previous: HybridTime },
}
