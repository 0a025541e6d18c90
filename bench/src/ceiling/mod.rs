//! What bounds a node on this machine, measured in the same run: the disk, the object store, a call over loopback.

mod disk;
pub mod echo;
mod pauses;
mod store;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::latency::Summary;
use crate::node::Archive;
use crate::workload::{STEADY_BYTES, STEADY_RATE, TAIL_RATE};

/// The ceilings; none of a part that was not measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ceilings {
    /// 4 KiB writes, each with fdatasync, one after the other, into a file that was written ahead.
    pub disk_4k: Option<Disk>,
    /// The same with 1 MiB writes.
    pub disk_1m: Option<Disk>,
    /// One 1 KiB message in flight on one connection.
    pub echo_1: Option<Echo>,
    /// One on each of ten connections.
    pub echo_10: Option<Echo>,
    /// One on each of a hundred connections.
    pub echo_100: Option<Echo>,
    /// Messages of 100 KiB, 32 in flight on each of two connections.
    pub echo_bulk: Option<Echo>,
    /// 8 KiB messages on the schedule of the steady workloads.
    pub echo_steady: Option<Echo>,
    /// 1 KiB messages on the schedule of the tail workload.
    pub echo_tail: Option<Echo>,
    pub store: Option<Store>,
    /// What the machine itself takes from threads that could run.
    pub pauses: Option<Pauses>,
}

/// Times in which a thread on each core did not run though nothing else wanted to, of all cores together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pauses {
    /// Of more than half a millisecond.
    pub per_second: f64,
    pub longest_ms: f64,
    pub ms_per_second: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Disk {
    pub writes_per_second: f64,
    pub mib_per_second: f64,
    pub latency: Summary,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Echo {
    pub messages_per_second: f64,
    pub mib_per_second: f64,
    pub latency: Summary,
}

/// Objects of 64 MiB, four at once.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Store {
    pub put_mib_per_second: f64,
    pub get_mib_per_second: f64,
}

impl Ceilings {
    /// Measures for about `each` per figure; the store only if there is an archive.
    pub async fn measure(directory: &Path, each: Duration, archive: Option<&Archive>) -> Result<Self> {
        let (small, large) = {
            let directory = directory.to_owned();
            tokio::task::spawn_blocking(move || {
                Ok::<_, anyhow::Error>((
                    disk::measure(&directory, 4 << 10, each)?,
                    disk::measure(&directory, 1 << 20, each)?,
                ))
            })
            .await??
        };
        let server = echo::Server::start()?;
        Ok(Self {
            pauses: Some(tokio::task::spawn_blocking(move || pauses::measure(each)).await??),
            disk_4k: Some(small),
            disk_1m: Some(large),
            echo_1: Some(echo::measure(&server, 1, 1, 1 << 10, each).await?),
            echo_10: Some(echo::measure(&server, 10, 1, 1 << 10, each).await?),
            echo_100: Some(echo::measure(&server, 100, 1, 1 << 10, each).await?),
            echo_bulk: Some(echo::measure(&server, 2, 32, 100 << 10, each).await?),
            echo_steady: Some(echo::measure_schedule(&server, STEADY_RATE, STEADY_BYTES, each).await?),
            echo_tail: Some(echo::measure_schedule(&server, TAIL_RATE, 1 << 10, each).await?),
            store: match archive {
                Some(archive) => Some(store::measure(archive).await?),
                None => None,
            },
        })
    }

    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["CEILING", "PER SECOND", "MIB/S", "P50 MS", "P99 MS"]);
        let mut row = |name: &str, rate: Option<f64>, mib: f64, latency: Option<Summary>| {
            let number =
                |value: Option<f64>, digits| value.map_or(String::new(), |value| format!("{value:.digits$}"));
            table.add_row(vec![
                name.to_owned(),
                number(rate, 0),
                format!("{mib:.0}"),
                number(latency.map(|latency| latency.p50), 3),
                number(latency.map(|latency| latency.p99), 3),
            ]);
        };
        for (name, disk) in
            [("disk: 4 KiB and fdatasync", self.disk_4k), ("disk: 1 MiB and fdatasync", self.disk_1m)]
        {
            if let Some(disk) = disk {
                row(name, Some(disk.writes_per_second), disk.mib_per_second, Some(disk.latency));
            }
        }
        for (name, echo) in [
            ("gRPC echo: 1 KiB, 1 connection", self.echo_1),
            ("gRPC echo: 1 KiB, 10 connections", self.echo_10),
            ("gRPC echo: 1 KiB, 100 connections", self.echo_100),
            ("gRPC echo: 100 KiB, 32 in flight on 2 connections", self.echo_bulk),
            ("gRPC echo: 8 KiB on a schedule", self.echo_steady),
            ("gRPC echo: 1 KiB on a schedule", self.echo_tail),
        ] {
            if let Some(echo) = echo {
                row(name, Some(echo.messages_per_second), echo.mib_per_second, Some(echo.latency));
            }
        }
        if let Some(store) = self.store {
            row("object store: PUT of 64 MiB, 4 at once", None, store.put_mib_per_second, None);
            row("object store: GET of 64 MiB, 4 at once", None, store.get_mib_per_second, None);
        }
        let pauses = self.pauses.map(|pauses| {
            format!(
                "\n Pauses of threads that only read the clock, one on each core: {:.1} a second of more than 0.5 ms, the longest \
                 {:.1} ms, {:.1} ms a second",
                pauses.per_second, pauses.longest_ms, pauses.ms_per_second
            )
        });
        table.to_string() + &pauses.unwrap_or_default()
    }
}
