//! Clients that mean harm, or are broken: each is held to its place, memory stays bounded, and nobody else notices.

mod bodies;
mod connections;
mod input;

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Deadline, NodeProcess, NodeSettings, Tool};
use tempfile::TempDir;

/// How long anything may take that should happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node under attack, with a neighbour that appends all the while.
struct Attacked {
    node: NodeProcess,
    address: SocketAddr,
    neighbour: Neighbour,
    directory: TempDir,
}

impl Attacked {
    fn start(change: impl FnOnce(NodeSettings) -> NodeSettings) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let settings = NodeSettings::in_directory(directory.path()).set("cluster.shards", "2");
        let node = change(settings).start()?;
        let address = node.client_url().trim_start_matches("http://").parse()?;
        let neighbour = Neighbour::start(&node.client_url());
        let mut attacked = Self { node, address, neighbour, directory };
        attacked.neighbour_goes_on()?;
        Ok(attacked)
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Waits until the neighbour has had some more appends acknowledged.
    fn neighbour_goes_on(&mut self) -> Result<()> {
        let neighbour = &self.neighbour;
        let wanted = neighbour.acknowledged.load(Ordering::Relaxed) + 20;
        self.node.process().wait_until(Deadline::after(PATIENCE), || {
            let reached = neighbour.acknowledged.load(Ordering::Relaxed);
            ensure!(reached >= wanted || neighbour.thread.is_finished(), "{reached} of {wanted} appends");
            Ok(())
        })?;
        ensure!(!self.neighbour.thread.is_finished(), "the neighbour stopped: {:?}", self.neighbour);
        Ok(())
    }

    fn peak_memory(&mut self) -> Result<u64> {
        peak_memory(&mut self.node)
    }

    /// The node still serves, used at most `memory` MiB, kept every record of the neighbour once, and stops well.
    fn survives(mut self, memory: u64) -> Result<()> {
        self.neighbour_goes_on()?;
        let Self { mut node, neighbour, directory, .. } = self;
        let acknowledged = neighbour.stop()?;
        let peak = peak_memory(&mut node)?;
        println!("the node used {peak} MiB");
        ensure!(peak <= memory, "the node used {peak} MiB");
        let read = Tool::ctl(&node)?.line("read neighbour --json").succeed()?;
        let expected = (0..acknowledged).map(|n| format!("\"record {n}\""));
        ensure!(
            u64::try_from(read.lines().count())? == acknowledged
                && read.lines().zip(expected).all(|(line, value)| line.contains(&value)),
            "{acknowledged} records were acknowledged, there is:\n{read}"
        );
        let status = node.terminate()?;
        drop(directory);
        ensure!(status.success(), "it stops with {status}\n{}", node.process().output());
        Ok(())
    }
}

/// The most memory that the node has used so far, in MiB.
fn peak_memory(node: &mut NodeProcess) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process().id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// Appends one record after the other; the first that is not acknowledged ends it.
#[derive(Debug)]
struct Neighbour {
    acknowledged: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Neighbour {
    fn start(url: &str) -> Self {
        let (acknowledged, stopping) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let url = format!("{url}/v1/tenants/default/streams/neighbour/records");
        let (count, stop) = (Arc::clone(&acknowledged), Arc::clone(&stopping));
        let thread = std::thread::spawn(move || {
            let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
            while !stop.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let request = agent.post(&url).header("content-type", "application/octet-stream");
                let answer = request.send(format!("record {number}"));
                answer.with_context(|| format!("record {number}"))?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { acknowledged, stopping, thread }
    }

    fn stop(self) -> Result<u64> {
        self.stopping.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("the neighbour panicked"),
        }
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }
}

/// What the node answers until it closes the connection; a reset is a way to close, too.
fn rest(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            bail!("the node neither answers nor closes")
        }
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
