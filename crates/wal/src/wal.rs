//! The handle to one write-ahead log.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use duramen_types::{Clock, EntryId, HybridTime, Index, SegmentId, ShardId, Term};
use parking_lot::{Condvar, Mutex};

use crate::disk::Disk;
use crate::format::{FrameHeader, RECORD_HEAD_BYTES, Record};
use crate::options::Fsync;
use crate::pages::PageCache;
use crate::recovery::{self, RecoveryReport};
use crate::shared::{Shared, State, Wake};
use crate::stats::{Stats, add};
use crate::writer::{Progress, Writer};
use crate::{Error, WalOptions, spare};

/// Called once with the outcome of a submission: on success after its fsync (see [`Fsync`]), on the thread that
/// drives, in the order of the submissions. It may submit to the log, but not drive, seal or shut it down.
pub type Completion = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Where ids of new segments come from: 16 fresh random bytes each, from the node's seeded source.
pub type SegmentIdSource = Box<dyn FnMut() -> SegmentId + Send>;

/// How long the writing thread waits for more before it publishes how far it is synced.
const IDLE: Duration = Duration::from_millis(100);

/// Disk space that was promised to entries; dropping it gives the space back.
///
/// Keep it until the entries were submitted, and drop it then: from there on they are counted themselves.
#[derive(Debug)]
#[must_use = "the space is given back when this is dropped"]
pub struct Reservation {
    shared: Arc<Shared>,
    cost: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.reserved = state.reserved.saturating_sub(self.cost);
    }
}

/// The write-ahead log of one disk, shared by all shards on it. Clones are handles to the same log.
///
/// Somebody has to drive it: [`Wal::spawn_writer`] starts threads that do; without them the owner calls
/// [`Wal::drive`], which makes every step happen on the calling thread in a fixed order.
#[derive(Debug, Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    _stop: Arc<StopWithLastHandle>,
}

/// Ends the threads when the last handle goes.
#[derive(Debug)]
struct StopWithLastHandle(Arc<Shared>);

impl Drop for StopWithLastHandle {
    fn drop(&mut self) {
        stop_threads(&self.0);
    }
}

/// One shard's log, everything submitted included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry that was purged.
    pub purged: Option<EntryId>,
    /// The first index that is, or would be, in the log.
    pub first: Index,
    /// The index behind the last entry: where the next one goes.
    pub end: Index,
    /// The last entry, if the log holds any.
    pub last: Option<EntryId>,
    pub vote: Option<Bytes>,
    pub committed: Option<EntryId>,
    /// The index behind the last entry that is fsynced here.
    pub flushed: Index,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    pub sequence: u64,
    pub id: SegmentId,
    pub path: PathBuf,
    pub sealed: bool,
    /// The file's length in bytes.
    pub bytes: u64,
    pub created: HybridTime,
    /// Per shard, the range from the first to the last index written here that was in the log when it was sealed.
    pub ranges: BTreeMap<ShardId, Range<Index>>,
}

/// What the log takes on its disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Segment files and files written ahead.
    pub used: u64,
    /// Free on the file system.
    pub available: u64,
    /// What entries may still take before they are refused.
    pub headroom: u64,
    /// Whether entries are refused now.
    pub full: bool,
}

