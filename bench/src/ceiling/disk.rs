//! The disk alone, as the log uses it.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use duramen_types::{Clock as _, SystemClock};

use super::Disk;
use crate::latency::{From, Latencies};

/// The size that the file is written ahead to; longer runs begin at its start again.
const FILE: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// Writes of `size` bytes with an fdatasync each, for about `each`.
#[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
pub fn measure(directory: &Path, size: usize, each: Duration) -> Result<Disk> {
    let file = tempfile::tempfile_in(directory).context("a file for the disk's ceiling")?;
    let zeros = vec![0_u8; MIB as usize];
    for at in (0..FILE).step_by(MIB as usize) {
        file.write_all_at(&zeros, at).context("writing ahead")?;
    }
    file.sync_all().context("writing ahead")?;

    let data: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
    let clock = SystemClock::new();
    let mut latencies = Latencies::new()?;
    let (mut writes, mut at) = (0_u64, 0_u64);
    while clock.monotonic() < each {
        let begun = clock.monotonic();
        file.write_all_at(&data, at).context("writing")?;
        file.sync_data().context("fdatasync")?;
        latencies.record(clock.monotonic().saturating_sub(begun));
        writes += 1;
        at = (at + size as u64) % FILE;
    }
    let rate = writes as f64 / clock.monotonic().as_secs_f64();
    Ok(Disk {
        writes_per_second: rate,
        mib_per_second: rate * size as f64 / MIB as f64,
        latency: latencies.summary(From::Call),
    })
}
