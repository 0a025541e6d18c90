//! Why history could not be read.

use duramen_state::ApplyError;
use duramen_types::{DecodeError, EntryId, Index, Offset, ShardId, StreamId};

use crate::SegmentError;

/// History that can't be read, or contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Archive(#[from] crate::Error),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("{object}: {cause}; an older snapshot and the segments after it give the same state")]
    Snapshot { object: String, cause: DecodeError },
    #[error("{object} does not fit the rest of the history: {reason}; verify the archive")]
    Inconsistent { object: String, reason: String },
    #[error(
        "{object} holds entries that are not the continuation of the log before it: {cause}; verify the archive"
    )]
    Replay { object: String, cause: ApplyError },
    /// The archive's record of what became of a batch is not what replaying gives.
    #[error("{object}: replaying entry {entry} gives its batches other outcomes than the archive has")]
    Diverged { object: String, entry: EntryId },
    #[error("shard {shard} is archived up to index {end}, {asked} is beyond it")]
    BeyondEnd { shard: ShardId, asked: Index, end: Index },
    /// Records that should be there are not: expired, or lost.
    #[error("stream {stream} has no offset {expected} in the archive, the next one is {found}")]
    Gap { stream: StreamId, expected: Offset, found: Offset },
    #[error("a batch of stream {stream} at offset {offset} can't be decoded: {reason}")]
    Batch { stream: StreamId, offset: Offset, reason: String },
    #[error("the read was interrupted by the end of the program")]
    Interrupted,
}

impl HistoryError {
    /// Whether the same read may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_retryable(),
            Self::Segment(error) => error.is_retryable(),
            Self::Snapshot { .. }
            | Self::Inconsistent { .. }
            | Self::Replay { .. }
            | Self::Diverged { .. }
            | Self::BeyondEnd { .. }
            | Self::Gap { .. }
            | Self::Batch { .. }
            | Self::Interrupted => false,
        }
    }

    /// Whether the history is damaged, and not only out of reach.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_damage(),
            Self::Segment(error) => error.is_damage(),
            Self::Snapshot { .. }
            | Self::Inconsistent { .. }
            | Self::Replay { .. }
            | Self::Diverged { .. }
            | Self::Gap { .. }
            | Self::Batch { .. } => true,
            Self::BeyondEnd { .. } | Self::Interrupted => false,
        }
    }
}
