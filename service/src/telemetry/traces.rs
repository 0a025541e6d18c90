//! Traces of the append and archive paths, sent by OTLP where `telemetry.otlp_endpoint` names a collector.
//!
//! A trace begins with a request, or with the client's own span if it sends one along ([W3C Trace Context] in the HTTP
//! headers or the gRPC metadata: `traceparent`, `tracestate`), or with a round of archiving. Without a collector the
//! spans below a request are never made.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::logs::Error;
use crate::config::Config;

/// The spans that are sent, besides those with a target of their own.
const REQUEST: &str = "request";
/// The target of the spans that exist for traces only.
const TARGET: &str = "duramen::trace";
/// How long the collector has to take one export, and a stopping process's last one.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the spans of this process go.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to the configured collector, which need not be there yet; `None` where none is configured.
    ///
    /// Must be called on the runtime that does the sending.
    pub(super) fn start(config: &Config) -> Result<Option<Self>, Error> {
        let Some(endpoint) = &config.telemetry.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|source| Error::Traces { endpoint: endpoint.clone(), source })?;
        let node = i64::try_from(config.node.id).unwrap_or(i64::MAX);
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "duramen"),
                KeyValue::new("service.version", super::VERSION),
                KeyValue::new("service.instance.id", config.node.id.to_string()),
                KeyValue::new("duramen.node", node),
            ])
            .build();
        let ratio = f64::from(config.telemetry.trace_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    /// Makes spans of `tracing` into spans of the trace.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("duramen"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // An event belongs into the logs.
            .with_filter(filter_fn(is_traced))
    }

    /// Sends what is left, and waits for that a moment.
    pub fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    metadata.is_span() && (target == TARGET || (metadata.name() == REQUEST && target.starts_with("duramen")))
}

/// A span for traces only; nothing where they are not sent.
macro_rules! traced {
    (parent: None, $($rest:tt)*) => {
        tracing::trace_span!(target: "duramen::trace", parent: None, $($rest)*)
    };
    ($($rest:tt)*) => {
        tracing::trace_span!(target: "duramen::trace", $($rest)*)
    };
}
pub(crate) use traced;

/// A number as a trace has it; it knows no unsigned ones.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Puts the span of a request below the client's, if that sent one along.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails where no traces are sent.
        let _ = span.set_parent(parent);
    }
}
