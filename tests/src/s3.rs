//! Which S3 server the tests run against, and buckets on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use object_store::path::Path;
use object_store::signer::Signer;
use parking_lot::Mutex;

use crate::Signal;
use crate::in_process::InProcessServer;
use crate::minio::{self, Minio};

pub(crate) const REGION: &str = "us-east-1";

/// Names an S3 server to use instead of starting one, like `http://127.0.0.1:9000`. Its credentials are those of
/// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, by default MinIO's own. Buckets made there stay there.
const ENDPOINT_VARIABLE: &str = "DURAMEN_TEST_S3_ENDPOINT";

/// Set to anything but `0`, tests fail where they would otherwise make do with the in-process server.
const REQUIRE_VARIABLE: &str = "DURAMEN_REQUIRE_MINIO";

/// What kind of S3 server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// The server that `DURAMEN_TEST_S3_ENDPOINT` names.
    External,
    /// A MinIO started by these tests.
    Minio,
    /// `s3s` inside the test program.
    InProcess,
}

/// A running S3 server.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    credentials: Credentials,
    server: Server,
}

#[derive(Debug)]
enum Server {
    External,
    Minio { minio: Minio },
    InProcess { server: InProcessServer },
}

/// The S3 server of this run: the one that `DURAMEN_TEST_S3_ENDPOINT` names, else MinIO (from `PATH`, the cache, or built
/// now), else the in-process one.
///
/// Tests that run at the same time share it; it ends with the last handle. With `DURAMEN_REQUIRE_MINIO=1` it is an error
/// that only the in-process server can be had.
pub fn s3_server() -> Result<Arc<S3Server>> {
    static SHARED: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock();
    if let Some(server) = shared.upgrade() {
        return Ok(server);
    }
    let server = match choice().as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))? {
        Choice::External(endpoint) => S3Server::external(endpoint),
        Choice::Minio(program) => S3Server::start_minio(program)?,
        Choice::InProcess { .. } => S3Server::in_process()?,
    };
    let server = Arc::new(server);
    *shared = Arc::downgrade(&server);
    Ok(server)
}

/// A sentence that says which object store S3 tests of this run use, and why where it is not MinIO.
pub fn object_store_used() -> Result<String> {
    Ok(match choice().as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))? {
        Choice::External(endpoint) => format!("S3 tests ran against the server at {endpoint}"),
        Choice::Minio(program) => format!("S3 tests ran against MinIO ({})", program.display()),
        Choice::InProcess { reason } => {
            format!("S3 tests ran against the in-process server (s3s), not against MinIO: {reason}")
        }
    })
}

/// The MinIO program, for a test that can't do with another server; `None`, with a word on standard error, where this
/// machine can't have it and need not.
pub fn minio_program() -> Result<Option<PathBuf>> {
    match minio::program() {
        Ok(program) => Ok(Some(program)),
        Err(error) if minio_is_required() => {
            Err(error.context(format!("{REQUIRE_VARIABLE} is set, and MinIO can't be had")))
        }
        Err(error) => {
            eprintln!("SKIPPED: this test needs MinIO: {error:#}");
            Ok(None)
        }
    }
}

fn minio_is_required() -> bool {
    std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0")
}

#[derive(Debug)]
enum Choice {
    External(String),
    Minio(PathBuf),
    InProcess { reason: String },
}

/// Chosen once, so that a failing build is not tried again by each test.
fn choice() -> &'static Result<Choice, String> {
    static CHOICE: OnceLock<Result<Choice, String>> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let endpoint = std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty());
        choose(endpoint, minio_is_required(), minio::program)
    })
}

fn choose(
    endpoint: Option<String>,
    required: bool,
    program: impl FnOnce() -> Result<PathBuf>,
) -> Result<Choice, String> {
    if let Some(endpoint) = endpoint {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        return match minio::answers_at(&endpoint) {
            Err(error) if required => {
                Err(format!("{REQUIRE_VARIABLE} is set, and {endpoint} is no MinIO: {error:#}"))
            }
            _ => Ok(Choice::External(endpoint)),
        };
    }
    match program() {
        Ok(program) => Ok(Choice::Minio(program)),
        Err(error) if required => {
            Err(format!("{REQUIRE_VARIABLE} is set, and MinIO can't be had: {error:#}"))
        }
        Err(error) => Ok(Choice::InProcess { reason: format!("{error:#}") }),
    }
}

