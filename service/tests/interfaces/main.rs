//! A real node behind its real ports: what a client of HTTP, of gRPC and an operator see.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod grpc;
mod http;
mod operators;

use std::sync::Arc;
use std::time::Duration;

use duramen::Node;
use duramen::config::Config;
use duramen::server::{Listeners, Serving};
use duramen_proto::v1::log_client::LogClient;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;

/// Long enough for anything that should happen; a test that waits for longer fails.
const SOON: Duration = Duration::from_secs(30);

/// A node with ports of its own and a directory as its archive.
struct TestNode {
    node: Node,
    serving: Serving,
    client: Client,
    log: LogClient<Channel>,
    _directory: TempDir,
}

impl TestNode {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = Config::default();
        config.node.data = directory.path().join("data");
        config.archive.url = Some(format!("file://{}", directory.path().join("archive").display()));
        config.cluster.shards = Some(2);
        config.wal.segment_size = bytesize::ByteSize::mib(32);
        config.listen.clients = "127.0.0.1:0".parse().unwrap();
        config.listen.admin = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let config = Arc::new(config);
        let listeners = Listeners::bind(&config.listen).await.unwrap();
        let node = Node::start(&config).await.unwrap();
        let metrics = Arc::clone(node.metrics());
        let serving = listeners.serve(node.clone(), config, metrics).await.unwrap();
        let log = LogClient::connect(format!("http://{}", serving.clients())).await.unwrap();
        Self { node, serving, client: Client::new(), log, _directory: directory }
    }

    /// A URL of the port for clients.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.serving.clients())
    }

    /// A URL of a stream of the tenant `default`.
    fn stream(&self, rest: &str) -> String {
        self.url(&format!("/v1/tenants/default/streams/{rest}"))
    }

    /// A URL of the operators' port.
    fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.serving.admin())
    }

    /// Appends values, one record each, and gives the answer.
    async fn append(&self, stream: &str, values: &[&str]) -> Value {
        let request = self.client.post(self.stream(&format!("{stream}/records?raw=true")));
        let request = request.header("content-type", "application/x-ndjson").body(values.join("\n"));
        expect(request, StatusCode::OK).await
    }

    async fn get(&self, url: String) -> Value {
        expect(self.client.get(url), StatusCode::OK).await
    }

    async fn stop(mut self) {
        assert!(self.serving.drain(SOON).await, "requests under way finish");
        self.node.shutdown(SOON).await.unwrap();
        self.serving.close().await;
    }
}

/// Sends a request, checks its status and gives its JSON (null for an empty body).
async fn expect(request: RequestBuilder, status: StatusCode) -> Value {
    let response = tokio::time::timeout(SOON, request.send()).await.expect("an answer in time").unwrap();
    let found = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(found, status, "{body}");
    if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap_or(Value::String(body)) }
}

/// Sends a request that fails, and gives its error after checking its status and its code.
async fn refused(request: RequestBuilder, status: u16, code: &str) -> Value {
    let body = expect(request, StatusCode::from_u16(status).unwrap()).await;
    let error = &body["error"];
    assert_eq!(error["code"], code, "{body}");
    for flag in ["retryable", "may_have_had_effect"] {
        assert!(error[flag].is_boolean(), "{body}");
    }
    assert!(!error["message"].as_str().unwrap().is_empty(), "{body}");
    error.clone()
}
