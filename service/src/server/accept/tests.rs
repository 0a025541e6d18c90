use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// Long enough for anything that should happen; short enough for a test that fails.
const SOON: Duration = Duration::from_secs(20);
/// What is shown not to happen is waited for this long.
const NEVER: Duration = Duration::from_millis(200);

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(limits: Listen, http: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let acceptor = Acceptor {
        listener,
        routers: Routers {
            http,
            grpc: None,
            receiving: Receiving::new(1 << 20, limits.header_timeout, Arc::clone(&metrics)),
        },
        port: Port::Clients,
        metrics: Arc::clone(&metrics),
        limits,
        stop: stop.clone(),
        span: Span::none(),
    };
    Running { address, metrics, stop, task: tokio::spawn(acceptor.run()) }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn impatient() -> Listen {
    Listen { header_timeout: Duration::from_millis(50), ..Listen::default() }
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

/// Everything until the server closes.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, client.read_to_end(&mut bytes)).await.expect("the server closes");
    // A reset is a way to close, too.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn http1_is_answered() {
    let running = start(Listen::default(), hello()).await;
    let mut client = send(running.address, LAST_REQUEST).await;
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn http2_is_answered_also_when_its_preface_comes_in_pieces() {
    let running = start(Listen::default(), hello()).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in [&PREFACE[..1], &PREFACE[1..9], &PREFACE[9..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]] {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    tokio::time::timeout(SOON, client.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame[3], 4, "the server's first frame is SETTINGS: {frame:?}");
}

#[tokio::test]
async fn a_client_that_does_not_get_on_is_closed() {
    let running = start(impatient(), hello()).await;
    for begun in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost:"] {
        let mut client = send(running.address, begun).await;
        rest(&mut client).await;
    }
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let limits = Listen { header_limit: bytesize::ByteSize::kib(8), ..Listen::default() };
    let running = start(limits, hello()).await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n", "x".repeat(20_000));
    let mut client = send(running.address, request.as_bytes()).await;
    let answer = rest(&mut client).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_another_to_close() {
    let running = start(Listen { connections: 1, ..Listen::default() }, hello()).await;
    let mut first = send(running.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    assert!(running.metrics.render().contains("duramen_connections{port=\"clients\"} 1"));

    let mut second = send(running.address, LAST_REQUEST).await;
    let waiting = tokio::time::timeout(NEVER, second.read_exact(&mut byte)).await;
    assert!(waiting.is_err(), "the second connection was served beside the first");
    drop(first);
    assert!(rest(&mut second).await.contains("200 OK") || byte == *b"H");
}

#[tokio::test]
async fn a_stopped_listener_finishes_what_it_is_at_and_takes_no_more() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        get(move || async move {
            entered.notify_one();
            release.notified().await;
            "done"
        })
    };
    let running = start(Listen::default(), Router::new().route("/", slow)).await;
    let mut idle = send(running.address, b"").await;
    let mut busy = send(running.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    entered.notified().await;
    running.stop.cancel();
    rest(&mut idle).await;
    release.notify_one();
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("done"), "{answer}");
    tokio::time::timeout(SOON, running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "the port is closed");
}