impl S3Server {
    /// Starts a MinIO of one's own; `None` where this run has none.
    pub fn minio() -> Result<Option<Self>> {
        match choice().as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))? {
            Choice::Minio(program) => Self::start_minio(program).map(Some),
            Choice::External(_) | Choice::InProcess { .. } => Ok(None),
        }
    }

    /// Starts an in-process server of one's own.
    pub fn in_process() -> Result<Self> {
        Self::start_in_process(true)
    }

    /// Starts an in-process server that ignores `If-None-Match`, as some stores that call themselves S3 do.
    pub fn without_conditional_put() -> Result<Self> {
        Self::start_in_process(false)
    }

    fn start_in_process(conditional: bool) -> Result<Self> {
        let server = InProcessServer::start(conditional)?;
        let endpoint = format!("http://{}", server.address);
        Ok(Self::ours(endpoint, Server::InProcess { server }))
    }

    fn start_minio(program: &std::path::Path) -> Result<Self> {
        let minio = Minio::start(program)?;
        let endpoint = format!("http://{}", minio.address);
        Ok(Self::ours(endpoint, Server::Minio { minio }))
    }

    fn external(endpoint: &str) -> Self {
        let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Self {
            endpoint: endpoint.to_owned(),
            credentials: Credentials {
                access_key: variable("AWS_ACCESS_KEY_ID", "minioadmin"),
                secret_key: variable("AWS_SECRET_ACCESS_KEY", "minioadmin"),
            },
            server: Server::External,
        }
    }

    fn ours(endpoint: String, server: Server) -> Self {
        Self { endpoint, credentials: Credentials::ours(), server }
    }

    /// Its address, like `http://127.0.0.1:9000`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many requests an in-process server has got, of whomever and whatever came of them; `None` of another one.
    pub fn requests(&self) -> Option<u64> {
        match &self.server {
            Server::InProcess { server } => Some(server.requests.load(Ordering::Relaxed)),
            Server::External | Server::Minio { .. } => None,
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub fn kind(&self) -> ServerKind {
        match self.server {
            Server::External => ServerKind::External,
            Server::Minio { .. } => ServerKind::Minio,
            Server::InProcess { .. } => ServerKind::InProcess,
        }
    }

    /// Makes a new, empty bucket.
    pub fn bucket(self: &Arc<Self>) -> Result<Bucket> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("duramen-test-{}-{number}", uuid::Uuid::new_v4().simple());
        self.make_bucket(&name)?;
        let store = Arc::new(self.credentials.store(&self.endpoint, &name)?);
        Ok(Bucket { server: Arc::clone(self), name, store })
    }

    /// Makes a bucket of this name, as one that lost its data lacks it.
    pub fn make_bucket(&self, name: &str) -> Result<()> {
        let (status, body) = self.credentials.ask("PUT", &self.endpoint, name)?;
        if status != 200 {
            bail!("{} makes no bucket: {status} {body}", self.endpoint);
        }
        Ok(())
    }

    fn ours_to_stop(&self) -> Result<&Minio> {
        match &self.server {
            Server::Minio { minio } => Ok(minio),
            Server::External | Server::InProcess { .. } => {
                bail!("{} is no MinIO that these tests started", self.endpoint)
            }
        }
    }

    /// Sends its MinIO a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.ours_to_stop()?.signal(signal)
    }

    /// Kills its MinIO as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        self.ours_to_stop()?.kill()
    }

    /// Starts its MinIO at the same address, after [`Self::kill`]; it takes requests when this returns.
    pub fn start_again(&self) -> Result<()> {
        self.ours_to_stop()?.start_again()
    }

    /// Where a killed MinIO has its buckets: to take them away, and put them back.
    pub fn data(&self) -> Result<PathBuf> {
        Ok(self.ours_to_stop()?.data())
    }
}

/// A key of an S3 server.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub access_key: String,
    pub secret_key: String,
}

impl Credentials {
    /// Those of servers that are started here.
    pub fn ours() -> Self {
        Self { access_key: "duramen-tests".to_owned(), secret_key: "duramen-tests-secret".to_owned() }
    }

    /// The status and body of a signed request for a bucket itself.
    ///
    /// `object_store` has no such requests, but it signs.
    pub fn ask(&self, method: &str, endpoint: &str, bucket: &str) -> Result<(u16, String)> {
        let store = self.store(endpoint, bucket)?;
        let the_bucket = Path::ROOT;
        let url = store.signed_url(method.parse()?, &the_bucket, Duration::from_secs(60));
        let url = futures::executor::block_on(url)?;
        ask(hyper::Request::builder().method(method).uri(url.as_str()).body(String::new())?)
    }

    fn store(&self, endpoint: &str, bucket: &str) -> Result<AmazonS3> {
        Ok(AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_virtual_hosted_style_request(false)
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .build()?)
    }
}

