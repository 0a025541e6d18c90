//! A node on a simulated machine: its disk forgets what was not synced, its clock goes only where the simulation goes, and
//! everything happens on one thread in an order that a seed decides.
//!
//! - [`World`] is the machine and the object store; [`World::live`] is one life of a process on it.
//! - [`Player`] does random operations to a node and knows what the node must hold afterwards, whatever happened in between.
//! - [`observe`] is what a node shows, in the model's words.

mod clock;
mod count;
mod driver;
mod model;
pub mod observe;
mod player;
mod store;
mod world;

pub use clock::SimClock;
pub use count::{Bill, CountingStore};
pub use driver::driver;
pub use model::{Log, Past, Seen, Stream};
pub use player::{Player, stream_ref};
pub use store::{FaultyStore, Weather};
pub use world::{World, config};
