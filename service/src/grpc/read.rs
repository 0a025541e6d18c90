//! A read as a stream of messages.

use std::sync::Arc;
use std::time::Duration;

use duramen_proto::v1::{self, ReadFormat};
use futures::Stream;
use tonic::Status;

use super::refuse;
use crate::api::{Code, Error, ReadBatch, Result};
use crate::edge::{Edge, damaged, open_batch};
use crate::node::ReadSession;

/// A followed stream without news shows that it lives this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages of decoded records end after the record that reaches this many bytes.
const MESSAGE_BYTES: usize = 1 << 20;
/// Batches that are at hand go together until they have this many bytes: a message costs more than a small batch.
const TOGETHER_BYTES: usize = 256 << 10;

/// The messages of a read; ends with the read, when the client goes, or when the node stops.
pub(super) fn messages(
    edge: Arc<Edge>,
    mut session: ReadSession,
    format: ReadFormat,
    follow: bool,
) -> impl Stream<Item = std::result::Result<v1::ReadResponse, Status>> + Send {
    async_stream::stream! {
        let together = match format {
            ReadFormat::Batches => TOGETHER_BYTES,
            ReadFormat::Records => 0,
        };
        let _follower = follow.then(|| edge.metrics.follower());
        // The first message says where the read starts.
        match position(&edge, &session) {
            Ok(start) => yield Ok(start),
            Err(error) => {
                yield Err(refuse(&edge, &error));
                return;
            }
        }
        loop {
            let next = tokio::select! {
                () = edge.stopping.cancelled(), if follow => {
                    Some(Err(Error::new(Code::Unavailable, "the node is stopping: go on from the last next_offset")))
                }
                next = tokio::time::timeout(HEARTBEAT, session.next_together(together)) => match next {
                    Ok(next) => next,
                    Err(_) => {
                        match position(&edge, &session) {
                            Ok(alive) => yield Ok(alive),
                            Err(error) => {
                                yield Err(refuse(&edge, &error));
                                return;
                            }
                        }
                        continue;
                    }
                },
            };
            let batches = match next {
                None => return,
                Some(batches) => batches,
            };
            let messages = batches.and_then(|batches| {
                let here = position(&edge, &session)?;
                match format {
                    ReadFormat::Batches => Ok(vec![stored(batches, here)]),
                    ReadFormat::Records => decoded(&batches, &here),
                }
            });
            match messages {
                Ok(messages) => for message in messages {
                    yield Ok(message);
                },
                Err(error) => {
                    yield Err(refuse(&edge, &error));
                    return;
                }
            }
        }
    }
}

/// A message without records.
fn position(edge: &Edge, session: &ReadSession) -> Result<v1::ReadResponse> {
    let (first, tail) = session.bounds()?;
    Ok(v1::ReadResponse {
        batches: Vec::new(),
        records: Vec::new(),
        next_offset: session.position().get(),
        tail: tail.get(),
        first_readable: first.get(),
        time: edge.node.latest_time().as_micros(),
    })
}

fn stored(batches: Vec<ReadBatch>, here: v1::ReadResponse) -> v1::ReadResponse {
    let stored = |batch: ReadBatch| v1::StoredBatch { data: batch.batch, time: batch.time.as_micros() };
    v1::ReadResponse { batches: batches.into_iter().map(stored).collect(), ..here }
}

/// The records that were asked for, in messages of a bounded size, each with where it ends.
fn decoded(batches: &[ReadBatch], here: &v1::ReadResponse) -> Result<Vec<v1::ReadResponse>> {
    let mut messages = Vec::new();
    for batch in batches {
        messages.extend(decoded_batch(batch, here)?);
    }
    Ok(messages)
}

fn decoded_batch(batch: &ReadBatch, here: &v1::ReadResponse) -> Result<Vec<v1::ReadResponse>> {
    let opened = open_batch(batch)?;
    let mut messages = Vec::new();
    let (mut records, mut bytes) = (Vec::new(), 0_usize);
    for record in &opened {
        let record = record.map_err(|error| damaged(batch, &error))?;
        if record.offset >= batch.end {
            break;
        }
        if record.offset < batch.from {
            continue;
        }
        bytes = bytes.saturating_add(record.encoded_len());
        let next_offset = record.offset.next().get();
        let owned = record.to_record();
        records.push(v1::StoredRecord {
            offset: record.offset.get(),
            timestamp: record.timestamp,
            key: owned.key,
            value: owned.value,
            headers: owned.headers.into_iter().map(|(name, value)| v1::Header { name, value }).collect(),
            time: batch.time.as_micros(),
        });
        if bytes >= MESSAGE_BYTES {
            let records = std::mem::take(&mut records);
            messages.push(v1::ReadResponse { records, next_offset, ..here.clone() });
            bytes = 0;
        }
    }
    if !records.is_empty() || messages.is_empty() {
        messages.push(v1::ReadResponse { records, next_offset: batch.end.get(), ..here.clone() });
    }
    Ok(messages)
}
