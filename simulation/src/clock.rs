//! The simulated machine's clock.

use std::time::Duration;

use duramen_types::{Clock, HybridTime};
use parking_lot::Mutex;
use tokio::time::Instant;

/// 2026-01-01 00:00:00 UTC, in microseconds since 1970: when every simulation begins.
const EPOCH: u64 = 1_767_225_600_000_000;

/// A clock that goes with the runtime of the life that is being lived, and stands still between two lives.
#[derive(Debug, Default)]
pub struct SimClock {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Time that went by in former lives.
    before: Duration,
    /// When the present life began, by its runtime's clock.
    born: Option<Instant>,
    /// How far the wall clock is set away from where it would be, in microseconds.
    set_off: i64,
}

impl Inner {
    fn elapsed(&self) -> Duration {
        self.before + self.born.map_or(Duration::ZERO, |born| born.elapsed())
    }
}

impl SimClock {
    /// Moves the wall clock, back or ahead; time since the start of the machine goes on as before.
    pub fn jump(&self, micros: i64) {
        self.inner.lock().set_off += micros;
    }

    /// A clock that shows what this one does, between two lives.
    pub(crate) fn fork(&self) -> Self {
        let inner = self.inner.lock();
        Self { inner: Mutex::new(Inner { before: inner.elapsed(), born: None, set_off: inner.set_off }) }
    }

    pub(crate) fn begin_life(&self) {
        self.inner.lock().born = Some(Instant::now());
    }

    pub(crate) fn end_life(&self) {
        let mut inner = self.inner.lock();
        inner.before = inner.elapsed();
        inner.born = None;
    }
}

impl Clock for SimClock {
    fn now(&self) -> HybridTime {
        let inner = self.inner.lock();
        let elapsed = u64::try_from(inner.elapsed().as_micros()).unwrap_or(u64::MAX);
        HybridTime::from_micros((EPOCH + elapsed).saturating_add_signed(inner.set_off))
    }

    fn monotonic(&self) -> Duration {
        self.inner.lock().elapsed()
    }
}
