//! What a node shows of itself, as the operators' pages serialise it.

use serde::Serialize;
use utoipa::ToSchema;

/// The verdict of a check, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Ok,
    Degraded,
    Unhealthy,
}

/// One check with how long it took and what it found.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Check {
    pub name: &'static str,
    pub condition: Condition,
    pub duration_seconds: f64,
    /// What was found, and what to do where it is not `ok`.
    pub detail: String,
}

/// The worst condition of all checks, and each of them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Health {
    pub condition: Condition,
    pub checks: Vec<Check>,
}

/// A node in one page.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// The release, and the commit that it was built from.
    pub version: String,
    pub node: u64,
    pub cluster: String,
    pub branch: String,
    pub data: String,
    pub archive: Option<String>,
    pub uptime_seconds: f64,
    /// The node's hybrid time, microseconds since 1970.
    pub time: u64,
    pub shards: Vec<ShardStatus>,
    pub disk: DiskStatus,
}

/// One shard's watermarks; each is an exclusive end.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShardStatus {
    pub shard: u16,
    pub term: u64,
    pub leader: bool,
    pub streams: usize,
    pub flushed: u64,
    pub committed: u64,
    pub applied: u64,
    /// The end of what is archived; 0 before the archive was opened after a start, and without one.
    pub archived: u64,
    /// The first index that local segments still hold.
    pub local_first: u64,
    /// The effective time of the last applied entry, microseconds since 1970.
    pub time: u64,
}

/// The local disk.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DiskStatus {
    pub segments: usize,
    pub bytes: u64,
    pub available_bytes: u64,
    /// Appends are refused because only the reserve is left.
    pub full: bool,
}

/// How far the archive is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ArchiveStatus {
    pub url: String,
    pub branch: String,
    /// Nothing fails, as far as is known.
    pub reachable: bool,
    /// What fails now, and is tried again.
    pub troubles: Vec<ArchiveTrouble>,
    /// Entries committed and not yet archived, over all shards. Before the archive was opened after a start, that is what the
    /// local log holds beyond the end that was known last: never less than what is not archived.
    pub lag_entries: u64,
    pub lag_bytes: u64,
    /// Age of the oldest user entry among them.
    pub lag_seconds: f64,
    /// Every shard is closed through this hybrid time (microseconds since 1970): `--latest` restores to here.
    pub closed_through: Option<u64>,
    pub shards: Vec<ArchivedShard>,
}

/// A part of archiving that fails.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ArchiveTrouble {
    /// `opening`, `store`, `closing`, `shard 2`, `snapshot of shard 2`, `local retention of shard 2`.
    pub part: String,
    pub message: String,
    /// When it first failed since it last succeeded (microseconds since 1970).
    pub since: u64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ArchivedShard {
    pub shard: u16,
    /// The end of what is archived; `null` before the archive was opened after a start.
    pub archived: Option<u64>,
    pub committed: u64,
    pub manifest: Option<u64>,
    pub snapshot: Option<u64>,
}
