//! A gRPC server without a log behind it, in a process of its own as a node is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use duramen_tests::{Deadline, Process};
use duramen_types::{Clock as _, SystemClock};
use futures::future::try_join_all;
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

use super::Echo;
use crate::latency::{From, Latencies};
use crate::pace::Pacer;

mod proto {
    #![expect(clippy::allow_attributes, reason = "generated")]
    #![allow(missing_debug_implementations, reason = "generated")]
    tonic::include_proto!("duramen.bench");
}
use proto::echo_client::EchoClient;
use proto::echo_server::{Echo as Service, EchoServer};
use proto::{Ping, Pong};

/// The argument with which this program is the server.
pub const ARGUMENT: &str = "serve-echo";
/// How long a schedule runs before what is counted.
const WARM_UP: Duration = Duration::from_millis(200);
/// What the server prints before its address.
const LISTENING: &str = "listening on ";

struct Answers;

#[tonic::async_trait]
impl Service for Answers {
    type EchoStream = std::pin::Pin<Box<dyn Stream<Item = Result<Pong, Status>> + Send>>;

    async fn echo(&self, request: Request<Streaming<Ping>>) -> Result<Response<Self::EchoStream>, Status> {
        let answers = request.into_inner().map(|ping| ping.map(|ping| Pong { number: ping.number }));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves until the process is ended.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("{LISTENING}{}", listener.local_addr()?);
        let incoming = TcpListenerStream::new(listener).inspect(|socket| {
            if let Ok(socket) = socket {
                // Without it the measurement is of Nagle's algorithm; a socket that refuses is only slower.
                let _ = socket.set_nodelay(true);
            }
        });
        tonic::transport::Server::builder()
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(32 << 20)
            .add_service(EchoServer::new(Answers))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _process: Process,
}

impl Server {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("this program's own file")?);
        let mut process = Process::start("the echo server", command.arg(ARGUMENT))?;
        let address = process
            .wait_for_line(Deadline::after_secs(30), |line| line.strip_prefix(LISTENING)?.parse().ok())?;
        Ok(Self { address, _process: process })
    }
}

/// Messages of `size` bytes for about `each`, `in_flight` at once on each of `connections`.
#[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
pub async fn measure(
    server: &Server,
    connections: usize,
    in_flight: usize,
    size: usize,
    each: Duration,
) -> Result<Echo> {
    let url = format!("http://{}", server.address);
    let clients = try_join_all((0..connections).map(|_| async {
        let endpoint = Endpoint::from_shared(url.clone())?.tcp_nodelay(true);
        let endpoint = endpoint.initial_stream_window_size(8 << 20).initial_connection_window_size(32 << 20);
        Ok::<_, anyhow::Error>(EchoClient::new(endpoint.connect().await?))
    }));
    let clients = clients.await?;
    let clock = SystemClock::new();
    let tasks: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(one(client, in_flight, size, clock, each))).collect();
    let mut latencies = Latencies::new()?;
    for task in tasks {
        latencies.add(&task.await??)?;
    }
    let rate = latencies.count() as f64 / clock.monotonic().as_secs_f64();
    Ok(Echo {
        messages_per_second: rate,
        mib_per_second: rate * size as f64 / f64::from(1 << 20),
        latency: latencies.summary(From::Call),
    })
}

/// Messages of `size` bytes, `rate` a second on a schedule over one connection, whether earlier ones are answered or not.
///
/// Latencies count from the moment at which a message was due, as those of a node's records do: what the machine's own pauses
/// make of a schedule.
#[expect(clippy::cast_precision_loss, reason = "a report has fewer digits than that")]
pub async fn measure_schedule(server: &Server, rate: f64, size: usize, each: Duration) -> Result<Echo> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address))?.tcp_nodelay(true);
    let mut client = EchoClient::new(endpoint.connect().await?);
    let payload = Bytes::from(vec![7; size]);
    let (requests, queued) = mpsc::channel(1 << 16);
    let clock = SystemClock::new();
    let pacer = Pacer::new(clock)?;
    let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
    let first = u64::from(pings_of(rate, WARM_UP));
    let last = first + u64::from(pings_of(rate, each));
    let send = async move {
        for number in 0..last {
            pacer.until(due(number)).await?;
            requests.send(Ping { number, payload: payload.clone() }).await.context("the call has ended")?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let receive = async {
        let mut answers = client.echo(ReceiverStream::new(queued)).await?.into_inner();
        let mut latencies = Latencies::new()?;
        while let Some(pong) = answers.message().await? {
            if pong.number >= first {
                latencies.record(clock.monotonic().saturating_sub(due(pong.number)));
            }
        }
        Ok::<_, anyhow::Error>(latencies)
    };
    let (sent, latencies) = tokio::join!(send, receive);
    sent?;
    Ok(Echo {
        messages_per_second: rate,
        mib_per_second: rate * size as f64 / f64::from(1 << 20),
        latency: latencies?.summary(From::Schedule),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
fn pings_of(rate: f64, time: Duration) -> u32 {
    (rate * time.as_secs_f64()) as u32
}

async fn one(
    mut client: EchoClient<tonic::transport::Channel>,
    in_flight: usize,
    size: usize,
    clock: SystemClock,
    until: Duration,
) -> Result<Latencies> {
    let payload = Bytes::from(vec![7; size]);
    let (requests, queued) = mpsc::channel(in_flight);
    let mut sent = VecDeque::with_capacity(in_flight);
    let mut number = 0;
    let send = |sent: &mut VecDeque<Duration>, number: &mut u64| {
        *number += 1;
        sent.push_back(clock.monotonic());
        requests.try_send(Ping { number: *number, payload: payload.clone() }).context("the call has ended")
    };
    for _ in 0..in_flight {
        send(&mut sent, &mut number)?;
    }
    let mut answers = client.echo(ReceiverStream::new(queued)).await?.into_inner();
    let mut latencies = Latencies::new()?;
    while let Some(begun) = sent.pop_front() {
        answers.message().await?.context("an answer is missing")?;
        let now = clock.monotonic();
        latencies.record(now.saturating_sub(begun));
        if now < until {
            send(&mut sent, &mut number)?;
        }
    }
    Ok(latencies)
}
