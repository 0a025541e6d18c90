//! The records that the demo appends: read as `duramenctl append` reads them, so that its command appends the same.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use duramen_client::jsonl::{key, timestamp};
use duramen_types::StreamName;
use duramen_types::batch::Record;
use serde_json::{Map, Value};

use super::DemoArgs;
use crate::NO_TIMESTAMP;

/// 1,707 earthquakes; `service/data/README.md` says where they come from.
pub const EARTHQUAKES: &str = include_str!("../../data/earthquakes.jsonl");
/// The stream of records that name none.
const STREAM: &str = "records";
/// The fields of the demo's own records; of another file they are used where every record has them.
const USUAL: Fields<&str> = Fields { stream: "net", key: "id", timestamp: "time" };

/// The name of the field for each part of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields<T> {
    pub stream: T,
    pub key: T,
    pub timestamp: T,
}

/// What is appended.
#[derive(Debug)]
pub struct Input {
    /// The fields that are used.
    pub fields: Fields<Option<String>>,
    /// The records of each stream, in the order of the file.
    pub streams: BTreeMap<StreamName, Vec<Record>>,
}

impl Input {
    pub fn records(&self) -> usize {
        self.streams.values().map(Vec::len).sum()
    }
}

/// Reads the file that `args` names, or the records that come with the program.
pub fn read(args: &DemoArgs) -> anyhow::Result<Input> {
    let path = args.input.as_deref();
    let text = match path {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?,
        None => EARTHQUAKES.to_owned(),
    };
    let asked = Fields {
        stream: args.stream_field.clone(),
        key: args.key_field.clone(),
        timestamp: args.timestamp_field.clone(),
    };
    parse(&text, path, asked)
}

fn parse(text: &str, path: Option<&Path>, asked: Fields<Option<String>>) -> anyhow::Result<Input> {
    let at = |number: u64| match path {
        Some(path) => format!("{}, line {number}", path.display()),
        None => format!("line {number} of the demo's own records"),
    };
    let mut lines = Vec::new();
    for (line, number) in text.split_terminator('\n').zip(1u64..) {
        if line.trim().is_empty() {
            continue;
        }
        let members: Map<String, Value> = serde_json::from_str(line).with_context(|| at(number))?;
        lines.push((number, line, members));
    }
    let choose = |asked: Option<String>, usual: &str, check: Check| -> anyhow::Result<Option<String>> {
        let wrong = |name: &str| {
            let all = lines.iter();
            all.filter_map(|(number, _, members)| Some((*number, check(name, members.get(name)).err()?)))
                .next()
        };
        match asked {
            Some(name) => match wrong(&name) {
                Some((number, reason)) => anyhow::bail!("{}: {reason}", at(number)),
                None => Ok(Some(name)),
            },
            None => Ok(Some(usual.to_owned()).filter(|name| wrong(name).is_none())),
        }
    };
    let fields = Fields {
        stream: choose(asked.stream, USUAL.stream, |name, value| stream(name, value).map(drop))?,
        key: choose(asked.key, USUAL.key, |name, value| key(name, value).map(drop))?,
        timestamp: choose(asked.timestamp, USUAL.timestamp, |name, value| timestamp(name, value).map(drop))?,
    };
    // Where a line is a record as it stands, an empty one is an empty record.
    anyhow::ensure!(!lines.is_empty(), "the input has no records");
    let is_plain = fields == Fields::default();
    if is_plain
        && let Some(number) = (1u64..)
            .zip(text.split_terminator('\n'))
            .find_map(|(number, line)| line.trim().is_empty().then_some(number))
    {
        anyhow::bail!("{}: it is blank: remove it", at(number));
    }
    let mut streams = BTreeMap::<StreamName, Vec<Record>>::new();
    for (number, line, members) in &lines {
        let with = |reason: String| anyhow::anyhow!("{}: {reason}", at(*number));
        let name = match &fields.stream {
            Some(name) => stream(name, members.get(name)).map_err(with)?,
            None => StreamName::parse(STREAM)?,
        };
        let record = Record {
            key: match &fields.key {
                Some(name) => key(name, members.get(name)).map_err(with)?,
                None => None,
            },
            value: Some(Bytes::copy_from_slice(line.as_bytes())),
            headers: Vec::new(),
            timestamp: match &fields.timestamp {
                Some(name) => timestamp(name, members.get(name)).map_err(with)?,
                None => NO_TIMESTAMP,
            },
        };
        streams.entry(name).or_default().push(record);
    }
    Ok(Input { fields, streams })
}

/// Whether a record has what its field is for.
type Check = fn(&str, Option<&Value>) -> Result<(), String>;

fn stream(name: &str, value: Option<&Value>) -> Result<StreamName, String> {
    let Some(Value::String(text)) = value else {
        return Err(format!("its field {name:?} names no stream"));
    };
    StreamName::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, asked: Fields<Option<String>>) -> anyhow::Result<Input> {
        parse(text, None, asked)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_usual_field_is_used_where_every_record_has_it() {
        let input =
            parsed("{\"net\":\"a\",\"id\":1}\n\n{\"net\":\"b\",\"time\":5}\n", Fields::default()).unwrap();
        assert_eq!(input.fields, Fields { stream: some("net"), key: None, timestamp: None });
        assert_eq!(input.streams.keys().map(StreamName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let own = parsed(EARTHQUAKES, Fields::default()).unwrap();
        let usual = Fields { stream: some("net"), key: some("id"), timestamp: some("time") };
        assert_eq!(own.records(), 1707);
        assert_eq!(own.fields, usual);
        // A number is no stream's name: neither here nor for `duramenctl append`.
        let input = parsed("{\"net\":7}\n", Fields::default()).unwrap();
        assert_eq!(input.streams.keys().map(StreamName::as_str).collect::<Vec<_>>(), ["records"]);
    }

    #[test]
    fn a_field_that_was_asked_for_must_be_in_every_record() {
        let text = "{\"a\":\"x\"}\n{\"b\":\"x\"}\n";
        for asked in [
            Fields { stream: some("a"), ..Fields::default() },
            Fields { key: some("a"), ..Fields::default() },
            Fields { timestamp: some("b"), ..Fields::default() },
        ] {
            let said = format!("{:#}", parsed(text, asked.clone()).unwrap_err());
            let line = if asked.timestamp.is_some() { "line 1" } else { "line 2" };
            assert!(said.contains(line) && said.contains("field"), "{said}");
        }
    }

    #[test]
    fn where_a_line_is_a_record_as_it_stands_none_is_blank() {
        let said = parsed("{\"x\":1}\n\n{\"x\":2}\n", Fields::default()).unwrap_err().to_string();
        assert!(said.contains("line 2") && said.contains("blank"), "{said}");
        assert!(parsed("{\"x\":1}\n{\"x\":2}\n", Fields::default()).is_ok());
        assert!(parsed("\n", Fields::default()).unwrap_err().to_string().contains("no records"));
        assert!(parsed("[1]\n", Fields::default()).is_err());
    }
}
