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
}

impl Requests {
    pub(super) fn made<T>(&self, operation: Operation, result: &Result<T, Error>) {
        let count = match operation {
            Operation::Create => &self.kinds[0],
            Operation::Read => &self.kinds[1],
            Operation::Stat => &self.kinds[2],
            Operation::List => &self.kinds[3],
            Operation::Delete => &self.kinds[4],
        };
        let answered = matches!(result, Ok(_) | Err(Error::Exists(_) | Error::Missing(_)));
        let counter = if answered { &count.answered } else { &count.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> impl Iterator<Item = (Operation, RequestCount)> {
        OPERATIONS.into_iter().zip(&self.kinds).map(|(operation, count)| {
            let (answered, failed) = (&count.answered, &count.failed);
            let count = RequestCount {
                answered: answered.load(Ordering::Relaxed),
                failed: failed.load(Ordering::Relaxed),
            };
            (operation, count)
        })
    }
}
