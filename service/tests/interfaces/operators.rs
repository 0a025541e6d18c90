//! The operators' port, and the end of a node.

use reqwest::StatusCode;
use serde_json::json;

use super::{SOON, TestNode, expect, refused};

#[tokio::test]
async fn a_node_says_that_it_is_well_and_what_it_is() {
    let node = TestNode::start().await;
    node.append("s", &["a"]).await;
    for path in ["/health", "/ready"] {
        let health = node.get(node.admin(path)).await;
        assert_eq!(health["condition"], "ok", "{health}");
        assert!(!health["checks"].as_array().unwrap().is_empty());
    }
    let status = node.get(node.admin("/status")).await;
    assert_eq!((&status["node"], &status["branch"]), (&json!(1), &json!("main")));
    assert_eq!(status["shards"].as_array().unwrap().len(), 3, "meta and two data shards");
    assert!(node.get(node.admin("/stats")).await.as_object().unwrap().contains_key("duramen_followers"));
    refused(node.client.get(node.admin("/nothing")), 404, "unimplemented").await;
    node.stop().await;
}

#[tokio::test]
async fn the_archive_can_be_flushed_checked_and_snapshotted() {
    let node = TestNode::start().await;
    node.append("s", &["a"]).await;
    let flushed = expect(node.client.post(node.admin("/admin/archive/flush")), StatusCode::OK).await;
    assert_eq!(flushed["lag_entries"], 0, "{flushed}");
    let status = node.get(node.admin("/admin/archive/status")).await;
    assert_eq!((&status["branch"], &status["reachable"]), (&json!("main"), &json!(true)));
    expect(node.client.post(node.admin("/admin/archive/check")), StatusCode::OK).await;
    expect(node.client.post(node.admin("/admin/snapshot")), StatusCode::OK).await;
    refused(node.client.get(node.admin("/admin/snapshot")), 405, "unimplemented").await;
    node.stop().await;
}

#[tokio::test]
async fn the_metrics_of_a_live_node_are_the_documented_ones() {
    let node = TestNode::start().await;
    node.append("s", &["a"]).await;
    refused(node.client.get(node.stream("none")), 404, "unknown_stream").await;
    let text = expect(node.client.get(node.admin("/metrics")), StatusCode::OK).await;
    let text = text.as_str().unwrap();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md")).unwrap();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/METRICS.md");
    }
    assert!(text.contains("duramen_errors_total{code=\"unknown_stream\"} 1"), "{text}");
    node.stop().await;
}

#[tokio::test]
async fn a_stopping_node_is_not_ready_ends_followers_and_takes_no_clients() {
    let mut node = TestNode::start().await;
    node.append("s", &["a"]).await;
    let mut follower = node.client.get(node.stream("s/records?follow=true")).send().await.unwrap();
    assert!(node.serving.drain(SOON).await);
    while tokio::time::timeout(SOON, follower.chunk()).await.expect("the events end").unwrap().is_some() {}
    expect(node.client.get(node.admin("/ready")), StatusCode::SERVICE_UNAVAILABLE).await;
    expect(node.client.get(node.admin("/health")), StatusCode::OK).await;
    let address = node.serving.clients();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the clients' port is closed");
    node.node.shutdown(SOON).await.unwrap();
    node.serving.close().await;
}
