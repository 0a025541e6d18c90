//! The client of a Duramen node.
//!
//! [`Client`] holds one connection and is cheap to clone. It appends single batches ([`Client::append`]), streams of
//! records ([`Client::appender`]: batched, pipelined, with backpressure, and safe to retry when it is idempotent), reads
//! ([`Client::reader`]: resumes where a connection broke) and manages streams, cursors, tenants and restore points.
//!
//! Nothing is retried that might then happen twice: see [`Error::may_have_had_effect`]. The client remembers the
//! highest hybrid time that any answer carried and passes it on, so that what it does is ordered across shards.
//!
//! [`jsonl`] and [`when`] are how records and instants are written as text, for every tool alike; they need no
//! connection.

mod append;
mod appender;
mod client;
mod cursors;
mod error;
mod model;
mod reader;
mod retry;
mod streams;
mod tenants;

pub mod jsonl;
pub mod when;

pub use append::{AppendOptions, Appended};
pub use appender::{AckFuture, Appender, AppenderOptions};
pub use client::{Client, ConnectOptions};
pub use duramen_proto::ErrorCode;
pub use error::{Error, NodeError};
pub use model::{ConfigChange, CursorInfo, Page, RestorePoint, StreamInfo, TenantInfo};
pub use reader::{ReadBatch, ReadFrom, ReadOptions, ReadRecord, Reader};

#[cfg(test)]
mod tests;
