//! Appending records.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use duramen_types::batch::Record;
use duramen_types::{Acknowledgement, FencingToken, HybridTime, Offset, Producer, ProducerId};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ErrorBody, Failure, Path, Query, parse_json};
use super::json::{RecordIn, RecordsIn};
use super::streams::{Ack, stream_ref};
use crate::api::{AppendPayload, AppendRequest, Appended, Code, Error};
use crate::edge::Edge;
use crate::node::NO_TIMESTAMP;

/// How long the rest of a body that is too large is read.
const LINGER: Duration = Duration::from_secs(2);

const ACK: &str = "duramen-ack";
const MATCH_OFFSET: &str = "duramen-match-offset";
const FENCING_TOKEN: &str = "duramen-fencing-token";
const PRODUCER: &str = "duramen-producer";
const KEY: &str = "duramen-key";

/// How records are appended. All but `raw` and `timestamp` may come as a request header `duramen-…` instead.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AppendQuery {
    /// What the answer waits for; by default what the stream says. Header `duramen-ack`.
    #[param(inline)]
    ack: Option<Ack>,
    /// Append only if the stream's tail is this offset, else 412. Header `duramen-match-offset`.
    match_offset: Option<u64>,
    /// The stream's fencing token, where it has one. Header `duramen-fencing-token`, which stays out of logs of URLs.
    fencing_token: Option<String>,
    /// An idempotent producer's stamp, `id:epoch:sequence`; an id is got from `POST /v1/producers`, as one of another's own
    /// choice may be given to somebody else. Header `duramen-producer`.
    producer: Option<String>,
    /// Takes the body as it is: of NDJSON each line is one value, of JSON the whole document is.
    raw: bool,
    /// The key of a raw body's record. Header `duramen-key`.
    key: Option<String>,
    /// The timestamp of raw records, milliseconds since 1970; by default the time of arrival.
    timestamp: Option<i64>,
}

/// The acknowledgement of an append.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppendedJson {
    /// The offset of the first record.
    first_offset: u64,
    /// The offset after the last record.
    next_offset: u64,
    /// The hybrid time of the append, microseconds since 1970.
    time: u64,
    /// The leader's term that wrote it.
    term: u64,
    /// True where it is fsynced on the leader but not yet committed.
    provisional: bool,
    /// True where the stream had the records already, and this is their first answer again.
    duplicate: bool,
}

impl From<Appended> for AppendedJson {
    fn from(appended: Appended) -> Self {
        Self {
            first_offset: appended.first.get(),
            next_offset: appended.next.get(),
            time: appended.time.as_micros(),
            term: appended.term.get(),
            provisional: appended.provisional,
            duplicate: appended.duplicate,
        }
    }
}

