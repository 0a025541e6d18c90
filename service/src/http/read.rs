//! Reading records: a page of them, or all that come as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use duramen_types::{CursorName, HybridTime, Offset};
use futures::Stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ErrorBody, Failure, Path, Query};
use super::json::{Encoding, RecordOut, hybrid, instant};
use super::streams::stream_ref;
use crate::api::{Error, ReadBatch, ReadFrom, ReadRequest};
use crate::edge::{Edge, open_batch};
use crate::node::ReadSession;

/// Records of a page if the request says nothing.
const RECORDS: u64 = 100;
/// Records of a page at most.
const MOST_RECORDS: u64 = 10_000;
/// Bytes of a page's batches if the request says nothing.
const BYTES: u64 = 1 << 20;
/// Bytes of a page's batches at most.
const MOST_BYTES: u64 = 16 << 20;
/// How often a silent stream of events shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What to read of a stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    /// Where to start: an offset, `earliest` (the default), `tail`, `cursor:NAME`, an RFC 3339 time, or
    /// `timestamp:MS` in milliseconds since 1970. A time means the first record whose timestamp is at or after it.
    from: Option<String>,
    /// At most this many records: 100 by default and 10,000 at most; with `follow` no limit by default.
    limit: Option<u64>,
    /// Stop before the records' batches exceed this many bytes; at least one is read. 1 MiB by default and 16 MiB at
    /// most; with `follow` no limit by default.
    max_bytes: Option<u64>,
    /// The stream as it was at this instant, even if it was trimmed or deleted since: an RFC 3339 time, microseconds since
    /// 1970 as `time` in answers, or relative to now such as `-15m`. Not with `follow`.
    as_of: Option<String>,
    /// How bytes are written: `text` as strings where they are UTF-8, else as `{"base64": …}`; `base64` always so.
    #[serde(default)]
    #[param(inline)]
    encoding: Encoding,
    /// Answers with server-sent events that go on at the tail: first `position`, then one `record` each; on a failure
    /// `error`, in the shape of errors. An event's id is the next offset, and `Last-Event-ID` goes on from it.
    #[serde(default)]
    follow: bool,
}

/// Some records of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordsJson {
    /// How bytes are written in this answer.
    encoding: Encoding,
    /// In offset order, without gaps.
    records: Vec<RecordOut>,
    /// Pass it as `from` to go on.
    next_offset: u64,
    /// The offset that the next appended record gets; with `as_of`, the one then.
    tail: u64,
    /// With `as_of`, the one then.
    first_readable: u64,
}

/// Where a followed read starts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PositionOut {
    next_offset: u64,
    tail: u64,
    first_readable: u64,
}

/// Reads records, or follows the stream.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/streams/{stream}/records", tag = "records",
    params(
        ("tenant" = String, Path), ("stream" = String, Path), ReadQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "With `follow`: the offset to go on from, in place of `from`"),
    ),
    responses(
        (status = 200, description = "Records; with `follow`, server-sent events", content(
            (RecordsJson = "application/json"),
            (RecordOut = "text/event-stream"),
        )),
        (status = 404, description = "`unknown_stream`, `unknown_tenant` or `unknown_cursor`", body = ErrorBody),
        (status = 416, description = "`out_of_range` with `first_readable` and `tail`, or `not_covered`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn read_records(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if query.limit == Some(0) || query.max_bytes == Some(0) {
        return Err(Failure::invalid("limit and max_bytes must be at least 1"));
    }
    if query.follow && query.as_of.is_some() {
        return Err(Failure::invalid("follow and as_of exclude each other: the past gets no new records"));
    }
    let last_event = headers.get("last-event-id").filter(|_| query.follow);
    let from = match last_event {
        Some(id) => ReadFrom::Offset(parse_last_event(id.as_bytes())?),
        None => parse_from(query.from.as_deref().unwrap_or("earliest"))?,
    };
    let page = |asked: Option<u64>, usual, most| match query.follow {
        true => asked,
        false => Some(asked.unwrap_or(usual).min(most)),
    };
    let request = ReadRequest {
        stream: stream_ref(&tenant, &stream)?,
        from,
        max_records: page(query.limit, RECORDS, MOST_RECORDS),
        max_bytes: page(query.max_bytes, BYTES, MOST_BYTES),
        follow: query.follow,
        as_of: query.as_of.as_deref().map(|text| hybrid("as_of", text, edge.node.wall_time())).transpose()?,
        // The middleware has merged what the client has seen.
        seen: HybridTime::ZERO,
    };
    let session = edge.node.read(request).await?;
    if query.follow {
        let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("");
        return Ok(Sse::new(events(edge, session, query.encoding)).keep_alive(heartbeat).into_response());
    }
    Ok(Json(page_of(session, query.encoding).await?).into_response())
}

