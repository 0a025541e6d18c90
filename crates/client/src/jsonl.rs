//! Records as lines of JSON: what `read --json` and `export` write, and what `--import` reads.
//!
//! ```json
//! {"offset":0,"timestamp":1517363399650,"key":"uw61345682","value":"{\"mag\":0.31}","headers":[["source","usgs"]]}
//! ```
//!
//! Key, value and header values are bytes: a JSON string where they are UTF-8, `{"base64":"…"}` where they are not,
//! `null` where there are none, which differs from an empty string. Headers keep their order and may repeat a name.
//! The timestamp is in milliseconds since 1970. A line that is written and read back gives the same record, byte for
//! byte. When read, `offset` and `timestamp` are optional, `key` and `value` default to `null`, `headers` to none; a
//! member that is not known is refused, so that nothing is lost in silence.
//!
//! In an export of many streams each line also has `tenant` and `stream`, before the other members.

use std::borrow::Cow;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use duramen_types::batch::{Record, RecordRef};
use duramen_types::{Offset, StreamName, TenantName};
use serde::{Deserialize, Serialize};

/// A line that is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a record: {reason}; expected is {{\"timestamp\":…,\"key\":…,\"value\":…,\"headers\":[[\"name\",…]]}}"
)]
pub struct Error {
    reason: String,
}

/// A record as a line holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where the record was, if the line says so.
    pub offset: Option<Offset>,
    /// Whether the line has a timestamp; the record's is 0 where it has none.
    pub has_timestamp: bool,
    /// Whose record it is, if the line says so.
    pub tenant: Option<TenantName>,
    pub stream: Option<StreamName>,
    pub record: Record,
}

/// Writes a record as one line, the line feed included.
pub fn write(out: &mut impl io::Write, offset: Offset, record: &Record) -> io::Result<()> {
    let line = Written {
        offset: offset.get(),
        timestamp: record.timestamp,
        key: record.key.as_deref().map(Value::of),
        value: record.value.as_deref().map(Value::of),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().map(Value::of)))
            .collect(),
    };
    line.write(out)
}

/// Writes a record of a batch as one line, the line feed included, without copying it first.
pub fn write_ref(out: &mut impl io::Write, record: &RecordRef<'_>) -> io::Result<()> {
    let line = Written {
        offset: record.offset.get(),
        timestamp: record.timestamp,
        key: record.key.map(Value::of),
        value: record.value.map(Value::of),
        headers: record.headers().map(|(name, value)| (name, value.map(Value::of))).collect(),
    };
    line.write(out)
}

/// Reads one line, with or without its line feed.
pub fn parse(line: &[u8]) -> Result<Line, Error> {
    let read: Read<'_> = serde_json::from_slice(line).map_err(|error| Error { reason: error.to_string() })?;
    let headers =
        read.headers.into_iter().map(|(name, value)| Ok((name, value.map(Value::into_bytes).transpose()?)));
    let record = Record {
        key: read.key.map(Value::into_bytes).transpose()?,
        value: read.value.map(Value::into_bytes).transpose()?,
        headers: headers.collect::<Result<_, Error>>()?,
        timestamp: read.timestamp.unwrap_or_default(),
    };
    let wrong = |error: duramen_types::NameError| Error { reason: error.to_string() };
    Ok(Line {
        offset: read.offset.map(Offset::new),
        has_timestamp: read.timestamp.is_some(),
        tenant: read.tenant.map(|name| TenantName::parse(&name)).transpose().map_err(wrong)?,
        stream: read.stream.map(|name| StreamName::parse(&name)).transpose().map_err(wrong)?,
        record,
    })
}

/// A record's key out of the member `name` of a JSON object: a text as it stands, anything else as JSON, null for none.
pub fn key(name: &str, value: Option<&serde_json::Value>) -> Result<Option<Bytes>, String> {
    match value {
        None => Err(format!("it has no field {name:?} for the key")),
        Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        Some(other) => Ok(Some(other.to_string().into())),
    }
}

