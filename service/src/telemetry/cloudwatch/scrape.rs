//! The values of a moment, read from Prometheus' text format as the node itself writes it.

use std::collections::BTreeMap;

use super::super::names::{Kind, Metric};

/// Every sample by its name: its labels as written, and its value.
#[derive(Debug, Default)]
pub(super) struct Scrape(BTreeMap<String, Vec<(String, f64)>>);

impl Scrape {
    pub(super) fn of(text: &str) -> Self {
        let mut samples: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            samples.entry(name.to_owned()).or_default().push((labels, value));
        }
        Self(samples)
    }

    /// The sum of a metric's series: of those whose first label has one of `values`, or of all.
    pub(super) fn sum(&self, metric: Metric, values: &[&str]) -> f64 {
        self.add_up(metric.name, |labels| has(labels, metric, values))
    }

    fn add_up(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        let series = self.0.get(name).into_iter().flatten();
        // From 0: the sum of nothing would be -0.
        series.filter(|(labels, _)| wanted(labels)).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The 99th percentile of what a histogram observed after `before`; `None` where it observed nothing.
    ///
    /// As Prometheus' `histogram_quantile` does it: linear within a bucket, and beyond the last one its lower bound.
    pub(super) fn p99_since(&self, before: &Self, metric: Metric, values: &[&str]) -> Option<f64> {
        let Kind::Histogram(bounds) = metric.kind else { return None };
        let name = format!("{}_bucket", metric.name);
        let until = |scrape: &Self, bound: f64| {
            let of_the_bound = |labels: &str| {
                label(labels, "le").and_then(|le| le.parse().ok()) == Some(bound)
                    && has(labels, metric, values)
            };
            scrape.add_up(&name, of_the_bound)
        };
        let observed = |bound| until(self, bound) - until(before, bound);
        let all = observed(f64::INFINITY);
        if all <= 0.0 {
            return None;
        }
        let rank = 0.99 * all;
        let (mut lower, mut below) = (0.0, 0.0);
        for &bound in bounds {
            let through = observed(bound);
            if through >= rank {
                return Some(lower + (bound - lower) * (rank - below) / (through - below));
            }
            (lower, below) = (bound, through);
        }
        Some(lower)
    }
}

/// Whether the metric's first label has one of the values; anything does if there are none.
fn has(labels: &str, metric: Metric, values: &[&str]) -> bool {
    let Some((name, _)) = metric.labels.first().filter(|_| !values.is_empty()) else { return true };
    label(labels, name).is_some_and(|value| values.contains(&value))
}

/// A label's value. Those that are asked for have neither commas nor quotes in them.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(given, _)| *given == name).map(|(_, value)| value.trim_matches('"'))
}
