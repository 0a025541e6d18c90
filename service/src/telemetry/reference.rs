//! `docs/METRICS.md`, made of the declarations.

use std::fmt::Write as _;

use super::names::{ALL, Kind};

const HEAD: &str = "\
# Metrics

`GET /metrics` on the operators' port (7702) gives these in Prometheus' text format. Units are base units; counters
start at 0 with the process; a histogram `x` has the series `x_bucket`, `x_sum` and `x_count`, which appear with the
first observation.

This page is generated from the declarations: `duramen metrics-reference > docs/METRICS.md`.

| metric | kind | unit | labels | meaning |
| --- | --- | --- | --- | --- |
";

/// The page that documents every metric, as Markdown.
pub fn metrics_reference() -> String {
    let mut page = HEAD.to_owned();
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<_> =
            metric.labels.iter().map(|(label, about)| format!("`{label}`: {about}")).collect();
        writeln!(
            page,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.name,
            metric.unit,
            labels.join("; "),
            metric.help
        )
        .expect("writing to a String can't fail");
    }
    page
}
