//! What was measured: for people as tables, for programs as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use duramen_types::{Clock as _, SystemClock};
use serde::Serialize;

use crate::ceiling::Ceilings;
use crate::latency::Summary;
use crate::node::Target;
use crate::usage;

const MIB: f64 = 1_048_576.0;

/// One workload's outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub workload: String,
    /// How it was done: connections, streams, sizes.
    pub setting: String,
    pub seconds: f64,
    /// Records, and bytes of their values.
    pub records: u64,
    pub bytes: u64,
    pub records_per_second: f64,
    pub mib_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Usage>,
    pub client: Usage,
    /// What else was found; the unit is in the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<&'static str, f64>,
    /// Shares of the ceilings that bound it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub of_ceiling: BTreeMap<&'static str, f64>,
}

/// What a process used while a workload ran.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// Of one core: 2 is two cores busy all the time.
    pub cores: f64,
    /// Processor time for each MiB of values; none where no values moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms_per_mib: Option<f64>,
    pub resident_mib: f64,
    pub peak_mib: f64,
}

/// A measurement that runs.
#[derive(Debug)]
pub struct Running<'t> {
    target: Option<&'t Target>,
    clock: SystemClock,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

/// What a workload itself counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub records: u64,
    pub bytes: u64,
    pub latency: Option<Summary>,
}

impl<'t> Running<'t> {
    /// Begins now; `target` is the process that serves.
    pub fn begin(target: Option<&'t Target>) -> Self {
        let me = std::process::id();
        if let Some(pid) = target.and_then(|target| target.pid) {
            usage::forget_peak(pid);
        }
        usage::forget_peak(me);
        Self {
            target,
            clock: SystemClock::new(),
            server_cpu: target.and_then(Target::cpu),
            client_cpu: usage::cpu(me).unwrap_or_default(),
        }
    }

    /// Ends now.
    #[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
    pub fn end(self, workload: &str, setting: String, counted: Counted) -> Measurement {
        let took = self.clock.monotonic();
        let seconds = took.as_secs_f64();
        let mib = counted.bytes as f64 / MIB;
        let me = std::process::id();
        let used = |cpu: Duration, memory: usage::Memory| Usage {
            cores: cpu.as_secs_f64() / seconds,
            cpu_ms_per_mib: (counted.bytes > 0).then(|| cpu.as_secs_f64() * 1e3 / mib),
            resident_mib: memory.resident as f64 / MIB,
            peak_mib: memory.peak as f64 / MIB,
        };
        let server = self.target.and_then(|target| {
            let cpu = target.cpu()?.saturating_sub(self.server_cpu?);
            Some(used(cpu, target.memory()?))
        });
        let client = usage::cpu(me).unwrap_or_default().saturating_sub(self.client_cpu);
        Measurement {
            workload: workload.to_owned(),
            setting,
            seconds,
            records: counted.records,
            bytes: counted.bytes,
            records_per_second: counted.records as f64 / seconds,
            mib_per_second: mib / seconds,
            latency: counted.latency,
            server,
            client: used(client, usage::memory(me).unwrap_or_default()),
            found: BTreeMap::new(),
            of_ceiling: BTreeMap::new(),
        }
    }
}

impl Measurement {
    /// Adds what else was found; the unit is in the name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.found.insert(name, value);
        self
    }

    /// Adds a share of a ceiling, where that was measured.
    #[must_use]
    pub fn share(mut self, name: &'static str, value: f64, ceiling: Option<f64>) -> Self {
        if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling > 0.0) {
            self.of_ceiling.insert(name, value / ceiling);
        }
        self
    }
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Ceilings>,
    pub measurements: Vec<Measurement>,
}

/// The machine, as far as it says.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0_u64) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The measurements as a table.
pub fn table(measurements: &[Measurement]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "WORKLOAD",
        "RECORDS/S",
        "MIB/S",
        "P50 MS",
        "P99 MS",
        "P99.9 MS",
        "SERVER CORES",
        "CPU MS/MIB",
        "CLIENT CPU MS/MIB",
        "RSS MIB",
        "ALSO",
    ]);
    for each in measurements {
        let latency = |value: fn(&Summary) -> f64| {
            each.latency.as_ref().map_or(String::new(), |latency| three(value(latency)))
        };
        let server = |value: fn(&Usage) -> f64| {
            each.server.as_ref().map_or(String::new(), |usage| three(value(usage)))
        };
        let also = each
            .found
            .iter()
            .map(|(name, value)| format!("{name} {}", three(*value)))
            .chain(each.of_ceiling.iter().map(|(name, share)| format!("{name} {:.0} %", share * 100.0)));
        table.add_row(vec![
            format!("{}\n{}", each.workload, each.setting),
            some(each.records_per_second),
            some(each.mib_per_second),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.p999),
            server(|usage| usage.cores),
            server(|usage| usage.cpu_ms_per_mib.unwrap_or_default()),
            each.client.cpu_ms_per_mib.map_or(String::new(), three),
            server(|usage| usage.peak_mib),
            also.collect::<Vec<_>>().join("\n"),
        ]);
    }
    table.to_string()
}

/// A number, or nothing for zero: what a workload doesn't have.
fn some(value: f64) -> String {
    if value == 0.0 { String::new() } else { three(value) }
}

/// A number with about three digits that mean something.
fn three(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
