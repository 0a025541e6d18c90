//! Request bodies on their way in: what is not complete yet is held within a byte budget, and must get on.
//!
//! A message counts from its first byte until it is complete: a whole body of HTTP, one message of a gRPC call (a 5-byte prefix
//! with its length, then so many bytes). What becomes of it then has budgets of its own. A call between two messages may be
//! silent for as long as it likes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;

use crate::api::{Code, Error};
use crate::telemetry::Metrics;

/// A message must come at least this fast on the whole, in bytes a second, and never pause for longer than its grace.
const SLOWEST: u64 = 64 << 10;
/// What a gRPC message is preceded by: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What unfinished messages may hold together, and how long one may take for its first bytes.
#[derive(Debug, Clone)]
pub(crate) struct Receiving {
    budget: Arc<Semaphore>,
    bytes: usize,
    grace: Duration,
    metrics: Arc<Metrics>,
}

impl Receiving {
    pub(super) fn new(bytes: usize, grace: Duration, metrics: Arc<Metrics>) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(bytes)), bytes, grace, metrics }
    }
}

/// Why a body ended before its end; nothing of its message had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the request stopped coming, or came too slowly: send it in one go (listen.header_timeout)")]
    TooSlow,
    #[error(
        "requests that are not here completely take all of what log.byte_budget allows them: try again, with smaller ones or \
         fewer at once"
    )]
    NoRoom,
}

impl Cut {
    /// The one that a body's error comes from, if it does.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cut) = error.downcast_ref() {
                return Some(*cut);
            }
            next = error.source();
        }
        None
    }
}

impl From<Cut> for Error {
    fn from(cut: Cut) -> Self {
        let code = match cut {
            Cut::TooSlow => Code::Unavailable,
            Cut::NoRoom => Code::ResourceExhausted,
        };
        Self::new(code, cut.to_string())
    }
}

/// Where in its messages a body is.
#[derive(Debug)]
enum Framing {
    /// The whole body is one.
    Whole,
    /// Each has a prefix.
    Prefixed { prefix: [u8; PREFIX], have: usize, left: usize },
}

/// A request body that is cut off where it would hold too much for too long.
#[derive(Debug)]
pub(super) struct Received<B> {
    inner: B,
    receiving: Receiving,
    framing: Framing,
    /// Bytes of the message that is not complete.
    partial: usize,
    held: Option<OwnedSemaphorePermit>,
    waiting: PollSemaphore,
    /// Came in, and waits for room.
    next: Option<Bytes>,
    /// For how long the message was waited for. Time in which nobody reads the body is not its client's.
    waited: Duration,
    since: Option<Instant>,
    /// When the present waiting must have an end.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B: Body> Received<B> {
    pub(super) fn new(inner: B, is_grpc: bool, receiving: Receiving) -> Self {
        let framing = if is_grpc {
            Framing::Prefixed { prefix: [0; PREFIX], have: 0, left: 0 }
        } else {
            Framing::Whole
        };
        let waiting = PollSemaphore::new(Arc::clone(&receiving.budget));
        Self {
            inner,
            receiving,
            framing,
            partial: 0,
            held: None,
            waiting,
            next: None,
            waited: Duration::ZERO,
            since: None,
            deadline: None,
        }
    }

