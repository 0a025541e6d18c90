//! A schedule that is kept to a few microseconds. The runtime's own timers tick once a millisecond: requests would go out
//! in bursts of one tick, and the wait for the tick would be taken for the node's.

use std::time::Duration;

use anyhow::{Context, Result};
use duramen_types::{Clock, SystemClock};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Waits for the moments of a schedule, on the runtime's own event loop.
#[derive(Debug)]
pub struct Pacer {
    timer: AsyncFd<std::os::fd::OwnedFd>,
    clock: SystemClock,
}

impl Pacer {
    /// Must be called within a tokio runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe: the caller vouches that the descriptor stays open, as one that is owned does"
    )]
    pub fn new(clock: SystemClock) -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("a timer")?;
        Ok(Self { timer: AsyncFd::new(timer).context("a timer")?, clock })
    }

    /// Waits until `moment` of the clock; gives the turn away once if it is past.
    pub async fn until(&self, moment: Duration) -> Result<()> {
        let left = moment.saturating_sub(self.clock.monotonic());
        if left.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec).context("a timer")?;
        loop {
            let mut ready = self.timer.readable().await.context("a timer")?;
            let mut expirations = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(drop).context("a timer"),
                Err(_) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_is_never_reached_early() {
        let clock = SystemClock::new();
        let pacer = Pacer::new(clock).unwrap();
        for step in 1..=50_u32 {
            let moment = Duration::from_micros(300) * step;
            pacer.until(moment).await.unwrap();
            assert!(clock.monotonic() >= moment);
        }
    }
}
