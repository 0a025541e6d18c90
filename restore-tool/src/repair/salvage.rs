//! What the valid frames of a damaged log hold, shard by shard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use duramen_types::{Entry, EntryId, Index, ShardId, Term};
use duramen_wal::{Disk, Record};

use crate::Result;

/// What was found beyond the archive.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    shards: BTreeMap<ShardId, Shard>,
    undecodable: u64,
}

#[derive(Debug, Default)]
struct Shard {
    /// The entries that are not archived, as the records leave them.
    entries: BTreeMap<Index, (Term, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<EntryId>,
    /// No entry is known that has this index or a later one.
    end: Index,
    displaced: BTreeSet<EntryId>,
}

/// Reads every valid frame in write order; of entries, those from the shard's archived end on, without their batches.
pub(super) fn salvage(disk: &dyn Disk, wal: &Path, archived: &BTreeMap<ShardId, Index>) -> Result<Salvaged> {
    let mut found = Salvaged::default();
    duramen_wal::salvage(disk, wal, &mut |_, _, record| {
        found.take(record, archived);
        Ok(())
    })?;
    Ok(found)
}

impl Salvaged {
    fn take(&mut self, record: Record, archived: &BTreeMap<ShardId, Index>) {
        let shard = record.shard();
        let log = self.shards.entry(shard).or_default();
        match record {
            Record::Entry { id, payload, .. } => {
                log.end = log.end.max(id.index.next());
                if archived.get(&shard).is_none_or(|archived| id.index < *archived) {
                    return;
                }
                // The log moves old entries forward unchanged: those take nothing's place.
                if log.entries.get(&id.index).is_some_and(|(term, _)| *term == id.term) {
                    return;
                }
                log.entries.split_off(&id.index);
                match Entry::decode(payload) {
                    Ok(entry) => {
                        let head = Bytes::copy_from_slice(&entry.head_bytes());
                        log.entries.insert(id.index, (id.term, head));
                    }
                    Err(_) => self.undecodable = self.undecodable.saturating_add(1),
                }
            }
            Record::Truncate { from, .. } => {
                log.entries.split_off(&from);
                log.end = log.end.min(from);
            }
            Record::Vote { bytes, .. } => log.vote = Some(bytes),
            Record::Committed { id, .. } => log.committed = log.committed.max(Some(id)),
            Record::Displaced { id, .. } | Record::DisplacedCopy { id, .. } => {
                log.displaced.insert(id);
            }
            Record::Released { id, .. } => {
                log.displaced.remove(&id);
            }
            Record::Purged { .. } => {}
        }
    }

    /// Takes note that a shard had entries up to `end`.
    pub(super) fn known(&mut self, shard: ShardId, end: Index) {
        let log = self.shards.entry(shard).or_default();
        log.end = log.end.max(end);
    }

    pub(super) fn entry(&self, shard: ShardId, index: Index) -> Option<(EntryId, &Bytes)> {
        let (term, head) = self.shards.get(&shard)?.entries.get(&index)?;
        Some((EntryId { index, term: *term }, head))
    }

    /// The end of what is known to have been there.
    pub(super) fn end_of(&self, shard: ShardId) -> Index {
        let log = self.shards.get(&shard);
        let committed = log.and_then(|log| log.committed).map_or(Index::ZERO, |id| id.index.next());
        log.map_or(Index::ZERO, |log| log.end).max(committed)
    }

    pub(super) fn vote(&self, shard: ShardId) -> Option<Bytes> {
        self.shards.get(&shard)?.vote.clone()
    }

    pub(super) fn committed(&self, shard: ShardId) -> Option<EntryId> {
        self.shards.get(&shard)?.committed
    }

    /// What a person should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (shard, log) in &self.shards {
            if !log.displaced.is_empty() {
                let count = log.displaced.len();
                notes.push(format!(
                    "shard {shard}: {count} displaced entries that were not rescued yet stay in the log that is moved aside"
                ));
            }
        }
        if self.undecodable > 0 {
            notes.push(format!("{} entries in valid frames can't be decoded", self.undecodable));
        }
        notes.push("a damaged frame may have held entries of which nothing is known".to_owned());
        notes
    }
}
