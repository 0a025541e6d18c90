//! What is measured, by name.

mod archive;
mod local;
mod resources;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::ceiling::Ceilings;
use crate::content::Content;
use crate::node::{Archive, Maker, OwnNode, Target};
use crate::report::Measurement;

/// The rate of the steady workloads: 10 MiB/s of 8 KiB records.
pub const STEADY_RATE: f64 = 1280.0;
pub const STEADY_BYTES: usize = 8 << 10;
/// Records a second of the tail workload.
pub const TAIL_RATE: f64 = 10_000.0;

/// A workload. Those that start, stop or fill a node of their own can't be run against another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One producer, one record at a time
    #[value(name = "append-1")]
    Append1,
    /// Ten producers, each one record at a time
    #[value(name = "append-10")]
    Append10,
    /// A hundred producers, each one record at a time
    #[value(name = "append-100")]
    Append100,
    /// Batches, pipelined
    Batches,
    /// 10 MiB/s of 8 KiB records on a schedule
    Steady,
    /// Latency at growing rates, up to what the node can do; plotted
    Sweep,
    /// From append to delivery at a reader that follows, at 10,000 records/s
    Tail,
    /// One reader from the beginning of 1 GiB in batches of 100, from page cache
    CatchUp,
    /// The same of batches of one record
    CatchUpSingle,
    /// Starts with an empty directory, and with --local-bytes in it
    Restart,
    /// Memory and processor time of a node that does nothing
    Idle,
    /// Memory with 100,000 streams
    Streams,
    /// Memory with 10,000 idle connections
    Connections,
    /// Batches with an archive for --sustained-seconds: 150 MiB/s of text, then 100 MiB/s of random records
    Sustained,
    /// 10 MiB/s of 8 KiB records with an archive
    SteadyArchive,
    /// One reader of a stream that is only in the archive
    Cold,
    /// Rebuilds a node from --archive-bytes in the archive, and branches it
    Hydrate,
    /// The archiver alone, catching up --archive-bytes
    Archiver,
}

/// Those that run against any node: what is done when nothing is named.
const ANYWHERE: [Workload; 8] = [
    Workload::Append1,
    Workload::Append10,
    Workload::Append100,
    Workload::Batches,
    Workload::Steady,
    Workload::Tail,
    Workload::CatchUp,
    Workload::CatchUpSingle,
];

/// All workloads with what they are, one a line.
pub fn list() -> String {
    let line = |workload: &Workload| {
        let value = workload.to_possible_value()?;
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        Some(format!("{:16} {help}", value.get_name()))
    };
    Workload::value_variants().iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// The workloads that are named; `all` are all, and without a name it is those that run against any node.
pub fn named(names: &[String]) -> Result<Vec<Workload>> {
    if names.is_empty() {
        return Ok(ANYWHERE.to_vec());
    }
    if names.iter().any(|name| name == "all") {
        return Ok(Workload::value_variants().to_vec());
    }
    let find = |name: &String| {
        Workload::from_str(name, false)
            .map_err(|_| anyhow::anyhow!("there is no workload {name:?}; there are\n{}", list()))
    };
    names.iter().map(find).collect()
}

/// What all workloads share.
#[derive(Debug)]
pub struct Bench {
    /// The node to measure; `None`: nodes of our own.
    pub target: Option<Target>,
    pub maker: Maker,
    pub ceilings: Ceilings,
    pub seconds: Duration,
    pub sustained: Duration,
    /// What the producers of single records share at most.
    pub connections: usize,
    pub record_bytes: usize,
    pub content: Content,
    /// Of the batches workloads.
    pub producers: usize,
    pub batch_records: usize,
    pub in_flight: usize,
    pub local_bytes: u64,
    pub archive_bytes: u64,
}

/// The node of one workload; one of our own ends with it.
enum Subject {
    Other(Target),
    Own(Box<OwnNode>),
}

impl Subject {
    fn target(&self) -> Result<Target> {
        match self {
            Self::Other(target) => Ok(target.clone()),
            Self::Own(node) => node.target(),
        }
    }
}

impl Workload {
    /// Whether it needs an object store.
    pub const fn has_archive(self) -> bool {
        matches!(self, Self::Sustained | Self::SteadyArchive | Self::Cold | Self::Hydrate | Self::Archiver)
    }

    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Runs it.
    pub async fn run(self, bench: &Bench) -> Result<Vec<Measurement>> {
        if bench.target.is_some() && !ANYWHERE.contains(&self) && self != Self::Sweep {
            bail!("{} starts and stops nodes of its own: leave --node out", self.name());
        }
        match self {
            Self::Append1 => local::append(bench, self, 1).await,
            Self::Append10 => local::append(bench, self, 10).await,
            Self::Append100 => local::append(bench, self, 100).await,
            Self::Batches => local::batches(bench, self).await,
            Self::Steady => local::steady(bench, self).await,
            Self::Sweep => local::sweep(bench, self).await,
            Self::Tail => local::tail(bench, self).await,
            Self::CatchUp => local::catch_up(bench, self, 100).await,
            Self::CatchUpSingle => local::catch_up(bench, self, 1).await,
            Self::Restart => resources::restart(bench, self).await,
            Self::Idle => resources::idle(bench, self).await,
            Self::Streams => resources::streams(bench, self).await,
            Self::Connections => resources::connections(bench, self).await,
            Self::Sustained => archive::sustained(bench, self).await,
            Self::SteadyArchive => archive::steady(bench, self).await,
            Self::Cold => archive::cold(bench, self).await,
            Self::Hydrate => archive::hydrate(bench, self).await,
            Self::Archiver => archive::archiver(bench, self).await,
        }
    }
}

impl Bench {
    /// The node to measure, or a fresh one of our own without an archive.
    fn subject(&self) -> Result<Subject> {
        Ok(match &self.target {
            Some(target) => Subject::Other(target.clone()),
            None => Subject::Own(Box::new(self.maker.start(None, &[])?)),
        })
    }

    /// A fresh node of our own with a fresh archive.
    fn archived(&self, settings: &[&str]) -> Result<(OwnNode, Archive)> {
        let archive = Archive::new()?;
        Ok((self.maker.start(Some(&archive), settings)?, archive))
    }

    fn batches(&self) -> crate::produce::Batches {
        crate::produce::Batches {
            producers: self.producers,
            records: self.batch_records,
            record_bytes: self.record_bytes,
            in_flight: self.in_flight,
            content: self.content,
            rate: None,
            seconds: self.seconds,
            bytes: u64::MAX,
        }
    }
}
