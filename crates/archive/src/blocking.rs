//! Where work is done that holds a thread for a while.

use tokio::task::{JoinError, JoinHandle};

/// Where work that blocks, or computes for long, is done.
///
/// A simulation needs one thread to do everything in an order that its seed decides; a program wants its async threads
/// free. Whoever opens things says which, once, and they pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// On the runtime's threads for blocking work.
    #[default]
    Threads,
    /// At once, on the task that asks for it.
    Inline,
}

impl Blocking {
    /// Begins `work`; with [`Blocking::Inline`] it is done when this returns.
    pub fn start<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        match self {
            Self::Threads => Work::Thread(tokio::task::spawn_blocking(work)),
            Self::Inline => Work::Done(work()),
        }
    }

    /// Does `work` and gives its result; an error if it panicked, or if the runtime ended before it began.
    ///
    /// Dropping the future does not stop work that has begun.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.start(work).finished().await
    }
}

/// Work that was begun, and goes on when this is dropped.
#[derive(Debug)]
pub enum Work<T> {
    Thread(JoinHandle<T>),
    Done(T),
}

impl<T> Work<T> {
    /// Whether [`Work::finished`] would give its result at once.
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Thread(handle) => handle.is_finished(),
            Self::Done(_) => true,
        }
    }

    /// The result, once it is there; an error as in [`Blocking::run`].
    pub async fn finished(self) -> Result<T, JoinError> {
        match self {
            Self::Thread(handle) => handle.await,
            Self::Done(result) => Ok(result),
        }
    }
}
