//! Positions and identities as newtypes with private fields; ranges of them are half-open.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            pub const ZERO: Self = Self(0);
            pub const MAX: Self = Self(<$inner>::MAX);

            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            pub const fn get(self) -> $inner {
                self.0
            }

            /// The position `n` further on; saturates at the type's maximum.
            #[must_use]
            pub const fn plus(self, n: $inner) -> Self {
                Self(self.0.saturating_add(n))
            }

            /// The following position; saturates at the type's maximum.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// The preceding position, or `None` at zero.
            #[must_use]
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(n) => Some(Self(n)),
                    None => None,
                }
            }

            /// How many positions lie in `earlier..self`; zero if `earlier` is not earlier.
            pub const fn since(self, earlier: Self) -> $inner {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// A shard: the unit of ordering and replication, one Raft group. Shard 0 is _meta_.
    ShardId, u16
);
number!(
    /// A log entry's position in its shard's Raft log, from 0.
    Index, u64
);
number!(
    /// The leader's term that wrote an entry.
    Term, u64
);
number!(
    /// A record's dense position in its stream, from 0.
    Offset, u64
);
number!(
    /// A stream's identity: the log index of its create entry, unique in its shard and never reused.
    StreamId, u64
);
number!(
    /// An idempotent producer's identity, allocated through the log.
    ProducerId, u64
);
number!(
    /// A node's number in its cluster.
    NodeId, u64
);
number!(
    /// The position of a manifest in a shard's manifest log, from 0.
    ManifestNumber, u64
);

impl ShardId {
    /// The shard that holds tenants, nodes, placement and restore points.
    pub const META: Self = Self(0);
}

/// A log entry's identity: its index, and the term that wrote it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    pub index: Index,
    pub term: Term,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From 16 random bytes; the caller owns the source of randomness.
            pub const fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

identity!(
    /// The identity of one archive, written once in its `archive.json`.
    ArchiveId
);
identity!(
    /// The identity of the cluster that writes a branch.
    ClusterId
);
identity!(
    /// The identity of a WAL segment file, of an archived segment, or of a page.
    SegmentId
);
