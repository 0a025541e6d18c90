use std::time::Duration;

use duramen_types::{Clock, SystemClock};

/// The moment at which a test stops waiting and fails.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    clock: SystemClock,
    allowed: Duration,
}

impl Deadline {
    /// A deadline `allowed` from now. Be generous: it is paid only by a test that fails anyway.
    pub fn after(allowed: Duration) -> Self {
        Self { clock: SystemClock::new(), allowed }
    }

    pub fn after_secs(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// What is left of it; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.clock.monotonic())
    }

    pub fn has_passed(&self) -> bool {
        self.left().is_zero()
    }

    /// How long it allowed altogether.
    pub fn allowed(&self) -> Duration {
        self.allowed
    }
}
