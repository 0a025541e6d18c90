//! What can keep a shard from being archived.

use duramen_types::{BranchName, EntryId, Index, ShardId};

/// Why archiving a shard failed; what was committed before stays committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("shard {shard}: {source}")]
    Archive { shard: ShardId, source: duramen_archive::Error },
    #[error("shard {shard}: {source}")]
    History { shard: ShardId, source: duramen_archive::HistoryError },
    #[error("shard {shard}: {source}")]
    Log { shard: ShardId, source: duramen_wal::Error },
    /// The log holds bytes that are not an entry, or entries that do not continue the archived history.
    #[error("shard {shard}: entry {id} can't be archived: {reason}; run `duramen-restore repair`")]
    Entry { shard: ShardId, id: EntryId, reason: String },
    #[error(
        "shard {shard}: the log does not hold index {index}, which follows the archived history; run `duramen-restore repair`"
    )]
    NotInLog { shard: ShardId, index: Index },
    /// The archived history is another log's: somebody writes the branch with this one's identity.
    #[error(
        "shard {shard}: another node archives branch {branch} as if it were this one: this log {found}, and the archive \
         holds index {index}. Is a copy of this data directory in use, or was it put back from one? Only one of them can go \
         on: stop the other node or this one. To go on from the archive, start in an empty directory that \
         `duramen-restore hydrate` fills; what only this node took stays in its own"
    )]
    Rival { shard: ShardId, branch: BranchName, index: Index, found: String },
    #[error("shard {shard}: {source}")]
    Segment { shard: ShardId, source: duramen_archive::WriteError },
    #[error("shard {shard}: the work was cancelled: {reason}")]
    Cancelled { shard: ShardId, reason: String },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the same call can succeed later without anybody's help.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Archive { source, .. } => source.is_retryable(),
            Self::History { source, .. } => source.is_retryable(),
            Self::Cancelled { .. } => true,
            Self::Log { .. }
            | Self::Entry { .. }
            | Self::NotInLog { .. }
            | Self::Rival { .. }
            | Self::Segment { .. } => false,
        }
    }
}
