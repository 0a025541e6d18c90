//! The Duramen node.

mod admin;
pub mod api;
mod archive;
pub mod cli;
mod cloudwatch;
pub mod config;
mod demo;
mod doctor;
mod edge;
mod grpc;
mod http;
mod index;
mod node;
mod reload;
pub mod server;
mod service_manager;
mod shard;
pub mod status;
pub mod telemetry;
mod time;

pub use node::{Environment, Failure, LogDriver, NO_TIMESTAMP, Node, PendingAppend, ReadSession, StartError};

#[cfg(test)]
mod golden {
    //! The golden files of what only a node reads (`tests/golden`); their tests are beside the formats.

    use duramen_golden::{Counting, Golden, golden};

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    pub const GOLDEN: Golden = golden!();

    /// Makes a CRC-32 at the end true again.
    pub fn mend(bytes: &mut Vec<u8>) {
        bytes.truncate(bytes.len().saturating_sub(4));
        let crc = crc32fast::hash(bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
}