/// Appends records, all of them or none.
///
/// The content type says what the body is: `application/json` an object with `records`; `application/x-ndjson` one
/// record object a line; anything else is one record whose value is the body.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/streams/{stream}/records", tag = "records",
    params(("tenant" = String, Path), ("stream" = String, Path), AppendQuery),
    request_body(content((RecordsIn = "application/json"), (RecordIn = "application/x-ndjson"), (String = "application/octet-stream"))),
    responses(
        (status = 200, description = "Appended, as durable as asked for", body = AppendedJson),
        (status = 409, description = "`producer_fenced`, `out_of_order_sequence`, `unknown_producer`", body = ErrorBody),
        (status = 408, description = "`unavailable`: the body stopped coming", body = ErrorBody),
        (status = 412, description = "`offset_mismatch` with the actual `tail`, or `fenced`", body = ErrorBody),
        (status = 413, description = "`record_too_large` or `batch_too_large`", body = ErrorBody),
        (status = 429, description = "`resource_exhausted`: try again later", body = ErrorBody),
        (status = 504, description = "`unknown_outcome`: it may have been appended", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn append_records(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    Query(query): Query<AppendQuery>,
    request: Request,
) -> Result<Json<AppendedJson>, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    let headers = request.headers().clone();
    let options = Options::of(&query, &headers)?;
    let body = receive(request, body_limit(&edge)).await?;
    let records = records(&query, &headers, body)?;
    let request = AppendRequest {
        stream,
        payload: AppendPayload::Records(records),
        acknowledgement: options.acknowledgement,
        match_offset: options.match_offset,
        fencing_token: options.fencing_token,
        producer: options.producer,
        // The middleware has merged what the client has seen.
        seen: HybridTime::ZERO,
    };
    let pending = edge.node.append(request, false).await?;
    Ok(Json(pending.acknowledged().await?.into()))
}

/// The largest body: the largest batch, with room for what JSON and Base64 add.
pub(super) fn body_limit(edge: &Edge) -> u64 {
    edge.config.log.batch_limit.as_u64().saturating_mul(2)
}

/// The whole body, or the error that it is too large.
///
/// Of a body that is too large some more is read and dropped: a client that is still sending when the connection
/// closes may never see the answer.
async fn receive(request: Request, limit: u64) -> Result<Bytes, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut chunks = request.into_body().into_data_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::body_ended(&error))?;
        if body.len().saturating_add(chunk.len()) > limit {
            let drop_rest = async {
                let mut dropped = 0_usize;
                while let Some(Ok(chunk)) = chunks.next().await {
                    dropped = dropped.saturating_add(chunk.len());
                    if dropped > limit {
                        break;
                    }
                }
            };
            // Whether it ended, was cut or took too long: the answer is the same.
            let _ = tokio::time::timeout(LINGER, drop_rest).await;
            return Err(Failure::body_too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// [`body_limit`] as the extractors obey it.
pub(super) fn limit_bodies(edge: &Edge) -> DefaultBodyLimit {
    DefaultBodyLimit::max(usize::try_from(body_limit(edge)).unwrap_or(usize::MAX))
}

/// What may be in the query or in headers; the query wins.
struct Options {
    acknowledgement: Option<Acknowledgement>,
    match_offset: Option<Offset>,
    fencing_token: Option<FencingToken>,
    producer: Option<Producer>,
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    // Header values are bytes; names and tokens are UTF-8.
    std::str::from_utf8(value.as_bytes())
        .map(Some)
        .map_err(|_| Failure::invalid(format!("the header {name} is not UTF-8")))
}

impl Options {
    fn of(query: &AppendQuery, headers: &HeaderMap) -> Result<Self, Failure> {
        let acknowledgement = match (query.ack, text(headers, ACK)?) {
            (Some(ack), _) => Some(ack.into()),
            (None, Some("local")) => Some(Acknowledgement::Local),
            (None, Some("quorum")) => Some(Acknowledgement::Quorum),
            (None, Some("archived")) => Some(Acknowledgement::Archived),
            (None, Some(other)) => {
                return Err(Failure::invalid(format!("{ACK} is {other:?}: write local, quorum or archived")));
            }
            (None, None) => None,
        };
        let match_offset =
            match (query.match_offset, text(headers, MATCH_OFFSET)?) {
                (Some(offset), _) => Some(Offset::new(offset)),
                (None, Some(offset)) => Some(offset.parse().map_err(|_| {
                    Failure::invalid(format!("{MATCH_OFFSET} is {offset:?}: write an offset"))
                })?),
                (None, None) => None,
            };
        let token = query.fencing_token.as_deref().or(text(headers, FENCING_TOKEN)?);
        let producer = query.producer.as_deref().or(text(headers, PRODUCER)?);
        Ok(Self {
            acknowledgement,
            match_offset,
            fencing_token: token.map(FencingToken::parse).transpose()?,
            producer: producer.map(parse_producer).transpose()?,
        })
    }
}

fn parse_producer(text: &str) -> Result<Producer, Failure> {
    let mut parts = text.split(':');
    let producer = (|| {
        let id: ProducerId = parts.next()?.parse().ok()?;
        let epoch = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Producer { id, epoch, sequence })
    })();
    producer.ok_or_else(|| {
        Failure::invalid(format!("the producer {text:?} is not id:epoch:sequence, like 17:0:42"))
    })
}

/// What a body holds.
enum Form {
    Json,
    Lines,
    Raw,
}

fn form(headers: &HeaderMap) -> Form {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Form::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Form::Lines
        }
        _ => Form::Raw,
    }
}

fn records(query: &AppendQuery, headers: &HeaderMap, body: Bytes) -> Result<Vec<Record>, Failure> {
    let key = query.key.as_deref().or(text(headers, KEY)?);
    let raw = |value: Bytes| Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value),
        headers: Vec::new(),
        timestamp: query.timestamp.unwrap_or(NO_TIMESTAMP),
    };
    let form = form(headers);
    if !query.raw && !matches!(form, Form::Raw) && (key.is_some() || query.timestamp.is_some()) {
        return Err(Failure::invalid(
            "key and timestamp are for raw records: write them into the records themselves",
        ));
    }
    match form {
        Form::Json if !query.raw => {
            let parsed: RecordsIn = parse_json(&body)?;
            let numbered = (1..).zip(parsed.records);
            let records: Result<Vec<_>, _> =
                numbered.map(|(number, record)| record.into_record(number)).collect();
            records.and_then(not_empty)
        }
        Form::Lines => {
            let records: Result<Vec<_>, _> = (1..)
                .zip(lines(&body))
                .filter(|(_, line)| !line.is_empty())
                .map(|(number, line)| {
                    if query.raw {
                        return Ok(raw(line));
                    }
                    let record: RecordIn = serde_json::from_slice(&line)
                        .map_err(|error| Failure::invalid(format!(
                            "line {number} is no record like {{\"value\":\"…\"}}: {error}. With raw=true each line is a value as it stands"
                        )))?;
                    record.into_record(number)
                })
                .collect();
            records.and_then(not_empty)
        }
        Form::Json | Form::Raw => Ok(vec![raw(body)]),
    }
}

fn not_empty(records: Vec<Record>) -> Result<Vec<Record>, Failure> {
    if records.is_empty() {
        return Err(
            Error::new(Code::EmptyBatch, "the body holds no record: an append has at least one").into()
        );
    }
    Ok(records)
}

