//! What the machine takes for itself: how long a thread that does nothing but read the clock, one for each core, does not run.
//!
//! What jHiccup by Gil Tene shows of a virtual machine's host. No latency that is measured here can be free of it.

use std::time::Duration;

use anyhow::{Context, Result};
use duramen_types::{Clock as _, SystemClock};

use super::Pauses;

/// A gap between two looks at the clock that counts as a pause.
const PAUSE: Duration = Duration::from_micros(500);
/// Pauses are some in a second: a measurement takes at least this long.
const LEAST: Duration = Duration::from_secs(5);

pub fn measure(each: Duration) -> Result<Pauses> {
    let time = each.max(LEAST);
    let cores = std::thread::available_parallelism().context("the number of cores")?.get();
    let threads: Vec<_> = (0..cores).map(|_| std::thread::spawn(move || spin(time))).collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().ok().context("a thread that reads the clock ended")?);
    }
    let seconds = time.as_secs_f64();
    let sum: Duration = all.iter().sum();
    Ok(Pauses {
        per_second: f64::from(u32::try_from(all.len()).unwrap_or(u32::MAX)) / seconds,
        longest_ms: all.iter().max().copied().unwrap_or_default().as_secs_f64() * 1e3,
        ms_per_second: sum.as_secs_f64() * 1e3 / seconds,
    })
}

fn spin(time: Duration) -> Vec<Duration> {
    let clock = SystemClock::new();
    let mut pauses = Vec::new();
    let mut last = clock.monotonic();
    while last < time {
        let now = clock.monotonic();
        if now.saturating_sub(last) > PAUSE {
            pauses.push(now.saturating_sub(last));
        }
        last = now;
    }
    pauses
}
