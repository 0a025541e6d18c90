use std::collections::BTreeSet;

use duramen_types::Acknowledgement;

use super::names::{ALL, Kind};
use super::*;
use crate::api::Code;

#[test]
fn the_metrics_page_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == metrics_reference(),
        "docs/METRICS.md is out of date; run: cargo run -p duramen -- metrics-reference > docs/METRICS.md"
    );
}

/// The names after `# TYPE`.
fn families(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_declared_metric_is_shown_and_no_other() {
    let metrics = Metrics::new();
    metrics.append_acknowledged(Acknowledgement::Local, 3, 100, 0.01);
    metrics.wal_synced(0.001, 4, 4096);
    metrics.uploaded(10, 0.1);
    metrics.observed().tenants(&[("default".to_owned(), TenantUse::default())].into());
    metrics.observed().archive_requests("create", 1, 0, 0);
    let declared: BTreeSet<_> = ALL.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(families(&metrics.render()), declared);
}

#[test]
fn names_end_in_their_unit_and_counters_in_total() {
    for metric in ALL {
        let name = metric.name;
        assert!(name.starts_with("duramen_"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        let stem = name.trim_end_matches("_total");
        assert!(metric.unit.is_empty() || stem.ends_with(metric.unit), "{name} is in {}", metric.unit);
        assert!(metric.help.ends_with('.'), "{name}");
    }
}

#[test]
fn nodes_of_one_process_do_not_mix() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.failed(Code::DiskFull);
    let series = "duramen_errors_total{code=\"disk_full\"}";
    assert!(one.render().contains(&format!("{series} 1")));
    assert!(other.render().contains(&format!("{series} 0")));
}

#[test]
fn a_follower_counts_while_it_lives() {
    let metrics = Metrics::new();
    let follower = metrics.follower();
    assert!(metrics.render().contains("duramen_followers 1"));
    drop(follower);
    assert!(metrics.render().contains("duramen_followers 0"));
}

#[test]
fn an_append_is_counted_under_its_level() {
    let metrics = Metrics::new();
    metrics.append_acknowledged(Acknowledgement::Quorum, 5, 700, 0.004);
    let text = metrics.render();
    for line in [
        "duramen_appends_total{ack=\"quorum\"} 1",
        "duramen_append_records_total{ack=\"quorum\"} 5",
        "duramen_append_bytes_total{ack=\"quorum\"} 700",
        "duramen_append_duration_seconds_bucket{ack=\"quorum\",le=\"0.005\"} 1",
        "duramen_append_duration_seconds_bucket{ack=\"quorum\",le=\"0.0025\"} 0",
        "duramen_appends_total{ack=\"local\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