/// A record's timestamp in milliseconds since 1970 out of the member `name`: a number of them, or RFC 3339.
pub fn timestamp(name: &str, value: Option<&serde_json::Value>) -> Result<i64, String> {
    match value {
        Some(serde_json::Value::Number(number)) => {
            number.as_i64().ok_or_else(|| format!("its field {name:?} is no whole number of milliseconds"))
        }
        Some(serde_json::Value::String(text)) => {
            crate::when::parse_millis(text).map_err(|error| error.to_string())
        }
        _ => Err(format!("its field {name:?} is no time: milliseconds since 1970, or RFC 3339")),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    offset: u64,
    timestamp: i64,
    key: Option<Value<'a>>,
    value: Option<Value<'a>>,
    headers: Vec<(&'a str, Option<Value<'a>>)>,
}

impl Written<'_> {
    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    tenant: Option<String>,
    stream: Option<String>,
    offset: Option<u64>,
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    key: Option<Value<'a>>,
    #[serde(borrow, default)]
    value: Option<Value<'a>>,
    #[serde(borrow, default)]
    headers: Vec<(String, Option<Value<'a>>)>,
}

/// Bytes: text where they are UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "bytes are a string, {\"base64\":\"…\"} or null")]
enum Value<'a> {
    Text(Cow<'a, str>),
    Binary(Binary),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    base64: String,
}

impl<'a> Value<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(Cow::Borrowed(text)),
            Err(_) => Self::Binary(Binary { base64: BASE64.encode(bytes) }),
        }
    }

    fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Text(text) => Ok(Bytes::from(text.into_owned().into_bytes())),
            Self::Binary(binary) => match BASE64.decode(&binary.base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(Error { reason: format!("its base64 is wrong: {error}") }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duramen_types::batch::{BatchBuilder, Limits, Options};
    use proptest::prelude::*;

    fn line(offset: u64, record: &Record) -> String {
        let mut out = Vec::new();
        write(&mut out, Offset::new(offset), record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_shape_is_the_documented_one() {
        let record = Record {
            key: Some("uw61345682".into()),
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![("a".into(), Some("é\n".into())), ("a".into(), None)],
            timestamp: 1_517_363_399_650,
        };
        let expected = concat!(
            r#"{"offset":7,"timestamp":1517363399650,"key":"uw61345682","value":{"base64":"/wA="},"#,
            r#""headers":[["a","é\n"],["a",null]]}"#,
            "\n"
        );
        assert_eq!(line(7, &record), expected);
        let empty = Record { value: Some(Bytes::new()), ..Record::default() };
        assert_eq!(
            line(0, &empty),
            "{\"offset\":0,\"timestamp\":0,\"key\":null,\"value\":\"\",\"headers\":[]}\n"
        );
    }

    #[test]
    fn what_a_person_writes_may_leave_things_out() {
        let read = parse(br#"{"value":"x"}"#).unwrap();
        assert_eq!(read.record, Record { value: Some("x".into()), ..Record::default() });
        assert_eq!((read.offset, read.has_timestamp), (None, false));
        let read = parse(b"{\"value\":\"a\\u0000\\\"b\",\"key\":null,\"timestamp\":-1}\r\n").unwrap();
        assert_eq!(read.record.value.as_deref(), Some(&b"a\0\"b"[..]));
        assert_eq!((read.record.key, read.record.timestamp, read.has_timestamp), (None, -1, true));
        assert_eq!((read.tenant, read.stream), (None, None));
        let read = parse(br#"{"tenant":"acme","stream":"orders","offset":1,"value":"x"}"#).unwrap();
        assert_eq!(read.tenant.unwrap().as_str(), "acme");
        assert_eq!(read.stream.unwrap().as_str(), "orders");
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "EOF"),
            ("5", "invalid type"),
            ("{\"value\":5}", "bytes are a string"),
            ("{\"value\":{\"base64\":\"/wA\"}}", "base64 is wrong"),
            ("{\"value\":{\"hex\":\"00\"}}", "bytes are a string"),
            ("{\"valeu\":\"x\"}", "unknown field `valeu`"),
            ("{\"offset\":-1}", "invalid value"),
            ("{\"headers\":[[\"a\"]]}", "invalid length"),
            ("{\"timestamp\":\"now\"}", "invalid type"),
            ("{\"stream\":\"a/b\"}", "contains '/'"),
            ("{\"tenant\":\"A\",\"stream\":\"a\"}", "tenant name"),
            ("{} {}", "trailing characters"),
        ] {
            let message = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(part), "{text} gave {message}");
        }
    }

    fn bytes() -> impl Strategy<Value = Option<Bytes>> {
        let binary = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let text = any::<String>().prop_map(Bytes::from);
        proptest::option::of(prop_oneof![binary, text])
    }

    fn record() -> impl Strategy<Value = Record> {
        let headers = proptest::collection::vec((any::<String>(), bytes()), 0..4);
        (bytes(), bytes(), headers, any::<i64>()).prop_map(|(key, value, headers, timestamp)| Record {
            key,
            value,
            headers,
            timestamp,
        })
    }

    proptest! {
        #[test]
        fn a_written_record_is_read_back(record in record(), offset in any::<u64>()) {
            let text = line(offset, &record);
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1), "one line each");
            let read = parse(text.as_bytes()).unwrap();
            let offset = Some(Offset::new(offset));
            prop_assert_eq!(read, Line { offset, has_timestamp: true, tenant: None, stream: None, record });
        }

        #[test]
        fn a_record_of_a_batch_is_written_as_the_record_itself(record in record(), offset in any::<u32>()) {
            let mut builder = BatchBuilder::new(Limits::default());
            builder.push_record(&record).unwrap();
            let records =
                builder.finish(Options::default()).unwrap().records(Offset::new(offset.into())).unwrap();
            let mut out = Vec::new();
            write_ref(&mut out, &records.iter().next().unwrap().unwrap()).unwrap();
            prop_assert_eq!(String::from_utf8(out).unwrap(), line(offset.into(), &record));
        }

        #[test]
        fn any_line_gives_a_record_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }
    }
}
