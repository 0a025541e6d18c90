//! The group-commit writer: one frame at a time, one write and one fsync each.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duramen_types::SegmentId;

use crate::catalog::{Segment, SegmentIndex};
use crate::disk::File;
use crate::format::{
    BLOCK, FRAME_HEADER_BYTES, FrameHeader, Record, SegmentHeader, align, body_crc, encode_record,
    encoded_len,
};
use crate::newest::Newest;
use crate::options::{FrameWritten, Fsync};
use crate::recovery::Recovered;
use crate::shared::{Item, Shared};
use crate::stats::{add, nanos};
use crate::table::SegmentTable;
use crate::tail::Ticket;
use crate::{Error, SegmentIdSource, segment, spare};

/// What a turn of the writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing waits.
    Idle,
    /// A frame was written or a segment was reclaimed; more may wait.
    Wrote,
    /// The disk is too full to go on; what waits is kept, call again once space is freed.
    Blocked,
}

/// The writing end; whoever holds its lock drives.
pub(crate) struct Writer {
    ids: SegmentIdSource,
    open: Option<Open>,
    next_sequence: u64,
    /// The sequence number of the next frame.
    next_frame: u64,
    /// The last frame known to be fsynced.
    synced_frame: u64,
    /// The highest `synced_through` that a written frame carries.
    published: u64,
    written_ticket: Ticket,
    synced_ticket: Ticket,
    last_sync: Duration,
    newest: Newest,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("open", &self.open)
            .field("next_sequence", &self.next_sequence)
            .field("next_frame", &self.next_frame)
            .field("synced_frame", &self.synced_frame)
            .finish_non_exhaustive()
    }
}

/// The segment that is written to.
#[derive(Debug)]
struct Open {
    header: SegmentHeader,
    path: PathBuf,
    file: File,
    /// Where the next frame goes.
    position: u64,
    /// The size the file was written ahead to.
    capacity: u64,
}

