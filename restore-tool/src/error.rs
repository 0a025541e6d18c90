//! The one error of this crate: what was asked, where it failed, and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use duramen_archive::{HistoryError, SegmentError};
use duramen_client::when;
use duramen_types::{ArchiveId, BranchName, HybridTime, Index, RestorePointName, ShardId};
use duramen_wal::datadir;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a restore, or a look at an archive, could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Archive(#[from] duramen_archive::Error),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    History(HistoryError),
    #[error(transparent)]
    Directory(#[from] datadir::Error),
    #[error(transparent)]
    Log(#[from] duramen_wal::Error),
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The place for a restore is of no use.
    #[error(
        "{dir} can't be a data directory: cannot {action} {path}; give with --to a directory that is new or empty, where this \
         user may write"
    )]
    NoDirectory {
        dir: PathBuf,
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is there already: give another file with --output, or remove it")]
    OutputExists { path: PathBuf },
    #[error(
        "{path} can't be created: give with --output a file in a directory that exists and where this user may write"
    )]
    OutputFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Writing what `export` gives failed.
    #[error("the export could not be written")]
    Output(#[source] io::Error),
    #[error(
        "the target {} lies in the future (it is {} now): choose an instant that has passed, or --latest",
        when::format(*.asked), when::format(*.now)
    )]
    FutureTarget { asked: HybridTime, now: HybridTime },
    #[error(
        "branch {branch} of {url} can't be restored to {}: it is proven complete through {} only, shard {shard} is the \
         slowest; choose that or an earlier instant, or --latest; a running node closes later instants within seconds",
        when::format(*.asked), when::format(*.closed)
    )]
    NotClosed { url: Arc<str>, branch: BranchName, asked: HybridTime, closed: HybridTime, shard: ShardId },
    #[error(
        "branch {branch} of {url} can't be restored to {}: its recovery window begins at {}; choose a later instant",
        when::format(*.asked), when::format(*.first)
    )]
    BeforeWindow { url: Arc<str>, branch: BranchName, asked: HybridTime, first: HybridTime },
    #[error(
        "branch {branch} of {url} holds nothing that is proven complete yet (shard {shard}): wait until its node has \
         archived. If it had, the objects below {branch}/closed/ are gone: put them back from a copy, or choose \
         --latest-per-shard"
    )]
    NothingClosed { url: Arc<str>, branch: BranchName, shard: ShardId },
    #[error(
        "branch {branch} of {url} has no restore point {name}; it has {}. A new one is known once it is archived",
        listed(.known)
    )]
    UnknownRestorePoint {
        url: Arc<str>,
        branch: BranchName,
        name: RestorePointName,
        known: Vec<RestorePointName>,
    },
    #[error("the target position is wrong: {reason}; give `shard:index` for every shard, or a plan's JSON")]
    Position { reason: String },
    #[error("shard {shard} of branch {branch} is archived up to index {end}, the target asks for {asked}")]
    BeyondEnd { branch: BranchName, shard: ShardId, asked: Index, end: Index },
    #[error("the history of shard {shard} of branch {branch} has a gap before the target: {reason}")]
    Gap { branch: BranchName, shard: ShardId, reason: String },
    #[error(
        "the archive {url} lacks objects that the target needs: {}; nothing was restored. Choose a target that does not \
         need them, or put them back from a copy",
        listed(.missing)
    )]
    MissingObjects { url: Arc<str>, missing: Vec<String> },
    /// An object is not the one that the manifests name.
    #[error("object {key} of {url} is not what its manifest says: {reason}; put it back from a copy")]
    Altered { key: String, url: Arc<str>, reason: String },
    #[error("{dir} is not empty: it has {found:?}; restore into an empty directory")]
    NotEmpty { dir: PathBuf, found: String },
    #[error(
        "{dir} holds the beginning of another restore ({started}): finish that one with `duramen-restore hydrate --to \
         {dir}` and no target, or remove the directory"
    )]
    OtherRestore { dir: PathBuf, started: String },
    #[error("{dir} is restored already, as branch {branch}: start a node on it")]
    AlreadyRestored { dir: PathBuf, branch: BranchName },
    #[error("{dir} holds no interrupted restore: say what to restore, for example --latest")]
    NothingToResume { dir: PathBuf },
    #[error("{dir} is of archive {expected}, {url} is archive {found}: give that archive's URL")]
    OtherArchive { dir: PathBuf, url: Arc<str>, expected: ArchiveId, found: ArchiveId },
    #[error("{what} {name:?} does not exist on branch {branch} at {}; {hint}", when::format(*.at))]
    UnknownStream { what: &'static str, name: String, branch: BranchName, at: HybridTime, hint: String },
    #[error(
        "a batch of stream {stream} at offset {offset} can't be read: {reason}; run `duramen-restore verify --full`"
    )]
    Batch { stream: String, offset: u64, reason: String },
    #[error("{text:?} is no key of an archive: keys look like main/shard-0001/manifest/00000000000000000000")]
    NotAKey { text: String },
    #[error("there is no hold {id}: {}", known_holds(.known))]
    UnknownHold { id: String, known: Vec<uuid::Uuid> },
    #[error("{dir} can't be repaired: {reason}")]
    NotRepairable { dir: PathBuf, reason: String },
    /// A task of this process ended early.
    #[error("the operation was interrupted: {0}; run it again")]
    Interrupted(String),
}

