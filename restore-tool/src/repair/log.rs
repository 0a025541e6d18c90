//! Writes the new log: what is archived counts as purged, and the kept entries follow.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use duramen_archive::{HistoryPoint, Random};
use duramen_types::{Clock, EntryId, Index, NodeId, SegmentId, ShardId};
use duramen_wal::{Disk, Progress, Record, Wal, WalOptions, durable};
use parking_lot::Mutex;

use super::salvage::Salvaged;
use crate::{Error, Result};

/// The log under construction.
struct NewLog {
    wal: Wal,
    refused: Arc<Mutex<Option<duramen_wal::Error>>>,
}

impl NewLog {
    /// Writes records and waits until they are durable.
    fn write(&self, records: Vec<Record>) -> Result<()> {
        let refused = Arc::clone(&self.refused);
        self.wal.submit(
            records,
            Box::new(move |result| {
                if let Err(error) = result {
                    refused.lock().get_or_insert(error);
                }
            }),
        );
        while self.wal.drive()? == Progress::Wrote {}
        match self.refused.lock().take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Writes the log of `kept` (for each shard the archived point and the end) into `staged`; durable when it returns.
#[expect(
    clippy::too_many_arguments,
    reason = "everything that a log is made with, handed to a thread of its own"
)]
pub(super) fn write(
    disk: Arc<dyn Disk>,
    damaged: &Path,
    staged: &Path,
    node: NodeId,
    clock: Arc<dyn Clock>,
    random: Random,
    salvaged: &Salvaged,
    kept: &BTreeMap<ShardId, (HistoryPoint, Index)>,
) -> Result<()> {
    clear(&*disk, staged)?;
    let ids = Box::new(move || SegmentId::from_random(random.bytes16()));
    let (wal, _) = Wal::open(Arc::clone(&disk), staged, WalOptions::new(node), clock, ids)?;
    let log = NewLog { wal, refused: Arc::default() };
    for (shard, (point, _)) in kept {
        let mut records = Vec::new();
        if let Some(index) = point.end.previous() {
            records.push(Record::Purged { shard: *shard, id: EntryId { index, term: point.term } });
        }
        records.extend(salvaged.vote(*shard).map(|bytes| Record::Vote { shard: *shard, bytes }));
        if !records.is_empty() {
            log.write(records)?;
        }
    }
    let mut next: BTreeMap<ShardId, Index> =
        kept.iter().map(|(shard, (point, _))| (*shard, point.end)).collect();
    let mut moved = true;
    // Entries that the log moved forward may stand behind later ones: then the next sweep finds those.
    while moved && kept.iter().any(|(shard, (_, end))| next.get(shard).is_some_and(|at| at < end)) {
        moved = sweep(&*disk, damaged, &log, salvaged, kept, &mut next)?;
    }
    for (shard, (_, end)) in kept {
        if let Some(id) = salvaged.committed(*shard).filter(|id| {
            id.index < *end && salvaged.entry(*shard, id.index).is_some_and(|(found, _)| found == *id)
        }) {
            log.write(vec![Record::Committed { shard: *shard, id }])?;
        }
    }
    Ok(log.wal.shutdown()?)
}

/// Copies what comes next of each shard, as far as it is met in write order; whether anything was.
fn sweep(
    disk: &dyn Disk,
    damaged: &Path,
    log: &NewLog,
    salvaged: &Salvaged,
    kept: &BTreeMap<ShardId, (HistoryPoint, Index)>,
    next: &mut BTreeMap<ShardId, Index>,
) -> Result<bool> {
    let mut moved = false;
    let mut failed = None;
    duramen_wal::salvage(disk, damaged, &mut |_, _, record| {
        let Record::Entry { shard, id, payload } = record else { return Ok(()) };
        let wanted = failed.is_none()
            && next.get(&shard) == Some(&id.index)
            && kept.get(&shard).is_some_and(|(_, end)| id.index < *end)
            && salvaged.entry(shard, id.index).is_some_and(|(found, _)| found == id);
        if wanted {
            let payload: Bytes = payload;
            match log.write(vec![Record::Entry { shard, id, payload }]) {
                Ok(()) => {
                    next.insert(shard, id.index.next());
                    moved = true;
                }
                Err(error) => failed = Some(error),
            }
        }
        Ok(())
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(moved),
    }
}

/// Removes what an interrupted attempt wrote.
fn clear(disk: &dyn Disk, staged: &Path) -> Result<()> {
    let io = |action, path: &Path, source| Error::Io { action, path: path.to_owned(), source };
    disk.create_dir(staged).map_err(|source| io("create", staged, source))?;
    for name in disk.list(staged).map_err(|source| io("list", staged, source))? {
        let path = staged.join(name);
        durable::remove_file(disk, &path).map_err(|source| io("remove", &path, source))?;
    }
    Ok(())
}
