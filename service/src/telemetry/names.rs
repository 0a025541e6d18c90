//! Every metric of a node: its name, kind, unit, labels and meaning. `docs/METRICS.md` is made of this.

/// How a metric's values behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Only grows; starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations in the given buckets, in the metric's unit.
    Histogram(&'static [f64]),
}

/// A metric's declaration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// A base unit; empty for plain numbers.
    pub(super) unit: &'static str,
    /// Each label with its values.
    pub(super) labels: &'static [(&'static str, &'static str)],
    pub(super) help: &'static str,
}

/// From what an in-memory answer takes to what a client gives up on.
const LATENCY: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const UPLOAD: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const GROUP: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const ACK: (&str, &str) = ("ack", "the level acknowledged: `local`, `quorum`, `archived`");

const TENANT: (&str, &str) = ("tenant", "its name; `other` for all beyond the first 50 together");

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:expr, $unit:literal, [$($label:expr),*], $help:literal;)+) => {
        $(
            pub(super) const $constant: Metric =
                Metric { name: $name, kind: $kind, unit: $unit, labels: &[$($label),*], help: $help };
        )+
        /// In the order of the page.
        pub(super) const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO = "duramen_build_info", Kind::Gauge, "",
        [("version", "of the program"), ("commit", "of its source")],
        "Always 1; the labels say what is running.";

    APPENDS = "duramen_appends_total", Kind::Counter, "", [ACK],
        "Appends acknowledged, duplicates included.";
    APPEND_RECORDS = "duramen_append_records_total", Kind::Counter, "", [ACK],
        "Records of acknowledged appends.";
    APPEND_BYTES = "duramen_append_bytes_total", Kind::Counter, "bytes", [ACK],
        "Bytes of acknowledged batches, as encoded.";
    APPEND_DURATION = "duramen_append_duration_seconds", Kind::Histogram(LATENCY), "seconds", [ACK],
        "From an append's admission to its acknowledgement.";
    ERRORS = "duramen_errors_total", Kind::Counter, "", [("code", "the stable error code")],
        "Operations answered with an error, on all interfaces.";

    READS = "duramen_reads_total", Kind::Counter, "", [],
        "Reads begun, followers included.";
    READ_RECORDS = "duramen_read_records_total", Kind::Counter, "",
        [("source", "where they came from: `local` (memory and segments) or `archive`")],
        "Records served to readers.";
    READ_BYTES = "duramen_read_bytes_total", Kind::Counter, "bytes",
        [("source", "where they came from: `local` (memory and segments) or `archive`")],
        "Bytes of batches served to readers, as encoded.";
    FOLLOWERS = "duramen_followers", Kind::Gauge, "", [],
        "Reads that follow a stream now.";
    CONNECTIONS = "duramen_connections", Kind::Gauge, "", [("port", "`clients` or `admin`")],
        "Connections open now.";
    CONNECTIONS_REFUSED = "duramen_connections_failed_total", Kind::Counter, "", [("port", "`clients` or `admin`")],
        "Connections that ended with an error of the protocol or a time-out.";
    PROCESS_START = "duramen_process_start_time_seconds", Kind::Gauge, "seconds", [],
        "When the process started, seconds since 1970.";
    PROCESS_MEMORY = "duramen_process_resident_memory_bytes", Kind::Gauge, "bytes", [],
        "Memory of the process that is in RAM.";
    STREAMS = "duramen_streams", Kind::Gauge, "", [],
        "Streams alive in the shards that this node leads.";
    BUDGET_USED = "duramen_byte_budget_used_bytes", Kind::Gauge, "bytes", [],
        "Bytes received and not yet acknowledged; at `log.byte_budget` appends are refused or wait.";

    TENANT_STREAMS = "duramen_tenant_streams", Kind::Gauge, "", [TENANT],
        "Streams of the tenant.";
    TENANT_RECORDS = "duramen_tenant_records", Kind::Gauge, "", [TENANT],
        "Records that can be read in the tenant's streams.";
    TENANT_CURSOR_LAG = "duramen_tenant_cursor_lag_records", Kind::Gauge, "", [TENANT],
        "How many records the tenant's slowest cursor is behind its stream's tail.";

    WAL_FSYNC_DURATION = "duramen_wal_fsync_duration_seconds", Kind::Histogram(LATENCY), "seconds", [],
        "Duration of a group commit's fsync.";
    WAL_GROUP_RECORDS = "duramen_wal_group_records", Kind::Histogram(GROUP), "", [],
        "Log records that one fsync made durable.";
    WAL_WRITTEN = "duramen_wal_written_bytes_total", Kind::Counter, "bytes", [],
        "Bytes of frames written, padding included.";
    WAL_SEGMENTS = "duramen_wal_segments", Kind::Gauge, "", [],
        "Segment files of the WAL.";
    WAL_BYTES = "duramen_wal_bytes", Kind::Gauge, "bytes", [],
        "Bytes of the WAL's segment files.";
    WAL_READS = "duramen_wal_reads_total", Kind::Counter, "",
        [("source", "where they were: `memory` or `file`")],
        "Entries read from the local log, for readers and the archiver.";
    LOCAL_DAMAGE = "duramen_local_damage_total", Kind::Counter, "", [],
        "Reads that met damage in local files; they were served from the archive, or failed where it could not.";
    DISK_SIZE = "duramen_disk_size_bytes", Kind::Gauge, "bytes", [],
        "Size of the data directory's file system, less what only its administrator may use.";
    DISK_AVAILABLE = "duramen_disk_available_bytes", Kind::Gauge, "bytes", [],
        "Free bytes of the data directory's file system.";
    DISK_FULL = "duramen_disk_full", Kind::Gauge, "", [],
        "1 while appends are refused because only the reserve is left, else 0.";
    CHECKPOINT_FAILURES = "duramen_checkpoint_failures_total", Kind::Counter, "", [],
        "Checkpoints and index files that could not be written; they are tried again, and until then a restart takes longer.";

    ARCHIVE_LAG_ENTRIES = "duramen_archive_lag_entries", Kind::Gauge, "", [],
        "Entries committed and not yet archived. Before the archive was opened after a start, those of the local log \
         beyond the end that was known last (noted every minute and at a stop): never fewer than there are.";
    ARCHIVE_LAG_BYTES = "duramen_archive_lag_bytes", Kind::Gauge, "bytes", [],
        "Bytes of those entries, without what frames add.";
    ARCHIVE_LAG = "duramen_archive_lag_seconds", Kind::Gauge, "seconds", [],
        "Age of the oldest user entry among them, by its own time, also across restarts: what the loss of this disk would \
         cost now.";
    ARCHIVE_UPLOADS = "duramen_archive_uploads_total", Kind::Counter, "",
        [("result", "`ok` or `failed` (after all retries)")],
        "Uploads of objects to the archive.";
    ARCHIVE_UPLOADED = "duramen_archive_uploaded_bytes_total", Kind::Counter, "bytes", [],
        "Bytes of objects uploaded.";
    ARCHIVE_UPLOAD_DURATION = "duramen_archive_upload_duration_seconds", Kind::Histogram(UPLOAD), "seconds", [],
        "Duration of an upload with its retries.";

    ARCHIVE_REQUESTS = "duramen_archive_requests_total", Kind::Counter, "",
        [("operation", "`create`, `read`, `stat`, `list` (once a listing) or `delete`"),
         ("result", "`answered` (also that it exists, or doesn't) or `failed`")],
        "Requests to the object store, each attempt counted.";
    ARCHIVE_RETRIES = "duramen_archive_retries_total", Kind::Counter, "",
        [("operation", "`create`, `read`, `stat`, `list` or `delete`")],
        "Requests to the object store that were tried again, after a pause, because an attempt had failed.";
    ARCHIVE_CACHE = "duramen_archive_cache_lookups_total", Kind::Counter, "", [("result", "`hit` or `miss`")],
        "Blocks and pages of archived segments that a cold read looked for in the block cache.";
    ARCHIVE_FAILING = "duramen_archive_failing", Kind::Gauge, "", [],
        "1 while the archive isn't open, its store does not answer, or a part of archiving fails, else 0.";
    ARCHIVE_SEGMENT_AGE = "duramen_archive_segment_age_seconds", Kind::Gauge, "seconds", [],
        "The setting `archive.segment_age`; 0 without an archive.";
    ARCHIVE_WINDOW = "duramen_archive_recovery_window_seconds", Kind::Gauge, "seconds", [],
        "The setting `archive.recovery_window`; 0 without an archive.";
    ARCHIVE_CLOSED = "duramen_archive_closed_through_timestamp_seconds", Kind::Gauge, "seconds", [],
        "The latest instant that can be restored, seconds since 1970; 0 before the process closed one.";
    ARCHIVE_SNAPSHOT = "duramen_archive_snapshot_timestamp_seconds", Kind::Gauge, "seconds", [],
        "When a run of `archive.snapshot_schedule` last left every changed shard with a snapshot, seconds since 1970; \
         before the first run, when the archive was opened; 0 before that.";
    ARCHIVE_VERIFIED = "duramen_archive_verification_timestamp_seconds", Kind::Gauge, "seconds", [],
        "The time of the last full verification of the branch (`verify --full`, also with `--since`; a quick one does not count), \
         seconds since 1970, as of the last run of `archive.snapshot_schedule`; 0 if there was none.";
    ARCHIVE_FINDINGS = "duramen_archive_verification_findings", Kind::Gauge, "", [],
        "Objects that a verification of the branch found altered or missing. They count until one at least as deep no longer \
         finds them: what `verify --full` found, a quick one does not take back.";

    CLOCK_SKEW = "duramen_hybrid_time_skew_seconds", Kind::Gauge, "seconds", [],
        "How far the hybrid time is ahead of this machine's clock.";
}