/// The lines of a body without their ends, sharing its memory.
fn lines(body: &Bytes) -> impl Iterator<Item = Bytes> {
    body.split(|byte| *byte == b'\n').map(|line| body.slice_ref(line.strip_suffix(b"\r").unwrap_or(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
            })
            .collect()
    }

    fn of(kind: &'static str, raw: bool, body: &'static str) -> Result<Vec<Record>, String> {
        let query = AppendQuery { raw, ..AppendQuery::default() };
        records(&query, &headers(&[("content-type", kind)]), Bytes::from_static(body.as_bytes()))
            .map_err(|failure| failure.error.message)
    }

    fn values(records: &[Record]) -> Vec<&[u8]> {
        records.iter().map(|record| record.value.as_deref().unwrap_or(b"null")).collect()
    }

    #[test]
    fn json_records_have_keys_headers_and_timestamps() {
        let body = r#"{"records":[
            {"key":"k","value":{"base64":"AP8="},"headers":{"b":"1","a":null},"timestamp":"2026-11-21T14:29:59.5Z"},
            {"value":"v","headers":[{"name":"x","value":"1"},{"name":"x","value":"2"}],"timestamp":17},
            {}
        ]}"#;
        let records = of("application/json; charset=utf-8", false, body).unwrap();
        assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(records[0].value.as_deref(), Some(&[0, 255][..]));
        assert_eq!(records[0].headers, [("b".to_owned(), Some(Bytes::from("1"))), ("a".to_owned(), None)]);
        assert_eq!(records[0].timestamp, 1_795_271_399_500);
        assert_eq!(records[1].headers.len(), 2);
        assert_eq!(records[1].timestamp, 17);
        assert_eq!((records[2].key.clone(), records[2].value.clone()), (None, None));
        assert_eq!(records[2].timestamp, NO_TIMESTAMP);
    }

    #[test]
    fn ndjson_is_a_record_or_with_raw_a_value_a_line() {
        let records =
            of("application/x-ndjson", false, "{\"value\":\"a\"}\r\n\n{\"value\":\"b\"}\n").unwrap();
        assert_eq!(values(&records), [b"a", b"b"]);
        let records = of("application/x-ndjson", true, "{\"value\":\"a\"}\nb").unwrap();
        assert_eq!(values(&records), [&b"{\"value\":\"a\"}"[..], b"b"]);
    }

    #[test]
    fn any_other_body_is_one_record() {
        assert_eq!(values(&of("text/plain", false, "a\nb").unwrap()), [b"a\nb"]);
        assert_eq!(values(&of("application/json", true, "{}").unwrap()), [b"{}"]);
        assert_eq!(values(&of("image/png", false, "").unwrap()), [b""]);
    }

    #[test]
    fn a_bad_body_names_the_record_or_line() {
        for (kind, body, part) in [
            ("application/json", "{\"records\":[{\"valve\":1}]}", "unknown field `valve`"),
            (
                "application/json",
                "{\"records\":[{},{\"value\":{\"base64\":\"%\"}}]}",
                "record 2: its value holds invalid",
            ),
            ("application/json", "{\"records\":[{\"timestamp\":\"noon\"}]}", "\"noon\" is not a time like"),
            ("application/json", "{\"records\":[]}", "holds no record"),
            ("application/json", "", "the JSON is not understood"),
            ("application/x-ndjson", "{}\nnonsense\n", "line 2 is no record"),
            ("application/x-ndjson", "\n\n", "holds no record"),
        ] {
            let message = of(kind, false, body).unwrap_err();
            assert!(message.contains(part), "{body}: {message}");
        }
    }

    #[test]
    fn options_come_from_the_query_or_from_headers_and_the_query_wins() {
        let from_headers = headers(&[
            ("duramen-ack", "archived"),
            ("duramen-match-offset", "7"),
            ("duramen-fencing-token", "t"),
            ("duramen-producer", "1:2:3"),
        ]);
        let options = Options::of(&AppendQuery::default(), &from_headers).ok().unwrap();
        assert_eq!(options.acknowledgement, Some(Acknowledgement::Archived));
        assert_eq!(options.match_offset, Some(Offset::new(7)));
        assert_eq!(options.fencing_token, Some(FencingToken::parse("t").unwrap()));
        assert_eq!(options.producer, Some(Producer { id: ProducerId::new(1), epoch: 2, sequence: 3 }));
        let query = AppendQuery { ack: Some(Ack::Quorum), match_offset: Some(9), ..AppendQuery::default() };
        let options = Options::of(&query, &from_headers).ok().unwrap();
        assert_eq!(options.acknowledgement, Some(Acknowledgement::Quorum));
        assert_eq!(options.match_offset, Some(Offset::new(9)));
        for bad in [("duramen-ack", "all"), ("duramen-match-offset", "-1"), ("duramen-producer", "1:2")] {
            assert!(Options::of(&AppendQuery::default(), &headers(&[bad])).is_err(), "{bad:?}");
        }
    }
}
