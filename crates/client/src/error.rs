//! Why a call did not give what was asked for.

use std::time::Duration;

use duramen_proto::{ErrorCode, error_of, v1};
use duramen_types::{HybridTime, Offset, batch};
use tonic::{Code, Status};

use crate::retry::Effect;

/// Why a call did not give what was asked for.
///
/// It is cheap to clone: one failure may answer many appends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node answered with an error.
    #[error("{}", .0.message)]
    Node(Box<NodeError>),
    /// No connection could be made; nothing was sent.
    #[error("no node answers at {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// The answer to a change was lost: it may have been carried out, or may be yet.
    #[error("{call} may or may not have been carried out: {reason}")]
    UnknownOutcome { call: &'static str, reason: String },
    /// The answer to a call that changes nothing was lost.
    #[error("the answer to {call} was lost: {reason}")]
    Lost { call: &'static str, reason: String },
    /// The arguments break a rule; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The records do not make a batch; nothing was sent.
    #[error(transparent)]
    Batch(#[from] batch::Error),
    /// The other side did not answer as a node does.
    #[error("the answer to {call} breaks the protocol: {reason}")]
    Protocol { call: &'static str, reason: String, may_have_had_effect: bool },
    /// The appender was closed before the record was given to it.
    #[error("the appender is closed: make a new one")]
    Closed,
}

/// A node's error, and the positions that help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    /// `None` for a code that this version does not know.
    pub code: Option<ErrorCode>,
    /// What happened, where, and what to do.
    pub message: String,
    pub retryable: bool,
    pub may_have_had_effect: bool,
    /// The stream's tail.
    pub tail: Option<Offset>,
    /// The stream's first readable offset.
    pub first_readable: Option<Offset>,
    /// The limit that was met.
    pub limit: Option<u64>,
    /// Which record of the batch is meant, from 0.
    pub record: Option<u32>,
    /// The stream's current fencing token.
    pub fencing_token: Option<String>,
    /// The sequence number that the producer must send next.
    pub expected_sequence: Option<u32>,
    /// The producer's current epoch.
    pub producer_epoch: Option<u32>,
    /// The instant in question.
    pub time: Option<HybridTime>,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The stable code; what failed on this side of the connection has the code that a node would give it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Node(error) => error.code.unwrap_or(ErrorCode::Internal),
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Closed => ErrorCode::Unavailable,
            Self::UnknownOutcome { .. } => ErrorCode::UnknownOutcome,
            Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::Batch(error) => match error {
                batch::Error::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
                batch::Error::BatchTooLarge { .. }
                | batch::Error::TooManyRecords { .. }
                | batch::Error::UncompressedTooLarge { .. } => ErrorCode::BatchTooLarge,
                batch::Error::Empty => ErrorCode::EmptyBatch,
                batch::Error::Checksum { .. } => ErrorCode::Corruption,
                _ => ErrorCode::InvalidArgument,
            },
            Self::Protocol { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the same call, unchanged, may succeed later; repeating it is safe only if it had no effect, or is
    /// idempotent.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Node(error) => error.retryable,
            Self::Unreachable { .. } | Self::UnknownOutcome { .. } | Self::Lost { .. } => true,
            Self::Invalid(_) | Self::Batch(_) | Self::Protocol { .. } | Self::Closed => false,
        }
    }

    /// Whether the call may have been carried out, now or later, in spite of the error.
    pub fn may_have_had_effect(&self) -> bool {
        match self {
            Self::Node(error) => error.may_have_had_effect,
            Self::UnknownOutcome { .. } => true,
            Self::Protocol { may_have_had_effect, .. } => *may_have_had_effect,
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Invalid(_)
            | Self::Batch(_)
            | Self::Closed => false,
        }
    }

    /// What the node said, if it was the node.
    pub fn node(&self) -> Option<&NodeError> {
        match self {
            Self::Node(error) => Some(error),
            _ => None,
        }
    }

    /// The stream's tail, if the error names it.
    pub fn tail(&self) -> Option<Offset> {
        self.node().and_then(|error| error.tail)
    }

    /// The stream's first readable offset, if the error names it.
    pub fn first_readable(&self) -> Option<Offset> {
        self.node().and_then(|error| error.first_readable)
    }

    /// Whether repeating a call with this effect can do no harm and may help.
    pub(crate) fn may_retry(&self, effect: Effect) -> bool {
        self.is_retryable() && (effect != Effect::Once || !self.may_have_had_effect())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.node().and_then(|error| error.retry_after)
    }

    pub(crate) fn from_node(error: v1::Error) -> Self {
        Self::Node(Box::new(NodeError {
            code: error.known_code(),
            message: error.message,
            retryable: error.retryable,
            may_have_had_effect: error.may_have_had_effect,
            tail: error.tail.map(Offset::new),
            first_readable: error.first_readable.map(Offset::new),
            limit: error.limit,
            record: error.record,
            fencing_token: error.fencing_token,
            expected_sequence: error.expected_sequence,
            producer_epoch: error.producer_epoch,
            time: error.time.map(HybridTime::from_micros),
            retry_after: error.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        }))
    }

    /// Classifies the status of a call that failed.
    pub(crate) fn from_status(call: &'static str, effect: Effect, endpoint: &str, status: &Status) -> Self {
        if let Some(error) = error_of(status) {
            return Self::from_node(error);
        }
        let reason = reason_of(status);
        if never_sent(status) {
            return Self::Unreachable { endpoint: endpoint.to_owned(), reason };
        }
        match status.code() {
            // These come from a broken connection, a time-out on either side, or a proxy.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::ResourceExhausted => Self::lost(call, effect, reason),
            // These don't, and a node says more than the bare status.
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => {
                Self::Protocol { call, reason, may_have_had_effect: effect != Effect::None }
            }
        }
    }

    /// The answer to a call never came.
    pub(crate) fn lost(call: &'static str, effect: Effect, reason: impl Into<String>) -> Self {
        match effect {
            Effect::None => Self::Lost { call, reason: reason.into() },
            Effect::Idempotent | Effect::Once => Self::UnknownOutcome { call, reason: reason.into() },
        }
    }

    pub(crate) fn protocol(call: &'static str, effect: Effect, reason: impl Into<String>) -> Self {
        Self::Protocol { call, reason: reason.into(), may_have_had_effect: effect != Effect::None }
    }
}

/// Whether the request cannot have left this machine: no connection could be made.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn reason_of(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => chain(source),
        None if status.message().is_empty() => format!("status {:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}
