//! The manifest log: which segments and snapshots a shard's history on one branch consists of.
//!
//! Manifests are numbered from 0 without gaps and created once; creating one is what commits a range to the archive.
//! Every 256 of them a checkpoint says the whole state, most of it in immutable pages that are loaded when needed.
//! Invariants, checked when committing and when reading: rows are contiguous from the branch's start, each row's
//! `chain_before` is its predecessor's `chain_after`, and times and terms never go back.

mod checkpoint;
mod filter;
mod format;
mod log;
mod row;
mod rows;
mod state;

pub use filter::{StreamFilter, StreamQuery};
#[cfg(test)]
pub(crate) use format::PageRef;
pub(crate) use format::{Checkpoint, Page};
pub use format::{Committer, MAX_ROWS_PER_MANIFEST, Manifest};
pub use log::{Edit, LogOptions, ManifestLog};
pub use row::{SegmentRow, SnapshotRow};
pub use rows::{RowCursor, Rows};
pub use state::HistoryPoint;

#[cfg(test)]
pub(crate) mod tests;
