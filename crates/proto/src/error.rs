//! The stable error codes, and how an error travels in a gRPC status.

use std::fmt;
use std::str::FromStr;

use prost::Message as _;
use tonic::{Code, Status};

use crate::v1;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $grpc:ident, $retryable:literal, $effect:literal;)*) => {
        /// The stable code of a [`v1::Error`]; the list in `error.proto`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as it travels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The gRPC status code that goes with it.
            pub const fn grpc(self) -> Code {
                match self { $(Self::$variant => Code::$grpc,)* }
            }

            /// Whether the same request, unchanged, may succeed later.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// Whether the request may have been carried out in spite of the error.
            pub const fn may_have_had_effect(self) -> bool {
                match self { $(Self::$variant => $effect,)* }
            }
        }
    };
}

codes! {
    /// The request breaks a rule; the message names it.
    InvalidArgument = "invalid_argument", InvalidArgument, false, false;
    /// A record is over the limit.
    RecordTooLarge = "record_too_large", InvalidArgument, false, false;
    /// A batch is over the limit.
    BatchTooLarge = "batch_too_large", InvalidArgument, false, false;
    /// An append without records.
    EmptyBatch = "empty_batch", InvalidArgument, false, false;
    /// The tenant does not exist.
    UnknownTenant = "unknown_tenant", NotFound, false, false;
    /// The stream does not exist.
    UnknownStream = "unknown_stream", NotFound, false, false;
    /// The cursor does not exist.
    UnknownCursor = "unknown_cursor", NotFound, false, false;
    /// The restore point does not exist.
    UnknownRestorePoint = "unknown_restore_point", NotFound, false, false;
    /// A stream of that name exists.
    StreamExists = "stream_exists", AlreadyExists, false, false;
    /// A tenant of that name exists.
    TenantExists = "tenant_exists", AlreadyExists, false, false;
    /// A restore point of that name exists.
    RestorePointExists = "restore_point_exists", AlreadyExists, false, false;
    /// `match_offset` is not the tail.
    OffsetMismatch = "offset_mismatch", FailedPrecondition, false, false;
    /// The fencing token is not the stream's.
    Fenced = "fenced", FailedPrecondition, false, false;
    /// A higher epoch of the producer has taken over.
    ProducerFenced = "producer_fenced", FailedPrecondition, false, false;
    /// The producer skipped a sequence number, or repeated one that is forgotten.
    OutOfOrderSequence = "out_of_order_sequence", FailedPrecondition, false, false;
    /// The stream does not remember the producer.
    UnknownProducer = "unknown_producer", FailedPrecondition, false, false;
    /// The stream's configuration was changed by another at the same time.
    ConfigChanged = "config_changed", Aborted, true, false;
    /// The offset lies below the first readable one or beyond the tail.
    OutOfRange = "out_of_range", OutOfRange, false, false;
    /// The instant lies outside the recovery window.
    NotCovered = "not_covered", OutOfRange, false, false;
    /// The instant lies in the future, or a time seen too far ahead.
    FutureTime = "future_time", OutOfRange, false, false;
    /// There are as many of these as there may be.
    LimitReached = "limit_reached", ResourceExhausted, false, false;
    /// Over the node's byte budget.
    ResourceExhausted = "resource_exhausted", ResourceExhausted, true, false;
    /// The node's disk is at its reserve.
    DiskFull = "disk_full", ResourceExhausted, true, false;
    /// The node cannot serve this now; nothing was done.
    Unavailable = "unavailable", Unavailable, true, false;
    /// A time-out, or leadership lost in flight: it may have been done.
    UnknownOutcome = "unknown_outcome", DeadlineExceeded, true, true;
    /// Stored bytes fail their checksum.
    Corruption = "corruption", DataLoss, false, false;
    /// The node does not know the operation.
    Unimplemented = "unimplemented", Unimplemented, false, false;
    /// A defect of the node; what it did before it noticed is not known.
    Internal = "internal", Internal, false, true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A code that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownErrorCode;

impl fmt::Display for UnknownErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the error code is not known to this version")
    }
}

impl std::error::Error for UnknownErrorCode {}

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;
    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        Self::ALL.iter().find(|code| code.as_str() == text).copied().ok_or(UnknownErrorCode)
    }
}

impl v1::Error {
    /// An error with its code's usual flags and no position.
    pub fn from_code(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().to_owned(),
            message: message.into(),
            retryable: code.is_retryable(),
            may_have_had_effect: code.may_have_had_effect(),
            ..Self::default()
        }
    }

    /// The code, if this version knows it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        self.code.parse().ok()
    }
}

/// `google.rpc.Status`: what the header `grpc-status-details-bin` holds by convention of gRPC.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

const TYPE_URL: &str = "type.googleapis.com/duramen.v1.Error";

/// The gRPC status that carries `error`: the status code of its code (`INTERNAL` for an unknown one), its message, and
/// the error itself in the details.
pub fn status_of(error: &v1::Error) -> Status {
    let code = error.known_code().unwrap_or(ErrorCode::Internal).grpc();
    let details = RpcStatus {
        code: code as i32,
        message: error.message.clone(),
        details: vec![prost_types::Any { type_url: TYPE_URL.to_owned(), value: error.encode_to_vec() }],
    };
    Status::with_details(code, error.message.clone(), details.encode_to_vec().into())
}

/// The error that a status carries; `None` if it did not come from a node.
pub fn error_of(status: &Status) -> Option<v1::Error> {
    let details = RpcStatus::decode(status.details()).ok()?;
    let detail = details.details.iter().find(|detail| detail.type_url == TYPE_URL)?;
    v1::Error::decode(detail.value.as_slice()).ok()
}
