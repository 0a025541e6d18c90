//! One listener: accepts within a limit, tells HTTP/1 from HTTP/2, and closes connections that only hold a place.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};

use super::body::{Received, Receiving};
use crate::config::Listen;
use crate::telemetry::{Metrics, Port};

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that a client may send ahead on one HTTP/2 stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The largest HTTP/2 frame that a client may send. A batch in frames of the usual 16 KiB is handled piece by piece; each
/// connection may hold one frame that is not complete.
const FRAME: u32 = 256 << 10;
/// Calls at once on one HTTP/2 connection.
const STREAMS: u32 = 1024;
/// Response bytes buffered for one HTTP/2 stream.
const SEND_BUFFER: usize = 1 << 20;
/// After `accept` failed for want of something (file descriptors), it is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers the requests of a port.
#[derive(Clone)]
pub(super) struct Routers {
    pub(super) http: Router,
    pub(super) grpc: Option<Router>,
    pub(super) receiving: Receiving,
}

/// A listener and all that its connections need.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) routers: Routers,
    pub(super) port: Port,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Listen,
    /// Ends accepting, and each connection after the requests that it is at.
    pub(super) stop: CancellationToken,
    pub(super) span: Span,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Acceptor {
    /// Accepts and serves until it is stopped and the last connection has ended; dropping it cuts them off.
    pub(super) async fn run(self) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (routers, metrics, port) = (self.routers.clone(), Arc::clone(&self.metrics), self.port);
            let (limits, stop) = (self.limits.clone(), self.stop.clone());
            let connection = async move {
                let _open = (slot, metrics.connection(port));
                if let Err(error) = connection(stream, routers, &limits, &stop).await {
                    metrics.connection_failed(port);
                    tracing::debug!(%error, "a connection failed");
                }
            };
            connections.spawn(connection.instrument(self.span.clone()));
        }
        // New connections are refused from here on.
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// Serves one connection to its end.
async fn connection(
    mut stream: TcpStream,
    routers: Routers,
    limits: &Listen,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    // A peer that vanished while nothing is sent is noticed by the kernel, also on HTTP/1.
    SockRef::from(&stream).set_tcp_keepalive(
        &TcpKeepalive::new().with_time(limits.keep_alive).with_interval(limits.keep_alive),
    )?;

    let first = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        first = tokio::time::timeout(limits.header_timeout, first_bytes(&mut stream)) => {
            first.map_err(|_| "the client sent nothing in time")??
        }
    };
    if first.is_empty() {
        return Ok(());
    }
    let is_http2 = first == PREFACE;
    let (read, write) = stream.into_split();
    let io = TokioIo::new(tokio::io::join(io::Cursor::new(first).chain(read), write));
    if is_http2 {
        http2_connection(io, routers, limits, stop).await
    } else {
        http1_connection(io, routers, limits, stop).await
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; nothing, if it closes first.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PREFACE.len());
    while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
        let missing = PREFACE.len().saturating_sub(bytes.len());
        let read =
            (&mut *stream).take(u64::try_from(missing).unwrap_or(u64::MAX)).read_buf(&mut bytes).await?;
        if read == 0 {
            return Ok(Vec::new());
        }
    }
    Ok(bytes)
}

async fn answer(routers: Routers, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (router, is_grpc) = routers.route(request.headers());
    let request = request.map(|body| Body::new(Received::new(body, is_grpc, routers.receiving.clone())));
    router.oneshot(request).await
}

async fn http1_connection<T>(
    io: TokioIo<T>,
    routers: Routers,
    limits: &Listen,
    stop: &CancellationToken,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let headers = usize::try_from(limits.header_limit.as_u64()).unwrap_or(usize::MAX);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(headers)
        .serve_connection(io, service_fn(move |request| answer(routers.clone(), request)));
    Ok(drive(connection, stop).await?)
}

async fn http2_connection<T>(
    io: TokioIo<T>,
    routers: Routers,
    limits: &Listen,
    stop: &CancellationToken,
) -> Result<(), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http2::Builder::new(InSpan(Span::current()))
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_limit.as_u64()).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive)
        .serve_connection(io, service_fn(move |request| answer(routers.clone(), request)));
    Ok(drive(connection, stop).await?)
}

/// Runs HTTP/2's calls in the span of their connection, so that their log lines name the node.
#[derive(Debug, Clone)]
struct InSpan(Span);

impl<F> hyper::rt::Executor<F> for InSpan
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        tokio::spawn(call.instrument(self.0.clone()));
    }
}

/// Runs a connection; once stopped it finishes the requests that it is at and takes no more.
async fn drive<C: GracefulConnection>(connection: C, stop: &CancellationToken) -> Result<(), C::Error> {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

#[cfg(test)]
mod tests;
