//! What a node stands on.

use std::fmt;
use std::sync::Arc;

use duramen_archive::{Blocking, Random, Store};
use duramen_types::{Clock, SystemClock};
use duramen_wal::{Disk, RealDisk, Wal};
use futures::future::BoxFuture;

/// Writes a node's log: calls [`Wal::drive`] and [`Wal::publish`] as [`Wal::wake_with`] asks for it.
pub type LogDriver = Box<dyn FnOnce(Wal) -> BoxFuture<'static, ()> + Send>;

/// What a node stands on: the machine, or a simulation of one.
pub struct Environment {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub random: Random,
    /// The archive's store, in place of one opened at `archive.url`.
    pub store: Option<Store>,
    /// Drives the log as a task of the node's runtime. Then nothing of the node happens on another thread: what
    /// blocks is done inline. Without it the log has threads of its own.
    pub driver: Option<LogDriver>,
}

impl Environment {
    /// The machine's own disk, clock and randomness.
    pub fn machine() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock::new()),
            random: Random::from_system(),
            store: None,
            driver: None,
        }
    }

    pub(super) const fn blocking(&self) -> Blocking {
        if self.driver.is_some() { Blocking::Inline } else { Blocking::Threads }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("disk", &self.disk)
            .field("clock", &self.clock)
            .field("store", &self.store)
            .field("blocking", &self.blocking())
            .finish_non_exhaustive()
    }
}
