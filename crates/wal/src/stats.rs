//! Counters that a node turns into metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the log did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames written, those without records included.
    pub frames: u64,
    /// Records written.
    pub records: u64,
    /// Submissions that were written; divided by `frames` it is the average group of a group commit.
    pub submissions: u64,
    /// Bytes written in frames, with headers and padding.
    pub frame_bytes: u64,
    /// Bytes of payloads submitted.
    pub payload_bytes: u64,
    /// Fsyncs of frames.
    pub syncs: u64,
    /// Time spent in them.
    pub sync_time: Duration,
    /// Segments sealed.
    pub sealed: u64,
    /// Segments deleted or recycled.
    pub reclaimed: u64,
    /// Entries copied forward out of segments that were reclaimed.
    pub copied_forward: u64,
    /// Entries read from files rather than from memory.
    pub file_reads: u64,
    /// Entries read from memory.
    pub cache_hits: u64,
    /// Payload bytes held in memory for readers, those not yet written included.
    pub cached_bytes: u64,
    /// Bytes submitted and not yet written.
    pub queued_bytes: u64,
    /// How long the fsync that runs now has been running.
    pub sync_pending: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) submissions: AtomicU64,
    pub(crate) frame_bytes: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) sealed: AtomicU64,
    pub(crate) reclaimed: AtomicU64,
    pub(crate) copied_forward: AtomicU64,
    pub(crate) file_reads: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    /// When the running fsync started, in nanoseconds of the monotonic clock plus one; 0 while none runs.
    pub(crate) sync_started: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(crate) fn snapshot(&self, cached_bytes: u64, queued_bytes: u64, now: Duration) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let started = get(&self.sync_started);
        Stats {
            frames: get(&self.frames),
            records: get(&self.records),
            submissions: get(&self.submissions),
            frame_bytes: get(&self.frame_bytes),
            payload_bytes: get(&self.payload_bytes),
            syncs: get(&self.syncs),
            sync_time: Duration::from_nanos(get(&self.sync_nanos)),
            sealed: get(&self.sealed),
            reclaimed: get(&self.reclaimed),
            copied_forward: get(&self.copied_forward),
            file_reads: get(&self.file_reads),
            cache_hits: get(&self.cache_hits),
            cached_bytes,
            queued_bytes,
            sync_pending: started
                .checked_sub(1)
                .map(|started| now.saturating_sub(Duration::from_nanos(started))),
        }
    }
}
