//! What may be repeated, and how long to wait before it.

use std::time::Duration;

use backon::ExponentialBuilder;
use duramen_types::Clock;

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// What a call changes, and so whether it may be repeated when its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changes nothing.
    None,
    /// Doing it twice is doing it once.
    Idempotent,
    /// Doing it twice is not doing it once.
    Once,
}

/// Delays that double from 20 ms to 2 s, jittered, without end.
///
/// The jitter comes from the clock, so that a simulation with its own clock repeats itself.
pub(crate) fn backoff(clock: &dyn Clock) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .with_jitter()
        .with_jitter_seed(clock.now().as_micros())
        .without_max_times()
}