impl Error {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_retryable(),
            Self::Segment(error) => error.is_retryable(),
            Self::History(error) => error.is_retryable(),
            Self::Log(error) => error.is_retryable(),
            Self::NotClosed { .. } | Self::NothingClosed { .. } | Self::Interrupted(_) => true,
            _ => false,
        }
    }

    /// Whether the failed call may have changed the archive all the same.
    pub fn may_have_had_effect(&self) -> bool {
        match self {
            Self::Archive(error) => error.may_have_had_effect(),
            Self::Interrupted(_) => true,
            _ => false,
        }
    }

    /// Whether stored bytes are damaged, altered or missing.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_damage(),
            Self::Segment(error) => error.is_damage(),
            Self::History(error) => error.is_damage(),
            Self::Gap { .. }
            | Self::MissingObjects { .. }
            | Self::Altered { .. }
            | Self::Batch { .. }
            | Self::Log(duramen_wal::Error::Corrupt { .. } | duramen_wal::Error::Incomplete { .. }) => true,
            _ => false,
        }
    }

    /// Whether the archive does not cover the target.
    pub const fn is_not_covered(&self) -> bool {
        matches!(
            self,
            Self::FutureTarget { .. }
                | Self::NotClosed { .. }
                | Self::BeforeWindow { .. }
                | Self::NothingClosed { .. }
                | Self::BeyondEnd { .. }
        )
    }

    /// Whether something that was named does not exist.
    pub const fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::UnknownRestorePoint { .. }
                | Self::UnknownStream { .. }
                | Self::UnknownHold { .. }
                | Self::NothingToResume { .. }
                | Self::Archive(
                    duramen_archive::Error::NoArchive { .. }
                        | duramen_archive::Error::UnknownBranch { .. }
                        | duramen_archive::Error::NoBucket(_)
                )
        )
    }
}

impl From<HistoryError> for Error {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Archive(error) => Self::Archive(error),
            HistoryError::Segment(error) => Self::Segment(error),
            other => Self::History(other),
        }
    }
}

/// The beginning of a list that may be long.
fn listed<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 10;
    if items.is_empty() {
        return "none".to_owned();
    }
    let shown = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What may be released.
fn known_holds(known: &[uuid::Uuid]) -> String {
    if known.is_empty() {
        return "the archive has none".to_owned();
    }
    let ids: Vec<String> = known.iter().map(ToString::to_string).collect();
    format!("the archive has {}; `duramen-restore hold list` shows what they are for", ids.join(", "))
}
