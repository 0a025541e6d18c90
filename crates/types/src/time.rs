//! Hybrid timestamps, and the one seam through which time enters the system.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970 UTC from a hybrid logical clock; the axis of point-in-time recovery.
///
/// Within one shard's log the hybrid times of user entries strictly increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HybridTime(u64);

impl HybridTime {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The smallest later time; saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This time moved back by `by`; saturates at 1970.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// This time moved on by `by`; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The stamp for a new entry: the largest of the clock, the log's last time + 1 and the highest time seen + 1.
    ///
    /// Source: Kulkarni et al., "Logical Physical Clocks" (2014), with the logical part folded into microseconds.
    #[must_use]
    pub fn stamp(clock: Self, last_in_log: Self, highest_seen: Self) -> Self {
        clock.max(last_in_log.next()).max(highest_seen.next())
    }
}

impl fmt::Display for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where all time comes from: the real clock in a node, a simulated one in a simulation.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Wall-clock microseconds since 1970 UTC.
    fn now(&self) -> HybridTime;

    /// Time since an arbitrary start, never running backwards; for durations and deadlines.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    fn now(&self) -> HybridTime {
        let since_1970 =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        HybridTime::ZERO.after(since_1970)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests;
