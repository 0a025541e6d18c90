//! A node as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Bucket, Deadline, Process, Signal, programs};

/// How long a node may take to start or stop before a test fails.
const PATIENCE: u64 = 60;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl NodeSettings {
    /// A node with its files in `data`, on free loopback ports, without an archive; all else as the defaults are.
    pub fn in_directory(data: &Path) -> Self {
        let settings = Self { data: data.to_owned(), arguments: Vec::new(), environment: Vec::new() };
        settings
            .set("node.data", &data.display().to_string())
            .set("listen.clients", "127.0.0.1:0")
            .set("listen.admin", "127.0.0.1:0")
            // How the ports that were taken are found out.
            .set("telemetry.log_format", "json")
    }

    /// Sets `section.key` as its environment variable does; the last value wins.
    #[must_use]
    pub fn set(self, key: &str, value: &str) -> Self {
        let name = format!("DURAMEN_{}", key.to_ascii_uppercase().replace('.', "__"));
        self.variable(&name, value)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument after `serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Archives under `prefix` in `bucket`.
    #[must_use]
    pub fn archive_in(self, bucket: &Bucket, prefix: &str) -> Self {
        bucket
            .environment()
            .iter()
            .fold(self, |settings, (name, value)| settings.variable(name, value))
            .set("archive.url", &bucket.archive_url(prefix))
    }

    /// Archives in a local directory.
    #[must_use]
    pub fn archive_in_directory(self, directory: &Path) -> Self {
        self.set("archive.url", &format!("file://{}", directory.display()))
    }

    /// Starts the node and waits until it says that it is ready.
    pub fn start(self) -> Result<NodeProcess> {
        let running = self.start_unready()?;
        let mut node = NodeProcess { settings: self, running };
        node.wait_until_ready(Deadline::after_secs(PATIENCE))?;
        Ok(node)
    }

    /// Starts a node that is expected to refuse: waits for its end, and gives its status and all that it said.
    pub fn start_expecting_refusal(self) -> Result<(ExitStatus, String)> {
        let mut process = self.spawn()?;
        let status = process.wait(Deadline::after_secs(PATIENCE))?;
        Ok((status, process.output()))
    }

    fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(&programs()?.duramen);
        command.arg("serve").args(&self.arguments);
        // A setting of the machine must not become one of the test.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start("duramen serve", &mut command)
    }

    fn start_unready(&self) -> Result<Running> {
        let mut process = self.spawn()?;
        let (clients, admin) = process.wait_for_line(Deadline::after_secs(PATIENCE), listening)?;
        Ok(Running { process, clients, admin })
    }
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    settings: NodeSettings,
    running: Running,
}

#[derive(Debug)]
struct Running {
    process: Process,
    clients: SocketAddr,
    admin: SocketAddr,
}

impl NodeProcess {
    /// The address of gRPC and of HTTP/JSON, like `http://127.0.0.1:40123`. It changes with each start.
    pub fn client_url(&self) -> String {
        format!("http://{}", self.running.clients)
    }

    /// The operators' address. It changes with each start.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.running.admin)
    }

    pub fn data(&self) -> &Path {
        &self.settings.data
    }

    /// The process, for its id, its output and signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.running.process
    }

    /// The status and body of a GET on the operators' port.
    pub fn admin_get(&self, path: &str) -> Result<(u16, String)> {
        get(&format!("{}{path}", self.admin_url()))
    }

    /// Waits until `/ready` answers 200.
    pub fn wait_until_ready(&mut self, deadline: Deadline) -> Result<()> {
        let url = format!("{}/ready", self.admin_url());
        self.running.process.wait_until(deadline, || match get(&url)? {
            (200, _) => Ok(()),
            (status, body) => bail!("/ready answers {status}: {body}"),
        })
    }

    /// Kills the node as `kill -9` does.
    pub fn kill_9(&mut self) -> Result<()> {
        self.running.process.kill_9().map(drop)
    }

    /// Asks the node to stop, and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.running.process.signal(Signal::Terminate)?;
        self.running.process.wait(Deadline::after_secs(PATIENCE))
    }

    /// Starts the node again, with the same settings and on new ports, after [`Self::kill_9`] or
    /// [`Self::terminate`]; waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        if self.running.process.is_running() {
            bail!("the node with process id {} still runs", self.running.process.id());
        }
        self.running = self.settings.start_unready()?;
        self.wait_until_ready(Deadline::after_secs(PATIENCE))
    }
}

fn get(url: &str) -> Result<(u16, String)> {
    let request = ureq::get(url).config().http_status_as_error(false);
    let mut response = request.timeout_global(Some(Duration::from_secs(30))).build().call()?;
    let body = response.body_mut().read_to_string().with_context(|| format!("{url} answers no text"))?;
    Ok((response.status().as_u16(), body))
}

/// The two addresses of the log line with which a node says that it serves.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |key| line.get(key)?.as_str()?.parse().ok();
    Some((address("clients")?, address("admin")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_addresses_is_understood_and_others_are_passed_over() {
        let line = r#"{"level":"INFO","message":"serving","clients":"127.0.0.1:7700","admin":"[::1]:7702"}"#;
        let (clients, admin) = listening(line).unwrap();
        assert_eq!((clients.port(), admin.port()), (7700, 7702));
        for other in ["", "INFO serving clients=127.0.0.1:7700", "{}", r#"{"clients":"a","admin":"b"}"#] {
            assert_eq!(listening(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_setting_becomes_its_environment_variable() {
        let settings = NodeSettings::in_directory(Path::new("/d")).set("wal.segment_size", "1MiB");
        assert!(settings.environment.contains(&("DURAMEN_WAL__SEGMENT_SIZE".to_owned(), "1MiB".to_owned())));
    }
}
