//! Many records to one stream: batched, pipelined, with backpressure, over one append session.
//!
//! ```text
//! append() ─▶ buffer (batches by size and linger) ─▶ pipeline (in flight, in order) ─▶ session ─▶ node
//!    ▲ room in bytes                                      ◀─────────── answers, by request number
//! ```
//!
//! The pipeline holds the rules of what may be sent again, and does no I/O; one task moves batches through.

mod buffer;
mod pipeline;
mod task;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use duramen_types::batch::{Codec, Limits, Record};
use duramen_types::{Acknowledgement, FencingToken, StreamName};
use tokio::sync::oneshot;

use self::buffer::Buffer;
use crate::append::APPEND;
use crate::retry::Effect;
use crate::{Appended, Client, Error};

/// How to append many records.
#[derive(Debug, Clone)]
pub struct AppenderOptions {
    /// What the answers wait for; by default the stream's default.
    pub acknowledgement: Option<Acknowledgement>,
    /// The stream's fencing token, where it has one.
    pub fencing_token: Option<FencingToken>,
    /// Stamp the batches as an idempotent producer's, so that they are repeated safely when a connection breaks: no
    /// record is lost, doubled or put out of order. On by default; it costs one call at the start.
    pub idempotent: bool,
    /// What compresses the batches; nothing by default.
    pub compression: Codec,
    /// A batch is sent when it has this many bytes; 1 MiB by default. A larger record has a batch of its own.
    pub batch_bytes: usize,
    /// A batch is sent when it has this many records; 100,000 by default.
    pub batch_records: u32,
    /// How long a batch waits for more records. Zero, the default, waits for nothing: a batch takes what came while
    /// [`max_in_flight`](Self::max_in_flight) others were under way.
    pub linger: Duration,
    /// How many batches may wait for their answers at once; 5 by default. The node remembers five batches of an
    /// idempotent producer, so more are not used for one.
    pub max_in_flight: usize,
    /// How many bytes of records may be without their answer before [`Appender::append`] waits; 32 MiB by default.
    pub buffer_bytes: usize,
    /// How large a batch and a record may be; the node's own limits apply besides.
    pub limits: Limits,
}

impl Default for AppenderOptions {
    fn default() -> Self {
        Self {
            acknowledgement: None,
            fencing_token: None,
            idempotent: true,
            compression: Codec::None,
            batch_bytes: 1 << 20,
            batch_records: 100_000,
            linger: Duration::ZERO,
            max_in_flight: pipeline::REMEMBERED_BATCHES,
            buffer_bytes: 32 << 20,
            limits: Limits::default(),
        }
    }
}

/// Appends records to one stream in the order of the calls; from [`Client::appender`].
///
/// Each record's fate is told by its own [`AckFuture`]. A record that fails does not hold up those after it. Dropping
/// the appender lets it finish what it was given, in the background; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct Appender {
    buffer: Arc<Buffer>,
}

/// The answer to come for what was appended; may be dropped, which undoes nothing.
#[derive(Debug)]
#[must_use = "whether the records were appended is known when this is ready"]
pub struct AckFuture {
    answer: oneshot::Receiver<Result<Appended, Error>>,
}

impl Client {
    /// An appender for `stream`; it connects when it is first given a record. Must be called within a tokio runtime.
    pub fn appender(&self, stream: &StreamName, options: AppenderOptions) -> Appender {
        let buffer = Arc::new(Buffer::new(&options, Arc::clone(&self.options().clock)));
        tokio::spawn(task::run(self.clone(), stream.clone(), options, Arc::clone(&buffer)));
        Appender { buffer }
    }
}

impl Appender {
    /// Takes a record, as soon as there is room for it; the answer comes through the future that it gives.
    ///
    /// An error means that the record was not taken: it breaks a limit, or the appender is closed. When this future is
    /// dropped before it is ready, the record was not taken either.
    pub async fn append(&self, record: &Record) -> Result<AckFuture, Error> {
        let room = self.buffer.room(Buffer::cost(record)).await?;
        let (sender, answer) = oneshot::channel();
        self.buffer.add(record, sender, room)?;
        Ok(AckFuture { answer })
    }

    /// Takes records that stay together, as one batch of their own: all are appended, with consecutive offsets, or none.
    pub async fn append_batch(&self, records: &[Record]) -> Result<AckFuture, Error> {
        let room = self.buffer.room(records.iter().map(Buffer::cost).sum()).await?;
        let (sender, answer) = oneshot::channel();
        self.buffer.add_batch(records, sender, room)?;
        Ok(AckFuture { answer })
    }

    /// Sends what was given so far without lingering, and waits until all of it has its answer, good or bad.
    pub async fn flush(&self) {
        self.buffer.flush().await;
    }

    /// Takes nothing more, and waits until everything has its answer, good or bad.
    pub async fn close(self) {
        self.buffer.close();
        self.buffer.flush().await;
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.buffer.close();
    }
}

impl Future for AckFuture {
    type Output = Result<Appended, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(Error::lost(APPEND, Effect::Once, "the runtime that the appender ran on was shut down"))
        }))
    }
}

#[cfg(test)]
mod tests;
