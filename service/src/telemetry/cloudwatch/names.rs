//! Every metric that CloudWatch gets: its name, unit, where its value comes from, and meaning.

use super::super::names as prometheus;
use super::super::names::Metric;

/// A metric's declaration.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct CloudWatchMetric {
    pub(in super::super) name: &'static str,
    /// As CloudWatch spells it.
    pub(in super::super) unit: &'static str,
    pub(super) source: Source,
    /// Only a node with an archive has it.
    pub(in super::super) of_the_archive: bool,
    pub(in super::super) help: &'static str,
}

/// Where a value comes from. With values of a metric's label only those series count, without any all do.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Source {
    /// What it is now.
    Now(Metric),
    /// How much it has grown since the last line.
    Growth(Metric, &'static [&'static str]),
    /// The 99th percentile of what was observed since the last line, as Prometheus estimates it.
    P99(Metric, &'static [&'static str]),
    /// How long ago an instant is; none for 0, which is never.
    Age(Metric),
    /// How long ago the archive was verified; one that never was, how long ago the node started.
    Unverified,
    /// Percent.
    DiskUsed,
    /// 0, 1 or 2.
    Health,
}

/// Codes by which the node says that it can't, not that the client was wrong.
pub(super) const FAILURES: &[&str] =
    &["unavailable", "unknown_outcome", "resource_exhausted", "disk_full", "corruption", "internal"];

macro_rules! metrics {
    ($($name:literal, $unit:literal, $source:expr, $archive:literal, $help:literal;)+) => {
        /// In the order of the page.
        pub(in super::super) const ALL: &[CloudWatchMetric] = &[$(CloudWatchMetric {
            name: $name, unit: $unit, source: $source, of_the_archive: $archive, help: $help,
        }),+];
    };
}

metrics! {
    "health", "None", Source::Health, false,
        "0 ok, 1 degraded, 2 unhealthy, as `/health` says.";
    "appends", "Count", Source::Growth(prometheus::APPENDS, &[]), false,
        "Appends acknowledged.";
    "append_records", "Count", Source::Growth(prometheus::APPEND_RECORDS, &[]), false,
        "Their records.";
    "append_bytes", "Bytes", Source::Growth(prometheus::APPEND_BYTES, &[]), false,
        "Their bytes, as encoded.";
    "append_duration_p99", "Seconds", Source::P99(prometheus::APPEND_DURATION, &["local", "quorum"]), false,
        "From an append's admission to its acknowledgement with `local` or `quorum`; `archived` waits for an upload.";
    "reads", "Count", Source::Growth(prometheus::READS, &[]), false,
        "Reads begun.";
    "read_bytes", "Bytes", Source::Growth(prometheus::READ_BYTES, &[]), false,
        "Bytes of batches served to readers.";
    "errors", "Count", Source::Growth(prometheus::ERRORS, FAILURES), false,
        "Operations answered with an error by which the node says that it can't: `unavailable`, `unknown_outcome`, \
         `resource_exhausted`, `disk_full`, `corruption`, `internal`.";
    "corruption_errors", "Count", Source::Growth(prometheus::ERRORS, &["corruption"]), false,
        "Those that met damaged bytes.";
    "clock_refused_errors", "Count", Source::Growth(prometheus::ERRORS, &["clock_refused"]), false,
        "Operations refused because their time was too far ahead of the node's.";
    "wal_fsync_duration_p99", "Seconds", Source::P99(prometheus::WAL_FSYNC_DURATION, &[]), false,
        "Duration of a group commit's fsync.";
    "disk_used", "Percent", Source::DiskUsed, false,
        "Of the data directory's file system.";
    "disk_full", "None", Source::Now(prometheus::DISK_FULL), false,
        "1 while appends are refused because only the reserve is left.";
    "resident_memory", "Bytes", Source::Now(prometheus::PROCESS_MEMORY), false,
        "Memory of the process that is in RAM.";
    "archive_lag_entries", "Count", Source::Now(prometheus::ARCHIVE_LAG_ENTRIES), true,
        "Entries committed and not yet archived.";
    "archive_lag_bytes", "Bytes", Source::Now(prometheus::ARCHIVE_LAG_BYTES), true,
        "Their bytes.";
    "archive_lag_age", "Seconds", Source::Now(prometheus::ARCHIVE_LAG), true,
        "Age of the oldest of them: what the loss of this disk would cost now (RPO).";
    "archive_segment_age", "Seconds", Source::Now(prometheus::ARCHIVE_SEGMENT_AGE), true,
        "The setting `archive.segment_age`, to compare that age with.";
    "archive_failing", "None", Source::Now(prometheus::ARCHIVE_FAILING), true,
        "1 while the archive isn't open or the last attempt to archive failed.";
    "archive_upload_duration_p99", "Seconds", Source::P99(prometheus::ARCHIVE_UPLOAD_DURATION, &[]), true,
        "Duration of an upload with its retries.";
    "recovery_point_age", "Seconds", Source::Age(prometheus::ARCHIVE_CLOSED), true,
        "How long ago the latest instant is that can be restored.";
    "snapshot_age", "Seconds", Source::Age(prometheus::ARCHIVE_SNAPSHOT), true,
        "Since every changed shard had a snapshot.";
    "verification_age", "Seconds", Source::Unverified, true,
        "Since the last full verification of the branch that the node knows of; before the first, since the node started.";
    "verification_findings", "Count", Source::Now(prometheus::ARCHIVE_FINDINGS), true,
        "Objects that were found altered or missing, until a verification at least as deep no longer finds them.";
}
