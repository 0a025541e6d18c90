//! What the handles, the writer and the readers of one log share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use duramen_types::Clock;
use parking_lot::{Condvar, Mutex};

use crate::catalog::Catalog;
use crate::disk::Disk;
use crate::format::{BLOCK, FrameHeader, Record, encoded_len};
use crate::pages::PageCache;
use crate::spare::Spare;
use crate::stats::Counters;
use crate::tail::{Tails, Ticket};
use crate::writer::Writer;
use crate::{Completion, Error, WalOptions};

/// The most that a segment takes beside its frames: header, footer, and what they waste.
const SEGMENT_OVERHEAD: u64 = 4 * BLOCK;

/// Lock order: `writer` before `state`; `pages` last. No file is touched under `state`.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: WalOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Counters,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) state: Mutex<State>,
    /// Signalled when the writer has something to do.
    pub(crate) work: Condvar,
    /// Called as well, for an owner that drives inline and sleeps in between.
    pub(crate) wake: OnceLock<Wake>,
    /// Signalled when a spare file is wanted.
    pub(crate) spare_wanted: Condvar,
    pub(crate) pages: Mutex<PageCache>,
}

/// See [`crate::Wal::wake_with`].
pub(crate) struct Wake(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tails: Tails,
    pub(crate) catalog: Catalog,
    pub(crate) queue: VecDeque<Item>,
    /// How many of the queue's items ask for a frame.
    pub(crate) urgent: usize,
    /// The most bytes of file that the queue's items can take.
    pub(crate) queued_cost: u64,
    /// The same of the group that is being written.
    pub(crate) writing_cost: u64,
    /// The same of entries that were promised their place and are not queued yet.
    pub(crate) reserved: u64,
    pub(crate) next_ticket: Ticket,
    pub(crate) stopped: Option<Error>,
    pub(crate) closed: bool,
    /// The writer's threads are to end.
    pub(crate) stop_threads: bool,
    pub(crate) threads: usize,
    /// A segment may have become deletable.
    pub(crate) reclaim: bool,
    pub(crate) spares: Vec<Spare>,
    pub(crate) next_spare: u64,
    /// Free bytes in the open segment.
    pub(crate) open_room: u64,
    /// Whether they take their disk space already.
    pub(crate) open_ahead: bool,
    /// Free bytes on the disk when last looked at, less what the log itself took since.
    pub(crate) available: u64,
    /// Bytes that were asked for since then.
    pub(crate) asked: u64,
    /// The disk has no space for what waits, not even in the reserve.
    pub(crate) blocked: bool,
}

/// Records that were submitted together; they are written in one frame.
pub(crate) struct Item {
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: u64,
    pub(crate) ticket: Ticket,
    pub(crate) urgent: bool,
    pub(crate) completion: Option<Completion>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item")
            .field("records", &self.records.len())
            .field("bytes", &self.bytes)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl Item {
    pub(crate) fn cost(&self) -> u64 {
        FrameHeader::size_of(self.bytes)
    }
}

impl State {
    pub(crate) fn new(catalog: Catalog, spares: Vec<Spare>, options: &WalOptions) -> Self {
        let next_spare = spares.iter().map(|spare| spare.number + 1).max().unwrap_or(0);
        Self {
            tails: Tails::recovered(&catalog, options.cache_bytes),
            catalog,
            queue: VecDeque::new(),
            urgent: 0,
            queued_cost: 0,
            writing_cost: 0,
            reserved: 0,
            next_ticket: 1,
            stopped: None,
            closed: false,
            stop_threads: false,
            threads: 0,
            reclaim: true,
            spares,
            next_spare,
            open_room: 0,
            open_ahead: false,
            available: u64::MAX,
            asked: 0,
            blocked: false,
        }
    }

    /// Bytes that entries may still take, those that wait or were promised a place included: written-ahead room, and
    /// the disk's free space above the reserve.
    pub(crate) fn headroom(&self, options: &WalOptions) -> u64 {
        let ahead = self.spares.iter().filter(|spare| spare.ahead);
        let spare: u64 = ahead.map(|spare| spare.bytes.saturating_sub(BLOCK)).sum();
        // The rest of a file that isn't written ahead is among the free space.
        let open = if self.open_ahead { self.open_room } else { 0 };
        open.saturating_add(spare).saturating_add(self.available.saturating_sub(options.reserve_bytes))
    }

