//! The gRPC interface of a node, package `duramen.v1`: generated messages, client and server, and its errors.
//!
//! The contract is in the comments of the `.proto` files, which are the documentation of [`v1`]. `bytes` fields are
//! [`bytes::Bytes`]. Errors travel as [`v1::Error`]; [`status_of`] and [`error_of`] put them into a gRPC status and
//! take them out again, and [`ErrorCode`] is the closed list of their codes.

mod error;

pub use error::{ErrorCode, error_of, status_of};

/// Generated from `proto/duramen/v1/*.proto`.
#[expect(clippy::allow_attributes, reason = "the generated code allows lints for itself")]
pub mod v1 {
    tonic::include_proto!("duramen.v1");
}

/// The encoded `FileDescriptorSet` of package `duramen.v1`, comments included, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/duramen.v1.bin"));

/// Request header with the highest hybrid time that the client has seen, in decimal digits.
pub const SEEN_HEADER: &str = "duramen-seen";

/// Response header (of an error: trailer) with the node's latest hybrid time, in decimal digits.
pub const TIME_HEADER: &str = "duramen-time";

/// Response header of a change that is answered without a body: when it was committed, in decimal digits.
pub const COMMITTED_HEADER: &str = "duramen-committed";

/// The largest message that both sides must be ready to decode: a batch of 10 MiB, and room for a larger setting.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024 + 64 * 1024;

#[cfg(test)]
mod tests;
