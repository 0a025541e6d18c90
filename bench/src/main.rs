//! `duramen-bench`: a load generator for any node, beside the ceilings of the machine it runs on.

mod ceiling;
mod content;
mod latency;
mod node;
mod pace;
mod plot;
mod produce;
mod report;
mod restore;
mod usage;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Parser;

use crate::ceiling::Ceilings;
use crate::content::Content;
use crate::node::{Archive, Maker, Target};
use crate::report::{Machine, Report};
use crate::workload::{Bench, Workload};

/// Measures a Duramen node, and what bounds it on this machine.
///
/// Without --node it starts nodes of its own, each in a process and a directory of its own that goes afterwards; for the
/// workloads with an archive also a MinIO, which is built from source once. Every workload is bounded in time.
#[derive(Debug, Parser)]
#[command(name = "duramen-bench", version)]
struct Cli {
    /// What to measure, or `all` that can be measured [default: what runs against any node]
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// A node that runs already, like http://127.0.0.1:7700; it gets streams named bench-…
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// The process of that node, if it is on this machine: for its processor time and memory
    #[arg(long, value_name = "PID", requires = "node")]
    pid: Option<u32>,
    /// Lists the workloads
    #[arg(long)]
    list: bool,
    /// How long each measurement takes, about
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// Only the workloads, without the ceilings of disk, store and gRPC
    #[arg(long)]
    no_ceilings: bool,
    /// Connections that the producers of single records share, each with a session and a stream of its own
    /// [default: one for each]
    #[arg(long)]
    connections: Option<usize>,
    /// Bytes of each record's value
    #[arg(long, default_value = "1024")]
    record_bytes: usize,
    /// What the records of the batches workloads hold
    #[arg(long, value_enum, default_value = "text")]
    content: Content,
    /// Producers of the batches workloads, each with a connection and a stream
    #[arg(long, default_value = "4")]
    producers: usize,
    /// Records in each batch
    #[arg(long, default_value = "100")]
    batch_records: usize,
    /// Batches of one producer that wait for their acknowledgement at once; up to 5 they are an idempotent producer's
    #[arg(long, default_value = "5")]
    in_flight: usize,
    /// How long the sustained workload takes, for each kind of records
    #[arg(long, default_value = "60")]
    sustained_seconds: f64,
    /// What the restart workload has on the disk
    #[arg(long, default_value = "10GiB")]
    local_bytes: ByteSize,
    /// What the hydrate and archiver workloads have in the archive
    #[arg(long, default_value = "4GiB")]
    archive_bytes: ByteSize,
    /// Where our own nodes keep their files: the disk that is measured
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The `duramen` program for our own nodes, to compare builds [default: the one that this is built with]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// A setting of our own nodes; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Threads of the load generator's runtime
    #[arg(long, default_value = "1")]
    threads: usize,
    /// Writes everything that was measured to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws latency against rate (the sweep workload)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    // The processes that it starts are this program too, so that one build measures what it was built with.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => return duramen::cli::run(),
        Some(ceiling::echo::ARGUMENT) => return finish(ceiling::echo::serve()),
        Some(restore::BRANCH | restore::HYDRATE) => return finish(restore::main(&arguments)),
        _ => {}
    }
    finish(measure(&Cli::parse()))
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duramen-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<()> {
    if cli.list {
        println!("{}", workload::list());
        return Ok(());
    }
    let workloads = workload::named(&cli.workloads)?;
    let runtime = match cli.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?
        }
    };
    runtime.block_on(run(cli, &workloads))
}

async fn run(cli: &Cli, workloads: &[Workload]) -> Result<()> {
    let maker = Maker {
        directory: cli.directory.clone().unwrap_or_else(std::env::temp_dir),
        program: cli.program.clone(),
        settings: cli.set.clone(),
    };
    let seconds = Duration::from_secs_f64(cli.seconds);
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::here(),
        ceilings: None,
        measurements: Vec::new(),
    };
    if !cli.no_ceilings {
        let archive =
            if workloads.iter().any(|each| each.has_archive()) { Some(Archive::new()?) } else { None };
        let each = seconds.min(Duration::from_secs(2));
        let ceilings = Ceilings::measure(&maker.directory, each, archive.as_ref()).await?;
        println!("{}\n", ceilings.table());
        report.ceilings = Some(ceilings);
    }
    let bench = Bench {
        target: cli.node.clone().map(|url| Target { url, admin: None, pid: cli.pid }),
        maker,
        ceilings: report.ceilings.clone().unwrap_or_default(),
        seconds,
        sustained: Duration::from_secs_f64(cli.sustained_seconds),
        connections: cli.connections.unwrap_or(usize::MAX).max(1),
        record_bytes: cli.record_bytes,
        content: cli.content,
        producers: cli.producers,
        batch_records: cli.batch_records,
        in_flight: cli.in_flight,
        local_bytes: cli.local_bytes.as_u64(),
        archive_bytes: cli.archive_bytes.as_u64(),
    };
    for workload in workloads {
        let measured = workload.run(&bench).await.with_context(|| workload.name())?;
        println!("{}\n", report::table(&measured));
        report.measurements.extend(measured);
        // After each, so that one that fails takes nothing with it.
        write(cli, &report)?;
    }
    Ok(())
}

fn write(cli: &Cli, report: &Report) -> Result<()> {
    use std::io::Write as _;
    if let Some(path) = &cli.json {
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        let mut file = std::io::BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, report)?;
        writeln!(file)?;
        file.flush()?;
    }
    if let Some(path) = &cli.svg {
        let sweep = Workload::Sweep.name();
        let points: Vec<_> = report.measurements.iter().filter(|each| each.workload == sweep).collect();
        if !points.is_empty() {
            let title =
                format!("append, acknowledged when fsynced: {} B records, 10 producers", cli.record_bytes);
            plot::latency_against_rate(path, &title, &points)?;
        }
    }
    Ok(())
}