    /// Bytes that waiting and promised records can still take.
    pub(crate) fn claimed(&self) -> u64 {
        self.queued_cost.saturating_add(self.writing_cost).saturating_add(self.reserved)
    }

    /// Queues admitted records, in pieces that each fit into a frame.
    pub(crate) fn enqueue(
        &mut self,
        records: Vec<Record>,
        max_frame_bytes: u64,
        urgent: bool,
        completion: Option<Completion>,
    ) {
        let total: u64 = records.iter().map(|record| encoded_len(record) as u64).sum();
        if total <= max_frame_bytes {
            self.push(records, total, urgent, completion);
            return;
        }
        let mut piece = Vec::new();
        let mut bytes = 0;
        for record in records {
            let len = encoded_len(&record) as u64;
            if bytes + len > max_frame_bytes && !piece.is_empty() {
                self.push(std::mem::take(&mut piece), bytes, urgent, None);
                bytes = 0;
            }
            bytes += len;
            piece.push(record);
        }
        self.push(piece, bytes, urgent, completion);
    }

    fn push(&mut self, records: Vec<Record>, bytes: u64, urgent: bool, completion: Option<Completion>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tails.apply(&records, ticket);
        let item = Item { records, bytes, ticket, urgent, completion };
        self.queued_cost += item.cost();
        self.urgent += usize::from(urgent);
        self.queue.push_back(item);
    }

    /// Takes what goes into the next frame: as much as fits, and at least one item.
    pub(crate) fn take_group(&mut self, max_frame_bytes: u64) -> Vec<Item> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(item) =
            self.queue.pop_front_if(|item| bytes == 0 || bytes + item.bytes <= max_frame_bytes)
        {
            bytes += item.bytes;
            self.queued_cost -= item.cost();
            self.writing_cost += item.cost();
            self.urgent -= usize::from(item.urgent);
            group.push(item);
        }
        group
    }

    /// Puts a group back that could not be written yet.
    pub(crate) fn put_back(&mut self, group: Vec<Item>) {
        self.writing_cost = 0;
        for item in group.into_iter().rev() {
            self.queued_cost += item.cost();
            self.urgent += usize::from(item.urgent);
            self.queue.push_front(item);
        }
    }

    /// The error that every call gets once the log is closed or stopped.
    pub(crate) fn refuse(&self) -> Result<(), Error> {
        match &self.stopped {
            Some(cause) => Err(Error::Stopped { cause: Arc::new(cause.clone()) }),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Tells an owner that drives inline that there is something to do; no lock is held.
    pub(crate) fn wake(&self) {
        if let Some(Wake(wake)) = self.wake.get() {
            wake();
        }
    }

    /// Looks at the disk's free space again.
    pub(crate) fn refresh_space(&self) -> u64 {
        // A disk that can't say how full it is must not stop appends: the write itself will tell.
        let available = self.disk.available(&self.dir).unwrap_or(u64::MAX);
        let mut state = self.state.lock();
        state.available = available;
        state.asked = 0;
        available
    }

    /// Refuses entries that would take `cost` bytes of file once the disk is down to its reserve; else, where `keep` is
    /// set, nobody else gets these bytes from now on.
    pub(crate) fn claim(&self, cost: u64, keep: bool) -> Result<(), Error> {
        let options = &self.options;
        let fits = |state: &State, margin: u64| {
            let wanted = state.claimed().saturating_add(cost);
            // Every segment has a header and a footer too, and is at least half full of frames.
            let segments = wanted / (options.segment_bytes / 2);
            let around = segments.saturating_mul(SEGMENT_OVERHEAD);
            wanted.saturating_add(around).saturating_add(margin) <= state.headroom(options)
        };
        let mut state = self.state.lock();
        state.refuse()?;
        state.asked = state.asked.saturating_add(cost);
        // Others write to the disk as well: near the reserve, and every now and then, a fresh look is needed.
        if !fits(&state, options.segment_bytes) || state.asked > options.segment_bytes / 8 {
            drop(state);
            self.refresh_space();
            state = self.state.lock();
            if !fits(&state, 0) {
                return Err(self.disk_full(&state));
            }
        }
        if keep {
            state.reserved = state.reserved.saturating_add(cost);
        }
        Ok(())
    }

    pub(crate) fn disk_full(&self, state: &State) -> Error {
        Error::DiskFull {
            dir: self.dir.clone(),
            available: state.available,
            reserve: self.options.reserve_bytes,
        }
    }
}
