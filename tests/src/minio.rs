//! The real MinIO: found, or built once from its Go module, and started on a free port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::s3::{Credentials, REGION};
use crate::{Deadline, Process, Signal};

/// The name of the folder that holds its buckets.
const DATA: &str = "data";

/// A MinIO server with a temporary directory; killed when dropped.
#[derive(Debug)]
pub(crate) struct Minio {
    pub address: SocketAddr,
    program: PathBuf,
    // Before the directory: nothing writes there once it goes.
    process: Mutex<Process>,
    directory: TempDir,
}

/// The program: `minio` on `PATH`, else the cached build, else a new one.
pub(crate) fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join("minio")).find(|file| file.is_file())
    {
        return Ok(found);
    }
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("minio/build");
    let output =
        Command::new("bash").arg(&build).output().context("bash, which builds MinIO, does not start")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

impl Minio {
    pub fn start(program: &Path) -> Result<Self> {
        // Between choosing a port and MinIO's taking it, somebody else may: then another is tried.
        let mut last = None;
        for _ in 0..5 {
            match Self::start_once(program) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one attempt was made").context("MinIO does not start"))
    }

    fn start_once(program: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("duramen-minio-").tempdir()?;
        let address = free_port()?;
        let process = Mutex::new(serve(program, address, directory.path())?);
        Ok(Self { address, program: program.to_owned(), process, directory })
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().signal(signal)
    }

    pub fn kill(&self) -> Result<()> {
        self.process.lock().kill_9().map(drop)
    }

    /// Starts it where it was, after [`Self::kill`].
    pub fn start_again(&self) -> Result<()> {
        // A connection of somebody else may have the port for a moment.
        let deadline = Deadline::after_secs(60);
        loop {
            match serve(&self.program, self.address, self.directory.path()) {
                Ok(process) => {
                    *self.process.lock() = process;
                    return Ok(());
                }
                Err(error) if deadline.has_passed() => {
                    return Err(error.context("MinIO does not start again"));
                }
                Err(_) => {}
            }
        }
    }

    /// Where its data is; it must not run while that is moved.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join(DATA)
    }
}

/// A MinIO that serves what is in `directory`; it takes requests when this returns.
fn serve(program: &Path, address: SocketAddr, directory: &Path) -> Result<Process> {
    let credentials = Credentials::ours();
    let mut command = Command::new(program);
    command
        .args(["server", "--quiet", "--address", &address.to_string()])
        .args(["--console-address", &free_port()?.to_string()])
        .arg("--certs-dir")
        .arg(directory.join("certs"))
        .arg(directory.join(DATA))
        // What the machine says about other servers is not meant for this one.
        .env_clear()
        .env("HOME", directory)
        .env("MINIO_ROOT_USER", &credentials.access_key)
        .env("MINIO_ROOT_PASSWORD", &credentials.secret_key)
        .env("MINIO_REGION", REGION)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off");
    let mut process = Process::start("minio", &mut command)?;
    // Its health page says yes before it takes requests: it is ready once it knows that a bucket is not there.
    let endpoint = format!("http://{address}");
    process.wait_until(Deadline::after_secs(60), || {
        match credentials.ask("GET", &endpoint, "readiness")? {
            (404, _) => Ok(()),
            (status, body) => bail!("it answers {status}: {body}"),
        }
    })?;
    Ok(process)
}

/// Whether it is a MinIO that answers at `endpoint`; the error says what does instead.
pub(crate) fn answers_at(endpoint: &str) -> Result<()> {
    let health = ureq::get(format!("{endpoint}/minio/health/ready")).config();
    health.timeout_global(Some(Duration::from_secs(5))).build().call()?;
    Ok(())
}

/// A loopback address whose port was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port is free")?;
    Ok(listener.local_addr()?)
}
