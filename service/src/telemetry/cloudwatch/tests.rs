use std::collections::BTreeSet;

use duramen_types::Acknowledgement;

use super::*;
use crate::api::Code;
use crate::telemetry::{ArchiveUse, Metrics};

/// What a pipe takes in one piece, on any system.
const PIPE_BUF: usize = 4096;
const NOW: Duration = Duration::from_millis(1_700_000_000_500);

fn lines() -> EmfLines {
    EmfLines::new(CloudWatch::default(), 3)
}

fn next(lines: &mut EmfLines, metrics: &Metrics) -> Value {
    serde_json::from_str(&lines.next(&metrics.render(), Condition::Ok, NOW)).unwrap()
}

fn archive(metrics: &Metrics) {
    let archive = ArchiveUse { segment_age_seconds: 5.0, ..ArchiveUse::default() };
    metrics.observed().archive(&archive);
}

#[track_caller]
fn close_to(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
}

#[test]
fn a_line_says_what_happened_since_the_one_before() {
    let (metrics, mut lines) = (Metrics::new(), lines());
    metrics.append_acknowledged(Acknowledgement::Local, 2, 100, 0.004);
    metrics.append_acknowledged(Acknowledgement::Archived, 1, 50, 5.0);
    metrics.failed(Code::Unavailable);
    metrics.failed(Code::ClockRefused);
    let first = next(&mut lines, &metrics);
    assert_eq!((&first["appends"], &first["append_records"]), (&2.0.into(), &3.0.into()));
    assert_eq!((&first["errors"], &first["clock_refused_errors"]), (&1.0.into(), &1.0.into()));
    assert_eq!(first["_aws"]["Timestamp"], 1_700_000_000_500_u64);
    assert_eq!((&first["cluster"], &first["node"]), (&"duramen".into(), &"3".into()));
    let second = next(&mut lines, &metrics);
    assert_eq!((&second["appends"], &second["errors"]), (&0.0.into(), &0.0.into()));
    metrics.append_acknowledged(Acknowledgement::Quorum, 1, 50, 0.004);
    assert_eq!(next(&mut lines, &metrics)["appends"], 1.0);
}

#[test]
fn a_percentile_is_of_what_happened_since_the_last_line_and_absent_if_nothing_did() {
    let (metrics, mut lines) = (Metrics::new(), lines());
    for _ in 0..100 {
        metrics.append_acknowledged(Acknowledgement::Local, 1, 1, 0.004);
    }
    // Not one of those that the percentile is about.
    metrics.append_acknowledged(Acknowledgement::Archived, 1, 1, 8.0);
    // The bucket of 2.5 ms to 5 ms, by 99 hundredths.
    close_to(&next(&mut lines, &metrics)["append_duration_p99"], 0.0025 + 0.0025 * 0.99);
    let quiet = next(&mut lines, &metrics);
    assert!(quiet.get("append_duration_p99").is_none(), "{quiet:#}");
    assert!(!quiet["_aws"].to_string().contains("append_duration_p99"), "what has no value is not announced");
    metrics.append_acknowledged(Acknowledgement::Quorum, 1, 1, 60.0);
    close_to(&next(&mut lines, &metrics)["append_duration_p99"], 10.0);
}

#[test]
fn ages_and_shares_are_worked_out_and_never_is_no_age() {
    let (metrics, mut lines) = (Metrics::new(), lines());
    metrics.observed().disk_size(1000);
    metrics.disk(150, false);
    metrics.observed().started(1_699_999_900.5);
    archive(&metrics);
    let line = next(&mut lines, &metrics);
    close_to(&line["disk_used"], 85.0);
    close_to(&line["verification_age"], 100.0);
    assert!(line.get("snapshot_age").is_none(), "there was none: {line:#}");
    let times = ArchiveUse {
        segment_age_seconds: 5.0,
        verified: 1_699_999_990.5,
        snapshots: 1_699_999_980.5,
        closed_through: 1_700_000_001.0,
        ..ArchiveUse::default()
    };
    metrics.observed().archive(&times);
    let line = next(&mut lines, &metrics);
    close_to(&line["verification_age"], 10.0);
    close_to(&line["snapshot_age"], 20.0);
    close_to(&line["recovery_point_age"], 0.0);
}

