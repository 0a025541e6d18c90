//! The task that moves batches from the buffer through sessions, and answers back.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff};
use duramen_proto::v1;
use duramen_types::{HybridTime, StreamName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::AppenderOptions;
use super::buffer::Buffer;
use super::pipeline::{Done, Pipeline};
use crate::append::APPEND;
use crate::model::acknowledgement_to_proto;
use crate::retry::{self, Effect};
use crate::{Appended, Client, Error};

struct Task {
    client: Client,
    stream: StreamName,
    options: AppenderOptions,
    buffer: Arc<Buffer>,
    pipeline: Pipeline,
    trouble: Option<Trouble>,
}

/// Since when no answer came, although one was due.
struct Trouble {
    since: Duration,
    backoff: ExponentialBackoff,
}

/// One call, open or about to be.
struct Session {
    requests: mpsc::Sender<v1::AppendSessionRequest>,
    answers: Streaming<v1::AppendSessionResponse>,
}

/// Why a session is over.
enum End {
    /// The buffer is closed and everything has its answer.
    Finished,
    /// It had nothing in flight.
    Idle,
    Broken(Error),
}

/// Runs until the buffer is closed and empty.
pub(super) async fn run(client: Client, stream: StreamName, options: AppenderOptions, buffer: Arc<Buffer>) {
    let retry_for = client.options().retry_for;
    let pipeline = Pipeline::new(options.idempotent, options.compression, options.max_in_flight, retry_for);
    Task { client, stream, options, buffer, pipeline, trouble: None }.run().await;
}

impl Task {
    async fn run(mut self) {
        loop {
            if self.pipeline.is_empty() {
                match self.buffer.next().await {
                    Some(batch) => self.pipeline.push(batch),
                    None => return,
                }
            }
            if self.pipeline.needs_producer() {
                match self.client.allocate_producer().await {
                    Ok(id) => self.pipeline.set_producer(id),
                    Err(error) => {
                        self.give_up(&error);
                        continue;
                    }
                }
            }
            match self.session().await {
                End::Finished => return,
                End::Idle => {}
                End::Broken(error) => self.wait_before_retry(error).await,
            }
        }
    }

    /// Opens a session and works it until it ends.
    async fn session(&mut self) -> End {
        // The channel holds all that may be in flight, so that sending never waits: flow control is the pipeline's.
        let (requests, queued) = mpsc::channel(self.pipeline.max_in_flight() + 1);
        self.send(&requests);
        let mut log = self.client.log();
        let call = log.append_session(self.client.request(ReceiverStream::new(queued), None));
        let opened = match tokio::time::timeout(self.client.options().request_timeout, call).await {
            Ok(opened) => opened.map_err(|status| self.client.error(APPEND, Effect::Once, &status)),
            Err(_) => Err(Error::lost(APPEND, Effect::Once, "the session was not opened in time")),
        };
        let answers = match opened {
            Ok(response) => {
                self.client.note_metadata(response.metadata());
                response.into_inner()
            }
            Err(error) => {
                let done = self.pipeline.disconnected(error.may_have_had_effect(), &error.to_string());
                self.tell(done);
                return End::Broken(error);
            }
        };
        let end = self.work(Session { requests, answers }).await;
        if let End::Broken(error) = &end {
            let done = self.pipeline.disconnected(true, &error.to_string());
            self.tell(done);
        }
        end
    }

    async fn work(&mut self, mut session: Session) -> End {
        let mut is_open = true;
        loop {
            if let Some((delay, failed)) = self.pipeline.resume() {
                self.tell(failed);
                if self.pipeline.needs_producer() {
                    return End::Idle;
                }
                tokio::time::sleep(self.next_delay().max(delay)).await;
            }
            self.send(&session.requests);
            if !is_open && self.pipeline.is_empty() {
                return End::Finished;
            }
            let deadline = self.deadline();
            tokio::select! {
                answer = session.answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Err(error) = self.answer(answer) {
                            return End::Broken(error);
                        }
                    }
                    Ok(None) if !self.pipeline.is_in_flight() => return End::Idle,
                    Ok(None) => {
                        return End::Broken(Error::lost(APPEND, Effect::Once, "the node ended the session"));
                    }
                    Err(_) if !self.pipeline.is_in_flight() => return End::Idle,
                    Err(status) => return End::Broken(self.client.error(APPEND, Effect::Once, &status)),
                },
                batch = self.buffer.next(), if is_open && self.pipeline.has_room() => match batch {
                    Some(batch) => self.pipeline.push(batch),
                    None => is_open = false,
                },
                () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                    let longest = self.client.options().request_timeout;
                    let reason = format!("no answer for {longest:?}");
                    return End::Broken(Error::lost(APPEND, Effect::Once, reason));
                }
            }
        }
    }

    /// Sends what may be sent.
    fn send(&mut self, requests: &mpsc::Sender<v1::AppendSessionRequest>) {
        while let Some(next) = self.pipeline.send(self.client.clock().monotonic()) {
            let (number, batch) = match next {
                Ok(next) => next,
                Err(failed) => {
                    self.tell(vec![failed]);
                    continue;
                }
            };
            let append = v1::AppendRequest {
                tenant: self.client.tenant().to_string(),
                stream: self.stream.to_string(),
                payload: Some(v1::append_request::Payload::EncodedBatch(batch)),
                acknowledgement: acknowledgement_to_proto(self.options.acknowledgement),
                match_offset: None,
                fencing_token: self.options.fencing_token.as_ref().map(ToString::to_string),
                producer: None,
                seen: self.client.seen().as_micros(),
            };
            // A closed channel is a session that broke, of which its answers will tell.
            let _ = requests.try_send(v1::AppendSessionRequest { request: number, append: Some(append) });
        }
    }

    fn answer(&mut self, answer: v1::AppendSessionResponse) -> Result<(), Error> {
        use v1::append_session_response::Outcome;
        self.client.note_seen(HybridTime::from_micros(answer.time));
        let result = match answer.outcome {
            Some(Outcome::Ack(ack)) => Ok(Appended::from(ack)),
            Some(Outcome::Error(error)) => Err(Error::from_node(error)),
            None => return Err(Error::lost(APPEND, Effect::Once, "an answer of the session is empty")),
        };
        if let Ok(appended) = &result {
            self.client.note_seen(appended.time);
            self.trouble = None;
        }
        let now = self.client.clock().monotonic();
        match self.pipeline.answered(answer.request, result, now) {
            Ok(done) => {
                self.tell(done);
                Ok(())
            }
            Err(turn) => {
                let found = answer.request;
                let reason = format!("the answer to batch {found} came where {:?} was due", turn.expected);
                Err(Error::lost(APPEND, Effect::Once, reason))
            }
        }
    }

    fn tell(&mut self, done: impl IntoIterator<Item = Done>) {
        done.into_iter().for_each(Done::tell);
        self.buffer.set_oldest_unanswered(self.pipeline.oldest());
    }

    /// How much longer the oldest batch in flight may wait.
    fn deadline(&self) -> Option<Duration> {
        let waited = self.client.clock().monotonic().saturating_sub(self.pipeline.oldest_sent()?);
        Some(self.client.options().request_timeout.saturating_sub(waited))
    }

    fn next_delay(&mut self) -> Duration {
        let clock = self.client.clock();
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: clock.monotonic(),
            backoff: retry::backoff(clock).build(),
        });
        trouble.backoff.next().unwrap_or_default()
    }

    async fn wait_before_retry(&mut self, error: Error) {
        let delay = self.next_delay().max(error.retry_after().unwrap_or_default());
        let now = self.client.clock().monotonic();
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        if !error.is_retryable() || now.saturating_sub(since) >= self.client.options().retry_for {
            self.give_up(&error);
            return;
        }
        tracing::debug!(stream = %self.stream, %error, ?delay, "opening the append session again");
        tokio::time::sleep(delay).await;
    }

    /// Fails all that was given to the appender so far; what is given to it later is tried anew.
    fn give_up(&mut self, error: &Error) {
        self.trouble = None;
        for batch in self.buffer.take_all() {
            self.pipeline.push(batch);
        }
        let failed = self.pipeline.give_up(error);
        self.tell(failed);
    }
}