    /// Notes what came in: how much of it belongs to a message that is not complete.
    fn take(&mut self, data: &[u8]) {
        match &mut self.framing {
            Framing::Whole if self.inner.is_end_stream() => self.partial = 0,
            Framing::Whole => self.partial = self.partial.saturating_add(data.len()),
            Framing::Prefixed { prefix, have, left } => {
                let mut rest = data;
                while !rest.is_empty() {
                    let wanted = if *have < PREFIX { PREFIX.saturating_sub(*have) } else { *left };
                    let (taken, more) = rest.split_at(wanted.min(rest.len()));
                    rest = more;
                    self.partial = self.partial.saturating_add(taken.len());
                    if *have < PREFIX {
                        if let Some(place) = prefix.get_mut(*have..have.saturating_add(taken.len())) {
                            place.copy_from_slice(taken);
                        }
                        *have = have.saturating_add(taken.len());
                        if *have == PREFIX {
                            let [_, length @ ..] = *prefix;
                            *left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                        }
                    } else {
                        *left = left.saturating_sub(taken.len());
                    }
                    if *have == PREFIX && *left == 0 {
                        (*have, self.partial, self.waited) = (0, 0, Duration::ZERO);
                    }
                }
            }
        }
        // What is complete needs its room no more.
        if let Some(held) = &mut self.held {
            let needless = held.num_permits().saturating_sub(self.partial);
            drop(held.split(needless));
        }
    }

    /// How long the message may be waited for altogether.
    fn allowed(&self) -> Duration {
        let bytes = u64::try_from(self.partial).unwrap_or(u64::MAX);
        self.receiving.grace + Duration::from_secs(bytes / SLOWEST)
    }

    /// Waits for the client, who owes the rest of a message; whether for too long.
    fn waits_too_long(&mut self, context: &mut Context<'_>) -> bool {
        // Whoever announces a body has to send it; a call may be silent between its messages.
        let is_owed = self.partial > 0 || matches!(self.framing, Framing::Whole);
        if is_owed && self.since.is_none() {
            self.since = Some(Instant::now());
            let left = self.allowed().saturating_sub(self.waited).min(self.receiving.grace);
            self.deadline = Some(Box::pin(tokio::time::sleep(left)));
        }
        is_owed && self.is_late(context)
    }

    /// Ends the waiting for the client; whether the message is too slow as a whole.
    fn waited_too_long(&mut self) -> bool {
        self.waited += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.deadline = None;
        self.waited > self.allowed()
    }

    /// Takes room for the message that is not complete, as far as it has none.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacking = self.partial.min(self.receiving.bytes).saturating_sub(held);
        let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
        if lacking == 0 {
            return Poll::Ready(());
        }
        match self.waiting.poll_acquire_many(context, lacking) {
            Poll::Ready(Some(more)) => {
                self.deadline = None;
                match &mut self.held {
                    Some(held) => held.merge(more),
                    None => self.held = Some(more),
                }
                Poll::Ready(())
            }
            // The semaphore is never closed.
            Poll::Ready(None) => Poll::Ready(()),
            Poll::Pending => {
                let grace = self.receiving.grace;
                self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
                Poll::Pending
            }
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }

    /// The error that ends the body, as who reads it knows it.
    fn cut(&mut self, cut: Cut) -> axum::BoxError {
        (self.held, self.next, self.deadline) = (None, None, None);
        // Gives up its place in the queue as well.
        self.waiting = PollSemaphore::new(Arc::clone(&self.receiving.budget));
        match self.framing {
            Framing::Whole => cut.into(),
            Framing::Prefixed { .. } => {
                let error = Error::from(cut);
                self.receiving.metrics.failed(error.code);
                crate::grpc::status(&error).into()
            }
        }
    }
}

impl<B> Body for Received<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        if this.next.is_none() {
            match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let is_late = this.waited_too_long();
                        this.take(&data);
                        if is_late && this.partial > 0 {
                            return Poll::Ready(Some(Err(this.cut(Cut::TooSlow))));
                        }
                        this.next = Some(data);
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => {
                    this.held = None;
                    return Poll::Ready(None);
                }
                Poll::Pending if this.waits_too_long(context) => {
                    return Poll::Ready(Some(Err(this.cut(Cut::TooSlow))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match this.poll_room(context) {
            Poll::Ready(()) => Poll::Ready(this.next.take().map(|data| Ok(Frame::data(data)))),
            Poll::Pending if this.is_late(context) => Poll::Ready(Some(Err(this.cut(Cut::NoRoom)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
