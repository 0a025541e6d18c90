//! The archive: its layout in an object store, the formats of its objects, and the rules by which they are written.
//!
//! Everything else reads and writes an archive only through this crate. Objects are immutable and created only once
//! ([`Store::create`]); a shard's history is what its numbered manifests say.

// Access to objects, the keys they have, and what is committed under them.
mod blocking;
mod branch;
mod closed;
mod describe;
mod document;
mod error;
mod frame;
mod hold;
mod identity;
mod manifest;
mod owner;
pub mod paths;
mod random;
mod store;
mod verdict;
mod view;

pub use blocking::{Blocking, Work};
pub use branch::{Ancestor, Branch, Cut};
pub use closed::{Closed, ClosedShard, ClosedTimes};
pub use describe::describe;
pub use error::{At, Error, Operation, Result};
pub use frame::FormatError;
pub use hold::Hold;
pub use identity::{Identity, MAX_SHARDS};
pub use manifest::{
    Committer, Edit, HistoryPoint, LogOptions, MAX_ROWS_PER_MANIFEST, Manifest, ManifestLog, RowCursor, Rows,
    SegmentRow, SnapshotRow, StreamFilter, StreamQuery,
};
pub use owner::Owner;
pub use paths::ObjectKey;
pub use random::Random;
pub use store::{
    CheckReport, Checksum, LOG_DIRECTIVES, Limits, Listed, MAX_PUT_BYTES, Probe, ProbeOutcome, RequestCount,
    Store, StoreOptions,
};
pub use verdict::{Depth, Finding, Standing, Verdict, VerifiedShard};
pub use view::{BranchView, ShardView, ViewCursor, ViewRow, ViewSnapshot};

// The content of segments and snapshots, and reading it.
mod cache;
mod history;
mod segment;
mod snapshot;

pub use cache::SegmentCache;
pub use history::{BytesBefore, Entries, History, HistoryError, HistoryOptions, StreamReader};
pub use segment::{
    Block, BlockBatch, BytesSource, EntryRow, Fate, FileSource, Location, RangeSource, RejectionCode,
    SegmentError, SegmentFacts, SegmentIdentity, SegmentIndex, SegmentObject, SegmentOptions, SegmentReader,
    SegmentWriter, StreamRow, TableBatch, Trailer, WriteError,
};
pub use snapshot::Snapshot;

#[cfg(test)]
mod golden;
