//! Giving back the space of segments that nobody needs, oldest first.
//!
//! Only the oldest segment ever goes, and its going is durable before the next one's turn: a truncation can then
//! never vanish before the entries that it removed, and a gap among the files is always damage.

use std::collections::BTreeMap;

use duramen_failpoint::Point;
use duramen_types::{EntryId, Index, ShardId, Term};

use crate::catalog::Catalog;
use crate::format::{BLOCK, Record};
use crate::reader::Wanted;
use crate::shared::Shared;
use crate::spare::{self, Spare};
use crate::stats::add;
use crate::writer::{Progress, Writer};
use crate::{Error, durable, segment};

/// What the log still needs of one segment.
#[derive(Debug, Default)]
struct Live {
    entries: Vec<(ShardId, std::ops::Range<Index>, Term)>,
    displaced: Vec<(ShardId, EntryId)>,
    /// Payload bytes, estimated from the runs' averages.
    bytes: u64,
}

impl Writer {
    /// Deletes, recycles or empties the oldest segment if it is due.
    pub(crate) fn reclaim(&mut self, shared: &Shared) -> Result<Progress, Error> {
        if !std::mem::take(&mut shared.state.lock().reclaim) {
            return Ok(Progress::Idle);
        }
        match self.reclaim_oldest(shared) {
            Ok(false) => Ok(Progress::Idle),
            Ok(true) => {
                shared.refresh_space();
                shared.state.lock().reclaim = true;
                Ok(Progress::Wrote)
            }
            // Nothing was lost. The next purge tries again; where the log itself waits for space, its next turn does.
            Err(error) if error.is_no_space() => {
                let mut state = shared.state.lock();
                state.reclaim |= state.blocked;
                Ok(Progress::Idle)
            }
            Err(error) => Err(self.stop(shared, error)),
        }
    }

    fn reclaim_oldest(&mut self, shared: &Shared) -> Result<bool, Error> {
        let (sequence, live, bytes) = {
            let state = shared.state.lock();
            let Some((sequence, oldest)) = state.catalog.segments.first_key_value() else { return Ok(false) };
            if !oldest.is_sealed() || state.catalog.segments.len() < 2 {
                return Ok(false);
            }
            (*sequence, live_in(&state.catalog, *sequence), oldest.bytes)
        };
        if live.entries.is_empty() && live.displaced.is_empty() {
            // The purge that freed it, and the hard state that it holds, must outlive it.
            self.sync(shared)?;
            if !self.has_synced_hard_state() {
                return Ok(false);
            }
            duramen_failpoint::reached(Point::ReclaimDue);
            self.give_back(shared, sequence)?;
            duramen_failpoint::reached(Point::ReclaimDone);
            return Ok(true);
        }
        let worth_it =
            live.bytes <= shared.options.copy_forward_bytes && live.bytes.saturating_mul(16) <= bytes;
        if !worth_it || !self.has_synced_hard_state() {
            return Ok(false);
        }
        self.copy_forward(shared, sequence, live)?;
        Ok(true)
    }

    /// Writes the few live entries of a segment anew, so that nothing in it is needed any more.
    fn copy_forward(&mut self, shared: &Shared, sequence: u64, live: Live) -> Result<(), Error> {
        let mut records = Vec::new();
        for (shard, range, term) in live.entries {
            let mut from = range.start;
            while from < range.end {
                let wanted = Wanted { shard, term, range: from..range.end, max_bytes: u64::MAX };
                for (id, payload) in shared.read_segment(sequence, &wanted)? {
                    from = id.index.next();
                    records.push(Record::Entry { shard, id, payload });
                }
            }
        }
        for (shard, id) in live.displaced {
            let payload = shared.read_one(sequence, shard, id)?;
            records.push(Record::DisplacedCopy { shard, id, payload });
        }
        // Submissions may have truncated or purged some of them since; those records are not yet written, so in
        // write order the copies come first and go the same way.
        self.write_frame(shared, &[&records], 0, true)?;
        self.sync(shared)?;
        add(&shared.counters.copied_forward, records.len() as u64);
        Ok(())
    }

    /// Removes a segment file or keeps it as a spare.
    fn give_back(&mut self, shared: &Shared, sequence: u64) -> Result<(), Error> {
        let options = &shared.options;
        let (gone, recycle, number) = {
            let mut state = shared.state.lock();
            let Some(gone) = state.catalog.segments.remove(&sequence) else { return Ok(()) };
            // A reader that still holds the file must find in it what it was promised. Readers take it under this
            // lock, and from the catalogue, which just lost it: from here on the count can only fall.
            let unread = std::sync::Arc::strong_count(&gone.file) == 1;
            let fit = gone.bytes >= options.segment_bytes / 2 && gone.bytes <= options.segment_bytes * 2;
            let wanted = state.spares.len() < options.spare_files;
            state.next_spare += 1;
            (gone, unread && fit && wanted, state.next_spare)
        };
        add(&shared.counters.reclaimed, 1);
        if !recycle {
            return durable::remove_file(&*shared.disk, &gone.path)
                .map_err(|source| Error::io("fsync the removal of", &gone.path, source));
        }
        let path = segment::spare_path(&shared.dir, number);
        durable::publish(&*shared.disk, &gone.path, &path)
            .map_err(|source| Error::io("fsync the new name of", &path, source))?;
        let mut bytes = gone.bytes.max(options.segment_bytes) / BLOCK * BLOCK;
        if spare::fill(&gone.file, &path, gone.bytes, bytes).is_err() {
            // As short as it is it will do.
            bytes = gone.bytes / BLOCK * BLOCK;
        }
        shared.state.lock().spares.push(Spare {
            number,
            path,
            file: gone.file,
            bytes,
            ahead: true,
            recycled: true,
        });
        Ok(())
    }
}

fn live_in(catalog: &Catalog, sequence: u64) -> Live {
    let mut live = Live::default();
    let averages: BTreeMap<ShardId, u64> =
        catalog.segments.get(&sequence).map(|segment| segment.average_payloads()).unwrap_or_default();
    for (shard, log) in &catalog.shards {
        let average = averages.get(shard).copied().unwrap_or(0);
        for (first, piece) in log.pieces.iter().filter(|(_, piece)| piece.segment == sequence) {
            live.bytes = live.bytes.saturating_add(piece.end.since(*first).saturating_mul(average));
            live.entries.push((*shard, *first..piece.end, piece.term));
        }
        for (id, _) in log.displaced.iter().filter(|(_, segment)| **segment == sequence) {
            live.bytes = live.bytes.saturating_add(average);
            live.displaced.push((*shard, *id));
        }
    }
    live
}
