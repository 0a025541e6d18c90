//! Bytes that no honest client sends.

use std::io::Write as _;

use anyhow::{Result, ensure};
use bytes::Bytes;
use duramen_proto::error_of;
use duramen_proto::v1::{self, log_client::LogClient};
use duramen_types::batch::{BatchBuilder, Codec, Limits, Options, Record};
use futures::future::join_all;

use super::{Attacked, rest};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS without any.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A frame of HTTP/2 with a length that need not be that of what follows (RFC 9113, 4.1).
fn frame(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let [_, length @ ..] = length.to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes()].concat()
}

#[test]
fn headers_without_end_are_cut_off() -> Result<()> {
    let attacked = Attacked::start(|settings| settings)?;
    const MOST: usize = 100 << 20;
    // HTTP/1: one header of 100 MB, and many small ones.
    for line in [vec![b'a'; 64 << 10], b"x-header: value\r\n".repeat(4096)] {
        let mut stream = attacked.connect()?;
        stream.write_all(b"GET /v1/tenants HTTP/1.1\r\nhost: x\r\nx-first: ")?;
        let mut sent = 0;
        while sent < MOST && stream.write_all(&line).is_ok() {
            sent += line.len();
        }
        ensure!(sent < MOST, "all of it was taken");
    }
    // HTTP/2: a header block that goes on in frame after frame.
    let mut stream = attacked.connect()?;
    stream.write_all(&[PREFACE, SETTINGS, &frame(16_384, 1, 0, 1), &vec![0; 16_384]].concat())?;
    let mut sent = 0;
    let more = [frame(16_384, 9, 0, 1), vec![0; 16_384]].concat();
    while sent < MOST && stream.write_all(&more).is_ok() {
        sent += more.len();
    }
    ensure!(sent < MOST, "all of it was taken");
    attacked.survives(200)
}

#[test]
fn what_is_neither_http_nor_grpc_is_closed() -> Result<()> {
    let attacked = Attacked::start(|settings| settings.set("listen.header_timeout", "1s"))?;
    let huge_chunk: &[u8] = b"POST /v1/tenants/default/streams/x/records HTTP/1.1\r\nhost: x\r\n\
        content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc";
    let two_lengths: &[u8] = b"POST /v1/tenants/default/streams/x/records HTTP/1.1\r\nhost: x\r\n\
        content-length: 3\r\ncontent-length: 30\r\n\r\nabc";
    let largest = frame(0x00ff_ffff, 0, 0, 1);
    let truncated = [&frame(100, 1, 4, 1)[..], b"abc"].concat();
    let on_stream_zero = [frame(4, 0, 1, 0), vec![0; 4]].concat();
    let bad_header_block = [frame(4, 1, 5, 1), vec![0xff; 4]].concat();
    for (what, bytes) in [
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100)),
        ("a chunk of 16 EiB", huge_chunk.to_vec()),
        ("two lengths", two_lengths.to_vec()),
        ("noise after the preface", [PREFACE, &[0xff; 64]].concat()),
        ("a frame of 16 MiB", [PREFACE, SETTINGS, &largest, &[0; 64]].concat()),
        ("a truncated frame", [PREFACE, SETTINGS, &truncated].concat()),
        ("data without a stream", [PREFACE, SETTINGS, &on_stream_zero].concat()),
        ("a header block that is none", [PREFACE, SETTINGS, &bad_header_block].concat()),
        ("half a preface", PREFACE.get(..9).unwrap_or_default().to_vec()),
    ] {
        let mut stream = attacked.connect()?;
        stream.write_all(&bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let answer = rest(&mut stream)?;
        ensure!(!answer.contains(" 200 "), "{what}: {answer}");
    }
    attacked.survives(200)
}

/// A batch of a few kilobytes that decompresses to 240 MB.
fn bomb(codec: Codec) -> Result<Bytes> {
    let limits =
        Limits { max_batch_bytes: 64 << 20, max_uncompressed_bytes: usize::MAX, ..Limits::default() };
    let mut builder = BatchBuilder::new(limits);
    for _ in 0..240 {
        builder.push_record(&Record { value: Some(vec![0; 1_000_000].into()), ..Record::default() })?;
    }
    Ok(builder.finish(Options { compression: codec, ..Options::default() })?.into_bytes())
}

fn encoded(batch: Bytes) -> v1::AppendRequest {
    v1::AppendRequest {
        stream: "bombs".to_owned(),
        payload: Some(v1::append_request::Payload::EncodedBatch(batch)),
        ..v1::AppendRequest::default()
    }
}

#[test]
fn decompression_bombs_are_refused_in_bounded_memory() -> Result<()> {
    let attacked = Attacked::start(|settings| settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let batches = [bomb(Codec::Zstd)?, bomb(Codec::Gzip)?];
    runtime.block_on(async {
        let log = LogClient::connect(attacked.node.client_url()).await?;
        for batch in batches {
            let calls = (0..8).map(|_| {
                let (mut log, batch) = (log.clone(), batch.clone());
                async move { log.append(encoded(batch)).await }
            });
            for answer in join_all(calls).await {
                let refused = answer.err().and_then(|status| error_of(&status));
                let code = refused.as_ref().map(|error| error.code.as_str());
                ensure!(code == Some("batch_too_large"), "{refused:?}");
            }
        }
        anyhow::Ok(())
    })?;
    // Twice what the limit of 64 MiB may take while a batch is looked at (crates/types, `Limits`): one for each thread.
    attacked.survives(200 + 2 * 3 * 64)
}
