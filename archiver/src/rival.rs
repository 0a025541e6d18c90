//! Whether somebody else archives the branch in this log's place.
//!
//! Every writer of a branch proves that its cluster owns it, and a copy of a data directory proves that as well. What tells
//! the two apart is what they wrote: the archived history is this log's own if the log has its last entry, of that very
//! microsecond.

use duramen_archive::HistoryPoint;
use duramen_types::{BranchName, Entry, Index, ShardId};
use duramen_wal::Wal;

use crate::{Error, Result};

/// Makes sure that the log has the last entry before `tip`, the end of the archived history: [`Error::Rival`] if it holds
/// another there, or ends before it.
///
/// A log that holds nothing of the shard, or had purged that entry, is not asked: what is purged was archived by this log.
pub fn check_own(wal: &Wal, branch: &BranchName, shard: ShardId, tip: HistoryPoint) -> Result<()> {
    let log = wal.log_state(shard);
    let Some(last) = tip.end.previous() else { return Ok(()) };
    if log.end == Index::ZERO {
        return Ok(());
    }
    let rival = |found: String| {
        let branch = branch.clone();
        Err(Error::Rival { shard, branch, index: last, found })
    };
    if log.end <= last {
        return rival(format!("ends at index {}", log.end));
    }
    if log.purged.is_some_and(|purged| purged.index > last) {
        return Ok(());
    }
    if wal.term_of(shard, last).is_some_and(|term| term != tip.term) {
        return rival("holds an entry of another term there".to_owned());
    }
    // An entry without a time of its own has that of the one before it.
    let mut index = last;
    while log.purged.is_none_or(|purged| purged.index < index) {
        let entry = wal.entries(shard, index..index.next(), 1).ok().and_then(|read| read.into_iter().next());
        // A damaged log is no other one, and what is archived is read without it. Who needs the entry says what is wrong.
        let Some(Ok(entry)) = entry.map(|(_, payload)| Entry::decode(payload)) else { return Ok(()) };
        let head = entry.head();
        if head.body.is_timed() {
            return if head.time == tip.time {
                Ok(())
            } else {
                rival(format!("holds an entry of {} there, not of {}", head.time, tip.time))
            };
        }
        let Some(before) = index.previous() else { break };
        index = before;
    }
    Ok(())
}
