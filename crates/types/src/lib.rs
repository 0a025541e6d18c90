//! The words every part of Duramen shares: positions, names, hybrid time, log entries, record batches.
//!
//! Nothing here does I/O, reads a clock or knows an async runtime. Every decoder is total: any bytes give a
//! value or a [`DecodeError`], without a panic and without an allocation sized by unchecked input.

mod chain;
mod codec;
mod counted;
mod entry;
mod error;
mod ids;
mod names;
mod op;
mod time;

pub mod batch;

pub use chain::{ChainValue, Hash, genesis, leaf};
pub use codec::{Reader, Writer};
pub use counted::counted;
pub use entry::{AppendItem, BatchHeader, Entry, EntryBody, EntryHead, Producer, RescueOrigin};
pub use error::DecodeError;
pub use ids::{
    ArchiveId, ClusterId, EntryId, Index, ManifestNumber, NodeId, Offset, ProducerId, SegmentId, ShardId,
    StreamId, Term,
};
pub use names::{
    BranchName, CursorName, FencingToken, NameError, RestorePointName, StreamName, TenantName, shard_of,
};
pub use op::{
    Acknowledgement, Compression, ControlOp, RescuePolicy, RetentionPolicy, StreamConfig, TimestampPolicy,
};
pub use time::{Clock, HybridTime, SystemClock};