#[test]
fn a_node_without_an_archive_has_no_metrics_of_one() {
    let (metrics, mut lines) = (Metrics::new(), lines());
    let line = next(&mut lines, &metrics);
    assert!(line.get("archive_lag_age").is_none() && line.get("verification_age").is_none(), "{line:#}");
    archive(&metrics);
    assert_eq!(next(&mut lines, &metrics)["archive_lag_age"], 0.0);
}

#[test]
fn health_is_a_number_that_grows_with_the_trouble() {
    let (metrics, mut lines) = (Metrics::new(), lines());
    let said = [Condition::Ok, Condition::Degraded, Condition::Unhealthy].map(|condition| {
        let line: Value = serde_json::from_str(&lines.next(&metrics.render(), condition, NOW)).unwrap();
        line["health"].as_f64().unwrap()
    });
    assert_eq!(said.map(f64::to_bits), [0.0_f64, 1.0, 2.0].map(f64::to_bits));
}

/// So that a pipe which the log shares takes a line whole: nothing can come in between.
#[test]
fn the_longest_line_fits_into_a_pipes_atomic_write() {
    let metrics = Metrics::new();
    let long = CloudWatch { namespace: "n".repeat(255), cluster: "c".repeat(255), ..CloudWatch::default() };
    let mut lines = EmfLines::new(long, (1 << 48) - 1);
    for level in [Acknowledgement::Local, Acknowledgement::Quorum] {
        metrics.append_acknowledged(level, u64::MAX >> 20, u64::MAX >> 20, 1.0 / 3.0);
    }
    metrics.wal_synced(1.0 / 3.0, 1, 1);
    metrics.uploaded(1, 1.0 / 3.0);
    metrics.observed().disk_size(u64::MAX);
    metrics.disk(u64::MAX / 3, false);
    metrics.archive_lag(u64::MAX, u64::MAX, 1e9 / 3.0);
    let long_ago = ArchiveUse {
        segment_age_seconds: 1.0 / 3.0,
        closed_through: 1.0 / 3.0,
        snapshots: 1.0 / 3.0,
        verified: 1.0 / 3.0,
        findings: u64::MAX,
        ..ArchiveUse::default()
    };
    metrics.observed().archive(&long_ago);
    let line = lines.next(&metrics.render(), Condition::Ok, NOW);
    let value: Map<String, Value> = serde_json::from_str(&line).unwrap();
    for metric in ALL {
        assert!(value.contains_key(metric.name), "{} is not in {line}", metric.name);
    }
    assert!(line.len() < PIPE_BUF, "a line has {} bytes", line.len());
}

#[test]
fn names_are_unique_and_their_sources_exist() {
    let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len());
    for metric in ALL {
        assert!(metric.help.ends_with('.'), "{}", metric.name);
        assert!(["None", "Count", "Bytes", "Seconds", "Percent"].contains(&metric.unit), "{}", metric.name);
        if let Source::P99(of, _) = metric.source {
            assert!(matches!(of.kind, prometheus::Kind::Histogram(_)), "{}", metric.name);
        }
    }
    let text = Metrics::new().render();
    for code in names::FAILURES {
        assert!(text.contains(&format!("duramen_errors_total{{code=\"{code}\"}}")), "{code} is no code");
    }
}

#[test]
fn labels_and_values_are_read_as_they_are_written() {
    let text = "# HELP x y\nx{tenant=\"a,b}\"} 1\nduramen_errors_total{code=\"internal\"} 2\n\
                duramen_errors_total{code=\"fenced\"} 40\nduramen_disk_full 1\n";
    let scrape = Scrape::of(text);
    let sums = [
        scrape.sum(prometheus::ERRORS, &["internal", "corruption"]),
        scrape.sum(prometheus::ERRORS, &[]),
        scrape.sum(prometheus::DISK_FULL, &[]),
        scrape.sum(prometheus::STREAMS, &[]),
    ];
    assert_eq!(sums.map(f64::to_bits), [2.0_f64, 42.0, 1.0, 0.0].map(f64::to_bits));
}
