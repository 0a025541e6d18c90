//! Work that runs ahead of its consumer: a producer starts tasks in order, results come out in that order.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{HistoryError, Result};
use crate::Blocking;

/// The consumer's end. Dropping it stops the producer and whatever it has started.
#[derive(Debug)]
pub(super) struct Pipeline<T> {
    started: mpsc::Receiver<Started<T>>,
    /// The task whose result is being waited for, so that [`Pipeline::next`] can be cancelled.
    current: Option<Started<T>>,
    producer: JoinHandle<()>,
}

/// The producer's end.
#[derive(Debug)]
pub(super) struct Feeder<T> {
    started: mpsc::Sender<Started<T>>,
}

/// A running task that ends with its handle.
#[derive(Debug)]
struct Started<T>(JoinHandle<Result<T>>);

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Pipeline<T> {
    /// Runs `produce`, which submits work; at most about `ahead` results wait to be taken.
    ///
    /// An error of `produce` comes out after the results of what it had submitted.
    pub(super) fn spawn<F, P>(ahead: usize, produce: P) -> Self
    where
        P: FnOnce(Feeder<T>) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (sender, started) = mpsc::channel(ahead.max(1));
        let feeder = Feeder { started: sender };
        let producing = produce(Feeder { started: feeder.started.clone() });
        let producer = tokio::spawn(async move {
            if let Err(error) = producing.await {
                feeder.submit(async { Err(error) }).await;
            }
        });
        Self { started, current: None, producer }
    }

    /// The next result; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<T>> {
        if self.current.is_none() {
            self.current = self.started.recv().await;
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        let result = (&mut current.0).await;
        self.current = None;
        flatten(result).map(Some)
    }
}

impl<T> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.producer.abort();
    }
}

impl<T: Send + 'static> Feeder<T> {
    /// Starts `work` once there is room ahead of the consumer; `false` if there is no consumer any more.
    pub(super) async fn submit(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> bool {
        let Ok(room) = self.started.reserve().await else { return false };
        room.send(Started(tokio::spawn(work)));
        true
    }
}

/// Does what takes a processor for a while.
pub(super) async fn compute<T: Send + 'static>(
    blocking: Blocking,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    flatten(blocking.run(work).await)
}

fn flatten<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(HistoryError::Interrupted),
        },
    }
}
