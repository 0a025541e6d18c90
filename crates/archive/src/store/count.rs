//! Counts of requests, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Operation};

/// How requests of one kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCount {
    /// Answered, "already exists" and "not there" included.
    pub answered: u64,
    /// Not answered in time, refused or throttled.
    pub failed: u64,
    /// How often what was asked for was begun again after a failed attempt, following a pause.
    pub retried: u64,
}

const OPERATIONS: [Operation; 5] =
    [Operation::Create, Operation::Read, Operation::Stat, Operation::List, Operation::Delete];

/// All counts of a store.
#[derive(Debug, Default)]
pub(super) struct Requests {
    kinds: [Count; OPERATIONS.len()],
}

#[derive(Debug, Default)]
struct Count {
    answered: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
}

impl Requests {
    pub(super) fn made<T>(&self, operation: Operation, result: &Result<T, Error>) {
        let count = self.of(operation);
        let answered = matches!(result, Ok(_) | Err(Error::Exists(_) | Error::Missing(_)));
        let counter = if answered { &count.answered } else { &count.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tried_again(&self, operation: Operation) {
        self.of(operation).retried.fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, operation: Operation) -> &Count {
        match operation {
            Operation::Create => &self.kinds[0],
            Operation::Read => &self.kinds[1],
            Operation::Stat => &self.kinds[2],
            Operation::List => &self.kinds[3],
            Operation::Delete => &self.kinds[4],
        }
    }

    pub(super) fn snapshot(&self) -> impl Iterator<Item = (Operation, RequestCount)> {
        OPERATIONS.into_iter().zip(&self.kinds).map(|(operation, count)| {
            let count = RequestCount {
                answered: count.answered.load(Ordering::Relaxed),
                failed: count.failed.load(Ordering::Relaxed),
                retried: count.retried.load(Ordering::Relaxed),
            };
            (operation, count)
        })
    }
}
