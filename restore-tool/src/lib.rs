//! Restores a log from its archive: plan (pure, after reading), then execute.
//!
//! Works on an archive alone; no node needs to run. A restore never overwrites: it starts a new branch at a cut of its
//! parent, either in the archive only ([`branch()`]) or with the history downloaded as well ([`hydrate()`]).

mod branch;
mod error;
mod export;
mod hydrate;
mod listing;
mod manage;
mod object;
mod plan;
mod point;
mod progress;
mod repair;
mod restored;
mod target;
mod verify;

pub use branch::{BranchOptions, BranchReport, branch, default_name};
pub use error::{Error, Result};
pub use export::{ExportFormat, ExportReport, Streams, export};
pub use hydrate::{HydrateOptions, HydrateReport, MAX_PARALLELISM, hydrate, resume};
pub use listing::{BranchListing, Listing, NamedPoint, ShardWindow, list};
pub use manage::{CheckedStore, check, holds, release_hold, show};
pub use plan::{Plan, PlannedShard, Reach, plan};
pub use progress::{Observer, Step};
pub use repair::hydrated::damaged as damaged_hydrated;
pub use repair::{Gone, RepairOptions, RepairReport, RepairedShard, repair};
pub use restored::Restored;
pub use target::{Position, PositionShard, Target};
pub use verify::{VerifyOptions, VerifyReport, verify};

#[cfg(test)]
mod tests;
