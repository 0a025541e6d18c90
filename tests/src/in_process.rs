//! An S3 server inside the test program, for machines that can't have MinIO and for suites that want both.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::s3::Credentials;

/// `s3s` over a temporary directory, on a loopback port; it ends when dropped.
#[derive(Debug)]
pub(crate) struct InProcessServer {
    pub address: SocketAddr,
    /// How many requests have come.
    pub requests: Arc<AtomicU64>,
    // Before the directory: nothing serves from it once it goes.
    runtime: Option<Runtime>,
    _directory: TempDir,
}

impl InProcessServer {
    /// Starts one; `conditional` is whether it honours `If-None-Match`, without which it replaces what is there.
    pub fn start(conditional: bool) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("duramen-s3s-").tempdir()?;
        // Its error is no `std::error::Error`.
        let files = s3s_fs::FileSystem::new(directory.path()).map_err(|error| {
            anyhow::anyhow!("s3s does not start in {}: {error:?}", directory.path().display())
        })?;
        let mut service = S3ServiceBuilder::new(files);
        let credentials = Credentials::ours();
        service.set_auth(SimpleAuth::from_single(credentials.access_key, credentials.secret_key));
        let service = service.build();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port is free")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let replaces = (!conditional).then(|| directory.path().to_owned());
        let requests = Arc::default();
        runtime.spawn(serve(listener, service, replaces, Arc::clone(&requests)));
        Ok(Self { address, requests, runtime: Some(runtime), _directory: directory })
    }
}

async fn serve(
    listener: std::net::TcpListener,
    service: S3Service,
    replaces: Option<PathBuf>,
    requests: Arc<AtomicU64>,
) {
    let listener = TcpListener::from_std(listener).expect("a non-blocking listener can be registered");
    // `s3s-fs` looks whether an object exists and then writes it: two creations at once would both succeed.
    let writes = Arc::new(tokio::sync::Mutex::new(()));
    while let Ok((socket, _)) = listener.accept().await {
        // Small answers must not wait for the acknowledgement of those before; without it they are only slower.
        let _ = socket.set_nodelay(true);
        let (service, writes, replaces) = (service.clone(), Arc::clone(&writes), replaces.clone());
        let requests = Arc::clone(&requests);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (service, writes, replaces) = (service.clone(), Arc::clone(&writes), replaces.clone());
            requests.fetch_add(1, Ordering::Relaxed);
            async move {
                let _one_at_a_time = match *request.method() {
                    hyper::Method::GET | hyper::Method::HEAD => None,
                    _ => Some(writes.lock().await),
                };
                if let Some(directory) = &replaces {
                    forget_condition(directory, &request);
                }
                hyper::service::Service::call(&service, request).await
            }
        });
        tokio::spawn(async move {
            // A connection that breaks is the client's to notice.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// Makes a conditional PUT succeed whatever is there. The header itself is signed and can't be taken away.
fn forget_condition<B>(directory: &Path, request: &hyper::Request<B>) {
    let conditional = request.headers().contains_key(hyper::header::IF_NONE_MATCH);
    if *request.method() == hyper::Method::PUT && conditional {
        // Absent is as good.
        let _ = std::fs::remove_file(directory.join(request.uri().path().trim_start_matches('/')));
    }
}

impl Drop for InProcessServer {
    fn drop(&mut self) {
        // Not the runtime's own drop: that panics when it happens inside an async test.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
