//! What people get wrong, one test for each: the message says what happened, where, and what to do.
//!
//! All goes through what a person touches: `duramenctl`, HTTP, gRPC, and the programs' command lines.
//! More of the same, closer to where it is decided: names in `crates/types`, record batches in `crates/types/src/batch`,
//! configuration files in `service/src/config`, data directories in `crates/wal/src/datadir`.

mod archives;
mod directories;
mod names;
mod offsets;
mod records;
mod starting;
mod times;
mod unknown;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen_proto::v1::log_client::LogClient;
use duramen_proto::{error_of, v1};
use duramen_tests::{NodeProcess, NodeSettings, Tool};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// A node with a directory as its archive, and everything that can be asked of it.
struct Asked {
    node: NodeProcess,
    runtime: Runtime,
    log: LogClient<Channel>,
    /// Has the node's `data` and its `archive`.
    directory: TempDir,
}

impl Asked {
    fn start() -> Result<Self> {
        Self::start_with(|settings| settings)
    }

    fn start_with(change: impl FnOnce(NodeSettings) -> NodeSettings) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let settings = NodeSettings::in_directory(&directory.path().join("data"))
            .archive_in_directory(&directory.path().join("archive"))
            .set("cluster.shards", "2");
        let node = change(settings).start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let log = runtime.block_on(LogClient::connect(node.client_url()))?;
        Ok(Self { node, runtime, log, directory })
    }

    fn ctl(&self, line: &str) -> Result<Tool> {
        Ok(Tool::ctl(&self.node)?.line(line))
    }

    fn archive_url(&self) -> String {
        format!("file://{}", self.directory.path().join("archive").display())
    }

    fn restore(&self, line: &str) -> Result<Tool> {
        Ok(Tool::restore(&self.archive_url())?.line(line))
    }

    /// The status and the body of a request; a path that does not begin with `/v1` is one of the tenant `default`.
    fn http(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Result<(u16, Value)> {
        let above = if path.starts_with("/v1") { "" } else { "/v1/tenants/default/streams" };
        let url = format!("{}{above}{path}", self.node.client_url());
        // A stream of events that should have been refused never ends.
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = agent.timeout_global(Some(Duration::from_secs(30))).build().new_agent();
        let request = tonic::codegen::http::Request::builder().method(method).uri(url);
        let request = request.header("content-type", "application/json").body(body.as_ref().to_vec())?;
        let mut response = agent.run(request)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string()?;
        Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
    }

    /// An HTTP request that is refused in the one shape; gives the error.
    fn http_refused(
        &self,
        (method, path): (&str, &str),
        body: impl AsRef<[u8]>,
        (status, code): (u16, &str),
        parts: &[&str],
    ) -> Result<Value> {
        let (found, answer) = self.http(method, path, body)?;
        let error = answer.get("error").with_context(|| format!("{method} {path}: {found} {answer}"))?;
        ensure!((found, error["code"].as_str()) == (status, Some(code)), "{method} {path}: {found} {error}");
        ensure!(error["retryable"].is_boolean() && error["may_have_had_effect"].is_boolean(), "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        for part in parts {
            ensure!(message.contains(part), "{method} {path} does not say {part:?}: {message}");
        }
        Ok(error.clone())
    }

    /// A gRPC call that is refused; gives the error.
    fn grpc_refused<T: std::fmt::Debug>(
        &mut self,
        call: impl AsyncFnOnce(&mut LogClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
        (status, code): (tonic::Code, &str),
        parts: &[&str],
    ) -> Result<v1::Error> {
        let answer = self.runtime.block_on(call(&mut self.log));
        let refused = answer.err().context("the call was refused")?;
        let error = error_of(&refused).with_context(|| format!("no details: {refused:?}"))?;
        ensure!((refused.code(), error.code.as_str()) == (status, code), "{:?} {error:?}", refused.code());
        for part in parts {
            ensure!(error.message.contains(part), "gRPC does not say {part:?}: {}", error.message);
        }
        Ok(error)
    }
}

/// An append of one record.
fn append(tenant: &str, stream: &str, value: impl Into<Vec<u8>>) -> v1::AppendRequest {
    let record = v1::Record { value: Some(value.into().into()), ..v1::Record::default() };
    v1::AppendRequest {
        tenant: tenant.to_owned(),
        stream: stream.to_owned(),
        payload: Some(v1::append_request::Payload::Records(v1::Records { records: vec![record] })),
        ..v1::AppendRequest::default()
    }
}

/// A read of a stream from a place.
fn read(stream: &str, from: v1::read_request::From) -> v1::ReadRequest {
    v1::ReadRequest { stream: stream.to_owned(), from: Some(from), ..v1::ReadRequest::default() }
}
