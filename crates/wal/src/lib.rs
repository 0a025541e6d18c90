//! The write-ahead log of one disk: segments, frames, group commit, recovery.
//!
//! Synchronous, with no clock and no randomness of its own, and the disk behind one small trait ([`Disk`]): driven
//! inline it does the same for the same calls, byte for byte.
//!
//! Invariant: a record whose completion ran with `Ok` under [`Fsync::Always`] is there after any crash, in order,
//! and what recovery shows was either submitted whole or is not there at all.

mod catalog;
mod disk;
mod error;
pub mod format;
mod inspect;
mod newest;
mod options;
mod pages;
mod reader;
mod reclaim;
mod recovery;
mod segment;
mod shared;
mod spare;
mod stats;
mod table;
mod tail;
mod wal;
mod writer;

pub mod datadir;
pub mod durable;
pub mod sim;

pub use disk::{Disk, DiskFile, File, LockGuard, RealDisk};
pub use error::Error;
pub use format::{MAX_PAYLOAD_BYTES, Record};
pub use inspect::{Damage, DamageKind, Report, SegmentReport, inspect, salvage};
pub use options::{FrameObserver, FrameWritten, Fsync, WalOptions};
pub use recovery::{RecoveryReport, TailCut};
pub use stats::Stats;
pub use wal::{Completion, LogState, Reservation, SegmentIdSource, SegmentInfo, Space, Wal};
pub use writer::Progress;

#[cfg(test)]
mod tests;
