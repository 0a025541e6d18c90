//! The commands that a person would type for what the demo does.

use std::path::{Path, PathBuf};

use duramen_client::when;
use duramen_types::{HybridTime, StreamName};

use super::input::Fields;

/// Where the second node of the demo would listen, beside the first one on the default ports.
const OTHER_CLIENTS: &str = "127.0.0.1:7800";
const OTHER_ADMIN: &str = "127.0.0.1:7802";
/// A node runs until it is stopped: what is typed next needs another terminal.
pub const OWN_TERMINAL: &str = "# in a terminal of its own:";
/// Before its directory goes.
pub const STOP_FIRST: &str = "# stop the node of step 1 with Ctrl-C, then:";

/// Names what the commands have in common.
#[derive(Debug)]
pub struct Typed {
    pub data: PathBuf,
    pub other: PathBuf,
    pub url: String,
}

impl Typed {
    pub fn serve(&self) -> String {
        format!("duramen serve --data {} --archive {}", file(&self.data), quoted(&self.url))
    }

    /// A second node, beside the one of [`serve`](Self::serve).
    pub fn serve_branch(&self, branch: impl std::fmt::Display) -> String {
        format!(
            "duramen serve --data {} --archive {} --branch {branch} --listen {OTHER_CLIENTS} --admin-listen {OTHER_ADMIN}",
            file(&self.other),
            quoted(&self.url)
        )
    }

    pub fn restore(&self, what: &str) -> String {
        format!("duramen-restore {what} --archive {}", quoted(&self.url))
    }

    pub fn hydrate(&self) -> String {
        format!("{} --to {} --latest", self.restore("hydrate"), file(&self.data))
    }

    pub fn lose_disk(&self) -> String {
        format!("rm -rf {}", file(&self.data))
    }
}

/// Appends a file of JSON lines; without a field for the stream, all of it to `stream`.
pub fn append(fields: &Fields<Option<String>>, stream: &StreamName, path: &Path) -> String {
    let mut command = "duramenctl append".to_owned();
    for (option, field) in [
        ("--stream-field", &fields.stream),
        ("--key-field", &fields.key),
        ("--timestamp-field", &fields.timestamp),
    ] {
        if let Some(field) = field {
            command.push_str(&format!(" {option} {}", quoted(field)));
        }
    }
    if fields.stream.is_none() {
        command.push_str(&format!(" {stream}"));
    }
    command.push_str(&format!(" {}", file(path)));
    command
}

/// Appends lines of text.
pub fn append_lines(stream: &StreamName, lines: &[String]) -> String {
    format!("printf '{}\\n' | duramenctl append {}", lines.join("\\n"), operand(stream))
}

/// Reads streams whole and sums up what they say: [`Content`](super::content::Content) has the same sum.
pub fn read_all<'a>(streams: impl Iterator<Item = &'a StreamName>, as_of: Option<HybridTime>) -> String {
    read_all_of("duramenctl read", streams, as_of)
}

/// The same of the second node.
pub fn read_all_of_branch<'a>(streams: impl Iterator<Item = &'a StreamName>) -> String {
    read_all_of(&format!("duramenctl --endpoint http://{OTHER_CLIENTS} read"), streams, None)
}

fn read_all_of<'a>(
    read: &str,
    streams: impl Iterator<Item = &'a StreamName>,
    as_of: Option<HybridTime>,
) -> String {
    let names: Vec<&str> = streams.map(StreamName::as_str).collect();
    let as_of = as_of.map(|time| format!(" --as-of {}", when::format(time))).unwrap_or_default();
    let end_of_options = if names.iter().any(|name| name.starts_with('-')) { " --" } else { "" };
    let names = names.join(" ");
    format!("for stream in {names}; do {read} --json{as_of}{end_of_options} \"$stream\"; done | cksum")
}

pub fn cursor_of_branch(stream: &StreamName, cursor: impl std::fmt::Display) -> String {
    format!("duramenctl --endpoint http://{OTHER_CLIENTS} cursor get {} {cursor}", operand(stream))
}

/// A stream's name where an option could stand.
pub fn operand(stream: &StreamName) -> String {
    if stream.as_str().starts_with('-') { format!("-- {stream}") } else { stream.to_string() }
}

fn file(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<StreamName> {
        names.iter().map(|name| StreamName::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_word_that_the_shell_would_change_is_quoted() {
        for (word, expected) in
            [("a/b-c.d", "a/b-c.d"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("~x", "'~x'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn only_fields_that_are_used_are_named() {
        let stream = names(&["records"]).remove(0);
        let fields = Fields { key: Some("the id".to_owned()), ..Fields::default() };
        let shown = append(&fields, &stream, Path::new("/tmp/mine.jsonl"));
        assert_eq!(shown, "duramenctl append --key-field 'the id' records /tmp/mine.jsonl");
        let fields = Fields { stream: Some("net".to_owned()), ..Fields::default() };
        let shown = append(&fields, &stream, Path::new("/tmp/mine.jsonl"));
        assert_eq!(shown, "duramenctl append --stream-field net /tmp/mine.jsonl");
    }

    #[test]
    fn a_stream_s_name_is_never_taken_for_an_option() {
        assert!(read_all(names(&["a", "-b"]).iter(), None).contains("--json -- \"$stream\""));
        assert!(!read_all(names(&["a", "b"]).iter(), None).contains(" -- "));
        assert_eq!(operand(&names(&["-b"])[0]), "-- -b");
    }
}
