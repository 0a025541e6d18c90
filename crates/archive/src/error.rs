//! The one error of this crate: what was attempted, on which object of which archive, and what to do about it.

use std::fmt;
use std::sync::Arc;

use duramen_types::{BranchName, ClusterId, DecodeError, Index, ShardId, counted};

/// The result of everything that touches an archive.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was being done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Read,
    Stat,
    List,
    Delete,
}

impl Operation {
    /// A stable name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// An operation on a key of an archive: the "where" of every store error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    pub operation: Operation,
    /// The key below the archive's prefix.
    pub key: Box<str>,
    /// The archive, as the user named it, without secrets.
    pub url: Arc<str>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {:?} in {}", self.operation.name(), self.key, self.url)
    }
}

/// Why an archive could not be used as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{0}: there is no such object")]
    Missing(At),
    #[error("{0}: an object that someone else wrote is already there")]
    Exists(At),
    #[error("{at}: permission denied: {reason}; {}", permit(.at.operation, .reason))]
    Denied { at: At, reason: String },
    #[error("{0}: the bucket or container does not exist: create it, or correct the archive's URL")]
    NoBucket(At),
    #[error(
        "{at}: no usable credentials: {reason}; mend that, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
         AWS_PROFILE, a web identity, a container's or an instance's role, or `anonymous` for a public bucket"
    )]
    NoCredentials { at: At, reason: String },
    /// What gives the credentials did not answer; no request was sent to the store.
    #[error(
        "{at}: no credentials can be had for now ({}): {reason}; if it lasts, see why they don't come from there",
        counted(.attempts, "attempt")
    )]
    NoCredentialsNow { at: At, attempts: u32, reason: String },
    #[error(
        "{at}: the store throttles requests ({}): {reason}; they are tried again later; if it lasts, \
         raise the request limit of the store or archive less often",
        counted(.attempts, "attempt")
    )]
    Throttled { at: At, attempts: u32, reason: String },
    #[error(
        "{at}: the store is not available ({}): {reason}; check endpoint and network",
        counted(.attempts, "attempt")
    )]
    Unavailable { at: At, attempts: u32, reason: String },
    #[error("{at}: the store refused the request: {reason}")]
    Refused { at: At, reason: String },
    #[error(
        "{at}: the store cannot do this: {reason}; an archive needs create-only PUT (`If-None-Match: *`), as S3, MinIO, \
         GCS, Azure and a local directory have it"
    )]
    Unsupported { at: At, reason: String },
    #[error(
        "{at}: the object has {found} bytes where {expected} were expected: it was truncated or replaced"
    )]
    WrongSize { at: At, expected: u64, found: u64 },
    #[error("{at}: the object has {size} bytes, at most {limit} are read: it is not what its key says")]
    TooLarge { at: At, size: u64, limit: u64 },
    #[error("{0}: what was read back is not what was written: the store or the network alters data")]
    AlteredInStore(At),
    /// The bytes under a key are not what the key says: damage, or another program's object.
    #[error("object {key:?} of {url} is damaged: {source}")]
    Damaged { key: Box<str>, url: Arc<str>, source: DecodeError },
    /// The object is of a format version that this release does not know.
    #[error("object {key:?} of {url} was written by a newer release: {reason}")]
    Newer { key: Box<str>, url: Arc<str>, reason: DecodeError },
    /// The object uses a feature that this release has no code for.
    #[error("object {key:?} of {url} uses {feature}, which this release cannot read: use a newer release")]
    NotSupported { key: Box<str>, url: Arc<str>, feature: &'static str },
    #[error("the archive {url} cannot be configured like this: {}", .problems.join("; "))]
    Config { url: Arc<str>, problems: Vec<String> },
    #[error("there is no archive at {url}: it has no archive.json; check the URL and its prefix")]
    NoArchive { url: Arc<str> },
    #[error(
        "{url} holds something else already (it has {found:?} and no archive.json): choose an empty prefix"
    )]
    NotEmpty { url: Arc<str>, found: String },
    #[error(
        "the archive {url} was created with {found} shards, this cluster has {expected}: leave cluster.shards out for a new \
         directory; one with another number needs an archive of its own"
    )]
    ShardCount { url: Arc<str>, expected: u16, found: u16 },
    #[error("the archive {url} has no branch {branch}; it has {}", names(.known))]
    UnknownBranch { url: Arc<str>, branch: BranchName, known: Vec<BranchName> },
    #[error("branch {branch} exists already in {url}: choose another name")]
    BranchExists { url: Arc<str>, branch: BranchName },
    #[error(
        "branch {branch} of {url} is written by cluster {owner}, this is cluster {us}: start this one on a branch of \
         its own (`duramen-restore branch`)"
    )]
    Owned { url: Arc<str>, branch: BranchName, owner: ClusterId, us: ClusterId },
    /// Another writer committed the manifest first: refresh the log and cut again from its new end.
    #[error("another writer committed {key:?} of {url} first: reload and archive from the new end")]
    Lost { key: Box<str>, url: Arc<str> },
    /// What was to be committed does not join what is there; archiving of the shard stops.
    #[error("shard {shard} of branch {branch} cannot go on at index {end}: {reason}")]
    Discontinuous { branch: BranchName, shard: ShardId, end: Index, reason: String },
    /// A manifest, page or range that must be there is not.
    #[error("the history of shard {shard} of branch {branch} has a gap: {reason}")]
    Gap { branch: BranchName, shard: ShardId, reason: String },
    #[error("branch {branch} cannot be created: {reason}")]
    BadCut { branch: BranchName, reason: String },
}

