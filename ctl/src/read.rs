//! `read`: records out, as lines.

use std::io::{self, Write as _};

use duramen_client::{Client, ReadFrom, ReadOptions, jsonl, when};
use duramen_types::batch::RecordRef;
use duramen_types::{Clock as _, CursorName, HybridTime, Offset, StreamName, SystemClock};

use crate::cli::ReadArgs;
use crate::failure::Failure;
use crate::output;
use crate::wait::{Awaited, Patience};

/// Why records may be late.
const LATE: &str = "the node fetches what is no longer on its disk from the archive, which does not answer so far, or is busy";

/// Sorts the arguments out.
pub fn options(args: &ReadArgs) -> Result<ReadOptions, Failure> {
    let now = SystemClock::new().now();
    let as_of = match &args.as_of {
        Some(text) => Some(when::parse(text, now).map_err(|error| wrong("--as-of", error))?),
        None => None,
    };
    Ok(ReadOptions {
        from: from(&args.from, now)?,
        limit_records: args.limit,
        limit_bytes: None,
        follow: args.follow,
        as_of,
    })
}

fn from(text: &str, now: HybridTime) -> Result<ReadFrom, Failure> {
    match text {
        "earliest" => return Ok(ReadFrom::Earliest),
        "tail" => return Ok(ReadFrom::Tail),
        _ => {}
    }
    if let Some(name) = text.strip_prefix("cursor:") {
        return Ok(ReadFrom::Cursor(CursorName::parse(name).map_err(|error| wrong("--from", error))?));
    }
    if let Ok(offset) = text.parse::<Offset>() {
        return Ok(ReadFrom::Offset(offset));
    }
    let instant = when::parse(text, now).map_err(|error| wrong("--from", error))?;
    // The first whole millisecond that is not before the instant.
    Ok(ReadFrom::Timestamp(i64::try_from(instant.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)))
}

fn wrong(option: &str, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{option}: {error}"), "see `duramenctl read --help` for what it takes")
}

/// Prints the records.
pub async fn run(
    client: &Client,
    stream: &StreamName,
    options: ReadOptions,
    patience: Patience,
    as_json: bool,
) -> Result<(), Failure> {
    let follows = options.follow;
    let mut reader = client.reader(stream, options);
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout());
    loop {
        // A follower at the tail waits for what may never come, and nothing is late there.
        let at = reader.position();
        let batch = if follows && at.is_some_and(|at| at >= reader.tail()) {
            reader.next_batch().await?
        } else {
            let what = || match at {
                Some(at) => format!("records of {stream} from offset {at}"),
                None => format!("records of {stream}"),
            };
            let awaited = Awaited { what: &what, why: LATE, is_change: false };
            patience.wait(awaited, reader.next_batch()).await??
        };
        let Some(batch) = batch else { break };
        for record in &batch.decode()? {
            let record = record.map_err(duramen_client::Error::from)?;
            if !batch.wanted().contains(&record.offset) {
                continue;
            }
            let written =
                if as_json { jsonl::write_ref(&mut out, &record) } else { write_line(&mut out, &record) };
            written.map_err(|error| Failure::output(&error))?;
        }
        out.flush().map_err(|error| Failure::output(&error))?;
    }
    Ok(())
}

/// Offset, timestamp, key, value, and headers if any, separated by tabs.
fn write_line(out: &mut impl io::Write, record: &RecordRef<'_>) -> io::Result<()> {
    let show = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => output::visible(&String::from_utf8_lossy(bytes)),
        None => "-".to_owned(),
    };
    let timestamp = when::format_millis(record.timestamp);
    write!(out, "{}\t{timestamp}\t{}\t{}", record.offset, show(record.key), show(record.value))?;
    for (name, value) in record.headers() {
        write!(out, "\t{}={}", output::visible(name), show(value))?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_begins_where_it_is_told() {
        let now = HybridTime::from_micros(1_000_000_000_000_001);
        let cases = [
            ("earliest", ReadFrom::Earliest),
            ("tail", ReadFrom::Tail),
            ("0", ReadFrom::Offset(Offset::ZERO)),
            ("42", ReadFrom::Offset(Offset::new(42))),
            ("cursor:c 1", ReadFrom::Cursor(CursorName::parse("c 1").unwrap())),
            ("-1s", ReadFrom::Timestamp(999_999_999_001)),
            ("1970-01-01T00:00:01Z", ReadFrom::Timestamp(1000)),
        ];
        for (text, expected) in cases {
            assert_eq!(from(text, now).unwrap(), expected, "{text}");
        }
        for text in ["", "cursor:", "head", "-1", "1.5"] {
            assert_eq!(from(text, now).unwrap_err().exit, crate::failure::USAGE, "{text}");
        }
    }
}
