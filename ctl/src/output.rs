//! Tables for people, JSON for programs.

use std::io::{self, Write as _};

use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use duramen_client::when;
use duramen_types::HybridTime;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Prints a line of JSON.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// Prints a line.
pub fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(|error| Failure::output(&error))
}

/// Prints rows under their headings.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    line(&table_text(headings, rows))
}

fn table_text(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = new_table();
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    table.add_rows(rows);
    table.to_string()
}

/// Prints names and their values.
pub fn fields(rows: Vec<(&str, String)>) -> Result<(), Failure> {
    let mut table = new_table();
    table.add_rows(rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    line(&table.to_string())
}

/// Headings that tell the rows of a table apart.
const FIRST: [&str; 3] = ["name", "shard", "condition"];

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// Prints any JSON document: nested names joined by dots, and each list of objects as a table of its own.
pub fn document(document: &Value) -> Result<(), Failure> {
    line(&document_text(document))
}

fn document_text(document: &Value) -> String {
    let mut flat = Flat::default();
    flat.add("", document);
    let mut parts = Vec::new();
    if !flat.fields.is_empty() {
        let mut plain = new_table();
        plain.add_rows(flat.fields.into_iter().map(|(name, value)| vec![name, value]));
        parts.push(plain.to_string());
    }
    for (name, items) in flat.lists {
        let rows: Vec<Vec<(String, String)>> = items
            .iter()
            .map(|item| {
                let mut row = Flat::default();
                row.add_inline("", item);
                row.fields
            })
            .collect();
        let mut headings: Vec<&str> = Vec::new();
        for (name, _) in rows.iter().flatten() {
            if !headings.contains(&name.as_str()) {
                headings.push(name);
            }
        }
        // What a row is about comes first; JSON says nothing of the order.
        headings.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
        let cell = |row: &[(String, String)], heading: &str| {
            row.iter().find(|(name, _)| name == heading).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let cells =
            rows.iter().map(|row| headings.iter().map(|heading| cell(row, heading)).collect()).collect();
        let name = if name.is_empty() { "items" } else { &name };
        parts.push(format!("{name}\n{}", table_text(&headings, cells)));
    }
    parts.join("\n\n")
}

#[derive(Debug, Default)]
struct Flat<'a> {
    fields: Vec<(String, String)>,
    lists: Vec<(String, &'a [Value])>,
}

impl<'a> Flat<'a> {
    fn add(&mut self, name: &str, value: &'a Value) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| self.add(&join(name, key), value))
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                self.lists.push((name.to_owned(), items));
            }
            _ => self.fields.push((name.to_owned(), shown(name, value))),
        }
    }

    /// The same, with lists of objects as JSON in one cell.
    fn add_inline(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| self.add_inline(&join(name, key), value));
            }
            _ => self.fields.push((name.to_owned(), shown(name, value))),
        }
    }
}

/// A value as people read it: its name tells bytes, seconds and hybrid times.
fn shown(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let is = |unit: &str| last == unit || last.strip_suffix(unit).is_some_and(|start| start.ends_with('_'));
    match (value.as_u64(), value.as_f64()) {
        (Some(bytes), _) if is("bytes") => ByteSize(bytes).to_string(),
        (Some(micros), _) if matches!(last, "time" | "closed_through") => match micros {
            0 => "-".to_owned(),
            _ => when::format(HybridTime::from_micros(micros)),
        },
        (None, Some(seconds)) if is("seconds") => format!("{seconds:.3}"),
        _ => text(value),
    }
}

fn join(name: &str, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        Value::Array(items) if !items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Text that cannot move the cursor or change the colours of a terminal.
pub fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An object of the given members.
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn any_document_becomes_names_and_tables() {
        let document = json!({
            "status": "ok",
            "disk": { "free_bytes": 5, "path": null },
            "nodes": ["a", "b"],
            "shards": [{ "id": 0, "lag": { "records": 1 } }, { "id": 1, "extra": [{ "x": 1 }] }],
        });
        let mut flat = Flat::default();
        flat.add("", &document);
        let fields: Vec<(&str, &str)> =
            flat.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields.len(), 4);
        for field in [("status", "ok"), ("disk.free_bytes", "5 B"), ("disk.path", "-"), ("nodes", "a, b")] {
            assert!(fields.contains(&field), "{field:?} in {fields:?}");
        }
        assert_eq!(flat.lists.len(), 1);
        let mut row = Flat::default();
        row.add_inline("", &flat.lists[0].1[0]);
        assert!(row.fields.contains(&("lag.records".to_owned(), "1".to_owned())));
        let mut row = Flat::default();
        row.add_inline("", &flat.lists[0].1[1]);
        assert!(row.fields.contains(&("extra".to_owned(), "[{\"x\":1}]".to_owned())));
    }

    #[test]
    fn a_document_begins_with_its_first_line_and_its_parts_are_a_line_apart() {
        let text = |document| {
            let text = document_text(&document);
            text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        let snapshots = json!([{ "shard": 3 }]);
        assert_eq!(text(json!({ "snapshots": snapshots })), ["snapshots", "SHARD", "3"]);
        assert_eq!(
            text(json!({ "node": 1, "snapshots": snapshots, "streams": snapshots })),
            ["node  1", "", "snapshots", "SHARD", "3", "", "streams", "SHARD", "3"]
        );
        assert_eq!(text(json!({ "nothing": [] })), ["nothing"]);
    }

    #[test]
    fn bytes_seconds_and_times_are_shown_as_such() {
        for (name, value, expected) in [
            ("lag_bytes", json!(2048), "2.0 KiB"),
            ("disk.bytes", json!(0), "0 B"),
            ("duration_seconds", json!(0.010_341_887), "0.010"),
            ("time", json!(1_795_684_147_516_877_u64), "2026-11-26T09:09:07.516877Z"),
            ("closed_through", json!(0), "-"),
            ("uptime", json!(5), "5"),
            ("kilobytes", json!(5), "5"),
        ] {
            assert_eq!(shown(name, &value), expected, "{name}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(visible("a\u{1b}[31mb\n\té"), "a\\u{1b}[31mb\\n\\té");
    }
}
