//! Records as JSON: bytes are text where they are UTF-8, else `{"base64": …}`, and always say which.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use duramen_client::when;
use duramen_types::HybridTime;
use duramen_types::batch::{Record, RecordRef};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::error::Failure;
use crate::node::NO_TIMESTAMP;

/// Bytes: a string for UTF-8 text, or an object with their Base64 form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "bytes are a string, or {\"base64\":\"…\"}")]
pub(crate) enum Blob {
    /// UTF-8 text.
    Text(String),
    /// Standard Base64 with padding.
    Base64(Base64),
}

/// Any bytes in Base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base64 {
    base64: String,
}

/// How bytes are written in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// As strings where they are UTF-8, else as `{"base64": …}`.
    #[default]
    Text,
    /// Always as `{"base64": …}`.
    Base64,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8], encoding: Encoding) -> Self {
        match (encoding, std::str::from_utf8(bytes)) {
            (Encoding::Text, Ok(text)) => Self::Text(text.to_owned()),
            _ => Self::Base64(Base64 { base64: STANDARD.encode(bytes) }),
        }
    }

    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64(Base64 { base64 }) => STANDARD
                .decode(base64)
                .map(Bytes::from)
                .map_err(|error| format!("holds invalid Base64: {error}")),
        }
    }
}

/// A named value beside a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderJson {
    name: String,
    /// `null` is a null value, which differs from an empty one.
    #[serde(default)]
    value: Option<Blob>,
}

/// How headers may be written: a list in order, or an object of names to values.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = HeadersIn)]
#[expect(dead_code, reason = "only its schema is used: what is read keeps the order of an object too")]
pub(crate) enum HeadersSchema {
    List(Vec<HeaderJson>),
    Object(std::collections::BTreeMap<String, Blob>),
}

/// A record's headers: a list of `{"name", "value"}` in order, or an object of names to values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct HeadersIn(Vec<HeaderJson>);

impl<'de> Deserialize<'de> for HeadersIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Vec<HeaderJson>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of {\"name\", \"value\"}, or an object of names to values")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Ok(Vec::new())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut headers = Vec::new();
                while let Some(header) = list.next_element()? {
                    headers.push(header);
                }
                Ok(headers)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut headers = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    headers.push(HeaderJson { name, value });
                }
                Ok(headers)
            }
        }
        deserializer.deserialize_any(Any).map(Self)
    }
}

/// A time in milliseconds since 1970: a number, or an RFC 3339 string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Millis(i64);

/// How a time may be written: milliseconds since 1970, or RFC 3339.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a timestamp is milliseconds since 1970 or an RFC 3339 string")]
pub(crate) enum TimestampIn {
    Millis(i64),
    Rfc3339(String),
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TimestampIn::deserialize(deserializer)? {
            TimestampIn::Millis(millis) => Ok(Self(millis)),
            TimestampIn::Rfc3339(text) => {
                instant(&text).map(|time| Self(time.as_millisecond())).map_err(D::Error::custom)
            }
        }
    }
}

/// An instant in RFC 3339.
pub(super) fn instant(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse()
        .or_else(|error| unescaped(text).ok_or(error)?.parse())
        .map_err(|_| format!("{text:?} is not a time like 2026-11-21T14:29:59Z"))
}

/// An instant of the past as programs, people and this interface's own answers write it; `now` is what counts as now.
pub(super) fn hybrid(name: &str, text: &str, now: HybridTime) -> Result<HybridTime, Failure> {
    let found = when::parse(text, now).or_else(|error| when::parse(&unescaped(text).ok_or(error)?, now));
    found.map_err(|error| Failure::invalid(format!("{name}: {error}")))
}

/// A time whose plus was taken for a blank: in a query, the plus of a zone such as +02:00 stands for one.
fn unescaped(text: &str) -> Option<String> {
    text.rsplit_once(' ').map(|(time, zone)| format!("{time}+{zone}"))
}

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordIn {
    #[serde(default)]
    key: Option<Blob>,
    /// `null` or absent is a null value, which differs from an empty one.
    #[serde(default)]
    value: Option<Blob>,
    /// In order, as a list of `{"name", "value"}`, or as an object of names to values.
    #[serde(default)]
    #[schema(value_type = HeadersSchema)]
    headers: HeadersIn,
    /// Milliseconds since 1970 or an RFC 3339 string; absent: the time of arrival.
    #[serde(default)]
    #[schema(value_type = Option<TimestampIn>)]
    timestamp: Option<Millis>,
}

impl RecordIn {
    /// The record; `number` is its position from 1, for the message of an error.
    pub(super) fn into_record(self, number: usize) -> Result<Record, Failure> {
        let bytes = |what: &str, blob: Option<Blob>| {
            blob.map(Blob::into_bytes)
                .transpose()
                .map_err(|error| Failure::invalid(format!("record {number}: its {what} {error}")))
        };
        let mut headers = Vec::with_capacity(self.headers.0.len());
        for HeaderJson { name, value } in self.headers.0 {
            let value = bytes("headers", value)?;
            headers.push((name, value));
        }
        Ok(Record {
            key: bytes("key", self.key)?,
            value: bytes("value", self.value)?,
            headers,
            timestamp: self.timestamp.map_or(NO_TIMESTAMP, |millis| millis.0),
        })
    }
}

/// Records to append.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordsIn {
    pub(super) records: Vec<RecordIn>,
}

/// A record of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RecordOut {
    pub(super) offset: u64,
    /// Milliseconds since 1970.
    timestamp: i64,
    /// The hybrid time of its append, microseconds since 1970: `as_of` at or after it shows the record.
    time: u64,
    key: Option<Blob>,
    value: Option<Blob>,
    headers: Vec<HeaderJson>,
}

impl RecordOut {
    pub(super) fn of(record: &RecordRef<'_>, time: HybridTime, encoding: Encoding) -> Self {
        let blob = |bytes: Option<&[u8]>| bytes.map(|bytes| Blob::of(bytes, encoding));
        Self {
            offset: record.offset.get(),
            timestamp: record.timestamp,
            time: time.as_micros(),
            key: blob(record.key),
            value: blob(record.value),
            headers: record
                .headers()
                .map(|(name, value)| HeaderJson { name: name.to_owned(), value: blob(value) })
                .collect(),
        }
    }
}
