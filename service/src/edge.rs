//! What gRPC and HTTP share: the node behind them, time limits, errors as they travel, records out of batches.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use duramen_proto::ErrorCode;
use duramen_types::Offset;
use duramen_types::batch::{Batch, Records, normalise};
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::api::{Code, Error, ReadBatch, Result};
use crate::config::Config;
use crate::telemetry::Metrics;

/// A node as its interfaces see it. Shared by all connections.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: Node,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Arc<Config>,
    /// Cancelled when the node is to stop: long-running calls then end.
    pub(crate) stopping: CancellationToken,
    started: u64,
    requests: AtomicU64,
}

impl Edge {
    pub(crate) fn new(
        node: Node,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            started: node.latest_time().as_micros(),
            requests: AtomicU64::new(0),
            node,
            metrics,
            config,
            stopping,
        }
    }

    /// An id for a request that brought none: unique in this process, and unlikely to be another's.
    pub(crate) fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", self.started & 0xffff_ffff)
    }
}

/// Bounds an operation that changes something: beyond its limit its outcome is unknown.
pub(crate) async fn changing<T>(
    limit: Option<Duration>,
    operation: impl Future<Output = Result<T>>,
) -> Result<T> {
    within(limit, operation).await.unwrap_or_else(|limit| Err(unknown_outcome(limit)))
}

/// Bounds an operation that only looks.
pub(crate) async fn looking<T>(
    limit: Option<Duration>,
    operation: impl Future<Output = Result<T>>,
) -> Result<T> {
    within(limit, operation).await.unwrap_or_else(|limit| {
        let message = format!("no answer within the {limit:?} that the client allows; nothing was changed");
        Err(Error::new(Code::Unavailable, message))
    })
}

async fn within<T>(
    limit: Option<Duration>,
    operation: impl Future<Output = T>,
) -> std::result::Result<T, Duration> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, operation).await.map_err(|_| limit),
        None => Ok(operation.await),
    }
}

/// What a time-out of a change is answered with.
pub(crate) fn unknown_outcome(limit: Duration) -> Error {
    let message = format!(
        "no answer within {limit:?}: it may have been done or may still be. Look before repeating it, or repeat it \
         with a producer stamp or match_offset"
    );
    Error::new(Code::UnknownOutcome, message)
}

/// A code of the node as every interface spells it.
pub(crate) const fn wire_code(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument => ErrorCode::InvalidArgument,
        Code::RecordTooLarge => ErrorCode::RecordTooLarge,
        Code::BatchTooLarge => ErrorCode::BatchTooLarge,
        Code::EmptyBatch => ErrorCode::EmptyBatch,
        Code::UnknownTenant => ErrorCode::UnknownTenant,
        Code::UnknownStream => ErrorCode::UnknownStream,
        Code::UnknownCursor => ErrorCode::UnknownCursor,
        Code::UnknownRestorePoint => ErrorCode::UnknownRestorePoint,
        Code::StreamExists => ErrorCode::StreamExists,
        Code::TenantExists => ErrorCode::TenantExists,
        Code::RestorePointExists => ErrorCode::RestorePointExists,
        Code::OffsetMismatch => ErrorCode::OffsetMismatch,
        Code::Fenced => ErrorCode::Fenced,
        Code::ProducerFenced => ErrorCode::ProducerFenced,
        Code::OutOfOrderSequence => ErrorCode::OutOfOrderSequence,
        Code::UnknownProducer => ErrorCode::UnknownProducer,
        Code::ConfigChanged => ErrorCode::ConfigChanged,
        Code::OutOfRange => ErrorCode::OutOfRange,
        Code::LimitReached => ErrorCode::LimitReached,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::DiskFull => ErrorCode::DiskFull,
        Code::Unavailable => ErrorCode::Unavailable,
        Code::UnknownOutcome => ErrorCode::UnknownOutcome,
        Code::NotCovered => ErrorCode::NotCovered,
        // A time from the future, whether it is asked for or brought along.
        Code::FutureTime | Code::ClockRefused => ErrorCode::FutureTime,
        Code::Corruption => ErrorCode::Corruption,
        Code::Unimplemented => ErrorCode::Unimplemented,
        Code::Internal => ErrorCode::Internal,
    }
}

/// How long a client should wait before it tries again; `None` where trying again makes no sense, or can be done at once.
pub(crate) const fn retry_after(code: Code) -> Option<Duration> {
    match code {
        // Freed as soon as what is in flight is acknowledged.
        Code::ResourceExhausted => Some(Duration::from_millis(100)),
        Code::DiskFull => Some(Duration::from_secs(1)),
        Code::InvalidArgument
        | Code::RecordTooLarge
        | Code::BatchTooLarge
        | Code::EmptyBatch
        | Code::UnknownTenant
        | Code::UnknownStream
        | Code::UnknownCursor
        | Code::UnknownRestorePoint
        | Code::StreamExists
        | Code::TenantExists
        | Code::RestorePointExists
        | Code::OffsetMismatch
        | Code::Fenced
        | Code::ProducerFenced
        | Code::OutOfOrderSequence
        | Code::UnknownProducer
        | Code::ConfigChanged
        | Code::OutOfRange
        | Code::LimitReached
        | Code::Unavailable
        | Code::UnknownOutcome
        | Code::NotCovered
        | Code::FutureTime
        | Code::ClockRefused
        | Code::Corruption
        | Code::Unimplemented
        | Code::Internal => None,
    }
}

/// A served batch decompressed: its records, of which those in `served.from..served.end` were asked for.
pub(crate) fn open_batch(served: &ReadBatch) -> Result<Records> {
    let corrupt = |error| damaged(served, &error);
    let (_, bytes): (Offset, Bytes) = normalise(served.batch.clone()).map_err(corrupt)?;
    Batch::from_trusted(bytes).and_then(|batch| batch.records(served.base)).map_err(corrupt)
}

/// A record of a served batch that can't be decoded.
pub(crate) fn damaged(served: &ReadBatch, error: &duramen_types::batch::Error) -> Error {
    Error::new(Code::Corruption, format!("the batch at offset {} can't be decoded: {error}", served.base))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_millis(1));

    #[tokio::test]
    async fn beyond_its_deadline_a_change_has_an_unknown_outcome() {
        let error = changing(SHORT, std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.code, Code::UnknownOutcome);
        assert!(wire_code(error.code).may_have_had_effect());
    }

    #[tokio::test]
    async fn beyond_its_deadline_a_look_has_changed_nothing() {
        let error = looking(SHORT, std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
        assert!(!wire_code(error.code).may_have_had_effect());
    }

    #[tokio::test]
    async fn within_its_deadline_an_operation_keeps_its_answer() {
        assert_eq!(changing(Some(Duration::from_secs(60)), async { Ok(7) }).await.ok(), Some(7));
        assert_eq!(looking(None, async { Ok(7) }).await.ok(), Some(7));
    }
}
