//! The node's hybrid clock: one highest time seen, shared by all shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duramen_types::{Clock, HybridTime};

/// A time further ahead of this node's than this is refused: taking it over would push every later entry into the
/// future.
pub const LARGEST_SKEW: Duration = Duration::from_millis(500);

/// The wall clock and the highest hybrid time that this node has stamped or seen.
#[derive(Debug)]
pub struct HybridClock {
    clock: Arc<dyn Clock>,
    highest: AtomicU64,
}

impl HybridClock {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, highest: AtomicU64::new(0) }
    }

    /// The clock underneath.
    pub fn wall(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// A new time: later than `last_in_log`, than every stamp and than everything seen.
    pub fn stamp(&self, last_in_log: HybridTime) -> HybridTime {
        let time = HybridTime::stamp(self.clock.now(), last_in_log, self.latest());
        self.highest.fetch_max(time.as_micros(), Ordering::Relaxed);
        time
    }

    /// The highest time stamped or seen.
    pub fn latest(&self) -> HybridTime {
        HybridTime::from_micros(self.highest.load(Ordering::Relaxed))
    }

    /// Takes over a time that is part of this node's own history.
    pub fn recover(&self, time: HybridTime) {
        self.highest.fetch_max(time.as_micros(), Ordering::Relaxed);
    }

    /// Merges a time that somebody else has seen; gives how far ahead it is if that is too far.
    pub fn observe(&self, seen: HybridTime) -> Result<(), Duration> {
        let here = self.clock.now().max(self.latest());
        let ahead = seen.since(here);
        if ahead > LARGEST_SKEW {
            return Err(ahead);
        }
        self.highest.fetch_max(seen.as_micros(), Ordering::Relaxed);
        Ok(())
    }
}

/// RFC 3339 in UTC, to the microsecond, for people; beyond the year 9999 the plain number.
pub fn rfc3339(time: HybridTime) -> String {
    let instant = i64::try_from(time.as_micros()).ok();
    let instant = instant.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    instant.map_or_else(|| time.to_string(), |instant| instant.to_string())
}
