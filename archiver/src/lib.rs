//! Turns the committed log into archived history: cuts, uploads, commits manifests, takes snapshots, closes times.
//!
//! [`ShardArchiver`] works on one shard of one branch. The node runs one for each shard that it leads; the
//! `duramen-archiver` binary runs them for a stopped node's data directory.

mod build;
mod error;
mod orphans;
mod rival;
mod shard;

pub use error::{Error, Result};
pub use orphans::{Orphans, collect_orphans};
pub use rival::check_own;
pub use shard::{Cut, Settings, ShardArchiver, Snapshotted};
