//! `docs/METRICS.md`, made of the declarations.

use std::fmt::Write as _;

use super::cloudwatch;
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

const CLOUDWATCH: &str = "
## CloudWatch

With `cloudwatch.emf = true` the node writes one line of CloudWatch's Embedded Metric Format on standard output each
`cloudwatch.interval`. In the namespace `cloudwatch.namespace`, with the dimensions `cluster` and `node`, CloudWatch then has
the metrics below, which terraform/modules/monitoring watches. Counts and bytes are of the interval: take their sum. The
99th percentiles are estimated from the histograms above and absent where nothing happened: take their maximum.

| metric | unit | with | meaning |
| --- | --- | --- | --- |
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
    page.push_str(CLOUDWATCH);
    for metric in cloudwatch::ALL {
        let with = if metric.of_the_archive { "an archive" } else { "" };
        writeln!(page, "| `{}` | {} | {with} | {} |", metric.name, metric.unit, metric.help)
            .expect("writing to a String can't fail");
    }
    page
}
