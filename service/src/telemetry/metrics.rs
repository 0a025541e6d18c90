//! The metrics of one node: handles that are registered once and cheap to use.

use std::fmt;

use duramen_types::Acknowledgement;
use metrics::{Counter, Gauge, Histogram, Label, Recorder as _, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::names::{self, Kind, Metric};
use super::observed::Observed;
use crate::api::Code;

/// Every code in its order of declaration, so that a code is its own position.
const CODES: [Code; 29] = [
    Code::InvalidArgument,
    Code::RecordTooLarge,
    Code::BatchTooLarge,
    Code::EmptyBatch,
    Code::UnknownTenant,
    Code::UnknownStream,
    Code::UnknownCursor,
    Code::UnknownRestorePoint,
    Code::StreamExists,
    Code::TenantExists,
    Code::RestorePointExists,
    Code::OffsetMismatch,
    Code::Fenced,
    Code::ProducerFenced,
    Code::OutOfOrderSequence,
    Code::UnknownProducer,
    Code::ConfigChanged,
    Code::OutOfRange,
    Code::LimitReached,
    Code::ResourceExhausted,
    Code::DiskFull,
    Code::Unavailable,
    Code::UnknownOutcome,
    Code::NotCovered,
    Code::FutureTime,
    Code::ClockRefused,
    Code::Corruption,
    Code::Unimplemented,
    Code::Internal,
];

const _: () = {
    assert!(CODES.len() == Code::Internal as usize + 1, "every code has a counter");
    let mut position = 0;
    while position < CODES.len() {
        assert!(CODES[position] as usize == position, "the codes are in their order of declaration");
        position += 1;
    }
};

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Clients,
    Admin,
}

/// Where a served batch was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSource {
    /// In memory or in a local segment.
    Local,
    /// In the archive.
    Archive,
}

/// The metrics of one node.
///
/// Each value has a recorder of its own, so that several nodes of one process don't mix. All functions are cheap
/// (an atomic operation) and may be called from anywhere; share it in an `Arc`.
pub struct Metrics {
    handle: PrometheusHandle,
    appends: [AppendMetrics; 3],
    errors: [Counter; CODES.len()],
    reads: Counter,
    read_records: [Counter; 2],
    read_bytes: [Counter; 2],
    followers: Gauge,
    connections: [Gauge; 2],
    connections_failed: [Counter; 2],
    streams: Gauge,
    budget_used: Gauge,
    fsync_duration: Histogram,
    group_records: Histogram,
    wal_written: Counter,
    wal_segments: Gauge,
    wal_bytes: Gauge,
    disk_available: Gauge,
    disk_full: Gauge,
    checkpoint_failures: Counter,
    lag_entries: Gauge,
    lag_bytes: Gauge,
    lag: Gauge,
    uploads: [Counter; 2],
    uploaded: Counter,
    upload_duration: Histogram,
    clock_skew: Gauge,
    observed: Observed,
}

