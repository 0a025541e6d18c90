//! Lines of a file or of standard input, and the records they stand for.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use duramen_client::jsonl;
use duramen_types::batch::Record;
use duramen_types::{StreamName, TenantName};
use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Room for the largest record that a node can be made to take, in Base64.
const LONGEST_LINE: u64 = 128 << 20;
const CHUNK_LINES: usize = 1000;
const CHUNK_BYTES: usize = 256 << 10;

/// Lines without their line feeds, as many as could be read without waiting.
pub type Chunk = io::Result<Vec<Vec<u8>>>;

/// An open input; a thread of its own reads it, because standard input can only be waited for.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    /// In bytes, where it is known.
    pub size: Option<u64>,
    pub chunks: mpsc::Receiver<Chunk>,
}

impl Input {
    /// Opens a file; nothing or `-` is standard input. With `may_be_compressed`, gzip is told by its first bytes and
    /// unpacked; the size is not known then.
    pub fn open(path: Option<&Path>, may_be_compressed: bool) -> Result<Self, Failure> {
        let (name, mut size, source): (String, Option<u64>, Box<dyn Read + Send>) = match path {
            None => ("standard input".to_owned(), None, Box::new(io::stdin())),
            Some(path) if path == Path::new("-") => {
                ("standard input".to_owned(), None, Box::new(io::stdin()))
            }
            Some(path) => {
                let unreadable = |error: io::Error| {
                    let what = format!("{} can't be read: {error}", path.display());
                    Failure::failed("input", what, "name a file that you may read, or - for standard input")
                };
                let file = File::open(path).map_err(unreadable)?;
                let metadata = file.metadata().map_err(unreadable)?;
                if metadata.is_dir() {
                    return Err(unreadable(io::ErrorKind::IsADirectory.into()));
                }
                let size = Some(metadata.len()).filter(|_| metadata.is_file());
                (path.display().to_string(), size, Box::new(file))
            }
        };
        let (sender, chunks) = mpsc::channel(8);
        let mut source = BufReader::with_capacity(CHUNK_BYTES, source);
        // A file tells at once; of a pipe the reading thread has to wait for the first bytes.
        if may_be_compressed && size.is_some() && is_gzip(&mut source) {
            size = None;
        }
        std::thread::spawn(move || {
            if may_be_compressed && is_gzip(&mut source) {
                let unpacked: Box<dyn Read + Send> = Box::new(MultiGzDecoder::new(source));
                source = BufReader::with_capacity(CHUNK_BYTES, unpacked);
            }
            read_lines(source, &sender);
        });
        Ok(Self { name, size, chunks })
    }
}

/// Whether what comes next is gzip; an error is found again by whoever reads on.
fn is_gzip(source: &mut impl io::BufRead) -> bool {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    source.fill_buf().is_ok_and(|begun| begun.starts_with(&MAGIC))
}

fn read_lines(mut source: BufReader<Box<dyn Read + Send>>, chunks: &mpsc::Sender<Chunk>) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let read = source.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let is_end = matches!(read, Ok(0) | Err(_));
        if !is_end {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            bytes += line.len();
            lines.push(line);
        }
        let too_long = lines.last().is_some_and(|line| line.len() as u64 > LONGEST_LINE);
        if too_long {
            lines.pop();
        }
        let waits = !source.buffer().contains(&b'\n');
        if (is_end || too_long || waits || bytes >= CHUNK_BYTES || lines.len() >= CHUNK_LINES)
            && !lines.is_empty()
        {
            bytes = 0;
            if chunks.blocking_send(Ok(std::mem::take(&mut lines))).is_err() {
                return;
            }
        }
        let error = match read {
            Err(error) => error,
            Ok(_) if too_long => io::Error::other(format!("the line is longer than {LONGEST_LINE} bytes")),
            Ok(0) => return,
            Ok(_) => continue,
        };
        // Nobody listens any more, or this is the last they hear.
        let _ = chunks.blocking_send(Err(error));
        return;
    }
}

