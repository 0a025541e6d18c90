//! What can be wrong with an archived segment.

use std::ops::Range;

use duramen_types::{DecodeError, Index};

/// A segment that can't be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Its bytes are not a segment's, or fail a checksum.
    #[error("{object}, {part}: {cause}; restore the object from a copy, or verify the archive")]
    Damaged { object: String, part: String, cause: DecodeError },
    /// It is a segment whose parts contradict each other, the history chain, or the manifest.
    #[error(
        "{object}, {part}: {reason}; it was altered after it was written, or written by a faulty program"
    )]
    Altered { object: String, part: String, reason: String },
    /// It is another segment than its key says.
    #[error("{object} is another segment: its {field} is {found}, {expected} was expected")]
    Swapped { object: String, field: &'static str, expected: String, found: String },
    #[error("{object} is encrypted, which this release can't read: use a newer one")]
    Encrypted { object: String },
    /// An entry whose batches expiry dropped.
    #[error("entry {index} of {object} can't be rebuilt: expiry dropped its batches")]
    Dropped { object: String, index: Index },
    #[error("{object} holds no entry {index}")]
    NotHeld { object: String, index: Index },
    #[error(transparent)]
    Store(#[from] crate::Error),
    /// A file or buffer on this machine.
    #[error("{object} can't be read at {}..{}: {reason}", range.start, range.end)]
    Local { object: String, range: Range<u64>, reason: String },
    /// The runtime is shutting down.
    #[error("reading {object} was interrupted by the end of the program")]
    Interrupted { object: String },
}

impl SegmentError {
    /// Whether the same read may succeed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Damaged { .. }
            | Self::Altered { .. }
            | Self::Swapped { .. }
            | Self::Encrypted { .. }
            | Self::Dropped { .. }
            | Self::NotHeld { .. }
            | Self::Local { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// Whether the segment is damaged, and not only out of reach.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_damage(),
            Self::Damaged { .. }
            | Self::Altered { .. }
            | Self::Swapped { .. }
            | Self::Dropped { .. }
            | Self::NotHeld { .. }
            | Self::Local { .. } => true,
            Self::Encrypted { .. } | Self::Interrupted { .. } => false,
        }
    }
}
