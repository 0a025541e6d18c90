//! The connection, and how every unary call goes over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::Retryable as _;
use duramen_proto::v1::log_client::LogClient;
use duramen_proto::{MAX_MESSAGE_BYTES, SEEN_HEADER, TIME_HEADER};
use duramen_types::{Clock, HybridTime, SystemClock, TenantName};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::{Error, chain};
use crate::retry::{self, Effect};

/// HTTP/2 windows that keep a fast reader from waiting for window updates.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The largest HTTP/2 frame that the node may send: a batch in frames of the usual 16 KiB is handled piece by piece.
const FRAME: u32 = 256 << 10;

/// How to connect, and how long to try.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How long one attempt to connect may take; 5 s by default.
    pub connect_timeout: Duration,
    /// How long a unary call, or the oldest append of an appender, may wait for its answer; 30 s by default. After it
    /// the outcome is unknown.
    pub request_timeout: Duration,
    /// For how long what may be repeated is begun anew where it fails, counted from when it was begun first; 60 s by
    /// default, zero turns it off.
    pub retry_for: Duration,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(60),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// A connection to a node, bound to one tenant; cheap to clone, clones share the connection.
///
/// It connects anew by itself after the connection broke.
#[derive(Debug, Clone)]
pub struct Client {
    tenant: TenantName,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    log: LogClient<Channel>,
    options: ConnectOptions,
    /// The highest hybrid time of any answer, in microseconds.
    seen: AtomicU64,
}

impl Client {
    /// Connects to the node at `url`, such as `http://127.0.0.1:7700`, for the tenant `default`.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, ConnectOptions::default()).await
    }

    /// Connects to the node at `url`, for the tenant `default`; makes one attempt.
    pub async fn connect_with(url: &str, options: ConnectOptions) -> Result<Self, Error> {
        let endpoint = endpoint(url, &options)?;
        let channel = endpoint.connect().await.map_err(|error| Error::Unreachable {
            endpoint: url.to_owned(),
            reason: match std::error::Error::source(&error) {
                Some(source) => chain(source),
                None => error.to_string(),
            },
        })?;
        let log = LogClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let shared = Shared { endpoint: url.to_owned(), log, options, seen: AtomicU64::new(0) };
        let tenant = TenantName::parse("default").expect("the default tenant's name keeps the rule");
        Ok(Self { tenant, shared: Arc::new(shared) })
    }

    /// The same connection for another tenant.
    #[must_use]
    pub fn with_tenant(&self, tenant: TenantName) -> Self {
        Self { tenant, shared: Arc::clone(&self.shared) }
    }

    /// The tenant whose streams this client sees.
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The URL that it connected to.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// The highest hybrid time that any answer carried: what comes after it in the log is later than all that this
    /// client and its clones have seen.
    pub fn seen(&self) -> HybridTime {
        HybridTime::from_micros(self.shared.seen.load(Ordering::Acquire))
    }

    /// Takes note of a hybrid time that was learnt elsewhere, such as from another process.
    pub fn note_seen(&self, time: HybridTime) {
        self.shared.seen.fetch_max(time.as_micros(), Ordering::AcqRel);
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.shared.options
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.options.clock
    }

    pub(crate) fn log(&self) -> LogClient<Channel> {
        self.shared.log.clone()
    }

    /// A request that carries the highest time seen, with a deadline if `timeout` is given.
    pub(crate) fn request<T>(&self, message: T, timeout: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let seen = self.shared.seen.load(Ordering::Acquire);
        if seen > 0 {
            request.metadata_mut().insert(SEEN_HEADER, seen.into());
        }
        request
    }

    pub(crate) fn note_metadata(&self, metadata: &MetadataMap) {
        let time = metadata.get(TIME_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(time) = time {
            self.note_seen(HybridTime::from_micros(time));
        }
    }

    pub(crate) fn error(&self, call: &'static str, effect: Effect, status: &Status) -> Error {
        self.note_metadata(status.metadata());
        Error::from_status(call, effect, &self.shared.endpoint, status)
    }

    /// Makes a unary call, and repeats it where `effect` and the error allow.
    pub(crate) async fn call<Req, Res, Fut>(
        &self,
        name: &'static str,
        effect: Effect,
        message: Req,
        send: impl Fn(LogClient<Channel>, Request<Req>) -> Fut,
    ) -> Result<Res, Error>
    where
        Req: Clone,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        let options = self.options();
        let started = self.clock().monotonic();
        let attempt = || async {
            let request = self.request(message.clone(), Some(options.request_timeout));
            let response =
                send(self.log(), request).await.map_err(|status| self.error(name, effect, &status))?;
            self.note_metadata(response.metadata());
            Ok(response.into_inner())
        };
        attempt
            .retry(retry::backoff(self.clock()))
            .when(|error: &Error| {
                let elapsed = self.clock().monotonic().saturating_sub(started);
                error.may_retry(effect) && elapsed < options.retry_for
            })
            .adjust(|error, delay| delay.map(|delay| delay.max(error.retry_after().unwrap_or_default())))
            .notify(|error, delay| tracing::debug!(call = name, %error, ?delay, "trying again"))
            .await
    }
}

fn endpoint(url: &str, options: &ConnectOptions) -> Result<Endpoint, Error> {
    if !url.starts_with("http://") {
        let reason = "is not of the form http://HOST:PORT; this client speaks plain HTTP/2 only";
        return Err(Error::Invalid(format!("the endpoint {url:?} {reason}")));
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Error::Invalid(format!("the endpoint {url:?} is not a URL: {}", chain(&error))))?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10)))
}
