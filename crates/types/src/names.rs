//! Names as users write them, checked once on the way in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ShardId;

/// A name that breaks its rule; the sentence names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} {reason}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    reason: String,
}

impl NameError {
    fn new(kind: &'static str, name: &str, reason: impl Into<String>) -> Self {
        // A hostile name may be long; the error shows its beginning.
        let shown: String = name.chars().take(80).collect();
        Self { kind, name: shown, reason: reason.into() }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// The name, if it keeps the rule of its kind.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(name).map(|()| Self(name.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::parse(&name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.into()
            }
        }
    };
}

name!(
    /// A tenant: 1 to 63 of `[a-z0-9-]`.
    TenantName,
    |name| check("tenant", name, 63, "[a-z0-9-]", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
);
name!(
    /// A branch of an archive: 1 to 63 of `[a-z0-9-]`.
    BranchName,
    |name| {
        check("branch", name, 63, "[a-z0-9-]", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')?;
        if matches!(name, "branches" | "holds" | "verdicts" | "checks") {
            return Err(NameError::new("branch", name, "is a folder of the archive itself: choose another"));
        }
        Ok(())
    }
);
impl Default for BranchName {
    /// `main`, which an archive begins with.
    fn default() -> Self {
        Self::parse("main").expect("it keeps the rule")
    }
}

name!(
    /// A stream. Users name one as Kafka names topics: 1 to 249 of `[A-Za-z0-9._-]`, not `.` or `..`.
    ///
    /// The system's own streams have such a name and a suffix behind `~`: `{name}~{n}`, a partition of a topic, with a
    /// decimal number below 2^32; and `~rescued` behind either, see [`StreamName::rescued`].
    StreamName,
    check_stream
);
name!(
    /// A named restore point: the rule of stream names.
    RestorePointName,
    |name| check_kafka_like("restore point", name)
);
name!(
    /// A consumer's cursor: 1 to 255 bytes of UTF-8 without control characters.
    CursorName,
    |name| check_text("cursor", name, 255)
);
name!(
    /// A fencing token: 1 to 64 bytes of UTF-8 without control characters.
    FencingToken,
    |name| check_text("fencing token", name, 64)
);

fn check(
    kind: &'static str,
    name: &str,
    longest: usize,
    alphabet: &str,
    allowed: fn(char) -> bool,
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::new(kind, name, "is empty"));
    }
    if name.len() > longest {
        let reason = format!("is {} bytes long, the limit is {longest}", name.len());
        return Err(NameError::new(kind, name, reason));
    }
    if name.contains('~') {
        return Err(NameError::new(kind, name, "contains '~', which belongs to the system"));
    }
    if let Some(bad) = name.chars().find(|&c| !allowed(c)) {
        return Err(NameError::new(kind, name, format!("contains {bad:?}; allowed are {alphabet}")));
    }
    Ok(())
}

fn check_kafka_like(kind: &'static str, name: &str) -> Result<(), NameError> {
    check(kind, name, 249, "[A-Za-z0-9._-]", |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
    if matches!(name, "." | "..") {
        return Err(NameError::new(kind, name, "is reserved"));
    }
    Ok(())
}

fn check_text(kind: &'static str, name: &str, longest: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::new(kind, name, "is empty"));
    }
    if name.len() > longest {
        let reason = format!("is {} bytes long, the limit is {longest}", name.len());
        return Err(NameError::new(kind, name, reason));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(bad) => Err(NameError::new(kind, name, format!("contains the control character {bad:?}"))),
        None => Ok(()),
    }
}

const RESCUED: &str = "~rescued";

/// A user's name, then `~` and a number, then `~rescued`; both of the latter may be absent.
fn check_stream(name: &str) -> Result<(), NameError> {
    let origin = name.strip_suffix(RESCUED).unwrap_or(name);
    let base = match origin.rsplit_once('~') {
        Some((base, number)) if is_partition(number) => base,
        _ => origin,
    };
    check_kafka_like("stream", base)
}

/// Whether the text is a `u32` in its one spelling.
fn is_partition(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

impl StreamName {
    /// Whether the name is the system's. Such a stream can be read, trimmed and deleted by users like any other, but
    /// not be created or appended to.
    pub fn is_system(&self) -> bool {
        self.as_str().contains('~')
    }

    /// The stream that takes what is rescued of this one; `None` of such a stream itself.
    pub fn rescued(&self) -> Option<Self> {
        let is_origin = self.origin() == self.as_str();
        is_origin.then(|| Self(format!("{self}{RESCUED}").into()))
    }

    /// The name of the stream that the records were first written to: without `~rescued`.
    fn origin(&self) -> &str {
        self.as_str().strip_suffix(RESCUED).unwrap_or(self.as_str())
    }
}

/// The shard of a stream among `shards` data shards: `1 + u64le(BLAKE3(tenant ‖ 0x00 ‖ name)) mod shards`.
///
/// What is rescued of a stream lives where the stream does: `~rescued` is not part of the name here. `shards` is at
/// least 1; it is fixed when the cluster is created.
pub fn shard_of(tenant: &TenantName, stream: &StreamName, shards: u16) -> ShardId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tenant.as_str().as_bytes()).update(&[0]).update(stream.origin().as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    let slot = u64::from_le_bytes(first) % u64::from(shards.max(1));
    ShardId::new(u16::try_from(slot).expect("a remainder of a u16 fits u16").saturating_add(1))
}

#[cfg(test)]
mod tests;
