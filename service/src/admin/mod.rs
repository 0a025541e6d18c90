//! HTTP for operators, on a port of its own: health, metrics, status, and work on the archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use crate::edge::Edge;
use crate::http::{Failure, nothing_at, observe, unknown_method};
use crate::status::{ArchiveStatus, Condition, Health, Status};

/// The text format's content type.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of HTTP for operators.
pub(crate) fn router(edge: &Arc<Edge>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/stats", get(stats))
        .route("/admin/snapshot", post(snapshot))
        .route("/admin/archive/status", get(archive_status))
        .route("/admin/archive/flush", post(archive_flush))
        .route("/admin/archive/check", post(archive_check))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(edge), observe))
        .with_state(Arc::clone(edge))
}

/// No such path on this port; its description is on the other one.
async fn unknown_path(State(edge): State<Arc<Edge>>, uri: axum::http::Uri) -> Failure {
    nothing_at(
        &uri,
        &format!(
            "this port is for operators, with /health, /metrics, /status and more; http://{}/v1/openapi.json, on the \
             port for clients, lists what clients may ask",
            edge.config.listen.clients
        ),
    )
}

const fn verdict(condition: Condition) -> StatusCode {
    match condition {
        Condition::Ok | Condition::Degraded => StatusCode::OK,
        Condition::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The node's checks; 503 only when it is unhealthy.
async fn health(State(edge): State<Arc<Edge>>) -> (StatusCode, Json<Health>) {
    let health = edge.node.health().await;
    (verdict(health.condition), Json(health))
}

/// The same, and 503 as soon as the node is stopping: it is to get no new work.
async fn ready(State(edge): State<Arc<Edge>>) -> (StatusCode, Json<Health>) {
    let health = edge.node.health().await;
    let status = if edge.stopping.is_cancelled() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        verdict(health.condition)
    };
    (status, Json(health))
}

async fn metrics(State(edge): State<Arc<Edge>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS)], edge.metrics.render())
}

async fn status(State(edge): State<Arc<Edge>>) -> Json<Status> {
    Json(edge.node.status().await)
}

/// The metrics as JSON for people and scripts: each series with its value.
async fn stats(State(edge): State<Arc<Edge>>) -> Json<BTreeMap<String, f64>> {
    Json(series(&edge.metrics.render()))
}

/// The series of Prometheus' text format, buckets left out.
fn series(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.contains("le=\""))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

async fn snapshot(State(edge): State<Arc<Edge>>) -> Result<Json<Value>, Failure> {
    Ok(Json(edge.node.snapshot().await?))
}

async fn archive_status(State(edge): State<Arc<Edge>>) -> Result<Json<ArchiveStatus>, Failure> {
    Ok(Json(edge.node.archive_status().await?))
}

async fn archive_flush(State(edge): State<Arc<Edge>>) -> Result<Json<ArchiveStatus>, Failure> {
    Ok(Json(edge.node.archive_flush().await?))
}

async fn archive_check(State(edge): State<Arc<Edge>>) -> Result<Json<Value>, Failure> {
    Ok(Json(edge.node.archive_check().await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn stats_hold_counters_gauges_and_sums_but_no_buckets() {
        let metrics = Metrics::new();
        metrics.append_acknowledged(duramen_types::Acknowledgement::Local, 2, 30, 0.5);
        let stats = series(&metrics.render());
        assert_eq!(stats["duramen_append_records_total{ack=\"local\"}"], 2.0);
        assert_eq!(stats["duramen_append_duration_seconds_sum{ack=\"local\"}"], 0.5);
        assert!(stats.keys().all(|series| !series.contains("_bucket")), "{stats:?}");
    }
}