impl Error {
    /// Whether the same call may succeed later without anyone's doing.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::Unavailable { .. }
                | Self::NoCredentialsNow { .. }
                | Self::Lost { .. }
        )
    }

    /// Whether what the store has is not what it should have: damaged, gone, or another object. Not so where it only can't be
    /// asked, for whatever reason.
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Missing(_)
                | Self::WrongSize { .. }
                | Self::TooLarge { .. }
                | Self::Damaged { .. }
                | Self::AlteredInStore(_)
                | Self::Gap { .. }
                | Self::Discontinuous { .. }
        )
    }

    /// Whether the failed call may have changed the archive all the same.
    pub const fn may_have_had_effect(&self) -> bool {
        match self {
            Self::Throttled { at, .. } | Self::Unavailable { at, .. } => {
                matches!(at.operation, Operation::Create | Operation::Delete)
            }
            Self::AlteredInStore(_) => true,
            _ => false,
        }
    }

    /// Whether the object that was asked for is not there.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// What S3 says of requests whose credentials are wrong, whatever they would permit.
const BAD_CREDENTIALS: [&str; 6] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];

/// What helps against a refusal that has this reason.
fn permit(operation: Operation, reason: &str) -> &'static str {
    if BAD_CREDENTIALS.iter().any(|code| reason.contains(code)) {
        "the store does not accept the credentials: check the access key, its secret and the session token \
         (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), or where else they come from"
    } else if reason.contains("RequestTimeTooSkewed") {
        "the store's clock and this machine's differ too much: correct this machine's clock"
    } else {
        grant(operation)
    }
}

const fn grant(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "grant s3:PutObject on the prefix (or write permission on the directory)",
        Operation::Read | Operation::Stat => {
            "grant s3:GetObject on the prefix (or read permission on the directory)"
        }
        Operation::List => "grant s3:ListBucket on the bucket (or read permission on the directory)",
        Operation::Delete => "only credentials with s3:DeleteObject may delete; a node needs none",
    }
}

fn names(branches: &[BranchName]) -> String {
    if branches.is_empty() {
        return "none".to_owned();
    }
    branches.iter().map(BranchName::as_str).collect::<Vec<_>>().join(", ")
}
