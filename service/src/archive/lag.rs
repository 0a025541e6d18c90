//! What is committed and not archived: how much it is, and how old.
//!
//! It is what the loss of the disk would cost now, so it is never said to be less than it is. The age is by the time of the oldest
//! user entry itself, whenever it was committed and however often the node was started since. Before the archive is
//! open, only its end as it was known last is known ([`super::remembered`]): what may not be archived counts.

use std::sync::Arc;
use std::time::Duration;

use duramen_types::{Entry, HybridTime, Index, ShardId};
use duramen_wal::Wal;

use super::{Pending, Shared, archived};
use crate::shard::{Progress, Shard};

/// How often a watcher looks at a busy shard.
const WATCH_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of entries that are read at once to find the first of a user; one nearly always suffices.
const READ_BYTES: u64 = 64 << 10;

/// What a shard had not archived when that was last counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    /// The end of the archive that it begins at.
    archived: Index,
    /// Bytes of the entries from there on, and the shard's applied bytes then.
    bytes: u64,
    applied: u64,
    /// The oldest user entry among them.
    oldest: Option<Oldest>,
}

/// How old an entry is.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    /// When it was committed.
    time: HybridTime,
    /// When that was noticed; monotonic. It makes the age right while the log's time is ahead of the clock.
    noticed: Duration,
}

/// What one shard, or all of them, have not archived.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lag {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// The age of the oldest user entry.
    pub(super) age: Duration,
}

impl Lag {
    /// Of both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
            age: self.age.max(other.age),
        }
    }
}

/// Keeps count of the user entries of a shard that are not archived, and asks for a cut when they fill a segment.
pub(super) async fn watch(shared: Arc<Shared>, shard: Arc<Shard>) {
    let mut progress = shard.view.watch();
    let mut end = shard.archived.subscribe();
    let mut opened = shared.opened.subscribe();
    let Some(pending) = shared.pending.get(usize::from(shard.id.get())) else { return };
    loop {
        let now = *progress.borrow_and_update();
        opened.borrow_and_update();
        end.borrow_and_update();
        let archived = shared.archived_end(&shard);
        let behind = now.user_end > archived;
        let counted = pending
            .backlog
            .lock()
            .is_some_and(|backlog| backlog.archived == archived && (backlog.oldest.is_some() || !behind));
        if !counted {
            shared.count(&shard, pending, archived, now).await;
            shared.more_to_remember.notify_one();
        }
        if behind {
            shared.activity.notify_one();
            if shared.lag(&shard, pending).bytes >= shared.settings.archive.segment_size.as_u64() {
                pending.request.notify_one();
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
        let changed = tokio::select! {
            changed = progress.changed() => changed,
            changed = end.changed() => changed,
            changed = opened.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Shared {
    /// The end of the shard's archived history; before the archive is open, an end that is surely not beyond it.
    pub(super) fn archived_end(&self, shard: &Shard) -> Index {
        let known = archived(shard);
        if self.opened.borrow().is_some() {
            return known;
        }
        // Nothing that was purged is not archived.
        let log = self.wal.log_state(shard.id);
        let remembered = self.remembered.end(shard.id).min(shard.recovered_end);
        known.max(remembered).max(log.purged.map_or(Index::ZERO, |purged| purged.index.next()))
    }

    /// What the shard has not archived.
    pub(super) fn lag(&self, shard: &Shard, pending: &Pending) -> Lag {
        let progress = shard.view.progress();
        let entries = progress.user_end.since(self.archived_end(shard));
        let backlog = *pending.backlog.lock();
        let Some(backlog) = backlog.filter(|_| entries > 0) else {
            return Lag { entries, ..Lag::default() };
        };
        let clock = self.clock.wall();
        let age = |oldest: Oldest| {
            clock.now().since(oldest.time).max(clock.monotonic().saturating_sub(oldest.noticed))
        };
        Lag {
            entries,
            bytes: backlog.bytes.saturating_add(progress.bytes.saturating_sub(backlog.applied)),
            age: backlog.oldest.map_or(Duration::ZERO, age),
        }
    }

    /// A time before the shard's entries from `index` on: when the first local segment that holds some was begun.
    fn begun(&self, shard: ShardId, index: Index) -> HybridTime {
        let segments = self.wal.segments().into_iter();
        let holding =
            segments.filter(|segment| segment.ranges.get(&shard).is_some_and(|range| range.end > index));
        holding.map(|segment| segment.created).min().unwrap_or_else(|| self.clock.wall().now())
    }

    /// Counts what the shard has not archived.
    async fn count(&self, shard: &Shard, pending: &Pending, archived: Index, progress: Progress) {
        let noticed = self.clock.wall().monotonic();
        let first = pending.backlog.lock().is_none();
        // Until it was read: entries came just now, or are at most as old as the segment that they are in.
        let time = if first { self.begun(shard.id, archived) } else { self.clock.wall().now() };
        let oldest = (progress.user_end > archived).then_some(Oldest { time, noticed });
        let counted = Backlog { archived, bytes: 0, applied: progress.bytes, oldest };
        let before = {
            // What was counted for an earlier end is no less.
            let mut backlog = pending.backlog.lock();
            let backlog = backlog.get_or_insert(counted);
            backlog.oldest = backlog.oldest.or(oldest);
            *backlog
        };
        let (wal, id) = (self.wal.clone(), shard.id);
        let read = self.settings.blocking.run(move || {
            let bytes = wal.payload_bytes(id, archived..progress.end)?;
            Ok::<_, duramen_wal::Error>((bytes, first_user_time(&wal, id, archived..progress.user_end)?))
        });
        match read.await {
            Ok(Ok((bytes, time))) => {
                let oldest = oldest.map(|oldest| Oldest { time: time.unwrap_or(oldest.time), ..oldest });
                *pending.backlog.lock() = Some(Backlog { bytes, oldest, ..counted });
            }
            // The archive is further by now, and what was behind its end is gone.
            Ok(Err(duramen_wal::Error::Purged { .. })) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(shard = %id, %error, "what is not archived can't be counted exactly");
                *pending.backlog.lock() = Some(Backlog { archived, ..before });
            }
        }
    }
}

/// The time of the first entry of the range that users caused.
fn first_user_time(
    wal: &Wal,
    shard: ShardId,
    mut range: std::ops::Range<Index>,
) -> Result<Option<HybridTime>, duramen_wal::Error> {
    while range.start < range.end {
        let entries = wal.entries(shard, range.clone(), READ_BYTES)?;
        let Some((last, _)) = entries.last() else { break };
        range.start = last.index.next();
        // One that can't be decoded would not have been applied.
        let entries = entries.into_iter().filter_map(|(_, payload)| Entry::decode(payload).ok());
        if let Some(entry) = entries.into_iter().find(|entry| entry.body().is_user()) {
            return Ok(Some(entry.head().time));
        }
    }
    Ok(None)
}
