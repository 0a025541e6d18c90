//! The node that is measured: one that runs already, or one of our own, in a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use duramen_client::Client;
use duramen_tests::{Bucket, Deadline, Process, S3Server, ServerKind, Signal, s3_server};
use duramen_types::{Clock as _, SystemClock};
use duramen_wal::{Disk as _, RealDisk};
use tempfile::TempDir;

use crate::usage;

/// How long a node may take to start or to stop.
const PATIENCE: u64 = 300;
/// How often a starting node is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(2);

/// Where a node is reached, and its process if it is on this machine.
#[derive(Debug, Clone)]
pub struct Target {
    pub url: String,
    /// The operators' address: how far the archive is.
    pub admin: Option<String>,
    pub pid: Option<u32>,
}

/// How our own nodes are made.
#[derive(Debug, Clone)]
pub struct Maker {
    /// Where their files go.
    pub directory: PathBuf,
    /// The `duramen` program; `None`: this program, which is one as well.
    pub program: Option<PathBuf>,
    /// Settings, like `wal.cache=64MiB`.
    pub settings: Vec<String>,
}

/// A node of our own. Its files go when it is dropped.
#[derive(Debug)]
pub struct OwnNode {
    maker: Maker,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    process: Process,
    clients: SocketAddr,
    admin: SocketAddr,
}

/// An object store of our own, with a bucket.
#[derive(Debug)]
pub struct Archive {
    pub bucket: Bucket,
    prefix: String,
}

impl Archive {
    /// A fresh bucket on a MinIO, or on the server that `DURAMEN_TEST_S3_ENDPOINT` names.
    pub fn new() -> Result<Self> {
        let server: std::sync::Arc<S3Server> = s3_server()?;
        if server.kind() == ServerKind::InProcess {
            bail!(
                "no MinIO can be had ({}); name a server by DURAMEN_TEST_S3_ENDPOINT, or leave the workloads with an archive out",
                duramen_tests::object_store_used()?
            );
        }
        Ok(Self { bucket: server.bucket()?, prefix: "bench".to_owned() })
    }

    pub fn url(&self) -> String {
        self.bucket.archive_url(&self.prefix)
    }

    /// What a program needs besides the URL.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.bucket.environment()
    }
}

impl Maker {
    /// A node in a fresh directory, started and ready.
    pub fn start(&self, archive: Option<&Archive>, settings: &[&str]) -> Result<OwnNode> {
        let mut node = self.prepare()?;
        if let Some(archive) = archive {
            node.set_archive(archive);
        }
        node.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        node.start()?;
        Ok(node)
    }

    /// Refuses a workload that would take this much of the disk where there is not half as much again: a full disk
    /// would be measured, and others use it too.
    pub fn need(&self, bytes: u64) -> Result<()> {
        let free = RealDisk.available(&self.directory).context("the disk's free space")?;
        let needed = bytes / 2 * 3;
        anyhow::ensure!(
            free >= needed,
            "{} has {} MiB free and the workload wants {} MiB: choose another --directory, or less by \
             --local-bytes or --archive-bytes",
            self.directory.display(),
            free >> 20,
            needed >> 20
        );
        Ok(())
    }

    /// A fresh directory for a node that isn't started yet.
    pub fn prepare(&self) -> Result<OwnNode> {
        let directory = tempfile::Builder::new().prefix("duramen-bench-").tempdir_in(&self.directory);
        let directory =
            directory.with_context(|| format!("{} takes no directory", self.directory.display()))?;
        Ok(OwnNode {
            maker: self.clone(),
            settings: Vec::new(),
            environment: Vec::new(),
            running: None,
            directory,
        })
    }
}

impl OwnNode {
    /// The archive that it uses from its next start on.
    pub fn set_archive(&mut self, archive: &Archive) {
        self.settings.push(format!("archive.url={}", archive.url()));
        self.environment = archive.environment();
    }

    /// Adds a setting for its next start.
    pub fn set(&mut self, setting: impl Into<String>) {
        self.settings.push(setting.into());
    }

    /// Starts it; gives how long it took from the start of the process until it said that it is ready.
    pub fn start(&mut self) -> Result<Duration> {
        let mut command = match &self.maker.program {
            Some(program) => Command::new(program),
            None => Command::new(std::env::current_exe().context("this program's own file")?),
        };
        // A setting of the shell must not become one of the measurement.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--data").arg(self.data());
        for setting in ["listen.clients=127.0.0.1:0", "listen.admin=127.0.0.1:0", "telemetry.log_format=json"]
            .into_iter()
            .chain(self.settings.iter().chain(&self.maker.settings).map(String::as_str))
        {
            command.args(["--set", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let clock = SystemClock::new();
        let mut process = Process::start("duramen serve", &mut command)?;
        let deadline = Deadline::after_secs(PATIENCE);
        let (clients, admin) = process.wait_for_line(deadline, listening)?;
        let url = format!("http://{admin}/ready");
        while get(&url).is_err() {
            if deadline.has_passed() || !process.is_running() {
                bail!("the node does not get ready:\n{}", process.output());
            }
            std::thread::sleep(LOOK);
        }
        let took = clock.monotonic();
        self.running = Some(Running { process, clients, admin });
        Ok(took)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.process.signal(Signal::Terminate)?;
        let status = running.process.wait(Deadline::after_secs(PATIENCE))?;
        if !status.success() {
            bail!("the node ended with {status}:\n{}", running.process.output());
        }
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.process.kill_9()?;
        }
        Ok(())
    }

    pub fn target(&self) -> Result<Target> {
        let running = self.running.as_ref().context("the node is not running")?;
        Ok(Target {
            url: format!("http://{}", running.clients),
            admin: Some(format!("http://{}", running.admin)),
            pid: Some(running.process.id()),
        })
    }
}

impl Target {
    /// A connection of its own.
    pub async fn connect(&self) -> Result<Client> {
        Ok(Client::connect(&self.url).await?)
    }

    pub fn cpu(&self) -> Option<Duration> {
        usage::cpu(self.pid?).ok()
    }

    pub fn memory(&self) -> Option<usage::Memory> {
        usage::memory(self.pid?).ok()
    }

    /// What a page of the operators' port says.
    pub fn page(&self, path: &str) -> Result<serde_json::Value> {
        let admin = self.admin.as_ref().context("the operators' address is not known (--admin)")?;
        Ok(serde_json::from_str(&get(&format!("{admin}{path}"))?)?)
    }

    /// Bytes that were acknowledged and are not in the archive.
    pub fn lag(&self) -> Result<u64> {
        let status = self.page("/admin/archive/status")?;
        status.get("lag_bytes").and_then(serde_json::Value::as_u64).context("lag_bytes is missing")
    }
}

/// The body of a page that answers 200.
fn get(url: &str) -> Result<String> {
    let agent = ureq::get(url).config().timeout_global(Some(Duration::from_secs(30))).build();
    Ok(agent.call()?.body_mut().read_to_string()?)
}

/// The two addresses of the log line with which a node says that it serves.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |key| line.get(key)?.as_str()?.parse().ok();
    Some((address("clients")?, address("admin")?))
}
