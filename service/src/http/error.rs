//! The one JSON shape of errors, their HTTP status, and extractors that fail in that shape.

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::api::{Code, Error};
use crate::edge::wire_code;
use crate::server::Cut;

/// A failed request; it becomes the response.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Where it isn't the one of the error's code.
    status: Option<StatusCode>,
}

/// Left with the response, so that the error can be counted and logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed(pub(super) Code);

/// An error as JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong. Programs act on `code`, the two flags and the positions, never on `message`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// Stable.
    #[schema(value_type = String, example = "offset_mismatch")]
    code: &'static str,
    /// What happened, where, what to do.
    message: String,
    /// Whether the same request may succeed later. A repeat is safe only if `may_have_had_effect` is false or the
    /// request is idempotent.
    retryable: bool,
    /// Whether the request may have been carried out in spite of this answer.
    may_have_had_effect: bool,
    /// The stream's tail: the offset that the next record gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail: Option<u64>,
    /// The stream's first readable offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_readable: Option<u64>,
    /// The sequence number that the producer must send next.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_sequence: Option<u32>,
    /// The producer's current epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    producer_epoch: Option<u16>,
    /// The stream's current fencing token.
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing_token: Option<String>,
    /// The limit that was met: bytes for `record_too_large` and `batch_too_large`, a number for `limit_reached`.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// Which record of the batch is meant, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u32>,
    /// The hybrid time in question, microseconds since 1970: of the existing restore point, or for `not_covered` and
    /// `future_time` the nearest instant that can be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
}

impl ErrorBody {
    pub(crate) fn of(error: &Error) -> Self {
        let code = wire_code(error.code);
        let more = error.more();
        Self {
            error: ErrorDetail {
                code: code.as_str(),
                message: error.message.clone(),
                retryable: code.is_retryable(),
                may_have_had_effect: code.may_have_had_effect(),
                tail: error.tail.map(duramen_types::Offset::get),
                first_readable: error.first_readable.map(duramen_types::Offset::get),
                expected_sequence: error.expected_sequence,
                producer_epoch: more.producer_epoch,
                fencing_token: more.fencing_token.map(Into::into),
                limit: more.limit,
                record: more.record,
                time: more.time.map(duramen_types::HybridTime::as_micros),
            },
        }
    }
}

/// The HTTP status of a code.
pub(crate) const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::EmptyBatch | Code::FutureTime | Code::ClockRefused => {
            StatusCode::BAD_REQUEST
        }
        Code::RecordTooLarge | Code::BatchTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnknownTenant | Code::UnknownStream | Code::UnknownCursor | Code::UnknownRestorePoint => {
            StatusCode::NOT_FOUND
        }
        Code::StreamExists
        | Code::TenantExists
        | Code::RestorePointExists
        | Code::ProducerFenced
        | Code::OutOfOrderSequence
        | Code::UnknownProducer
        | Code::ConfigChanged
        | Code::LimitReached => StatusCode::CONFLICT,
        Code::OffsetMismatch | Code::Fenced => StatusCode::PRECONDITION_FAILED,
        Code::OutOfRange | Code::NotCovered => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Corruption | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Failure {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, message).into()
    }

    pub(super) fn body_too_large() -> Self {
        let message = "the body is larger than this node takes (twice log.batch_limit): send less at once";
        Error::new(Code::BatchTooLarge, message).into()
    }

    /// A body that could not be received to its end.
    pub(super) fn body_ended(error: &(dyn std::error::Error + 'static)) -> Self {
        match Cut::of(error) {
            Some(cut @ Cut::TooSlow) => Self::from(Error::from(cut)).with_status(StatusCode::REQUEST_TIMEOUT),
            Some(cut @ Cut::NoRoom) => Error::from(cut).into(),
            None => Self::invalid(format!("the body could not be read: {error}")),
        }
    }

    /// The same error under another status, for what HTTP itself has a word for.
    pub(crate) const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, status: None }
    }
}

impl From<duramen_types::NameError> for Failure {
    fn from(error: duramen_types::NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.error.code;
        let status = self.status.unwrap_or(status_of(code));
        let mut response = (status, axum::Json(ErrorBody::of(&self.error))).into_response();
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::INSUFFICIENT_STORAGE
        ) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Failed(code));
        response
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(format!("the path is not understood: {}", rejection.body_text()))
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(format!("the query is not understood: {}", rejection.body_text()))
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message =
                "the body is larger than this node takes (twice log.batch_limit): send less at once";
            return Error::new(Code::BatchTooLarge, message).into();
        }
        Self::body_ended(&rejection)
    }
}

/// Path parameters that fail in the shape of errors.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Failure))]
pub(super) struct Path<T>(pub(super) T);

/// Query parameters that fail in the shape of errors.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Failure))]
pub(super) struct Query<T>(pub(super) T);

/// A JSON body, whatever its content type says; an empty one is `null`.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = Bytes::from_request(request, state).await?;
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        parse_json(text).map(Self)
    }
}

pub(super) fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text)
        .map_err(|error| Failure::invalid(format!("the JSON is not understood: {error}")))
}
