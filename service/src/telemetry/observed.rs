//! What is looked up every few seconds rather than counted as it happens: the process, its disk, tenants, the archive.

use std::collections::BTreeMap;
use std::fmt;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;

use super::metrics::{Registry, float};
use super::names;

/// Tenants with series of their own; the rest share one, so that a scrape stays small whatever users do.
const TENANTS: usize = 50;
/// The label of the rest.
const OTHER: &str = "other";

/// What a tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantUse {
    pub streams: u64,
    /// Between the trim point and the tail of its streams.
    pub records: u64,
    /// The most that one of its cursors is behind.
    pub cursor_lag: u64,
}

/// What the archive knows of itself; times in seconds since 1970, 0 for never.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ArchiveUse {
    pub failing: bool,
    pub segment_age_seconds: f64,
    pub recovery_window_seconds: f64,
    pub closed_through: f64,
    pub snapshots: f64,
    pub verified: f64,
    pub findings: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
}

/// Gauges, and counters that are kept elsewhere.
pub struct Observed {
    registry: Registry,
    start: Gauge,
    memory: Gauge,
    disk_size: Gauge,
    wal_reads: [Counter; 2],
    local_damage: Counter,
    failing: Gauge,
    segment_age: Gauge,
    window: Gauge,
    closed: Gauge,
    snapshots: Gauge,
    verified: Gauge,
    findings: Gauge,
    cache: [Counter; 2],
    tenants: Mutex<BTreeMap<String, TenantGauges>>,
}

struct TenantGauges {
    streams: Gauge,
    records: Gauge,
    cursor_lag: Gauge,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl Observed {
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            start: registry.gauge(names::PROCESS_START, &[]),
            memory: registry.gauge(names::PROCESS_MEMORY, &[]),
            disk_size: registry.gauge(names::DISK_SIZE, &[]),
            wal_reads: ["memory", "file"].map(|source| registry.counter(names::WAL_READS, &[source])),
            local_damage: registry.counter(names::LOCAL_DAMAGE, &[]),
            failing: registry.gauge(names::ARCHIVE_FAILING, &[]),
            segment_age: registry.gauge(names::ARCHIVE_SEGMENT_AGE, &[]),
            window: registry.gauge(names::ARCHIVE_WINDOW, &[]),
            closed: registry.gauge(names::ARCHIVE_CLOSED, &[]),
            snapshots: registry.gauge(names::ARCHIVE_SNAPSHOT, &[]),
            verified: registry.gauge(names::ARCHIVE_VERIFIED, &[]),
            findings: registry.gauge(names::ARCHIVE_FINDINGS, &[]),
            cache: ["hit", "miss"].map(|result| registry.counter(names::ARCHIVE_CACHE, &[result])),
            tenants: Mutex::default(),
            registry,
        }
    }

    /// When the process started, seconds since 1970.
    pub fn started(&self, time: f64) {
        self.start.set(time);
    }

    /// The process's memory, as the kernel counts it; nothing where that can't be read.
    pub fn memory(&self) {
        if let Some(bytes) = resident_bytes() {
            self.memory.set(float(bytes));
        }
    }

    /// The size of the data directory's file system.
    pub fn disk_size(&self, bytes: u64) {
        self.disk_size.set(float(bytes));
    }

    /// Entries that the log gave from memory and from files, since it was opened.
    pub fn wal_reads(&self, memory: u64, file: u64) {
        self.wal_reads[0].absolute(memory);
        self.wal_reads[1].absolute(file);
    }

    /// A read met damage in a local file.
    pub fn local_damage(&self) {
        self.local_damage.increment(1);
    }

    /// The requests of one operation since the start: answered, failed, and begun again after a failure.
    pub fn archive_requests(&self, operation: &'static str, answered: u64, failed: u64, retried: u64) {
        for (result, count) in [("answered", answered), ("failed", failed)] {
            self.registry.counter(names::ARCHIVE_REQUESTS, &[operation, result]).absolute(count);
        }
        self.registry.counter(names::ARCHIVE_RETRIES, &[operation]).absolute(retried);
    }

    /// What the archive knows of itself.
    pub fn archive(&self, of: &ArchiveUse) {
        self.failing.set(if of.failing { 1.0 } else { 0.0 });
        self.segment_age.set(of.segment_age_seconds);
        self.window.set(of.recovery_window_seconds);
        self.closed.set(of.closed_through);
        self.snapshots.set(of.snapshots);
        self.verified.set(of.verified);
        self.findings.set(float(of.findings));
        self.cache[0].absolute(of.cache_hits);
        self.cache[1].absolute(of.cache_misses);
    }

    /// What each tenant has now. The first tenants seen get series of their own, for as long as the process lives.
    pub fn tenants(&self, uses: &BTreeMap<String, TenantUse>) {
        let mut series = self.tenants.lock();
        let mut shown: BTreeMap<&str, TenantUse> = BTreeMap::new();
        for (name, tenant) in uses {
            let own = series.contains_key(name) || series.len() < TENANTS;
            let label = if own { name.as_str() } else { OTHER };
            series.entry(label.to_owned()).or_insert_with(|| self.tenant_gauges(label));
            let sum = shown.entry(label).or_default();
            sum.streams += tenant.streams;
            sum.records += tenant.records;
            sum.cursor_lag = sum.cursor_lag.max(tenant.cursor_lag);
        }
        for (label, gauges) in &*series {
            let tenant = shown.get(label.as_str()).copied().unwrap_or_default();
            gauges.streams.set(float(tenant.streams));
            gauges.records.set(float(tenant.records));
            gauges.cursor_lag.set(float(tenant.cursor_lag));
        }
    }

    fn tenant_gauges(&self, tenant: &str) -> TenantGauges {
        TenantGauges {
            streams: self.registry.gauge_of(names::TENANT_STREAMS, tenant),
            records: self.registry.gauge_of(names::TENANT_RECORDS, tenant),
            cursor_lag: self.registry.gauge_of(names::TENANT_CURSOR_LAG, tenant),
        }
    }
}

/// `VmRSS` of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn tenants_beyond_the_cap_are_summed_up_as_other() {
        let metrics = Metrics::new();
        let one = TenantUse { streams: 1, records: 10, cursor_lag: 0 };
        let mut uses: BTreeMap<String, TenantUse> =
            (0..60).map(|n| (format!("tenant-{n:02}"), one)).collect();
        uses.insert("tenant-59".to_owned(), TenantUse { cursor_lag: 7, ..one });
        metrics.observed().tenants(&uses);
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("duramen_tenant_streams{")).count();
        assert_eq!(series, TENANTS + 1);
        for line in [
            "duramen_tenant_streams{tenant=\"tenant-49\"} 1",
            "duramen_tenant_streams{tenant=\"other\"} 10",
            "duramen_tenant_records{tenant=\"other\"} 100",
            "duramen_tenant_cursor_lag_records{tenant=\"other\"} 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        uses.remove("tenant-07");
        metrics.observed().tenants(&uses);
        let text = metrics.render();
        assert!(text.contains("duramen_tenant_streams{tenant=\"tenant-07\"} 0"), "{text}");
        assert!(text.contains("duramen_tenant_streams{tenant=\"other\"} 10"), "the others stay together");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