struct AppendMetrics {
    appends: Counter,
    records: Counter,
    bytes: Counter,
    duration: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A fresh set of metrics, all at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let acknowledged = |level: &'static str| AppendMetrics {
            appends: registry.counter(names::APPENDS, &[level]),
            records: registry.counter(names::APPEND_RECORDS, &[level]),
            bytes: registry.counter(names::APPEND_BYTES, &[level]),
            duration: registry.histogram(names::APPEND_DURATION, &[level]),
        };
        let sources = ["local", "archive"];
        let ports = ["clients", "admin"];
        registry.gauge(names::BUILD_INFO, &[super::VERSION, super::COMMIT]).set(1.0);
        Self {
            appends: ["local", "quorum", "archived"].map(acknowledged),
            errors: CODES.map(|code| registry.counter(names::ERRORS, &[code.as_str()])),
            reads: registry.counter(names::READS, &[]),
            read_records: sources.map(|source| registry.counter(names::READ_RECORDS, &[source])),
            read_bytes: sources.map(|source| registry.counter(names::READ_BYTES, &[source])),
            followers: registry.gauge(names::FOLLOWERS, &[]),
            connections: ports.map(|port| registry.gauge(names::CONNECTIONS, &[port])),
            connections_failed: ports.map(|port| registry.counter(names::CONNECTIONS_REFUSED, &[port])),
            streams: registry.gauge(names::STREAMS, &[]),
            budget_used: registry.gauge(names::BUDGET_USED, &[]),
            fsync_duration: registry.histogram(names::WAL_FSYNC_DURATION, &[]),
            group_records: registry.histogram(names::WAL_GROUP_RECORDS, &[]),
            wal_written: registry.counter(names::WAL_WRITTEN, &[]),
            wal_segments: registry.gauge(names::WAL_SEGMENTS, &[]),
            wal_bytes: registry.gauge(names::WAL_BYTES, &[]),
            disk_available: registry.gauge(names::DISK_AVAILABLE, &[]),
            disk_full: registry.gauge(names::DISK_FULL, &[]),
            checkpoint_failures: registry.counter(names::CHECKPOINT_FAILURES, &[]),
            lag_entries: registry.gauge(names::ARCHIVE_LAG_ENTRIES, &[]),
            lag_bytes: registry.gauge(names::ARCHIVE_LAG_BYTES, &[]),
            lag: registry.gauge(names::ARCHIVE_LAG, &[]),
            uploads: ["ok", "failed"].map(|result| registry.counter(names::ARCHIVE_UPLOADS, &[result])),
            uploaded: registry.counter(names::ARCHIVE_UPLOADED, &[]),
            upload_duration: registry.histogram(names::ARCHIVE_UPLOAD_DURATION, &[]),
            clock_skew: registry.gauge(names::CLOCK_SKEW, &[]),
            handle: registry.recorder.handle(),
            observed: Observed::new(registry),
        }
    }

    /// The metrics as Prometheus reads them.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// What is looked up every few seconds.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Folds what histograms collected; to be called every few seconds, or their memory grows with the traffic.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// An append was acknowledged: the level that was waited for, its batch's records and encoded bytes, and how
    /// long it took from its admission.
    pub fn append_acknowledged(&self, level: Acknowledgement, records: u64, bytes: u64, seconds: f64) {
        let [local, quorum, archived] = &self.appends;
        let of = match level {
            Acknowledgement::Local => local,
            Acknowledgement::Quorum => quorum,
            Acknowledgement::Archived => archived,
        };
        of.appends.increment(1);
        of.records.increment(records);
        of.bytes.increment(bytes);
        of.duration.record(seconds);
    }

    /// An operation was answered with an error; the interfaces call it.
    pub fn failed(&self, code: Code) {
        self.errors[code as usize].increment(1);
    }

    /// A read began.
    pub fn read_begun(&self) {
        self.reads.increment(1);
    }

    /// A batch was served: how many of its records were asked for, and its encoded bytes.
    pub fn read_served(&self, source: ReadSource, records: u64, bytes: u64) {
        self.read_records[source as usize].increment(records);
        self.read_bytes[source as usize].increment(bytes);
    }

    /// A read follows a stream for as long as the value lives.
    pub fn follower(&self) -> Gauged {
        Gauged::new(&self.followers)
    }

    /// A connection is open for as long as the value lives.
    pub fn connection(&self, port: Port) -> Gauged {
        Gauged::new(&self.connections[port as usize])
    }

    /// A connection ended with an error of the protocol or a time-out.
    pub fn connection_failed(&self, port: Port) {
        self.connections_failed[port as usize].increment(1);
    }

    /// How many streams the led shards have.
    pub fn streams(&self, streams: u64) {
        self.streams.set(float(streams));
    }

    /// Bytes of the byte budget in use.
    pub fn budget_used(&self, bytes: u64) {
        self.budget_used.set(float(bytes));
    }

    /// A group commit: how long its fsync took, how many log records it made durable, the bytes of its frame.
    pub fn wal_synced(&self, seconds: f64, records: u64, bytes: u64) {
        self.fsync_duration.record(seconds);
        self.group_records.record(float(records));
        self.wal_written.increment(bytes);
    }

    /// The WAL's segment files.
    pub fn wal_size(&self, segments: u64, bytes: u64) {
        self.wal_segments.set(float(segments));
        self.wal_bytes.set(float(bytes));
    }

    /// The data directory's file system: free bytes, and whether appends are refused for want of them.
    pub fn disk(&self, available_bytes: u64, full: bool) {
        self.disk_available.set(float(available_bytes));
        self.disk_full.set(if full { 1.0 } else { 0.0 });
    }

    /// A checkpoint, or an index file, could not be written.
    pub fn checkpoint_failed(&self) {
        self.checkpoint_failures.increment(1);
    }

    /// What is committed and not yet archived, over all shards; `seconds` is the oldest user entry's age.
    pub fn archive_lag(&self, entries: u64, bytes: u64, seconds: f64) {
        self.lag_entries.set(float(entries));
        self.lag_bytes.set(float(bytes));
        self.lag.set(seconds);
    }

    /// An object was uploaded: its bytes, and how long that took with its retries.
    pub fn uploaded(&self, bytes: u64, seconds: f64) {
        self.uploads[0].increment(1);
        self.uploaded.increment(bytes);
        self.upload_duration.record(seconds);
    }

    /// Something that was to be uploaded could not be, after all retries.
    pub fn upload_failed(&self) {
        self.uploads[1].increment(1);
    }

    /// How far the hybrid time is ahead of the machine's clock.
    pub fn clock_skew(&self, seconds: f64) {
        self.clock_skew.set(seconds);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts as one in a gauge until it is dropped.
pub struct Gauged(Gauge);

impl Gauged {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl fmt::Debug for Gauged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauged")
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; above 2^53 the last digits don't matter")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// Registers metrics as they are declared.
pub(super) struct Registry {
    recorder: PrometheusRecorder,
}

impl Registry {
    fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in names::ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .expect("every histogram is declared with at least one bucket");
            }
        }
        let recorder = builder.build_recorder();
        for metric in names::ALL {
            let (name, help) = (metric.name.into(), SharedString::const_str(metric.help));
            let unit = Unit::from_string(metric.unit);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
            }
        }
        Self { recorder }
    }

    /// The metric's key with these values of its labels, in order.
    fn key(metric: Metric, values: &[&'static str]) -> metrics::Key {
        debug_assert_eq!(metric.labels.len(), values.len(), "{} has other labels", metric.name);
        let labels = metric.labels.iter().zip(values);
        let labels: Vec<_> =
            labels.map(|((label, _), value)| Label::from_static_parts(label, value)).collect();
        metrics::Key::from_parts(metric.name, labels)
    }

    pub(super) fn counter(&self, metric: Metric, values: &[&'static str]) -> Counter {
        self.recorder.register_counter(&Self::key(metric, values), &METADATA)
    }

    pub(super) fn gauge(&self, metric: Metric, values: &[&'static str]) -> Gauge {
        self.recorder.register_gauge(&Self::key(metric, values), &METADATA)
    }

    /// A gauge whose one label has a value that is only known at run time.
    pub(super) fn gauge_of(&self, metric: Metric, value: &str) -> Gauge {
        debug_assert_eq!(metric.labels.len(), 1, "{} has other labels", metric.name);
        let labels: Vec<_> =
            metric.labels.iter().map(|(label, _)| Label::new(*label, value.to_owned())).collect();
        self.recorder.register_gauge(&metrics::Key::from_parts(metric.name, labels), &METADATA)
    }

    fn histogram(&self, metric: Metric, values: &[&'static str]) -> Histogram {
        self.recorder.register_histogram(&Self::key(metric, values), &METADATA)
    }
}

static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));
