//! A real MinIO: the one at `DURAMEN_TEST_S3_ENDPOINT`, else one started from the `minio` on `PATH`, else from the one that
//! `tests/minio/build` keeps, else none.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::signer::Signer;
use tempfile::TempDir;

const BUCKET: &str = "duramen-archive-conformance";
const CREDENTIALS: &str = "minioadmin";

pub(super) struct Minio {
    pub objects: Arc<AmazonS3>,
    _process: Option<Process>,
}

struct Process {
    child: Child,
    _data: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Minio {
    pub(super) async fn find() -> Option<Self> {
        let (endpoint, process) = match std::env::var("DURAMEN_TEST_S3_ENDPOINT") {
            Ok(endpoint) => (endpoint, None),
            Err(_) => start().map(|(endpoint, process)| (endpoint, Some(process)))?,
        };
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| CREDENTIALS.to_owned());
        let objects = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_endpoint(&endpoint)
            .with_allow_http(true)
            .with_virtual_hosted_style_request(false)
            .with_access_key_id(variable("AWS_ACCESS_KEY_ID"))
            .with_secret_access_key(variable("AWS_SECRET_ACCESS_KEY"))
            .with_checksum_algorithm(Checksum::SHA256)
            .with_disable_bulk_delete(true)
            .build()
            .unwrap();
        create_bucket(&objects).await;
        Some(Self { objects: Arc::new(objects), _process: process })
    }
}

/// The server, built once where it is not on `PATH`.
fn program() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        std::env::split_paths(&path).map(|folder| folder.join("minio")).find(|file| file.is_file());
    installed.or_else(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/minio/build");
        let built = Command::new("bash").arg(script).stderr(Stdio::null()).output().ok()?;
        let path = String::from_utf8(built.stdout).ok()?;
        built.status.success().then(|| path.trim().into())
    })
}

fn start() -> Option<(String, Process)> {
    // A free port; MinIO cannot be asked which one it took.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let data = tempfile::tempdir().unwrap();
    let child = Command::new(program()?)
        .args(["server", "--quiet", "--address", &address])
        .arg(data.path())
        .env("MINIO_ROOT_USER", CREDENTIALS)
        .env("MINIO_ROOT_PASSWORD", CREDENTIALS)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some((format!("http://{address}"), Process { child, _data: data }))
}

/// Creates the bucket, waiting for the server to come up; one that exists is fine.
async fn create_bucket(objects: &AmazonS3) {
    let client = reqwest::Client::new();
    let mut last = String::new();
    for _ in 0..600 {
        let url =
            objects.signed_url(http::Method::PUT, &Path::default(), Duration::from_secs(60)).await.unwrap();
        match client.put(url).send().await {
            Ok(answer) if answer.status().is_success() || answer.status() == 409 => return,
            Ok(answer) => last = answer.text().await.unwrap_or_default(),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("MinIO has no bucket after a minute: {last}");
}
