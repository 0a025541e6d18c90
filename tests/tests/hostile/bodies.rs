//! Requests that announce much and send little, or send much and never end.

use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use duramen_tests::Deadline;

use super::{Attacked, PATIENCE, rest};

#[test]
fn bodies_that_are_announced_and_never_come_take_nothing_from_others() -> Result<()> {
    let mut attacked = Attacked::start(|settings| settings.set("listen.header_timeout", "1s"))?;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = attacked.connect()?;
        stream.write_all(
            b"POST /v1/tenants/default/streams/slow/records HTTP/1.1\r\nhost: x\r\n\
              content-type: application/octet-stream\r\ncontent-length: 20000000\r\n\r\nthe beginning",
        )?;
        slow.push(stream);
    }
    attacked.neighbour_goes_on()?;
    // They are told, and give their place back.
    for stream in &mut slow {
        let answer = rest(stream)?;
        ensure!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\""), "{answer}");
    }
    attacked.survives(200)
}

/// Opens calls on one connection and sends `bytes` of a message of 10 MiB on each, as far as the node takes them.
async fn unfinished_messages(stream: TcpStream, calls: usize, bytes: usize) -> Result<()> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..calls {
        client = client.ready().await?;
        let request = tonic::codegen::http::Request::post("http://node/duramen.v1.Log/Append")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = client.send_request(request, false)?;
        sending.spawn(async move {
            let mut message = BytesMut::with_capacity(bytes);
            message.put_u8(0);
            message.put_u32(10 << 20);
            message.resize(bytes, 1);
            let message: Bytes = message.freeze();
            body.reserve_capacity(bytes);
            let mut sent = 0;
            while sent < bytes {
                let Some(Ok(room)) = std::future::poll_fn(|context| body.poll_capacity(context)).await else {
                    break;
                };
                let end = bytes.min(sent + room);
                if body.send_data(message.slice(sent..end), false).is_err() {
                    break;
                }
                sent = end;
                body.reserve_capacity(bytes - sent);
            }
            // It stays open until the node ends it.
            drop(answer.await);
            drop(body);
        });
    }
    sending.join_all().await;
    Ok(())
}

#[test]
fn messages_that_never_end_are_held_within_the_byte_budget() -> Result<()> {
    let mut attacked = Attacked::start(|settings| {
        settings.set("listen.header_timeout", "2s").set("log.byte_budget", "32MiB")
    })?;
    let before = attacked.peak_memory()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut attacks = Vec::new();
    for _ in 0..4 {
        let stream = attacked.connect()?;
        attacks.push(runtime.spawn(unfinished_messages(stream, 20, 9 << 20)));
    }
    attacked.neighbour_goes_on()?;
    // All of them are ended by the node.
    attacked.node.process().wait_until(Deadline::after(PATIENCE), || {
        ensure!(attacks.iter().all(tokio::task::JoinHandle::is_finished), "calls are open");
        Ok(())
    })?;
    // The budget, what flow control lets come beyond it, and a frame for each call that waits for room.
    attacked.survives(before + 32 + 96)
}
