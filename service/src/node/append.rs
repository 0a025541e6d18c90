//! Appends: admission on the way in, the acknowledgement on the way out.

use std::sync::Arc;
use std::time::Duration;

use duramen_state::{BatchOutcome, Rejection};
use duramen_types::batch::{self, Batch, BatchBuilder, Limits};
use duramen_types::{
    Acknowledgement, AppendItem, BatchHeader, HybridTime, Offset, ProducerId, ShardId, StreamConfig,
    StreamId, TimestampPolicy,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tracing::{Instrument as _, Span, field};

use super::{Node, not_proposed, rejected};
use crate::api::{AppendPayload, AppendRequest, Appended, Code, Error, More, Result, StreamRef};
use crate::shard::{Job, NotProposed, Outcome, Shard, Waiting};
use crate::telemetry::{number, traced};

/// A record that names no time: Kafka's NO_TIMESTAMP. It gets the time at which it arrived.
pub const NO_TIMESTAMP: i64 = -1;

/// An append on its way: it keeps its place in the stream's order from now on.
#[derive(Debug)]
pub struct PendingAppend {
    node: Node,
    shard: Arc<Shard>,
    stream: StreamRef,
    outcome: oneshot::Receiver<std::result::Result<Outcome, NotProposed>>,
    records: u32,
    bytes: u64,
    admitted: Duration,
    acknowledgement: Acknowledgement,
    timeout: Duration,
    span: Span,
}

impl PendingAppend {
    /// Waits for the acknowledgement level that was asked for.
    ///
    /// Fails with [`Code::UnknownOutcome`] when the time is up or leadership was lost: the append may then be
    /// carried out all the same. Dropping the future does not take the append back.
    pub async fn acknowledged(self) -> Result<Appended> {
        let Self { node, shard, stream, outcome, records, bytes, admitted, acknowledgement, timeout, span } =
            self;
        let wait = async {
            let outcome = outcome
                .instrument(traced!("commit"))
                .await
                .map_err(|_| {
                    unknown(&stream, "the shard's leadership ended before the append was committed")
                })?
                .map_err(|reason| not_proposed(&stream, &reason))?;
            let appended = appended(&stream, &outcome, records)?;
            if acknowledgement == Acknowledgement::Archived {
                node.archived(&shard, outcome.id.index.next()).instrument(traced!("archived")).await?;
            }
            Span::current()
                .record("index", number(outcome.id.index.get()))
                .record("offset", number(appended.first.get()));
            Ok(appended)
        };
        match tokio::time::timeout(timeout, wait).instrument(span).await {
            Ok(result) => {
                if result.is_ok() {
                    let took = node.clock().wall().monotonic().saturating_sub(admitted);
                    let records = u64::from(records);
                    node.metrics().append_acknowledged(acknowledgement, records, bytes, took.as_secs_f64());
                }
                result
            }
            Err(_) => {
                let level = match acknowledgement {
                    Acknowledgement::Archived => "archived",
                    Acknowledgement::Local | Acknowledgement::Quorum => "committed",
                };
                let what = format!("it was not {level} within {timeout:?}");
                Err(unknown(&stream, &what))
            }
        }
    }
}

impl Node {
    /// Admits an append and gives it its place in the stream's order.
    ///
    /// Where the node's byte budget is used up it waits if `wait` is set (a session's backpressure), and else fails
    /// with [`Code::ResourceExhausted`].
    pub async fn append(&self, request: AppendRequest, wait: bool) -> Result<PendingAppend> {
        self.observe_time(request.seen)?;
        let admitted = self.clock().wall().monotonic();
        super::users_only(&request.stream)?;
        let (shard, id, config) = self.stream_for_append(&request.stream).await?;
        let acknowledgement =
            request.acknowledgement.or(config.acknowledgement).unwrap_or(self.settings().acknowledgement);
        if acknowledgement == Acknowledgement::Archived && !self.has_archive() {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "stream {}: acknowledgement `archived` needs an archive: set archive.url",
                    request.stream
                ),
            ));
        }
        let timestamps = config.timestamps.unwrap_or(self.settings().timestamps);
        let batch = self
            .admit(request.payload, request.producer, timestamps)
            .map_err(|error| invalid(&request.stream, &error))?;
        if let Some(producer) = batch.producer() {
            self.check_producer(&request.stream, producer.id)?;
        }
        let budget = self.take_budget(batch.bytes().len(), wait).await?;
        let header = BatchHeader {
            stream: id,
            records: batch.count(),
            bytes: u32::try_from(batch.bytes().len()).expect("the batch limit is below 4 GiB"),
            base_timestamp: batch.base_timestamp(),
            max_timestamp: batch.max_timestamp(),
            hash: batch.hash(),
            producer: batch.producer(),
            match_offset: request.match_offset,
            fencing_token: request.fencing_token,
        };
        let (records, bytes) = (header.records, u64::from(header.bytes));
        let span = traced!(
            "append",
            tenant = %request.stream.tenant,
            stream = %request.stream.name,
            shard = i64::from(shard.id.get()),
            records = i64::from(records),
            bytes = number(bytes),
            index = field::Empty,
            offset = field::Empty
        );
        let (sender, outcome) = oneshot::channel();
        let item = AppendItem { header, batch: batch.into_bytes() };
        shard.submit(Job::Append(item, Waiting { outcome: sender, budget: Some(budget) }));
        Ok(PendingAppend {
            node: self.clone(),
            shard,
            stream: request.stream,
            outcome,
            records,
            bytes,
            admitted,
            acknowledgement,
            timeout: self.settings().append_timeout,
            span,
        })
    }

    /// Refuses a producer id that is still to be given out, which is an index of the meta shard's log: its honest owner's first
    /// append would be taken for a repetition.
    fn check_producer(&self, stream: &StreamRef, id: ProducerId) -> Result<()> {
        if id.get() < self.shard(ShardId::META).view.progress().end.get() {
            return Ok(());
        }
        Err(Error::new(
            Code::InvalidArgument,
            format!(
                "append to {stream}: producer {id} was never allocated: ask the node for an id (AllocateProducer, POST \
                 /v1/producers), and use that"
            ),
        ))
    }

    /// The stream's place, creating the stream where that is allowed.
    async fn stream_for_append(&self, stream: &StreamRef) -> Result<(Arc<Shard>, StreamId, StreamConfig)> {
        loop {
            let shard = self.shard_of(stream);
            {
                let state = shard.view.state.read();
                if let Some(id) = state.stream_id(&stream.tenant, &stream.name)
                    && let Some(found) = state.stream(id)
                {
                    return Ok((Arc::clone(shard), id, found.config.clone()));
                }
            }
            self.check_tenant(&stream.tenant)?;
            if !self.settings().auto_create_streams {
                return Err(self.unknown_stream(stream));
            }
            match self.create_stream(stream, StreamConfig::default()).await {
                Ok(_) => {}
                // Somebody else created it just now.
                Err(error) if error.code == Code::StreamExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a valid, normalised batch of what the client sent.
    fn admit(
        &self,
        payload: AppendPayload,
        producer: Option<duramen_types::Producer>,
        timestamps: TimestampPolicy,
    ) -> std::result::Result<Batch, batch::Error> {
        let limits = &self.settings().limits;
        let now = i64::try_from(self.clock().wall().now().as_micros() / 1000).unwrap_or(i64::MAX);
        let batch = match payload {
            AppendPayload::Encoded(bytes) => {
                let (_, bytes) = batch::normalise(bytes)?;
                batch::validate(bytes, limits)?
            }
            AppendPayload::Records(records) => encode(limits, records, producer, now)?,
        };
        let unstamped = batch.max_timestamp() == NO_TIMESTAMP && batch.base_timestamp() == NO_TIMESTAMP;
        Ok(match timestamps {
            TimestampPolicy::Arrival => batch.stamp_arrival(now),
            TimestampPolicy::ClientPreferred if unstamped => batch.stamp_arrival(now),
            TimestampPolicy::ClientPreferred => batch,
        })
    }

    async fn take_budget(&self, bytes: usize, wait: bool) -> Result<OwnedSemaphorePermit> {
        if wait {
            return Ok(Arc::clone(self.budget())
                .acquire_many_owned(self.permits(bytes))
                .await
                .expect("the budget's semaphore is never closed"));
        }
        self.try_budget(bytes)
    }

    /// What so many bytes take of the budget: one batch larger than the whole budget takes all of it.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.settings().byte_budget)).unwrap_or(u32::MAX)
    }

    fn try_budget(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let budget: &Arc<Semaphore> = self.budget();
        Arc::clone(budget).try_acquire_many_owned(self.permits(bytes)).map_err(|error| match error {
            TryAcquireError::NoPermits | TryAcquireError::Closed => Error::new(
                Code::ResourceExhausted,
                format!(
                    "appends that are received or in flight take all of log.byte_budget, {} bytes: try again, or use \
                     a session, which waits",
                    self.settings().byte_budget
                ),
            ),
        })
    }

    /// Waits until everything of `shard` before `end` is in the archive, asking for a cut.
    pub(super) async fn archived(&self, shard: &Shard, end: duramen_types::Index) -> Result<()> {
        let mut archived = shard.archived.subscribe();
        if *archived.borrow_and_update() < end {
            self.request_cut(shard.id);
        }
        archived.wait_for(|archived| *archived >= end).await.map(|_| ()).map_err(|_| {
            Error::new(Code::UnknownOutcome, "the node is shutting down; the append is committed")
        })
    }

    pub(super) fn unknown_stream(&self, stream: &StreamRef) -> Error {
        Error::new(
            Code::UnknownStream,
            format!(
                "stream {stream} does not exist: create it, or look for the right name in the list of streams"
            ),
        )
    }
}

fn encode(
    limits: &Limits,
    records: Vec<batch::Record>,
    producer: Option<duramen_types::Producer>,
    now: i64,
) -> std::result::Result<Batch, batch::Error> {
    let mut builder = BatchBuilder::new(*limits);
    for mut record in records {
        if record.timestamp == NO_TIMESTAMP {
            record.timestamp = now;
        }
        builder.push_record(&record)?;
    }
    builder.finish(batch::Options { producer, ..batch::Options::default() })
}

fn invalid(stream: &StreamRef, error: &batch::Error) -> Error {
    let (code, limit, record) = match error {
        batch::Error::RecordTooLarge { index, limit, .. } => {
            (Code::RecordTooLarge, Some(*limit), Some(*index))
        }
        batch::Error::BatchTooLarge { limit, .. } | batch::Error::UncompressedTooLarge { limit } => {
            (Code::BatchTooLarge, Some(*limit), None)
        }
        batch::Error::Record { index, .. } => (Code::InvalidArgument, None, Some(*index)),
        batch::Error::TooManyRecords { .. } => (Code::BatchTooLarge, None, None),
        batch::Error::Empty => (Code::EmptyBatch, None, None),
        _ => (Code::InvalidArgument, None, None),
    };
    let limit = limit.and_then(|limit| u64::try_from(limit).ok());
    Error::new(code, format!("append to {stream}: {error}")).with_more(More {
        limit,
        record,
        ..More::default()
    })
}

fn unknown(stream: &StreamRef, what: &str) -> Error {
    Error::new(
        Code::UnknownOutcome,
        format!(
            "append to {stream}: {what}; it may or may not have been appended. Read the tail, or retry as an \
             idempotent producer, before you send it again"
        ),
    )
}

fn appended(stream: &StreamRef, outcome: &Outcome, records: u32) -> Result<Appended> {
    let ack = |first: Offset, time, duplicate| Appended {
        first,
        next: first.plus(u64::from(records)),
        time,
        term: outcome.id.term,
        // With one voter, fsynced here is fsynced on a majority: the entry was committed before it was applied.
        provisional: false,
        duplicate,
    };
    match outcome.applied.batches.get(outcome.item) {
        Some(BatchOutcome::Appended { base }) => Ok(ack(*base, outcome.applied.time, false)),
        Some(BatchOutcome::Duplicate { base, time }) => Ok(ack(*base, *time, true)),
        Some(BatchOutcome::Rejected(rejection)) => Err(rejected(stream, rejection)),
        Some(BatchOutcome::Rescued { .. }) | None => {
            Err(Error::new(Code::Internal, format!("append to {stream}: its entry carries no such batch")))
        }
    }
}

/// The latest of the hybrid times that an answer depends on; for callers outside this module.
pub fn latest(times: impl IntoIterator<Item = HybridTime>) -> HybridTime {
    times.into_iter().max().unwrap_or_default()
}

/// A rejection as the interfaces report it.
pub(super) fn rejection_error(stream: &StreamRef, rejection: &Rejection) -> Error {
    let error = |code, what: String| Error::new(code, what);
    match rejection {
        Rejection::UnknownStream(_) => {
            error(Code::UnknownStream, format!("stream {stream} does not exist: it was deleted meanwhile"))
        }
        Rejection::StreamExists(_) => error(
            Code::StreamExists,
            format!("stream {stream} exists already: use it, or choose another name"),
        ),
        Rejection::OffsetMismatch { expected, tail } => error(
            Code::OffsetMismatch,
            format!(
                "stream {stream}: the append expected the tail at offset {expected}, it is at {tail}: read what came \
                 between, then decide"
            ),
        )
        .with_tail(*tail),
        Rejection::Fenced { current } => error(
            Code::Fenced,
            match current {
                Some(_) => {
                    format!("stream {stream}: the fencing token is missing or another one is in force")
                }
                None => format!("stream {stream} has no fencing token, but one was expected"),
            },
        )
        .with_more(More { fencing_token: current.clone(), ..More::default() }),
        Rejection::ProducerFenced { found, current } => error(
            Code::ProducerFenced,
            format!(
                "stream {stream}: producer epoch {found} is fenced, epoch {current} has taken over: stop"
            ),
        )
        .with_more(More { producer_epoch: Some(*current), ..More::default() }),
        Rejection::OutOfOrderSequence { found, expected } => {
            let mut error = error(
                Code::OutOfOrderSequence,
                format!(
                    "stream {stream}: producer sequence {found} is out of order, {expected} was expected"
                ),
            );
            error.expected_sequence = Some(*expected);
            error
        }
        Rejection::UnknownProducer(id) => error(
            Code::UnknownProducer,
            format!("stream {stream} does not know producer {id} (any more): begin anew with sequence 0"),
        ),
        Rejection::ConfigChanged(_) => error(
            Code::ConfigChanged,
            format!("stream {stream}: its configuration was changed meanwhile: look at it and try again"),
        ),
        Rejection::BeyondTail { offset, tail } => {
            let what = format!("stream {stream}: offset {offset} is beyond the tail {tail}: name at most that");
            error(Code::OutOfRange, what).with_tail(*tail)
        }
        Rejection::UnknownCursor => error(
            Code::UnknownCursor,
            format!("stream {stream} has no such cursor: look for the right name in the list of its cursors"),
        ),
        Rejection::TenantExists => error(Code::TenantExists, "the tenant exists already".to_owned()),
        Rejection::RestorePointExists(_) | Rejection::UnknownRestorePoint => {
            let code = match rejection {
                Rejection::UnknownRestorePoint => Code::UnknownRestorePoint,
                _ => Code::RestorePointExists,
            };
            error(code, rejection.to_string())
        }
        Rejection::TooMany { limit, .. } => {
            error(Code::LimitReached, format!("stream {stream}: {rejection}")).with_more(More { limit: u64::try_from(*limit).ok(), ..More::default() })
        }
        Rejection::WrongShard(_) => error(Code::Internal, format!("stream {stream}: {rejection}")),
    }
}
