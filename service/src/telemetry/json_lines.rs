//! Log lines as flat JSON objects: everything that a query asks for is a field at the top.
//!
//! A line has its own fields, and those of the spans that it is in, the innermost winning. The library's own format
//! keeps spans in a list, which Logs Insights and Loki address by position only.

use std::fmt;

use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// What lines of the `log` facade say of themselves beside their target; nobody asks for it.
const OF_THE_FACADE: [&str; 3] = ["log.module_path", "log.file", "log.line"];

/// One object a line: `timestamp`, `level`, `message`, then the other fields by name, then `target`.
///
/// No name is there twice: of a line's own field and a span's, the line's own is kept.
#[derive(Debug, Clone)]
pub(super) struct JsonLines {
    node: u64,
}

impl JsonLines {
    /// Lines of this node: it is on every line, also on those of no request.
    pub(super) const fn of_node(node: u64) -> Self {
        Self { node }
    }
}

/// The fields as an object.
fn object(fields: impl RecordFields) -> Result<Map<String, Value>, fmt::Error> {
    let mut text = String::new();
    JsonFields::new().format_fields(Writer::new(&mut text), fields)?;
    parsed(&text)
}

fn parsed(text: &str) -> Result<Map<String, Value>, fmt::Error> {
    // A span without fields has an empty text.
    if text.is_empty() { Ok(Map::new()) } else { serde_json::from_str(text).map_err(|_| fmt::Error) }
}

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = object(event)?;
        let target = fields.remove("log.target");
        for name in OF_THE_FACADE {
            fields.remove(name);
        }
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(recorded) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            for (name, value) in parsed(recorded)? {
                fields.entry(name).or_insert(value);
            }
        }
        fields.entry("node").or_insert(self.node.into());
        let message = fields.remove("message");

        let mut line = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut write = || {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("timestamp", &timestamp)?;
            map.serialize_entry("level", event.metadata().level().as_str())?;
            if let Some(message) = &message {
                map.serialize_entry("message", message)?;
            }
            let of_the_line = ["timestamp", "level", "target"];
            for (name, value) in fields.iter().filter(|(name, _)| !of_the_line.contains(&name.as_str())) {
                map.serialize_entry(name, value)?;
            }
            match &target {
                Some(target) => map.serialize_entry("target", target)?,
                None => map.serialize_entry("target", event.metadata().target())?,
            }
            map.end()
        };
        write().map_err(|_: serde_json::Error| fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8(line).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is written while `run` logs, line by line.
    fn lines(run: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .event_format(JsonLines::of_node(7))
            .with_writer(kept.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run);
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn fields_of_all_spans_are_at_the_top_and_the_innermost_wins() {
        let lines = lines(|| {
            let _outer = tracing::info_span!("node", node = 1, tenant = "outer").entered();
            let inner = tracing::info_span!(
                "request",
                request_id = "r-1",
                tenant = "t",
                stream = tracing::field::Empty
            )
            .entered();
            inner.record("stream", "of \"quotes\"");
            tracing::warn!(code = "unavailable", status = 503, request_id = "own", "a request failed");
        });
        let [line] = lines.as_slice() else { unreachable!("one line was logged: {lines:?}") };
        assert!(line.starts_with("{\"timestamp\":\"20"), "{line}");
        assert!(line.contains("\",\"level\":\"WARN\",\"message\":\"a request failed\","), "{line}");
        let value: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert_eq!(value["tenant"], "t");
        assert_eq!(value["stream"], "of \"quotes\"");
        assert_eq!(value["request_id"], "own");
        assert_eq!(value["node"], 1);
        assert_eq!(value["status"], 503);
        assert_eq!(value["target"], module_path!());
        for name in value.keys() {
            assert_eq!(line.matches(&format!("\"{name}\":")).count(), 1, "{name} is there twice: {line}");
        }
    }

    #[test]
    fn a_line_of_no_span_has_the_node_and_nothing_can_take_the_place_of_its_level() {
        let lines = lines(|| tracing::info!(level = "none", timestamp = 0, "a\nline"));
        let [line] = lines.as_slice() else { unreachable!("one line was logged: {lines:?}") };
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&value["node"], &value["level"], &value["message"]),
            (&7.into(), &"INFO".into(), &"a\nline".into())
        );
        assert_eq!(line.matches("\"level\":").count(), 1, "{line}");
    }
}
