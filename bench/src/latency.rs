//! How long things took: a histogram, and what is said of it.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A minute, in nanoseconds: what takes longer is counted as that.
const LONGEST: u64 = 60_000_000_000;

/// What a latency was measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// From the moment at which the request was due by its schedule: time that it waited for earlier ones counts, so
    /// a stall is felt by all that it holds up (no coordinated omission).
    Schedule,
    /// From the call. A producer that waits for each answer before its next call has no schedule to be late for.
    Call,
}

/// Latencies, to three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// The percentiles of some latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Summary {
    pub from: From,
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    pub fn new() -> Result<Self> {
        Ok(Self { histogram: Histogram::new_with_bounds(1_000, LONGEST, 3)? })
    }

    pub fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.histogram.add(&other.histogram)?;
        Ok(())
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
    pub fn summary(&self, from: From) -> Summary {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e6;
        Summary {
            from,
            count: self.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.histogram.max() as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros * 10));
        }
        let summary = latencies.summary(From::Call);
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 5.0).abs() < 0.02, "{summary:?}");
        assert!((summary.p99 - 9.9).abs() < 0.02, "{summary:?}");
        assert!((summary.max - 10.0).abs() < 0.02, "{summary:?}");
    }
}
