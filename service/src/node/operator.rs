//! What operators ask of a node: health, status, and work on the archive.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use duramen_types::Index;

use super::start::is_full;
use super::{Inner, Node};
use crate::api::Result;
use crate::status::{Check, Condition, DiskStatus, Health, ShardStatus, Status};
use crate::telemetry::TenantUse;

/// Archiving further behind than this many times the segment age makes a node degraded.
const LAG_FACTOR: u32 = 5;

/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(5);

/// Keeps the gauges of a node up to date, until the node is gone.
pub(super) async fn keep_gauges(node: Weak<Inner>) {
    if let Some(inner) = node.upgrade() {
        let node = Node(inner);
        let now = Duration::from_micros(node.clock().wall().now().as_micros());
        node.metrics().observed().started(now.saturating_sub(node.uptime()).as_secs_f64());
    }
    loop {
        let Some(inner) = node.upgrade() else { return };
        let node = Node(inner);
        if let Some(archive) = &node.0.archive {
            archive.probe_in_time().await;
        }
        node.set_gauges();
        drop(node);
        tokio::time::sleep(GAUGES).await;
    }
}

/// What the file system that holds `directory` offers to users, used or not; `None` where there is none, as on a
/// simulated disk.
fn file_system_size(directory: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    let for_root_only = stat.f_bfree.saturating_sub(stat.f_bavail);
    stat.f_blocks.saturating_sub(for_root_only).checked_mul(stat.f_frsize)
}

impl Node {
    fn set_gauges(&self) {
        let metrics = self.metrics();
        let streams: usize = self.shards().iter().map(|shard| shard.view.state.read().streams().len()).sum();
        metrics.streams(u64::try_from(streams).unwrap_or(u64::MAX));
        let used = self.settings().byte_budget.saturating_sub(self.budget().available_permits());
        metrics.budget_used(u64::try_from(used).unwrap_or(u64::MAX));
        let space = self.wal().space();
        metrics.wal_size(u64::try_from(self.wal().segments().len()).unwrap_or(u64::MAX), space.used);
        metrics.disk(space.available, space.full);
        metrics.clock_skew(self.latest_time().since(self.clock().wall().now()).as_secs_f64());
        if let Some(status) = self.archive_status_now() {
            metrics.archive_lag(status.lag_entries, status.lag_bytes, status.lag_seconds);
        }
        let observed = metrics.observed();
        observed.memory();
        if let Some(bytes) = file_system_size(self.data()) {
            observed.disk_size(bytes);
        }
        let log = self.wal().stats();
        observed.wal_reads(log.cache_hits, log.file_reads);
        observed.tenants(&self.tenant_uses());
        if let Some(archive) = &self.0.archive {
            archive.observe(observed);
        }
    }

    fn tenant_uses(&self) -> BTreeMap<String, TenantUse> {
        let mut uses: BTreeMap<String, TenantUse> = BTreeMap::new();
        for shard in self.shards() {
            let state = shard.view.state.read();
            for (_, stream) in state.streams() {
                if !uses.contains_key(stream.tenant.as_str()) {
                    uses.insert(stream.tenant.to_string(), TenantUse::default());
                }
                let Some(tenant) = uses.get_mut(stream.tenant.as_str()) else { continue };
                tenant.streams += 1;
                tenant.records += stream.next.since(stream.trimmed);
                let slowest = stream.cursors.values().map(|cursor| stream.next.since(cursor.offset)).max();
                tenant.cursor_lag = tenant.cursor_lag.max(slowest.unwrap_or(0));
            }
        }
        uses
    }

