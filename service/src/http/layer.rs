//! Around every HTTP request: its id, its span, hybrid times both ways, its errors counted and logged.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use duramen_proto::{SEEN_HEADER, TIME_HEADER};
use duramen_types::HybridTime;
use tracing::{Instrument as _, field};

use super::error::{Failed, Failure};
use crate::edge::Edge;
use crate::telemetry::continue_trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id of a client is replaced.
const LONGEST_ID: usize = 128;

/// Runs a request; the answer carries `x-request-id` and `duramen-time`.
pub(crate) async fn observe(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let id = match request.headers().get(&REQUEST_ID) {
        Some(id) if id.len() <= LONGEST_ID && id.to_str().is_ok() => id.clone(),
        _ => {
            HeaderValue::try_from(edge.request_id()).expect("an id is made of hexadecimal digits and a dash")
        }
    };
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        tenant = field::Empty,
        stream = field::Empty,
    );
    continue_trace(&span, request.headers());
    let mut segments = request.uri().path().split('/').skip(2);
    for (collection, name) in [("tenants", "tenant"), ("streams", "stream")] {
        if segments.next() == Some(collection)
            && let Some(value) = segments.next()
        {
            span.record(name, value);
        }
    }
    let mut response = async {
        let response = match seen(&edge, &request) {
            Ok(()) => next.run(request).await,
            Err(failure) => failure.into_response(),
        };
        if let Some(Failed(code)) = response.extensions().get() {
            edge.metrics.failed(*code);
            if response.status().is_server_error() {
                tracing::warn!(code = code.as_str(), status = response.status().as_u16(), "a request failed");
            } else {
                tracing::debug!(
                    code = code.as_str(),
                    status = response.status().as_u16(),
                    "a request was refused"
                );
            }
        }
        response
    }
    .instrument(span)
    .await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(TIME_HEADER, HeaderValue::from(edge.node.latest_time().as_micros()));
    response
}

fn seen(edge: &Edge, request: &Request) -> Result<(), Failure> {
    let Some(value) = request.headers().get(SEEN_HEADER) else { return Ok(()) };
    let micros = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Failure::invalid(format!("{SEEN_HEADER} is not a hybrid time: send back what {TIME_HEADER} gave"))
    })?;
    Ok(edge.node.observe_time(HybridTime::from_micros(micros))?)
}
