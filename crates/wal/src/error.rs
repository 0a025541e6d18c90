//! The one error of this crate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_types::{DecodeError, EntryId, Index, ShardId};

/// What went wrong with the log, where, and what to do about it.
///
/// Cheap to clone, because one failure answers every append that waits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    /// Bytes that were once acknowledged can't be read back as they were written.
    #[error(
        "{file} is damaged at byte {offset}: {reason}; nothing was changed. On a single node stop it and run \
         `duramen-restore repair --data DIR`, a replica is rebuilt from its peers"
    )]
    Corrupt { file: PathBuf, offset: u64, reason: String },
    /// The log can't be put together from the files that are there.
    #[error(
        "{dir} lacks a part of the log: {reason}; nothing was changed. On a single node run \
         `duramen-restore repair --data DIR`, a replica is rebuilt from its peers"
    )]
    Incomplete { dir: PathBuf, reason: String },
    /// A file was written by a newer release, or belongs to another node.
    #[error("{file} can't be used: {reason}")]
    Foreign { file: PathBuf, reason: String },
    /// A new entry would eat into the disk's reserve; nothing was queued.
    #[error(
        "the disk with {dir} is full: {available} bytes are free and {reserve} are kept in reserve; appends go on \
         by themselves once space is freed"
    )]
    DiskFull { dir: PathBuf, available: u64, reserve: u64 },
    /// An earlier failure stopped the log for good: what the disk holds is unknown until the process restarts.
    #[error("the log stopped after a failure: restart the process, which recovers it")]
    Stopped {
        #[source]
        cause: Arc<Error>,
    },
    /// The log was shut down.
    #[error("the log is shut down")]
    Closed,
    /// An entry doesn't follow the last one of its shard; nothing was queued.
    #[error("shard {shard}: entry {found} can't follow, index {expected} was expected")]
    OutOfOrder { shard: ShardId, expected: Index, found: EntryId },
    /// A record names an entry that the log doesn't hold; nothing was queued.
    #[error("shard {shard}: entry {id} is not in the log")]
    UnknownEntry { shard: ShardId, id: EntryId },
    /// The entries asked for were purged.
    #[error("shard {shard}: index {asked} is purged, the first one held here is {first}")]
    Purged { shard: ShardId, asked: Index, first: Index },
    /// A record is larger than the log takes; nothing was queued.
    #[error("a record of {size} bytes exceeds the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },
    /// An option has a value that can't work.
    #[error("the log's option {option} is invalid: {reason}")]
    Options { option: &'static str, reason: String },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, reason: impl ToString) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, reason: reason.to_string() }
    }

    /// The error of a file whose fixed part does not decode.
    pub(crate) fn undecodable(file: &Path, offset: u64, cause: &DecodeError) -> Self {
        match cause {
            DecodeError::Version { .. } => Self::Foreign { file: file.to_owned(), reason: cause.to_string() },
            _ => Self::corrupt(file, offset, cause),
        }
    }

    /// Whether the same call can succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::Incomplete { .. }
            | Self::Foreign { .. }
            | Self::Stopped { .. }
            | Self::Closed
            | Self::OutOfOrder { .. }
            | Self::UnknownEntry { .. }
            | Self::Purged { .. }
            | Self::TooLarge { .. }
            | Self::Options { .. } => false,
        }
    }

    /// Whether the records of the failed call may be in the log nevertheless after a restart.
    pub fn may_have_had_effect(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Stopped { .. } => true,
            Self::Corrupt { .. }
            | Self::Incomplete { .. }
            | Self::Foreign { .. }
            | Self::DiskFull { .. }
            | Self::Closed
            | Self::OutOfOrder { .. }
            | Self::UnknownEntry { .. }
            | Self::Purged { .. }
            | Self::TooLarge { .. }
            | Self::Options { .. } => false,
        }
    }

    /// Whether it is for want of disk space, and everything is as it was.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. }) || self.is_no_space()
    }

    /// Whether a step failed for want of disk space and left everything as it was.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            // An fsync that fails for want of space failed nevertheless: what the disk holds is unknown.
            Self::Io { action, source, .. } => {
                let full =
                    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&source.kind());
                full && !action.starts_with("fsync")
            }
            _ => false,
        }
    }
}