/// Where a line says that its record belongs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Named {
    pub tenant: Option<TenantName>,
    pub stream: Option<StreamName>,
}

/// How a line becomes a record.
#[derive(Debug, Default, Clone)]
pub struct Shape {
    pub stream_field: Option<String>,
    pub key_field: Option<String>,
    pub timestamp_field: Option<String>,
    pub import: bool,
}

impl Shape {
    const fn is_json(&self) -> bool {
        self.stream_field.is_some() || self.key_field.is_some() || self.timestamp_field.is_some()
    }

    /// The record that a line stands for, and whose it says it is; `None` for a blank line between JSON lines.
    ///
    /// `now` is the timestamp of a record that has none, in milliseconds since 1970.
    pub fn record(&self, line: Vec<u8>, now: i64) -> Result<Option<(Named, Record)>, String> {
        if (self.import || self.is_json()) && line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if self.import {
            let line = jsonl::parse(&line).map_err(|error| error.to_string())?;
            let timestamp = if line.has_timestamp { line.record.timestamp } else { now };
            let named = Named { tenant: line.tenant, stream: line.stream };
            return Ok(Some((named, Record { timestamp, ..line.record })));
        }
        let mut record = Record { timestamp: now, ..Record::default() };
        let mut named = Named::default();
        if self.is_json() {
            let members: Map<String, Value> =
                serde_json::from_slice(&line).map_err(|error| format!("it is no JSON object: {error}"))?;
            if let Some(name) = &self.stream_field {
                let Some(Value::String(text)) = members.get(name) else {
                    return Err(format!("its field {name:?} names no stream"));
                };
                named.stream = Some(StreamName::parse(text).map_err(|error| error.to_string())?);
            }
            if let Some(name) = &self.key_field {
                record.key = jsonl::key(name, members.get(name))?;
            }
            if let Some(name) = &self.timestamp_field {
                record.timestamp = jsonl::timestamp(name, members.get(name))?;
            }
        }
        record.value = Some(Bytes::from(line));
        Ok(Some((named, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(stream: bool, key: bool, timestamp: bool) -> Shape {
        let field = |name: &str, given: bool| given.then(|| name.to_owned());
        Shape {
            stream_field: field("net", stream),
            key_field: field("id", key),
            timestamp_field: field("time", timestamp),
            import: false,
        }
    }

    #[test]
    fn a_plain_line_is_a_value() {
        let (named, record) = Shape::default().record(b"a\xff b".to_vec(), 7).unwrap().unwrap();
        assert_eq!((named, record.timestamp), (Named::default(), 7));
        assert_eq!((record.key, record.value.as_deref()), (None, Some(&b"a\xff b"[..])));
        let (_, empty) = Shape::default().record(Vec::new(), 7).unwrap().unwrap();
        assert_eq!(empty.value.as_deref(), Some(&b""[..]), "an empty line is an empty record");
    }

    #[test]
    fn fields_of_a_json_line_give_stream_key_and_timestamp() {
        let line = br#"{"id":"uw1","net":"uw","time":1517363399650,"mag":0.31}"#.to_vec();
        let (named, record) = shape(true, true, true).record(line.clone(), 7).unwrap().unwrap();
        assert_eq!(named.stream.unwrap().as_str(), "uw");
        assert_eq!((record.key.as_deref(), record.timestamp), (Some(&b"uw1"[..]), 1_517_363_399_650));
        assert_eq!(record.value.as_deref(), Some(&line[..]), "the value is the line as it is");
        let line = br#"{"id":5,"time":"2018-01-31T01:49:59.650Z"}"#.to_vec();
        let (_, record) = shape(false, true, true).record(line, 7).unwrap().unwrap();
        assert_eq!((record.key.as_deref(), record.timestamp), (Some(&b"5"[..]), 1_517_363_399_650));
        assert_eq!(shape(true, false, false).record(b" \r".to_vec(), 7), Ok(None));
    }

    #[test]
    fn a_line_without_what_was_asked_for_is_refused() {
        for (shape, line, part) in [
            (shape(true, false, false), r#"{"id":"a"}"#, "names no stream"),
            (shape(true, false, false), r#"{"net":"a/b"}"#, "contains '/'"),
            (shape(false, true, false), r#"{"net":"a"}"#, "no field \"id\""),
            (shape(false, false, true), r#"{"time":1.5}"#, "no whole number"),
            (shape(false, false, true), r#"{"time":"soon"}"#, "not a time"),
            (shape(false, false, true), r#"{"net":"a"}"#, "is no time"),
            (shape(false, false, true), "[1]", "no JSON object"),
            (Shape { import: true, ..Shape::default() }, r#"{"id":"a"}"#, "unknown field"),
        ] {
            let message = shape.record(line.into(), 7).unwrap_err();
            assert!(message.contains(part), "{line} gave {message}");
        }
    }

    #[test]
    fn an_imported_line_is_a_whole_record() {
        let import = Shape { import: true, ..Shape::default() };
        let line =
            br#"{"offset":3,"timestamp":5,"key":null,"value":{"base64":"/w=="},"headers":[["a","b"]]}"#;
        let (named, record) = import.record(line.to_vec(), 7).unwrap().unwrap();
        assert_eq!((named, record.timestamp, record.key), (Named::default(), 5, None));
        assert_eq!(record.value.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(record.headers, [("a".to_owned(), Some(Bytes::from("b")))]);
        let (_, record) = import.record(br#"{"value":"x"}"#.to_vec(), 7).unwrap().unwrap();
        assert_eq!(record.timestamp, 7);
        let line = br#"{"tenant":"acme","stream":"orders","value":"x"}"#.to_vec();
        let (named, _) = import.record(line, 7).unwrap().unwrap();
        assert_eq!((named.tenant.unwrap().as_str(), named.stream.unwrap().as_str()), ("acme", "orders"));
    }

    #[test]
    fn a_compressed_file_is_unpacked_where_that_is_allowed_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut packed, b"a\nb\n").unwrap();
        // Two members one after the other are one file, as with `cat`.
        let packed = packed.finish().unwrap().repeat(2);
        io::Write::write_all(&mut File::create(&path).unwrap(), &packed).unwrap();
        let lines = |may_be_compressed| {
            let mut input = Input::open(Some(&path), may_be_compressed).unwrap();
            let mut lines = Vec::new();
            while let Some(chunk) = input.chunks.blocking_recv() {
                lines.extend(chunk.unwrap());
            }
            (lines, input.size)
        };
        assert_eq!(lines(true), ([b"a", b"b", b"a", b"b"].map(|line| line.to_vec()).to_vec(), None));
        assert_eq!(lines(false).1, Some(packed.len() as u64));
        io::Write::write_all(&mut File::create(&path).unwrap(), &packed[..packed.len() - 5]).unwrap();
        let mut input = Input::open(Some(&path), true).unwrap();
        let mut last = None;
        while let Some(chunk) = input.chunks.blocking_recv() {
            last = Some(chunk);
        }
        assert!(last.unwrap().is_err(), "a file that is cut short is no shorter file");
    }

    #[test]
    fn a_file_is_read_in_lines_whatever_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        for (text, expected) in [("", vec![]), ("a\nb\n", vec!["a", "b"]), ("a\n\nb", vec!["a", "", "b"])] {
            io::Write::write_all(&mut File::create(&path).unwrap(), text.as_bytes()).unwrap();
            let mut input = Input::open(Some(&path), true).unwrap();
            let mut lines = Vec::new();
            while let Some(chunk) = input.chunks.blocking_recv() {
                lines.extend(chunk.unwrap());
            }
            assert_eq!(lines, expected.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(input.size, Some(text.len() as u64));
        }
        assert!(Input::open(Some(&dir.path().join("absent")), false).is_err());
        assert!(Input::open(Some(dir.path()), false).is_err());
    }
}