impl Writer {
    pub(crate) fn new(ids: SegmentIdSource, recovered: &Recovered, now: Duration) -> Self {
        let Recovered { next_sequence, next_frame, newest, .. } = *recovered;
        Self {
            ids,
            open: None,
            next_sequence,
            next_frame,
            newest,
            synced_frame: next_frame - 1,
            published: next_frame - 1,
            written_ticket: 0,
            synced_ticket: 0,
            last_sync: now,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn new_id(&mut self) -> SegmentId {
        (self.ids)()
    }

    /// Writes one frame with what waits, or reclaims a segment, or fsyncs what is due.
    pub(crate) fn drive(&mut self, shared: &Shared) -> Result<Progress, Error> {
        let group = {
            let mut state = shared.state.lock();
            if let Some(cause) = &state.stopped {
                return Err(cause.clone());
            }
            if state.urgent == 0 { Vec::new() } else { state.take_group(shared.options.max_frame_bytes) }
        };
        if group.is_empty() {
            self.sync_if_due(shared)?;
            return self.reclaim(shared);
        }
        let progress = self.write_group(shared, group, true)?;
        // One segment at a time, so that a busy log is neither held up nor starved of space. Where the disk is full,
        // giving one back is what lets the log go on.
        match self.reclaim(shared)? {
            Progress::Wrote => Ok(Progress::Wrote),
            Progress::Idle | Progress::Blocked => Ok(progress),
        }
    }

    /// Publishes how far the log is synced, and writes what asked for no frame of its own; without an fsync.
    pub(crate) fn publish(&mut self, shared: &Shared) -> Result<Progress, Error> {
        let group = {
            let mut state = shared.state.lock();
            if let Some(cause) = &state.stopped {
                return Err(cause.clone());
            }
            state.take_group(shared.options.max_frame_bytes)
        };
        let fits = self.open.as_ref().is_some_and(|open| open.position + BLOCK <= open.capacity);
        if group.is_empty() && (self.published >= self.synced_frame || !fits) {
            return Ok(Progress::Idle);
        }
        let sync = group.iter().any(|item| item.urgent);
        self.write_group(shared, group, sync)
    }

    /// Fsyncs what was written and not yet fsynced; after an error the log must be stopped.
    pub(crate) fn sync(&mut self, shared: &Shared) -> Result<Duration, Error> {
        let Some(open) = &self.open else { return Ok(Duration::ZERO) };
        if self.synced_frame + 1 == self.next_frame {
            return Ok(Duration::ZERO);
        }
        let start = shared.clock.monotonic();
        shared.counters.sync_started.store(nanos(start).saturating_add(1), Ordering::Relaxed);
        let synced = open.file.sync_data();
        let now = shared.clock.monotonic();
        shared.counters.sync_started.store(0, Ordering::Relaxed);
        // What the kernel kept of a failed fsync is unknown, and a second one would lie: the callers stop the log.
        synced.map_err(|source| Error::io("fsync", &open.path, source))?;
        let took = now.saturating_sub(start);
        add(&shared.counters.syncs, 1);
        add(&shared.counters.sync_nanos, nanos(took));
        let sequence = open.header.sequence;
        self.synced(shared);
        self.newest.record(&*shared.disk, &shared.dir, sequence);
        Ok(took)
    }

    fn synced(&mut self, shared: &Shared) {
        self.last_sync = shared.clock.monotonic();
        self.synced_frame = self.next_frame - 1;
        self.synced_ticket = self.written_ticket;
        let mut state = shared.state.lock();
        state.tails.synced(self.synced_ticket);
        state.tails.evict(self.synced_ticket);
    }

    fn sync_if_due(&mut self, shared: &Shared) -> Result<(), Error> {
        if let Fsync::Interval(interval) = shared.options.fsync
            && shared.clock.monotonic().saturating_sub(self.last_sync) >= interval
        {
            self.sync(shared).map_err(|error| self.stop(shared, error))?;
        }
        Ok(())
    }

    /// Stops the log for good: everything that waits, and all that follows, fails with this cause.
    pub(crate) fn stop(&self, shared: &Shared, cause: Error) -> Error {
        let mut state = shared.state.lock();
        if state.stopped.is_none() {
            state.stopped = Some(cause.clone());
        }
        let waiting = state.take_group(u64::MAX);
        let refusal = state.refuse();
        drop(state);
        complete(waiting, &refusal);
        shared.work.notify_all();
        shared.wake();
        shared.spare_wanted.notify_all();
        cause
    }

    fn write_group(&mut self, shared: &Shared, mut group: Vec<Item>, sync: bool) -> Result<Progress, Error> {
        let records: Vec<&[Record]> = group.iter().map(|item| item.records.as_slice()).collect();
        match self.write_frame(shared, &records, group.len() as u64, sync) {
            Ok(()) => {}
            Err(error) if error.is_no_space() => {
                shared.refresh_space();
                let mut state = shared.state.lock();
                state.put_back(group);
                state.blocked = true;
                return Ok(Progress::Blocked);
            }
            Err(error) => {
                // Back to the front of the queue, so that all that wait learn of it in order.
                shared.state.lock().put_back(group);
                return Err(self.stop(shared, error));
            }
        }
        if let Some(last) = group.last() {
            self.written_ticket = last.ticket;
        }
        if sync && shared.options.fsync == Fsync::Always {
            self.synced_ticket = self.written_ticket;
        }
        let mut state = shared.state.lock();
        state.writing_cost = 0;
        state.blocked = false;
        state.tails.synced(self.synced_ticket);
        state.tails.evict(self.synced_ticket);
        state.reclaim |= group.iter().flat_map(|item| &item.records).any(|record| {
            matches!(record, Record::Purged { .. } | Record::Released { .. } | Record::Truncate { .. })
        });
        drop(state);
        group.retain(|item| item.completion.is_some());
        complete(group, &Ok(()));
        self.sync_if_due(shared)?;
        Ok(Progress::Wrote)
    }

    /// Writes records as one frame, fsyncs it if asked to and if the policy is to, and enters it into the catalogue.
    pub(crate) fn write_frame(
        &mut self,
        shared: &Shared,
        records: &[&[Record]],
        group: u64,
        sync: bool,
    ) -> Result<(), Error> {
        let length: u64 = records.iter().copied().flatten().map(|record| encoded_len(record) as u64).sum();
        let hard_state = self.make_room(shared, length)?;
        let records = hard_state.iter().chain(records.iter().copied().flatten());
        let open = self.open.as_mut().expect("make_room opened a segment");
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER_BYTES, 0);
        let mut count = 0_u32;
        for record in records.clone() {
            encode_record(&mut self.buffer, record);
            count += 1;
        }
        let body = &self.buffer[FRAME_HEADER_BYTES..];
        let frame = FrameHeader {
            length: u32::try_from(body.len()).expect("a frame is bounded far below 4 GiB"),
            sequence: self.next_frame,
            synced_through: self.synced_frame,
            records: count,
            body_crc: body_crc(body),
        };
        self.buffer[..FRAME_HEADER_BYTES].copy_from_slice(&frame.encode(open.header.id, open.position));
        self.buffer.resize(usize::try_from(frame.size()).expect("a frame fits into memory"), 0);

        let start = shared.clock.monotonic();
        open.file
            .write_all_at(&self.buffer, open.position)
            .map_err(|source| Error::io("write to", &open.path, source))?;
        let write = shared.clock.monotonic().saturating_sub(start);
        let position = open.position;
        if position == BLOCK {
            // From here on older segments no longer carry the hard state.
            shared.state.lock().reclaim = true;
        }
        open.position += frame.size();
        self.next_frame += 1;
        self.published = self.published.max(frame.synced_through);
        let sync =
            if sync && shared.options.fsync == Fsync::Always { Some(self.sync(shared)?) } else { None };
        self.enter(shared, records, position)?;
        self.buffer.shrink_to(usize::try_from(2 * shared.options.max_frame_bytes).unwrap_or(usize::MAX));

        add(&shared.counters.frames, 1);
        add(&shared.counters.records, count.into());
        add(&shared.counters.submissions, group);
        add(&shared.counters.frame_bytes, frame.size());
        if let Some(observe) = &shared.options.on_frame {
            observe(&FrameWritten { records: count.into(), group, bytes: frame.size(), write, sync });
        }
        Ok(())
    }

    /// Enters the records of the frame at `position` into the catalogue.
    fn enter<'r>(
        &self,
        shared: &Shared,
        records: impl Iterator<Item = &'r Record>,
        position: u64,
    ) -> Result<(), Error> {
        let open = self.open.as_ref().expect("a frame was just written to it");
        let sequence = open.header.sequence;
        let mut state = shared.state.lock();
        state.open_room = open.capacity.saturating_sub(open.position);
        let ahead = if state.open_ahead { open.capacity } else { 0 };
        let taken = open.position.saturating_sub(position.max(ahead));
        state.available = state.available.saturating_sub(taken);
        let catalog = &mut state.catalog;
        let mut at = position + FRAME_HEADER_BYTES as u64;
        for record in records {
            let view = record.view();
            let segment = catalog.segments.get_mut(&sequence).expect("the open segment is in the catalogue");
            segment.end_frame = self.next_frame;
            let SegmentIndex::Open(table) = &mut segment.index else {
                return Err(Error::corrupt(&open.path, at, "the segment written to is sealed"));
            };
            table
                .apply(&view, at)
                .and_then(|()| catalog.apply(&view, sequence))
                .map_err(|why| Error::corrupt(&open.path, at, why))?;
            at += encoded_len(record) as u64;
        }
        if let Some(segment) = catalog.segments.get_mut(&sequence) {
            segment.end_frame = self.next_frame;
            segment.bytes = segment.bytes.max(open.position);
        }
        Ok(())
    }