impl Wal {
    /// Opens the log in `dir`, or creates it, after recovering it from whatever a crash left.
    ///
    /// When it returns, everything it reports is durable. Damage to what was once fsynced is an
    /// [`Error::Corrupt`] or [`Error::Incomplete`], and nothing was changed then.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: WalOptions,
        clock: Arc<dyn Clock>,
        mut ids: SegmentIdSource,
    ) -> Result<(Self, RecoveryReport), Error> {
        options.validate()?;
        let recovered = recovery::recover(&disk, dir, &options, &*clock, &mut ids)?;
        let writer = Writer::new(ids, &recovered, clock.monotonic());
        let state = State::new(recovered.catalog, recovered.spares, &options);
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            clock,
            counters: Default::default(),
            writer: Mutex::new(writer),
            state: Mutex::new(state),
            work: Condvar::new(),
            wake: OnceLock::new(),
            spare_wanted: Condvar::new(),
            pages: Mutex::new(PageCache::new(options.index_cache_bytes)),
            options,
        });
        shared.refresh_space();
        let stop = Arc::new(StopWithLastHandle(shared.clone()));
        Ok((Self { shared, _stop: stop }, recovered.report))
    }

    /// Queues records; never blocks on the disk. They are visible to readers at once.
    ///
    /// Records of one submission are written in order and, up to `max_frame_bytes`, in one frame: after a crash
    /// all of them are there or none. `completion` runs when they are durable. Where they are refused
    /// ([`Error::OutOfOrder`], …) nothing was queued, and it runs before this returns.
    ///
    /// A full disk refuses nothing here, because a consensus library takes no refusal: entries are to be reserved for
    /// ([`Wal::reserve`]) before they are proposed. What finds no space all the same waits until there is some.
    pub fn submit(&self, records: Vec<Record>, completion: Completion) {
        if let Err(error) = self.enqueue(records, true, &mut Some(completion)) {
            let (error, completion) = error;
            if let Some(completion) = completion {
                completion(Err(error));
            }
        }
    }

    /// Queues records that ask for no frame of their own: they ride with the next one, or go when the writer idles.
    ///
    /// For what may be lost in a crash, like [`Record::Committed`].
    pub fn note(&self, records: Vec<Record>) -> Result<(), Error> {
        self.enqueue(records, false, &mut None).map_err(|(error, _)| error)
    }

    fn enqueue(
        &self,
        records: Vec<Record>,
        urgent: bool,
        completion: &mut Option<Completion>,
    ) -> Result<(), (Error, Option<Completion>)> {
        let shared = &self.shared;
        let payload: u64 = records.iter().map(|record| record.payload().len() as u64).sum();
        let mut state = shared.state.lock();
        state
            .refuse()
            .and_then(|()| state.tails.admit(&records))
            .map_err(|error| (error, completion.take()))?;
        state.enqueue(records, shared.options.max_frame_bytes, urgent, completion.take());
        drop(state);
        add(&shared.counters.payload_bytes, payload);
        if urgent {
            shared.work.notify_one();
        }
        shared.wake();
        Ok(())
    }

    /// Promises disk space to an entry with a payload of `bytes`: ask before proposing it.
    ///
    /// [`Error::DiskFull`] where the disk is down to its reserve, counting what waits and everything promised to others;
    /// so however many promises are kept at once, there is a place for all of them.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        let cost = FrameHeader::size_of(bytes.saturating_add(RECORD_HEAD_BYTES as u64));
        self.shared.claim(cost, true)?;
        Ok(Reservation { shared: Arc::clone(&self.shared), cost })
    }

    /// Whether a frame full of entries would get a place now; the error says why not.
    pub fn check_space(&self) -> Result<(), Error> {
        self.shared.claim(FrameHeader::size_of(self.shared.options.max_frame_bytes), false)
    }

    /// Why the log can't go on writing for want of disk space, not even of the reserve; it does by itself once there is
    /// some.
    pub fn blocked(&self) -> Option<Error> {
        let state = self.shared.state.lock();
        state.blocked.then(|| self.shared.disk_full(&state))
    }

    /// Submits [`Record::Purged`]; segments that nobody needs any more are then given back.
    pub fn purge(&self, shard: ShardId, through: EntryId, completion: Completion) {
        self.submit(vec![Record::Purged { shard, id: through }], completion);
    }

    /// Starts the thread that writes and the one that prepares files; they end with [`Wal::shutdown`] or with the
    /// last handle. `started` threads must not be mixed with [`Wal::drive`].
    pub fn spawn_writer(&self) -> Result<(), Error> {
        let spawn = |name: &str, body: fn(&Arc<Shared>)| {
            let shared = self.shared.clone();
            shared.state.lock().threads += 1;
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                body(&shared);
                shared.state.lock().threads -= 1;
                shared.work.notify_all();
            });
            spawned.map(drop).map_err(|source| {
                self.shared.state.lock().threads -= 1;
                Error::io("start a thread for", &self.shared.dir, source)
            })
        };
        spawn("wal-writer", write_until_stopped)?;
        spawn("wal-prepare", spare::keep_ready)
    }

    /// Has `wake` called whenever records were queued and when the log stops: for an owner that calls [`Wal::drive`] and
    /// [`Wal::publish`] on a task of its own, and sleeps in between.
    ///
    /// It is called on the thread that submits or drives, and must not call the log. Only the first one counts.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.wake.set(Wake(Box::new(wake)));
    }

    /// Takes one turn of the writer on this thread: writes a frame with all that waits, fsyncs it and runs the
    /// completions; or, when nothing waits, does what is due.
    ///
    /// An error means that the log has stopped for good.
    pub fn drive(&self) -> Result<Progress, Error> {
        self.shared.writer.lock().drive(&self.shared)
    }

    /// Writes what was [`Wal::note`]d, and how far the log is synced, when the writer is idle; for inline use.
    pub fn publish(&self) -> Result<Progress, Error> {
        self.shared.writer.lock().publish(&self.shared)
    }

    /// Fsyncs everything that was written, whatever the [`Fsync`] policy; for inline use.
    pub fn sync(&self) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        writer.sync(&self.shared).map(drop).map_err(|error| writer.stop(&self.shared, error))
    }

    /// Writes what waits and seals the open segment; the next frame opens another one.
    pub fn seal(&self) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        while writer.drive(&self.shared)? == Progress::Wrote {}
        while writer.publish(&self.shared)? == Progress::Wrote {}
        match writer.seal(&self.shared) {
            Err(error) if !error.is_no_space() => Err(writer.stop(&self.shared, error)),
            sealed => sealed,
        }
    }

    /// Writes what waits, seals, ends the threads and refuses everything from then on.
    ///
    /// The next start then reads footers only. Where the disk is full some of it may not be possible; what was
    /// acknowledged is durable all the same.
    pub fn shutdown(&self) -> Result<(), Error> {
        self.shared.state.lock().closed = true;
        let sealed = self.seal();
        stop_threads(&self.shared);
        let mut state = self.shared.state.lock();
        while state.threads > 0 {
            self.shared.work.wait(&mut state);
        }
        drop(state);
        let writer = self.shared.writer.lock();
        // Only a full disk leaves something behind.
        writer.stop(&self.shared, Error::Closed);
        sealed
    }

    /// Entries of `range` in index order, those not yet written included.
    ///
    /// Stops before `max_bytes` of payload would be exceeded, but gives at least one entry if the range holds any.
    /// Recent ones come from memory without a copy, others from their files, checksums verified. A range that
    /// begins with purged entries is an [`Error::Purged`].
    pub fn entries(
        &self,
        shard: ShardId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<(EntryId, Bytes)>, Error> {
        self.shared.entries(shard, range, max_bytes)
    }

    /// The same where the first of them is in memory, without touching a file; `None` where it is not.
    pub fn entries_in_memory(
        &self,
        shard: ShardId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Option<Vec<(EntryId, Bytes)>>, Error> {
        self.shared.entries_in_memory(shard, range, max_bytes)
    }

    /// The sum of the payloads' lengths of the entries of `range` that are in the log, those not yet written included.
    ///
    /// By the indexes: no entry is read, at most two row pages of each segment.
    pub fn payload_bytes(&self, shard: ShardId, range: Range<Index>) -> Result<u64, Error> {
        self.shared.payload_bytes(shard, range)
    }

    /// What the log of a shard holds; all empty for a shard it never heard of.
    pub fn log_state(&self, shard: ShardId) -> LogState {
        self.shared.state.lock().tails.state(shard)
    }

    /// The shards that the log ever heard of.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shared.state.lock().tails.shards()
    }

    /// The term of an entry in the log, or of the last purged one.
    pub fn term_of(&self, shard: ShardId, index: Index) -> Option<Term> {
        let state = self.shared.state.lock();
        let purged = || state.tails.state(shard).purged.filter(|purged| purged.index == index);
        state.tails.term(shard, index).or_else(|| purged().map(|purged| purged.term))
    }

    /// The displaced entries of a shard whose bytes are kept.
    pub fn displaced(&self, shard: ShardId) -> Vec<EntryId> {
        self.shared.state.lock().tails.displaced(shard)
    }

    /// The payload of a displaced entry; [`Error::UnknownEntry`] while its displacement isn't written yet.
    pub fn displaced_entry(&self, shard: ShardId, id: EntryId) -> Result<Bytes, Error> {
        let held = {
            let state = self.shared.state.lock();
            state.catalog.shards.get(&shard).and_then(|log| log.displaced.get(&id).copied())
        };
        self.shared.read_one(held.ok_or(Error::UnknownEntry { shard, id })?, shard, id)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state.lock();
        let info = |(sequence, segment): (&u64, &crate::catalog::Segment)| SegmentInfo {
            sequence: *sequence,
            id: segment.header.id,
            path: segment.path.clone(),
            sealed: segment.is_sealed(),
            bytes: segment.bytes,
            created: segment.header.created,
            ranges: segment.ranges(),
        };
        state.catalog.segments.iter().map(info).collect()
    }

    /// What the log takes on its disk, and what is left.
    pub fn space(&self) -> Space {
        let available = self.shared.refresh_space();
        let full = self.check_space().is_err();
        let state = self.shared.state.lock();
        let segments: u64 = state.catalog.segments.values().map(|segment| segment.bytes).sum();
        let spares: u64 = state.spares.iter().map(|spare| spare.bytes).sum();
        let headroom = state.headroom(&self.shared.options).saturating_sub(state.claimed());
        Space { used: segments + spares, available, headroom, full }
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        let (cached, queued) = {
            let state = self.shared.state.lock();
            (state.tails.cached_bytes(), state.queued_cost)
        };
        self.shared.counters.snapshot(cached, queued, self.shared.clock.monotonic())
    }

    /// Why the log stopped for good, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.shared.state.lock().stopped.clone().filter(|cause| !matches!(cause, Error::Closed))
    }
}

#[cfg(test)]
impl Wal {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

fn stop_threads(shared: &Shared) {
    shared.state.lock().stop_threads = true;
    shared.work.notify_all();
    shared.spare_wanted.notify_all();
}

/// The body of the writing thread.
fn write_until_stopped(shared: &Arc<Shared>) {
    let idle = match shared.options.fsync {
        Fsync::Always => IDLE,
        Fsync::Interval(interval) => interval.min(IDLE),
    };
    loop {
        let timed_out = {
            let mut state = shared.state.lock();
            if state.stopped.is_some() || (state.stop_threads && state.urgent == 0) {
                return;
            }
            state.urgent == 0 && !state.reclaim && shared.work.wait_for(&mut state, idle).timed_out()
        };
        let mut writer = shared.writer.lock();
        // A failure stopped the log and told everybody who waits; the next look at the state ends this thread.
        let progress = writer.drive(shared);
        if timed_out && matches!(progress, Ok(Progress::Idle)) {
            let _ = writer.publish(shared);
        }
        drop(writer);
        if matches!(progress, Ok(Progress::Blocked)) {
            let mut state = shared.state.lock();
            if state.stop_threads {
                return;
            }
            shared.work.wait_for(&mut state, IDLE);
        }
    }
}
