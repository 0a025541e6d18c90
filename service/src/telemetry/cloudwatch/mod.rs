//! The node's metrics as CloudWatch takes them from a log: lines in its Embedded Metric Format (EMF).
//!
//! A line is one JSON object. `_aws` says which of its members are metrics, in which unit and with which dimensions:
//!
//! ```text
//! {"_aws": {"Timestamp": <ms since 1970>,
//!           "CloudWatchMetrics": [{"Namespace": "Duramen", "Dimensions": [["cluster", "node"]],
//!                                  "Metrics": [{"Name": "appends", "Unit": "Count"}, …]}]},
//!  "cluster": "duramen", "node": "1", "appends": 42, …}
//! ```
//!
//! What is there is what alarms and the dashboard need, as each is billed. Values come from what Prometheus would read,
//! so that the two never differ; CloudWatch knows neither rates nor quantiles of buckets, so lines have growths and
//! 99th percentiles since the line before.

mod names;
mod scrape;

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::names as prometheus;
use crate::config::CloudWatch;
use crate::status::Condition;
pub(super) use names::{ALL, Source};
use scrape::Scrape;

/// Writes the lines of one node; each says what happened since the one before.
#[derive(Debug)]
pub struct EmfLines {
    settings: CloudWatch,
    node: u64,
    before: Scrape,
}

impl EmfLines {
    /// The first line will say what happened since the process started.
    pub fn new(settings: CloudWatch, node: u64) -> Self {
        Self { settings, node, before: Scrape::default() }
    }

    /// The next line, without a line break: `text` is what [`super::Metrics::render`] gives, `now` the time since 1970.
    ///
    /// A metric that has no value now, such as a percentile when nothing happened, is not in it.
    pub fn next(&mut self, text: &str, health: Condition, now: Duration) -> String {
        let scrape = Scrape::of(text);
        let read = Reading { scrape: &scrape, before: &self.before, health, now: now.as_secs_f64() };
        let mut values = Map::new();
        let mut metrics = Vec::new();
        let archives = scrape.sum(prometheus::ARCHIVE_SEGMENT_AGE, &[]) > 0.0;
        for metric in ALL.iter().filter(|metric| archives || !metric.of_the_archive) {
            let value = read.value(metric.source).and_then(serde_json::Number::from_f64);
            let Some(value) = value else { continue };
            values.insert(metric.name.to_owned(), Value::Number(value));
            metrics.push(json!({ "Name": metric.name, "Unit": metric.unit }));
        }
        values.insert("cluster".to_owned(), self.settings.cluster.clone().into());
        values.insert("node".to_owned(), self.node.to_string().into());
        let directive = json!({
            "Namespace": self.settings.namespace, "Dimensions": [["cluster", "node"]], "Metrics": metrics,
        });
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        values.insert("_aws".to_owned(), json!({ "Timestamp": millis, "CloudWatchMetrics": [directive] }));
        self.before = scrape;
        Value::Object(values).to_string()
    }
}

/// What one line is made of.
struct Reading<'a> {
    scrape: &'a Scrape,
    before: &'a Scrape,
    health: Condition,
    now: f64,
}

impl Reading<'_> {
    fn value(&self, source: Source) -> Option<f64> {
        match source {
            Source::Now(metric) => Some(self.scrape.sum(metric, &[])),
            Source::Growth(metric, labels) => {
                Some(self.scrape.sum(metric, labels) - self.before.sum(metric, labels))
            }
            Source::P99(metric, labels) => self.scrape.p99_since(self.before, metric, labels),
            Source::Age(metric) => {
                Some(self.scrape.sum(metric, &[])).filter(|at| *at > 0.0).map(|at| self.age(at))
            }
            Source::Unverified => {
                let verified = self.scrape.sum(prometheus::ARCHIVE_VERIFIED, &[]);
                let started = self.scrape.sum(prometheus::PROCESS_START, &[]);
                Some(self.age(if verified > 0.0 { verified } else { started }))
            }
            Source::DiskUsed => {
                let size = self.scrape.sum(prometheus::DISK_SIZE, &[]);
                let available = self.scrape.sum(prometheus::DISK_AVAILABLE, &[]);
                (size > 0.0).then(|| 100.0 * (1.0 - available / size))
            }
            Source::Health => Some(match self.health {
                Condition::Ok => 0.0,
                Condition::Degraded => 1.0,
                Condition::Unhealthy => 2.0,
            }),
        }
    }

    fn age(&self, at: f64) -> f64 {
        (self.now - at).max(0.0)
    }
}

#[cfg(test)]
mod tests;
