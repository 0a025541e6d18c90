//! Caps on what one shard's state may hold; part of the state machine, so a change is a new format version.

use std::time::Duration;

/// Streams alive in one shard at once, beyond which none can be created; those that rescues create come in addition.
pub const MAX_STREAMS_PER_SHARD: usize = 1_000_000;
/// Cursors of one stream.
pub const MAX_CURSORS_PER_STREAM: usize = 10_000;
/// Producers remembered for one stream; one more makes it forget those that have been silent longest.
pub const MAX_PRODUCERS_PER_STREAM: usize = 1_000;
/// How many are forgotten then.
pub const PRODUCERS_FORGOTTEN_AT_ONCE: usize = 100;
/// Batches remembered for each producer of a stream, to answer duplicates (Kafka remembers as many).
pub const REMEMBERED_BATCHES: usize = 5;
/// How long, by entry time, a silent producer is remembered.
pub const PRODUCER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tenants of a cluster.
pub const MAX_TENANTS: usize = 10_000;
/// Named restore points of a cluster.
pub const MAX_RESTORE_POINTS: usize = 10_000;
