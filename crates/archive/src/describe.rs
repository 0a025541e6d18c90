//! Any object of an archive as JSON, for people.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::manifest::{Checkpoint, Page};
use crate::{Branch, Closed, FormatError, Hold, Identity, Manifest, ObjectKey, Owner, Verdict};

/// What an object says, as JSON. Hashes and ids are text, times are microseconds since 1970.
pub fn describe(key: &ObjectKey, bytes: &Bytes) -> Result<Value, FormatError> {
    let value = match key {
        ObjectKey::Archive => to_json(&Identity::decode(bytes)?),
        ObjectKey::Branch(_) => to_json(&Branch::decode(bytes)?),
        ObjectKey::Owner(_) => to_json(&Owner::decode(bytes)?),
        ObjectKey::Manifest { .. } => to_json(&Manifest::decode(bytes)?),
        ObjectKey::Checkpoint { .. } => to_json(&Checkpoint::decode(bytes)?),
        ObjectKey::Page { .. } => to_json(&Page::decode(bytes)?),
        ObjectKey::Closed { .. } => to_json(&Closed::decode(bytes)?),
        ObjectKey::Hold { .. } => to_json(&Hold::decode(bytes)?),
        ObjectKey::Verdict { .. } => to_json(&Verdict::decode(bytes)?),
        ObjectKey::Check { .. } => json!({ "text": String::from_utf8_lossy(bytes) }),
        other => json!({ "bytes": bytes.len(), "key": other.to_string() }),
    };
    Ok(value)
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("the types of an archive serialise to JSON without fail")
}
