//! An append session: requests are admitted in their order, answered in their order, many at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use duramen_proto::v1;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::{convert, refuse, wire_error};
use crate::api::{Appended, Code, Error, Result};
use crate::edge::Edge;

type Answer = Pin<Box<dyn Future<Output = Result<Appended>> + Send>>;

/// One thing that the session owes its client, in order.
enum Owed {
    /// The answer to the append that the client gave this number.
    Answer(u64, Answer),
    /// The end of the call, with the client's own or the node's status.
    End(Status),
}

/// The answers of a session.
///
/// A task admits requests ahead of the answers, at most `listen.session_appends` of them; beyond that, or while the
/// node's byte budget is used up, it stops reading and HTTP/2's flow control holds the client back. Dropping the
/// stream ends the task; what it admitted is carried out all the same.
pub(super) fn answers(
    edge: Arc<Edge>,
    requests: Streaming<v1::AppendSessionRequest>,
) -> impl Stream<Item = std::result::Result<v1::AppendSessionResponse, Status>> + Send {
    let (owe, mut owed) = mpsc::channel(edge.config.listen.session_appends);
    // Aborts its task when it is dropped.
    let mut admitting = JoinSet::new();
    admitting.spawn(admit(Arc::clone(&edge), requests, owe).in_current_span());
    async_stream::stream! {
        while let Some(next) = owed.recv().await {
            match next {
                Owed::Answer(request, answer) => yield Ok(respond(&edge, request, answer.await)),
                Owed::End(status) => {
                    yield Err(status);
                    break;
                }
            }
        }
        drop(admitting);
    }
}

fn respond(edge: &Edge, request: u64, result: Result<Appended>) -> v1::AppendSessionResponse {
    use v1::append_session_response::Outcome;
    let outcome = match result {
        Ok(appended) => Outcome::Ack(convert::ack(&appended)),
        Err(error) => {
            edge.metrics.failed(error.code);
            Outcome::Error(wire_error(&error))
        }
    };
    let time = edge.node.latest_time().as_micros();
    v1::AppendSessionResponse { request, outcome: Some(outcome), time }
}

async fn admit(edge: Arc<Edge>, mut requests: Streaming<v1::AppendSessionRequest>, owe: mpsc::Sender<Owed>) {
    loop {
        let message = tokio::select! {
            () = edge.stopping.cancelled() => {
                let error = Error::new(Code::Unavailable, "the node is stopping: go on in a new session");
                // The client is gone where this can't be sent; so below.
                let _ = owe.send(Owed::End(refuse(&edge, &error))).await;
                return;
            }
            message = requests.message() => message,
        };
        let owed = match message {
            Ok(None) => return,
            Err(status) => Owed::End(status),
            Ok(Some(v1::AppendSessionRequest { request, append })) => {
                Owed::Answer(request, start(&edge, append).await)
            }
        };
        let last = matches!(owed, Owed::End(_));
        if owe.send(owed).await.is_err() || last {
            return;
        }
    }
}

/// Gives an append its place in its stream's order; the answer is what waits for the acknowledgement.
async fn start(edge: &Edge, append: Option<v1::AppendRequest>) -> Answer {
    let admitted = async {
        let append = append.ok_or_else(|| convert::invalid("a request of a session needs its append"))?;
        edge.node.append(convert::append(append)?, true).await
    };
    match admitted.await {
        Ok(pending) => Box::pin(pending.acknowledged()),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}
