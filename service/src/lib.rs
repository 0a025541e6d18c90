//! The Duramen node.

mod admin;
pub mod api;
mod archive;
pub mod cli;
pub mod config;
mod demo;
mod doctor;
mod edge;
mod grpc;
mod http;
mod index;
mod node;
pub mod server;
mod shard;
pub mod status;
pub mod telemetry;
mod time;

pub use node::{Failure, NO_TIMESTAMP, Node, PendingAppend, ReadSession, StartError};
