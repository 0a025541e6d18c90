//! What keeps the archive from going on, by part, and whether its store answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use duramen_types::{HybridTime, ShardId};
use parking_lot::Mutex;

use super::open::{ClaimError, identify};
use super::{ArchiveTask, Shared};
use crate::status::ArchiveTrouble;
use crate::time::HybridClock;

/// How long the store has to answer a probe: those who ask for a node's health give up soon.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer stands for the next probes: health is asked for often, by many.
const PROBE_AGE: Duration = Duration::from_secs(10);

/// A part of archiving that can fail by itself, and recovers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Opening,
    /// Reading the archive's identity.
    Store,
    /// Segments and manifests.
    Shard(ShardId),
    /// Closed objects.
    Closing,
    Snapshots(ShardId),
    /// Confirming what may be deleted locally.
    Retention(ShardId),
    Schedule,
}

impl Part {
    /// The shard that it is about, where it is about one.
    pub(super) const fn shard(self) -> Option<ShardId> {
        match self {
            Self::Shard(shard) | Self::Snapshots(shard) | Self::Retention(shard) => Some(shard),
            Self::Opening | Self::Store | Self::Closing | Self::Schedule => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("opening"),
            Self::Store => f.write_str("store"),
            Self::Shard(shard) => write!(f, "shard {shard}"),
            Self::Closing => f.write_str("closing"),
            Self::Snapshots(shard) => write!(f, "snapshot of shard {shard}"),
            Self::Retention(shard) => write!(f, "local retention of shard {shard}"),
            Self::Schedule => f.write_str("snapshot schedule"),
        }
    }
}

/// What fails now: at most one trouble for each part, gone when that part succeeds.
#[derive(Debug)]
pub(super) struct Troubles {
    clock: Arc<HybridClock>,
    parts: Mutex<BTreeMap<Part, Trouble>>,
}

#[derive(Debug, Clone)]
struct Trouble {
    message: String,
    since: HybridTime,
}

impl Troubles {
    pub(super) fn new(clock: Arc<HybridClock>) -> Self {
        Self { clock, parts: Mutex::default() }
    }

    pub(super) fn set(&self, part: Part, message: String) {
        let now = self.clock.wall().now();
        // Errors of a shard name it themselves.
        let named = format!("{part}: ");
        let message = message.strip_prefix(&named).map(str::to_owned).unwrap_or(message);
        let mut parts = self.parts.lock();
        let trouble = parts.entry(part).or_insert_with(|| Trouble { message: String::new(), since: now });
        trouble.message = message;
    }

    pub(super) fn clear(&self, part: Part) {
        self.parts.lock().remove(&part);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.lock().is_empty()
    }

    fn holds(&self, part: Part) -> bool {
        self.parts.lock().contains_key(&part)
    }

    /// All of them in a sentence; `None` where nothing fails.
    pub(super) fn sentence(&self) -> Option<String> {
        let parts = self.parts.lock();
        let each: Vec<String> =
            parts.iter().map(|(part, trouble)| format!("{part}: {}", trouble.message)).collect();
        (!each.is_empty()).then(|| each.join("; "))
    }

    pub(super) fn list(&self) -> Vec<ArchiveTrouble> {
        let parts = self.parts.lock();
        let each = parts.iter().map(|(part, trouble)| ArchiveTrouble {
            part: part.to_string(),
            message: trouble.message.clone(),
            since: trouble.since.as_micros(),
        });
        each.collect()
    }
}

impl Shared {
    /// Asks the store for the archive's identity, unless that was done less than `age` ago.
    async fn probe(&self, age: Duration) {
        let mut last = self.probed.lock().await;
        let now = self.clock.wall().monotonic();
        if last.is_some_and(|last| now.saturating_sub(last) < age) {
            return;
        }
        match tokio::time::timeout(PROBE_TIMEOUT, self.identify()).await {
            Ok(Ok(())) => self.troubles.clear(Part::Store),
            Ok(Err(error)) => self.troubles.set(Part::Store, error.to_string()),
            Err(_) => {
                self.troubles.set(Part::Store, format!("no answer within {PROBE_TIMEOUT:?}"));
            }
        }
        *last = Some(self.clock.wall().monotonic());
    }

    async fn identify(&self) -> Result<(), ClaimError> {
        match self.settings.id {
            Some(expected) => identify(&self.store, expected).await,
            // Opening says what is wrong.
            None => Ok(()),
        }
    }
}

impl ArchiveTask {
    /// Finds out whether the store answers, and with the node's archive; then in [`status`](Self::status).
    pub async fn probe(&self) {
        self.shared.probe(PROBE_AGE).await;
    }

    /// The same for metrics: every `archive.check_interval`, and sooner while the store does not answer.
    pub async fn probe_in_time(&self) {
        let failing = self.shared.troubles.holds(Part::Store);
        let age = if failing { PROBE_AGE } else { self.shared.settings.archive.check_interval };
        self.shared.probe(age).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use duramen_types::SystemClock;

    use super::*;

    #[test]
    fn a_part_that_succeeds_says_nothing_of_the_others() {
        let troubles = Troubles::new(Arc::new(HybridClock::new(Arc::new(SystemClock::new()))));
        assert_eq!((troubles.is_empty(), troubles.sentence()), (true, None));
        troubles.set(Part::Shard(ShardId::new(2)), "no answer".to_owned());
        let since = troubles.list()[0].since;
        troubles.set(Part::Shard(ShardId::new(1)), "shard 1: refused".to_owned());
        assert_eq!(troubles.list()[0].message, "refused");
        troubles.set(Part::Shard(ShardId::new(2)), "still no answer".to_owned());
        troubles.clear(Part::Shard(ShardId::new(1)));
        troubles.clear(Part::Closing);
        let left = troubles.list();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((left[0].part.as_str(), left[0].message.as_str()), ("shard 2", "still no answer"));
        assert_eq!(left[0].since, since, "it has been failing since the first time");
        assert_eq!(troubles.sentence().unwrap(), "shard 2: still no answer");
        troubles.clear(Part::Shard(ShardId::new(2)));
        assert!(troubles.is_empty());
    }
}
