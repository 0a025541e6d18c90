//! The one error of every decoder in this crate.

/// Bytes that are not a value of the format they were read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("{what} is truncated: {needed} more bytes were expected at byte {at}")]
    Truncated { what: &'static str, at: usize, needed: usize },
    /// Bytes are left over after the value.
    #[error("{what} has {extra} bytes after its end")]
    Trailing { what: &'static str, extra: usize },
    /// A field holds a value that the format does not allow.
    #[error("{what} is invalid: {reason}")]
    Invalid { what: &'static str, reason: String },
    /// A checksum does not match the bytes it covers.
    #[error("{what} fails its checksum: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum { what: &'static str, stored: u32, computed: u32 },
    /// The format version is newer than this program knows.
    #[error("{what} has format version {found}, this program reads up to {supported}: use a newer release")]
    Version { what: &'static str, found: u32, supported: u32 },
    /// A value is larger than its limit.
    #[error("{what} has size {size}, the limit is {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
}

impl DecodeError {
    /// An [`DecodeError::Invalid`] from a field's name and a reason.
    pub fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }
}