    /// Checks the parts that the node depends on; each with how long it took.
    pub async fn health(&self) -> Health {
        let mut checks = vec![
            self.check("data_directory", || {
                let probe = self.data().join("health.probe");
                match duramen_wal::durable::write_file(&**self.disk(), &probe, b"ok") {
                    Ok(()) => (Condition::Ok, format!("{} is writable", self.data().display())),
                    Err(error) if is_full(&error) => (
                        Condition::Degraded,
                        format!("{} has no space left ({error})", self.data().display()),
                    ),
                    Err(error) => (
                        Condition::Unhealthy,
                        format!("{} is not writable ({error}): look at the disk", self.data().display()),
                    ),
                }
            }),
            self.check("disk_space", || match self.wal().check_space() {
                Ok(()) => (Condition::Ok, format!("{} bytes are free", self.available())),
                Err(error) => (Condition::Degraded, error.to_string()),
            }),
            self.check("shards", || {
                if let Some(failure) = self.dead_shard() {
                    return (Condition::Unhealthy, failure.to_string());
                }
                let followers: Vec<String> = self
                    .shards()
                    .iter()
                    .filter(|shard| !shard.is_leader())
                    .map(|shard| shard.id.to_string())
                    .collect();
                if followers.is_empty() {
                    (Condition::Ok, format!("all {} shards are led here", self.shards().len()))
                } else {
                    (
                        Condition::Unhealthy,
                        format!("no leader for shard {}: restart the node", followers.join(", ")),
                    )
                }
            }),
            self.check("local_files", || self.damages().condition()),
        ];
        if let Some(archive) = &self.0.archive {
            let start = self.clock().wall().monotonic();
            archive.probe().await;
            let (condition, detail) = self.archiving(&archive.status());
            checks.push(self.checked("archive", start, condition, detail));
        }
        let condition = checks.iter().map(|check| check.condition).max().unwrap_or(Condition::Ok);
        Health { condition, checks }
    }

    fn check(&self, name: &'static str, run: impl FnOnce() -> (Condition, String)) -> Check {
        let start = self.clock().wall().monotonic();
        let (condition, detail) = run();
        self.checked(name, start, condition, detail)
    }

    fn checked(&self, name: &'static str, start: Duration, condition: Condition, detail: String) -> Check {
        let took = self.clock().wall().monotonic().saturating_sub(start);
        Check { name, condition, duration_seconds: took.as_secs_f64(), detail }
    }

    /// How archiving goes: trouble with it, or a lag, degrades a node and no more, as appends go on.
    fn archiving(&self, status: &crate::status::ArchiveStatus) -> (Condition, String) {
        // Before the archive is open its end is not known, and much may count that is archived.
        let open = status.shards.iter().all(|shard| shard.archived.is_some());
        let late = open && status.lag_seconds > (self.settings().segment_age * LAG_FACTOR).as_secs_f64();
        match status.troubles.as_slice() {
            [] if late => (Condition::Degraded, format!("archiving is {:.1} s behind", status.lag_seconds)),
            [] if !open => (Condition::Ok, format!("{} is being opened", status.url)),
            [] => (Condition::Ok, format!("{} answers", status.url)),
            [first, rest @ ..] => {
                let more =
                    if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                let message = format!("{}: {}: {}{more}", status.url, first.part, first.message);
                (Condition::Degraded, message)
            }
        }
    }

    /// Takes snapshots on another schedule from now on; nothing without an archive.
    pub fn reschedule_snapshots(&self, schedule: &str) {
        if let Some(archive) = &self.0.archive {
            archive.reschedule_snapshots(schedule);
        }
    }

    /// The node in one page.
    pub async fn status(&self) -> Status {
        let shards = self
            .shards()
            .iter()
            .map(|shard| {
                let progress = shard.view.progress();
                let log = self.wal().log_state(shard.id);
                ShardStatus {
                    shard: shard.id.get(),
                    term: shard.term(),
                    leader: shard.is_leader(),
                    streams: shard.view.state.read().streams().len(),
                    flushed: log.flushed.get(),
                    committed: progress.end.get(),
                    applied: progress.end.get(),
                    archived: shard.archived.borrow().get(),
                    local_first: log.purged.map_or(Index::ZERO, |id| id.index.next()).get(),
                    time: progress.time.as_micros(),
                }
            })
            .collect();
        let segments = self.wal().segments();
        let description = self.description();
        Status {
            version: env!("DURAMEN_VERSION").to_owned(),
            node: description.node.get(),
            cluster: description.cluster.to_string(),
            branch: description.branch.clone().unwrap_or_default(),
            data: self.data().display().to_string(),
            archive: self.archive_url(),
            uptime_seconds: self.uptime().as_secs_f64(),
            time: self.latest_time().as_micros(),
            shards,
            disk: DiskStatus {
                segments: segments.len(),
                bytes: segments.iter().map(|segment| segment.bytes).sum(),
                available_bytes: self.available(),
                full: self.wal().check_space().is_err(),
            },
        }
    }

    fn available(&self) -> u64 {
        self.disk().available(self.data()).unwrap_or(0)
    }

    /// Archives everything committed until now and closes every shard through it, so that `--latest` restores to here;
    /// gives the archive's status afterwards.
    pub async fn archive_flush(&self) -> Result<crate::status::ArchiveStatus> {
        let archive = self.archive()?;
        archive.flush().await?;
        Ok(archive.status())
    }
}
