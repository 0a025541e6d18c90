//! The records that the demo appends.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use duramen_types::StreamName;
use duramen_types::batch::Record;

use super::DemoArgs;
use crate::NO_TIMESTAMP;

/// 1,707 earthquakes; `service/data/README.md` says where they come from.
const EARTHQUAKES: &str = include_str!("../../data/earthquakes.jsonl");

/// The records of each stream, in the order of the file.
pub type Input = BTreeMap<StreamName, Vec<Record>>;

/// Reads the file that `args` names, or the records that come with the program.
pub fn read(args: &DemoArgs) -> anyhow::Result<Input> {
    let text = match &args.input {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?,
        None => EARTHQUAKES.to_owned(),
    };
    let mut input = Input::new();
    for (line, number) in text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty()) {
        let at = || match &args.input {
            Some(path) => format!("{}, line {number}", path.display()),
            None => format!("line {number} of the demo's own records"),
        };
        let value: serde_json::Value = serde_json::from_str(line).with_context(at)?;
        let stream = text_of(&value, &args.stream_field).unwrap_or_else(|| "records".to_owned());
        let stream = StreamName::parse(&stream).with_context(at)?;
        let record = Record {
            key: text_of(&value, &args.key_field).map(Bytes::from),
            value: Some(Bytes::copy_from_slice(line.as_bytes())),
            headers: Vec::new(),
            timestamp: value
                .get(&args.timestamp_field)
                .and_then(serde_json::Value::as_i64)
                .unwrap_or(NO_TIMESTAMP),
        };
        input.entry(stream).or_default().push(record);
    }
    anyhow::ensure!(!input.is_empty(), "the input has no records");
    Ok(input)
}

fn text_of(value: &serde_json::Value, field: &str) -> Option<String> {
    match value.get(field)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Null => None,
        other => Some(other.to_string()),
    }
}
