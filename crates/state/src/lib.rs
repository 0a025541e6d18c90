//! The pure, deterministic state machine of a shard: entries in, offsets and outcomes out.
//!
//! The node applies its log with it; the archiver and the restore tool replay with it, from the heads of entries
//! alone ([`duramen_types::EntryHead`]): no batch is read. The same entries in the same order give the same state,
//! the same outcomes and the same bytes from [`ShardState::encode`], on every machine.
//!
//! It knows no clock, no randomness and no I/O. What it refuses (a failed condition, an unknown stream) is an
//! [`Rejection`], part of history like any other outcome; an [`ApplyError`] means that the entries handed in are not
//! a shard's log.

mod append;
mod catalogue;
mod limits;
mod outcome;
mod rescue;
mod shard;
mod snapshot;
mod stream;

pub use limits::{
    MAX_CURSORS_PER_STREAM, MAX_PRODUCERS_PER_STREAM, MAX_RESTORE_POINTS, MAX_STREAMS_PER_SHARD, MAX_TENANTS,
    PRODUCER_EXPIRY, PRODUCERS_FORGOTTEN_AT_ONCE, REMEMBERED_BATCHES,
};
pub use outcome::{Applied, ApplyError, BatchOutcome, ControlResult, Rejection};
pub use shard::ShardState;
pub use stream::{Cursor, ProducerState, RememberedBatch, Stream};

#[cfg(test)]
mod tests;
