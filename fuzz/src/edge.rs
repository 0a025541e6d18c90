//! Arbitrary bytes on the ports of a running node: it answers or closes, and goes on serving others.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use duramen::config::{Config, Layers, Loaded};
use duramen::server::Listeners;
use duramen::{Environment, Node};
use duramen_wal::sim::SimDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

struct Running {
    runtime: Runtime,
    address: std::net::SocketAddr,
}

static NODE: LazyLock<Running> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let address = runtime.block_on(async {
        let set = |key: &str, value: &str| ("--set".to_owned(), key.to_owned(), value.to_owned());
        let flags = vec![
            set("node.data", "/data"),
            set("cluster.shards", "1"),
            set("listen.clients", "127.0.0.1:0"),
            set("listen.admin", "127.0.0.1:0"),
            set("wal.segment_size", "32MiB"),
        ];
        let config: Config =
            Loaded::from_layers(&Layers { flags, ..Layers::default() }).expect("a configuration").config;
        let environment = Environment { disk: Arc::new(SimDisk::new(1)), ..Environment::machine() };
        let listeners = Listeners::bind(&config.listen).await.expect("ports");
        let node = Node::start_in(environment, &config).await.expect("a node");
        let metrics = Arc::clone(node.metrics());
        let serving = listeners.serve(node, Arc::new(config), metrics).await.expect("it serves");
        let address = serving.clients();
        std::mem::forget(serving);
        address
    });
    Running { runtime, address }
});

/// Sends the bytes and reads whatever comes; then asks something that must be answered.
fn send(bytes: &[u8]) {
    let node = &*NODE;
    node.runtime.block_on(async {
        let talk = async {
            let mut stream = TcpStream::connect(node.address).await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            let mut answer = [0; 4096];
            while stream.read(&mut answer).await? > 0 {}
            std::io::Result::Ok(())
        };
        // A request that waits for something, like a follower, is left.
        let _ = tokio::time::timeout(Duration::from_millis(200), talk).await;
        let ask = async {
            let mut stream = TcpStream::connect(node.address).await.expect("it listens");
            let request = b"GET /v1/tenants HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.expect("it reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("it answers");
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        };
        tokio::time::timeout(Duration::from_secs(20), ask).await.expect("it serves others");
    });
}

/// HTTP/1.1: a method and path of the interface by the first byte, then whatever follows as headers and body.
pub fn http(data: &[u8]) {
    const LINES: [&str; 10] = [
        "",
        "POST /v1/tenants/default/streams/s/records HTTP/1.1\r\nhost: a\r\n",
        "PUT /v1/tenants/default/streams/s HTTP/1.1\r\nhost: a\r\n",
        "PATCH /v1/tenants/default/streams/s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n",
        "POST /v1/tenants/default/streams/s/trim HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n",
        "PUT /v1/tenants/default/streams/s/cursors/c HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n",
        "GET /v1/tenants/default/streams/s/records?",
        "GET /v1/tenants/default/streams?",
        "POST /v1/tenants/default/streams/s/records HTTP/1.1\r\nhost: a\r\ncontent-type: application/vnd.kafka.batch\r\n",
        "GET /v1/",
    ];
    let Some((first, rest)) = data.split_first() else { return };
    let mut bytes = LINES[usize::from(*first) % LINES.len()].as_bytes().to_vec();
    bytes.extend_from_slice(rest);
    send(&bytes);
}

/// HTTP/2: the preface and an empty SETTINGS, then whatever follows as frames.
pub fn grpc(data: &[u8]) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    bytes.extend_from_slice(data);
    send(&bytes);
}
