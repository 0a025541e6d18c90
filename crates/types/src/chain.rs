//! The history chain: a hash over every entry of a shard's log, so that nothing in it can be altered,
//! dropped or reordered unseen.
//!
//! ```text
//! leaf(i)  = BLAKE3-derive("duramen 2026 leaf",  index u64 | term u64 | time u64 | head length u32 | head)
//! chain(i) = BLAKE3-derive("duramen 2026 chain", chain(i-1) | leaf(i))
//! chain(-1)= BLAKE3-derive("duramen 2026 genesis", shard u16)
//! ```
//!
//! Integers are little-endian. The head holds, in place of each batch, its header with the batch's hash.

use std::fmt;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{EntryId, HybridTime, ShardId};

/// A BLAKE3 hash: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

/// The hash of a shard's whole history through one entry.
pub type ChainValue = Hash;

impl Hash {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The chain value after one more entry.
    #[must_use]
    pub fn extend(&self, leaf: &Hash) -> ChainValue {
        static KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("duramen 2026 chain"));
        let mut hasher = blake3::Hasher::new_from_context_key(&KEY);
        hasher.update(&self.0).update(&leaf.0);
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = crate::DecodeError;

    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || crate::DecodeError::invalid("hash", "it is not 64 hexadecimal digits");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| invalid())?;
        if !rest.is_empty() {
            return Err(invalid());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high).ok_or_else(invalid)? << 4 | digit(*low).ok_or_else(invalid)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The chain value before a shard's first entry.
pub fn genesis(shard: ShardId) -> ChainValue {
    let mut hasher = blake3::Hasher::new_derive_key("duramen 2026 genesis");
    hasher.update(&shard.get().to_le_bytes());
    Hash(hasher.finalize().into())
}

/// The hash of one entry: its identity, its effective time, and its head as encoded in the log.
pub fn leaf(id: EntryId, time: HybridTime, head: &[u8]) -> Hash {
    // Hashed once and not for each entry: the context's own hash takes as long as a small head's.
    static KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("duramen 2026 leaf"));
    let mut hasher = blake3::Hasher::new_from_context_key(&KEY);
    hasher.update(&id.index.get().to_le_bytes());
    hasher.update(&id.term.get().to_le_bytes());
    hasher.update(&time.as_micros().to_le_bytes());
    hasher.update(&u32::try_from(head.len()).expect("a head is shorter than 4 GiB").to_le_bytes());
    hasher.update(head);
    Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests;
