//! HTTP/JSON for clients: `/v1/…`, on the same port as gRPC. The contract is the OpenAPI document.

mod append;
mod cluster;
mod cursors;
mod error;
mod json;
mod layer;
mod read;
mod streams;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use duramen_proto::COMMITTED_HEADER;
use duramen_types::HybridTime;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{Code, Error};
use crate::edge::Edge;

/// The answer to a change that has nothing to say but when it was committed.
pub(crate) struct Committed(pub(crate) HybridTime);

impl IntoResponse for Committed {
    fn into_response(self) -> Response {
        let time = [(COMMITTED_HEADER, self.0.as_micros().to_string())];
        (StatusCode::NO_CONTENT, time).into_response()
    }
}

pub(crate) use error::Failure;
pub(crate) use layer::observe;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Duramen",
        description = "A durable log whose older part lives in object storage. Each answer carries the node's latest \
                       hybrid time in the header `duramen-time`; a client that wants causality across streams sends \
                       the highest that it has seen in `duramen-seen`. A request may bring an id in `x-request-id`; \
                       the answer gives it, or a new one, back.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "records", description = "Append and read"),
        (name = "streams", description = "Named, totally ordered sequences of records"),
        (name = "cursors", description = "Named consumer positions"),
        (name = "tenants", description = "Namespaces"),
        (name = "producers", description = "Idempotent producers"),
        (name = "restore points", description = "Named instants"),
    )
)]
struct Document;

fn parts() -> (Router<Arc<Edge>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(append::append_records, read::read_records))
        .routes(routes!(
            streams::create_stream,
            streams::describe_stream,
            streams::configure_stream,
            streams::delete_stream
        ))
        .routes(routes!(streams::list_streams))
        .routes(routes!(streams::trim_stream))
        .routes(routes!(streams::set_fencing_token))
        .routes(routes!(cursors::list_cursors))
        .routes(routes!(cursors::get_cursor, cursors::commit_cursor, cursors::delete_cursor))
        .routes(routes!(cluster::create_tenant, cluster::list_tenants))
        .routes(routes!(cluster::allocate_producer))
        .routes(routes!(cluster::create_restore_point, cluster::list_restore_points))
        .split_for_parts()
}

/// The OpenAPI document of the HTTP interface, as JSON for people: what `/v1/openapi.json` serves.
pub fn openapi() -> String {
    let (_, document) = parts();
    let mut text = document.to_pretty_json().expect("the document holds only what JSON can say");
    text.push('\n');
    text
}

/// All of HTTP for clients.
pub(crate) fn router(edge: &Arc<Edge>) -> Router {
    let (routes, document) = parts();
    routes
        .route("/v1/openapi.json", axum::routing::get(async move || Json(document.clone())))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(append::limit_bodies(edge))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(edge), observe))
        .with_state(Arc::clone(edge))
}

/// No such path, in the shape of errors.
async fn unknown_path(uri: axum::http::Uri) -> Failure {
    nothing_at(&uri, "/v1/openapi.json lists what there is")
}

/// A path where nothing is, with where to look instead.
pub(crate) fn nothing_at(uri: &axum::http::Uri, instead: &str) -> Failure {
    let message = format!("there is nothing at {}: {instead}", uri.path());
    Failure::from(Error::new(Code::Unimplemented, message)).with_status(StatusCode::NOT_FOUND)
}

/// The path is there, its method is not, in the shape of errors.
pub(crate) async fn unknown_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let message = format!("{} does not take {method}", uri.path());
    Failure::from(Error::new(Code::Unimplemented, message)).with_status(StatusCode::METHOD_NOT_ALLOWED)
}

#[cfg(test)]
mod tests;