    /// Makes sure that a frame with `length` bytes of records fits: seals and opens as needed.
    ///
    /// Gives the hard state that the first frame of a segment has to begin with.
    fn make_room(&mut self, shared: &Shared, length: u64) -> Result<Vec<Record>, Error> {
        if let Some(open) = &self.open {
            if open.position + FrameHeader::size_of(length) <= open.capacity || open.position == BLOCK {
                return Ok(if open.position == BLOCK { hard_state(shared) } else { Vec::new() });
            }
            self.seal(shared)?;
        }
        let hard_state = hard_state(shared);
        let hard_bytes: u64 = hard_state.iter().map(|record| encoded_len(record) as u64).sum();
        self.open_segment(shared, BLOCK + FrameHeader::size_of(length + hard_bytes))?;
        Ok(hard_state)
    }

    fn open_segment(&mut self, shared: &Shared, needed: u64) -> Result<(), Error> {
        let spare = shared.state.lock().spares.pop();
        let spare = match spare {
            Some(spare) => spare,
            None => {
                let available = shared.refresh_space();
                let above = available.saturating_sub(shared.options.reserve_bytes);
                // Only votes and purges get this far when nothing is above the reserve: they take it in parts that
                // hold several frames, but leave most of it.
                let part = if above >= needed { above } else { available / 4 };
                let bytes = shared.options.segment_bytes.min(part / BLOCK * BLOCK).max(align(needed));
                // Behind a busy writer there is no time to write a file twice: its fsyncs cost more, but none waits.
                let ahead = shared.options.spare_files > 0 && shared.state.lock().threads == 0;
                spare::prepare(shared, bytes, ahead)?
            }
        };
        shared.spare_wanted.notify_all();
        let header = SegmentHeader {
            id: self.new_id(),
            node: shared.options.node,
            created: shared.clock.now(),
            sequence: self.next_sequence,
            first_frame: self.next_frame,
            recycled: spare.recycled,
        };
        let path = match spare::promote(shared, &spare, &header) {
            Ok(path) => path,
            Err(error) => {
                shared.state.lock().spares.push(spare);
                return Err(error);
            }
        };
        self.next_sequence += 1;
        shared.refresh_space();
        let mut state = shared.state.lock();
        state.open_ahead = spare.ahead;
        state.open_room = spare.bytes - BLOCK;
        state.catalog.segments.insert(
            header.sequence,
            Segment {
                header,
                path: path.clone(),
                file: spare.file.clone(),
                bytes: if spare.ahead { spare.bytes } else { BLOCK },
                end_frame: header.first_frame,
                index: SegmentIndex::Open(SegmentTable::default()),
            },
        );
        drop(state);
        self.open = Some(Open { header, path, file: spare.file, position: BLOCK, capacity: spare.bytes });
        Ok(())
    }