async fn page_of(mut session: ReadSession, encoding: Encoding) -> Result<RecordsJson, Error> {
    let mut records = Vec::new();
    while let Some(batch) = session.next().await {
        records.append(&mut decode(&batch?, encoding)?);
    }
    let (first, tail) = session.bounds()?;
    Ok(RecordsJson {
        encoding,
        records,
        next_offset: session.position().get(),
        tail: tail.get(),
        first_readable: first.get(),
    })
}

/// The records of a batch that were asked for.
fn decode(batch: &ReadBatch, encoding: Encoding) -> Result<Vec<RecordOut>, Error> {
    let opened = open_batch(batch)?;
    let mut records = Vec::new();
    for record in &opened {
        let record = record.map_err(|error| crate::edge::damaged(batch, &error))?;
        if record.offset >= batch.end {
            break;
        }
        if record.offset >= batch.from {
            records.push(RecordOut::of(&record, batch.time, encoding));
        }
    }
    Ok(records)
}

fn event(kind: &str, id: Option<u64>, data: &impl Serialize) -> Event {
    let event = Event::default().event(kind);
    let event = match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    };
    event.json_data(data).expect("these types serialise: their keys are strings and their numbers finite")
}

/// The events of a followed read; ends at a limit, on a failure, when the client goes or when the node stops.
fn events(
    edge: Arc<Edge>,
    mut session: ReadSession,
    encoding: Encoding,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream! {
        let _follower = edge.metrics.follower();
        let failed = |error: &Error| {
            edge.metrics.failed(error.code);
            Ok(event("error", None, &ErrorBody::of(error)))
        };
        match session.bounds() {
            Ok((first, tail)) => {
                let next_offset = session.position().get();
                let position = PositionOut { next_offset, tail: tail.get(), first_readable: first.get() };
                yield Ok(event("position", Some(next_offset), &position));
            }
            Err(error) => {
                yield failed(&error);
                return;
            }
        }
        loop {
            let next = tokio::select! {
                () = edge.stopping.cancelled() => return,
                next = session.next() => next,
            };
            let records = match next {
                None => return,
                Some(Err(error)) => Err(error),
                Some(Ok(batch)) => decode(&batch, encoding),
            };
            match records {
                Ok(records) => for record in records {
                    yield Ok(event("record", Some(record.offset.saturating_add(1)), &record));
                },
                Err(error) => {
                    yield failed(&error);
                    return;
                }
            }
        }
    }
}

fn parse_last_event(id: &[u8]) -> Result<Offset, Failure> {
    std::str::from_utf8(id).ok().and_then(|id| id.trim().parse().ok()).ok_or_else(|| {
        Failure::invalid("Last-Event-ID is not an offset: send the id of the last event, or none")
    })
}

fn parse_from(text: &str) -> Result<ReadFrom, Failure> {
    if let Some(name) = text.strip_prefix("cursor:") {
        return Ok(ReadFrom::Cursor(CursorName::parse(name)?));
    }
    let (time, explicit) = match text.strip_prefix("timestamp:") {
        Some(time) => (time, true),
        None => (text, false),
    };
    match time {
        "earliest" if !explicit => Ok(ReadFrom::Earliest),
        "tail" if !explicit => Ok(ReadFrom::Tail),
        _ => match time.parse::<i64>() {
            Ok(millis) if explicit => Ok(ReadFrom::Timestamp(millis)),
            _ => match (time.parse::<u64>(), instant(time)) {
                (Ok(offset), _) => Ok(ReadFrom::Offset(Offset::new(offset))),
                (_, Ok(time)) => Ok(ReadFrom::Timestamp(time.as_millisecond())),
                _ => Err(Failure::invalid(format!(
                    "from is {text:?}: write an offset, earliest, tail, cursor:NAME, a time like \
                     2026-11-21T14:29:59Z, or timestamp:MS"
                ))),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_an_offset_a_word_a_time_or_a_cursor() {
        for (text, expected) in [
            ("0", ReadFrom::Offset(Offset::ZERO)),
            ("18446744073709551615", ReadFrom::Offset(Offset::MAX)),
            ("earliest", ReadFrom::Earliest),
            ("tail", ReadFrom::Tail),
            ("timestamp:1700000000000", ReadFrom::Timestamp(1_700_000_000_000)),
            ("timestamp:-5", ReadFrom::Timestamp(-5)),
            ("2026-11-21T14:29:59Z", ReadFrom::Timestamp(1_795_271_399_000)),
            ("timestamp:2026-11-21T15:29:59+01:00", ReadFrom::Timestamp(1_795_271_399_000)),
            ("cursor:a:b", ReadFrom::Cursor(CursorName::parse("a:b").unwrap())),
        ] {
            assert_eq!(parse_from(text).map_err(|failure| failure.error.message), Ok(expected), "{text}");
        }
        for bad in ["", "-1", "yesterday", "timestamp:tail", "timestamp:earliest", "cursor:", "1.5"] {
            assert!(parse_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_id_of_the_last_event_is_an_offset() {
        assert_eq!(parse_last_event(b"12").ok(), Some(Offset::new(12)));
        assert!(parse_last_event(b"x").is_err());
    }
}