/// The status and body of the answer to a request.
pub(crate) fn ask(request: hyper::Request<String>) -> Result<(u16, String)> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = agent.timeout_global(Some(Duration::from_secs(30))).build().new_agent();
    let uri = request.uri().clone();
    let mut response = agent.run(request).with_context(|| format!("{uri} does not answer"))?;
    let body = response.body_mut().read_to_string()?;
    Ok((response.status().as_u16(), body))
}

/// A bucket of one test; it keeps its server running.
#[derive(Debug, Clone)]
pub struct Bucket {
    server: Arc<S3Server>,
    name: String,
    store: Arc<AmazonS3>,
}

impl Bucket {
    /// A new bucket on the server of this run, see [`s3_server`].
    pub fn create() -> Result<Self> {
        s3_server()?.bucket()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn server(&self) -> &S3Server {
        &self.server
    }

    /// The URL of an archive under `prefix`, with everything that is needed to reach it but the credentials.
    pub fn archive_url(&self, prefix: &str) -> String {
        let Self { server, name, .. } = self;
        format!("s3://{name}/{prefix}?endpoint={}&path_style=true&region={REGION}", server.endpoint)
    }

    /// The credentials, as environment variables for a program; and that it shall look for no others.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", self.server.credentials.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.server.credentials.secret_key),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Lets everybody who comes without a key do `actions` (like `s3:GetObject`), and nothing else. False where the
    /// server knows no such policies.
    pub fn allow_anonymous(&self, actions: &[&str]) -> Result<bool> {
        if self.server.kind() == ServerKind::InProcess {
            return Ok(false);
        }
        let statement = |of_bucket: bool, resource: String| {
            let actions: Vec<_> =
                actions.iter().filter(|action| action.ends_with("Bucket") == of_bucket).collect();
            (!actions.is_empty()).then(|| {
                serde_json::json!({
                    "Effect": "Allow", "Principal": { "AWS": ["*"] }, "Action": actions, "Resource": [resource],
                })
            })
        };
        let bucket = format!("arn:aws:s3:::{}", self.name);
        let statements: Vec<_> = [statement(true, bucket.clone()), statement(false, format!("{bucket}/*"))]
            .into_iter()
            .flatten()
            .collect();
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
        let Credentials { access_key, secret_key } = self.server.credentials.clone();
        let credential = AwsCredential { key_id: access_key, secret_key, token: None };
        let body = policy.to_string();
        let uri = format!("{}/{}/?policy=", self.server.endpoint, self.name);
        let mut request = hyper::Request::put(uri).body(HttpRequestBody::from(body.clone()))?;
        AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
        let (status, answer) = ask(request.map(|_| body))?;
        if status != 204 && status != 200 {
            bail!("{} takes no policy for {}: {status} {answer}", self.server.endpoint, self.name);
        }
        Ok(true)
    }

    /// The bucket itself: to look at what was stored, or to damage it.
    pub fn store(&self) -> Arc<AmazonS3> {
        Arc::clone(&self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Result<PathBuf> {
        Ok(PathBuf::from("/minio"))
    }

    fn missing() -> Result<PathBuf> {
        bail!("there is no Go")
    }

    #[test]
    fn minio_is_taken_where_it_can_be_had() {
        assert!(matches!(choose(None, true, found), Ok(Choice::Minio(_))));
        assert!(matches!(choose(None, false, found), Ok(Choice::Minio(_))));
    }

    #[test]
    fn without_minio_the_in_process_server_is_taken_and_the_reason_kept() {
        let Ok(Choice::InProcess { reason }) = choose(None, false, missing) else { panic!("another choice") };
        assert_eq!(reason, "there is no Go");
    }

    #[test]
    fn a_required_minio_that_is_missing_is_an_error() {
        let error = choose(None, true, missing).unwrap_err();
        assert_eq!(error, "DURAMEN_REQUIRE_MINIO is set, and MinIO can't be had: there is no Go");
    }

    #[test]
    fn a_named_server_is_taken_but_must_be_minio_where_that_is_required() {
        let other = S3Server::in_process().unwrap();
        let named = || Some(format!("{}/", other.endpoint()));
        assert!(
            matches!(choose(named(), false, found), Ok(Choice::External(endpoint)) if endpoint == other.endpoint())
        );
        assert!(choose(named(), true, found).unwrap_err().contains("is no MinIO"));
        if let Some(minio) = S3Server::minio().unwrap() {
            let named = Some(minio.endpoint().to_owned());
            assert!(matches!(choose(named, true, missing), Ok(Choice::External(_))));
        }
    }
}
