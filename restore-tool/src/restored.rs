//! What a data directory says of the restore that filled it.

use duramen_types::{BranchName, HybridTime};
use duramen_wal::datadir::RestoreDescription;

use crate::hydrate;
use crate::repair;

/// A restore into a data directory, finished or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The archive's URL.
    pub source: String,
    /// The branch that was restored.
    pub parent: BranchName,
    /// As it was at this instant.
    pub at: HybridTime,
    /// The branch that a node on the directory writes.
    pub branch: BranchName,
    /// When the restore began.
    pub started: HybridTime,
}

impl Restored {
    /// Reads the note of a restore, or of a repair after one; `None` of a repair of a directory that was never restored, and
    /// of a note of another release.
    pub fn of(note: &RestoreDescription) -> Option<Self> {
        if let Some(before) = repair::note_before(note) {
            return Self::of(&before);
        }
        let details: hydrate::Details = serde_json::from_value(note.details.clone()).ok()?;
        Some(Self {
            source: note.source.clone(),
            parent: details.parent,
            at: details.plan.time,
            branch: details.branch,
            started: details.started,
        })
    }
}