    /// Seals the open segment; an empty one stays open.
    pub(crate) fn seal(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(open) = self.open.take_if(|open| open.position > BLOCK) else { return Ok(()) };
        // The table is this writer's alone until the segment is sealed, so it may leave the catalogue's lock.
        let table = {
            let state = shared.state.lock();
            let segment = state.catalog.segments.get(&open.header.sequence);
            match segment.map(|segment| &segment.index) {
                Some(SegmentIndex::Open(table)) => table.clone(),
                _ => return Err(Error::corrupt(&open.path, 0, "the open segment is not in the catalogue")),
            }
        };
        let sealed =
            segment::seal(&open.file, &open.path, &open.header, &table, open.position, self.next_frame);
        let (summary, bytes) = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                self.open = Some(open);
                return Err(error);
            }
        };
        self.synced(shared);
        self.newest.record(&*shared.disk, &shared.dir, open.header.sequence);
        add(&shared.counters.sealed, 1);
        let mut state = shared.state.lock();
        state.open_room = 0;
        state.reclaim = true;
        if let Some(segment) = state.catalog.segments.get_mut(&open.header.sequence) {
            segment.index = SegmentIndex::Sealed(summary);
            segment.bytes = bytes;
        }
        Ok(())
    }

    /// Whether the newest segment holds a fsynced frame, so that older ones no longer carry the hard state.
    pub(crate) fn has_synced_hard_state(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.position > BLOCK && self.synced_frame >= open.header.first_frame)
    }
}

/// Every shard's vote, committed and purged, as written so far.
fn hard_state(shared: &Shared) -> Vec<Record> {
    let state = shared.state.lock();
    let mut records = Vec::new();
    for (shard, log) in &state.catalog.shards {
        let shard = *shard;
        records.extend(log.vote.clone().map(|bytes| Record::Vote { shard, bytes }));
        records.extend(log.committed.map(|id| Record::Committed { shard, id }));
        records.extend(log.purged.map(|id| Record::Purged { shard, id }));
    }
    records
}

/// Runs completions in order; no lock but the writer's is held.
fn complete(group: Vec<Item>, result: &Result<(), Error>) {
    for item in group {
        if let Some(completion) = item.completion {
            completion(result.clone());
        }
    }
}
