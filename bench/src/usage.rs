//! What a process on this machine uses, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel's tick of process times, on every Linux that counts.
const TICKS_PER_SECOND: u64 = 100;

/// The memory that a process has resident, in bytes: now, and at most since its start or [`forget_peak`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

/// The processor time that a process has used, in user and kernel mode, of all its threads.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks.next(), ticks.next());
    let ticks =
        user.zip(system).map(|(user, system)| user + system).context("/proc/PID/stat has no times")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS").context("/proc/PID/status has no VmRSS")?,
        peak: field("VmHWM").context("/proc/PID/status has no VmHWM")?,
    })
}

/// Begins the peak anew; without effect where that is not permitted.
pub fn forget_peak(pid: u32) {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/clear_refs"));
    // The peak then reaches further back, and is reported as what it is.
    let _ = file.and_then(|mut file| file.write_all(b"5"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let me = std::process::id();
        let memory = memory(me).unwrap();
        assert!(memory.resident > 100_000 && memory.peak >= memory.resident, "{memory:?}");
        cpu(me).unwrap();
    }
}
