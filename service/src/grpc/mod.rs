//! gRPC for clients: the service `duramen.v1.Log`, health and reflection. The contract is in the `.proto` files.

mod convert;
mod page;
mod read;
mod service;
mod session;

use std::sync::Arc;

use axum::Router;
use duramen_proto::v1::log_server::LogServer;
use duramen_proto::{FILE_DESCRIPTOR_SET, status_of, v1};
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::api::Error;
use crate::edge::{Edge, retry_after, wire_code};

/// What a message may hold beside the largest batch.
const MESSAGE_MARGIN: u64 = 1 << 20;
/// The name that an empty health request asks for.
const WHOLE_SERVER: &str = "";

/// An error as it travels.
fn wire_error(error: &Error) -> v1::Error {
    let more = error.more();
    v1::Error {
        tail: error.tail.map(duramen_types::Offset::get),
        first_readable: error.first_readable.map(duramen_types::Offset::get),
        expected_sequence: error.expected_sequence,
        producer_epoch: more.producer_epoch.map(Into::into),
        fencing_token: more.fencing_token.map(Into::into),
        limit: more.limit,
        record: more.record,
        time: more.time.map(duramen_types::HybridTime::as_micros),
        retry_after_ms: retry_after(error.code).and_then(|wait| u32::try_from(wait.as_millis()).ok()),
        ..v1::Error::from_code(wire_code(error.code), error.message.clone())
    }
}

/// An error as the status of a call, without what the node adds to its answers.
pub(crate) fn status(error: &Error) -> Status {
    status_of(&wire_error(error))
}

/// The status of a failed call, with the error in its details; the error is counted.
fn refuse(edge: &Edge, error: &Error) -> Status {
    edge.metrics.failed(error.code);
    let mut status = status(error);
    service::stamp(edge, status.metadata_mut());
    tracing::debug!(code = error.code.as_str(), "a call failed");
    status
}

/// All of gRPC for clients.
///
/// The health service says `SERVING` from now on, and `NOT_SERVING` once the node is stopping.
pub(crate) async fn router(edge: &Arc<Edge>) -> Result<Router, tonic_reflection::server::Error> {
    let batch = edge.config.log.batch_limit.as_u64().saturating_add(MESSAGE_MARGIN);
    let largest = usize::try_from(batch).unwrap_or(usize::MAX);
    let log = LogServer::new(service::LogService::new(Arc::clone(edge))).max_decoding_message_size(largest);

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<LogServer<service::LogService>>().await;
    let stopping = edge.stopping.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        reporter.set_not_serving::<LogServer<service::LogService>>().await;
        reporter.set_service_status(WHOLE_SERVER, ServingStatus::NotServing).await;
    });

    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Some tools ask in the older version only.
    let (reflection, older) = (described().build_v1()?, described().build_v1alpha()?);
    let routes = Routes::new(log).add_service(health).add_service(reflection).add_service(older);
    Ok(routes.prepare().into_axum_router())
}

#[cfg(test)]
mod tests;
