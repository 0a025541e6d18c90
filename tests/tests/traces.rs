//! Traces of a node's appends and of its archiving, as an OTLP collector receives them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use duramen_proto::v1::log_client::LogClient;
use duramen_proto::v1::{self, append_request::Payload};
use duramen_tests::{Deadline, NodeSettings};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
const OTHER: &str = "11111111111111111111111111111111";
const UNSAMPLED: &str = "22222222222222222222222222222222";

/// What a collector was sent.
#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    async fn collect() -> Result<(Self, SocketAddr)> {
        let received = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder().add_service(TraceServiceServer::new(received.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok((received, address))
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans).cloned().collect()
    }

    fn resource(&self, key: &str) -> Option<Value> {
        let requests = self.0.lock();
        let resource = requests.first()?.resource_spans.first()?.resource.as_ref()?;
        resource.attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.clone()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.clone()
}

fn text(value: &str) -> Option<Value> {
    Some(Value::StringValue(value.to_owned()))
}

/// The one span of that name in the trace.
fn only<'a>(spans: &'a [Span], trace: &str, name: &str) -> Result<&'a Span> {
    let mut found = spans.iter().filter(|s| s.name == name && hexadecimal(&s.trace_id) == trace);
    let first = found.next().with_context(|| {
        let all: Vec<_> = spans.iter().map(|s| (hexadecimal(&s.trace_id), &s.name)).collect();
        format!("no span {name} in trace {trace}: {all:?}")
    })?;
    ensure!(found.next().is_none(), "several spans {name} in trace {trace}");
    Ok(first)
}

/// Checks that a request and an append below it are in the client's trace.
fn is_append(spans: &[Span], trace: &str, request_id: &str) -> Result<()> {
    let request = only(spans, trace, "request")?;
    ensure!(hexadecimal(&request.parent_span_id) == CLIENT, "{request:#?}");
    ensure!(attribute(request, "request_id") == text(request_id), "{request:#?}");
    let append = only(spans, trace, "append")?;
    ensure!(append.parent_span_id == request.span_id, "{append:#?}");
    ensure!(attribute(append, "stream") == text("s") && attribute(append, "tenant") == text("default"));
    ensure!(attribute(append, "records") == Some(Value::IntValue(1)), "{append:#?}");
    ensure!(attribute(append, "offset").is_some() && attribute(append, "index").is_some(), "{append:#?}");
    let commit = only(spans, trace, "commit")?;
    ensure!(commit.parent_span_id == append.span_id, "{commit:#?}");
    let within = append.start_time_unix_nano <= commit.start_time_unix_nano
        && commit.end_time_unix_nano <= append.end_time_unix_nano;
    ensure!(within && append.end_time_unix_nano > append.start_time_unix_nano, "{append:#?}{commit:#?}");
    Ok(())
}

fn post(url: &str, parent: &str, id: &str, body: &str) -> Result<()> {
    let answer =
        ureq::post(url).header("traceparent", parent).header("x-request-id", id).send(body.as_bytes())?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_and_archiving_are_traced_and_a_clients_trace_goes_on() -> Result<()> {
    let (received, collector) = Received::collect().await?;
    let directory = tempfile::tempdir()?;
    let settings = NodeSettings::in_directory(&directory.path().join("data"))
        .archive_in_directory(&directory.path().join("archive"))
        .set("archive.segment_age", "1s")
        .set("telemetry.otlp_endpoint", &format!("http://{collector}"));
    let (node, url) = tokio::task::spawn_blocking(move || {
        let node = settings.start()?;
        let url = format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url());
        post(&url, &format!("00-{TRACE}-{CLIENT}-01"), "by-http", "one")?;
        post(&url, &format!("00-{UNSAMPLED}-{CLIENT}-00"), "unsampled", "two")?;
        anyhow::Ok((node, url))
    })
    .await??;
    ensure!(url.starts_with("http"));
    let mut log = LogClient::connect(node.client_url()).await?;
    let mut request = Request::new(v1::AppendRequest {
        tenant: "default".into(),
        stream: "s".into(),
        payload: Some(Payload::Records(v1::Records {
            records: vec![v1::Record { value: Some("three".into()), ..Default::default() }],
        })),
        ..Default::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", format!("00-{OTHER}-{CLIENT}-01").parse()?);
    metadata.insert("x-request-id", "by-grpc".parse()?);
    log.append(request).await?;

    // A node that stops sends what it still has.
    let mut node = node;
    let stopped = tokio::task::spawn_blocking(move || node.terminate()).await??;
    ensure!(stopped.success(), "{stopped}");
    let spans = received.spans();
    is_append(&spans, TRACE, "by-http")?;
    let (append, archived) = (only(&spans, TRACE, "append")?, only(&spans, TRACE, "archived")?);
    ensure!(archived.parent_span_id == append.span_id, "it waited for the archive: {archived:#?}");
    is_append(&spans, OTHER, "by-grpc")?;
    ensure!(!spans.iter().any(|span| hexadecimal(&span.trace_id) == UNSAMPLED), "the client said not to");
    ensure!(received.resource("service.name") == text("duramen"));
    ensure!(received.resource("duramen.node") == Some(Value::IntValue(1)));

    let upload = spans.iter().find(|span| span.name == "upload").context("an upload is traced")?;
    let parents = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
    let cut = parents(upload).context("it is part of a cut")?;
    ensure!(cut.name == "cut" && attribute(cut, "segments").is_some(), "{cut:#?}");
    let root = parents(cut).context("which somebody asked for")?;
    ensure!(["round", "requested_cut"].contains(&root.name.as_str()), "{root:#?}");
    ensure!(root.parent_span_id.is_empty(), "which is no part of anything: {root:#?}");
    for name in ["build", "manifest", "close"] {
        ensure!(spans.iter().any(|span| span.name == name), "no span {name}");
    }
    Ok(())
}

#[test]
fn a_collector_that_is_away_costs_its_traces_only() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // A port that nobody listens on.
    let away = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut node = NodeSettings::in_directory(directory.path())
        .set("telemetry.otlp_endpoint", &format!("http://{away}"))
        .start()?;
    let url = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
    for _ in 0..10 {
        post(&url, &format!("00-{TRACE}-{CLIENT}-01"), "lost", "one")?;
    }
    ensure!(node.terminate()?.success(), "the node stops badly");
    node.process().wait_for_line(Deadline::after_secs(10), |line| line.contains("OTLP").then_some(()))?;
    Ok(())
}

#[test]
fn without_a_collector_a_trace_context_is_passed_over() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = NodeSettings::in_directory(directory.path()).start()?;
    let url = format!("{}/v1/tenants/default/streams/s/records", node.client_url());
    for parent in [format!("00-{TRACE}-{CLIENT}-01"), "nonsense".to_owned()] {
        post(&url, &parent, "untraced", "one")?;
    }
    ensure!(node.terminate()?.success(), "the node stops badly");
    Ok(())
}
