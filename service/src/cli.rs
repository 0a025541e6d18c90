//! The command line of `duramen`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::Node;
use crate::cloudwatch;
use crate::config::{self, Layers, Loaded, Problem, Problems, Source};
use crate::demo::DemoArgs;
use crate::doctor::DoctorArgs;
use crate::reload::Reload;
use crate::server::Listeners;
use crate::service_manager;
use crate::telemetry::{self, LogLevel};

/// The version with the commit that it was built from.
const LONG_VERSION: &str = env!("DURAMEN_VERSION");
const EXIT_CODES: &str = "\
Exit codes:
  0  done; a node that was told to stop has stopped
  1  failed
  2  wrong configuration or command line; nothing was started
  3  doctor: the data directory is damaged";
/// The configuration file that is read where none is named.
const USUAL_FILE: &str = "duramen.toml";
/// What tells the other programs of a branch.
const BRANCH_VARIABLE: &str = "DURAMEN_BRANCH";
/// A wrong configuration or command line.
const EXIT_USAGE: u8 = 2;
/// The doctor found damage.
const EXIT_DAMAGED: u8 = 3;

/// A durable log whose older part hardens into object storage.
#[derive(Debug, Parser)]
#[command(
    name = "duramen",
    version = LONG_VERSION,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_CODES,
    after_long_help = EXIT_CODES
)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node (what happens without a command too)
    Serve(ServeArgs),
    /// Appends real records, archives them, loses them twice and gets them back; needs nothing else
    Demo(DemoArgs),
    /// Examines the data directory of a stopped node; exit code 3 if it is damaged
    Doctor(DoctorArgs),
    /// Prints a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints docs/CONFIGURATION.md
    #[command(hide = true)]
    ConfigReference,
    /// Prints docs/METRICS.md
    #[command(hide = true)]
    MetricsReference,
    /// Prints the OpenAPI document of the HTTP interface
    #[command(hide = true)]
    Openapi,
}

/// How a node is configured. All settings are in docs/CONFIGURATION.md.
#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// The configuration file [default: ./duramen.toml if there is one]
    #[arg(long, value_name = "FILE", env = "DURAMEN_CONFIG")]
    config: Option<PathBuf>,
    /// The directory that holds everything the node keeps on the local disk (node.data)
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The node's number in its cluster (node.id)
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<String>,
    /// Where the archive is: s3://bucket/prefix, gs://…, az://…, file:///directory (archive.url)
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    /// The branch of the archive that the node writes (archive.branch)
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The address for clients (listen.clients)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The address for operators (listen.admin)
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Permits addresses that other machines can reach, without TLS and tokens (listen.allow_insecure)
    #[arg(long)]
    allow_insecure_listen: bool,
    /// Any setting; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Prints the effective configuration and where each value came from, and starts nothing
    #[arg(long)]
    validate: bool,
}

/// Runs the program; the exit code is 0 for success, 2 for a wrong configuration or command line, 1 for a failure.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Demo(args)) => finish(crate::demo::run(&args)),
        Some(Command::Doctor(args)) => match crate::doctor::run(&args) {
            Ok((text, sound)) => match print(text.as_bytes()) {
                printed if sound || printed != ExitCode::SUCCESS => printed,
                _ => ExitCode::from(EXIT_DAMAGED),
            },
            Err(error) => finish(Err(error)),
        },
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "duramen", &mut script);
            print(&script)
        }
        Some(Command::ConfigReference) => print(config::reference().as_bytes()),
        Some(Command::MetricsReference) => print(telemetry::metrics_reference().as_bytes()),
        Some(Command::Openapi) => print(crate::http::openapi().as_bytes()),
    }
}

/// Prints to standard output; a reader that has closed it has read enough.
fn print(text: &[u8]) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            finish(Err(anyhow::Error::new(error).context("the output can't be written")))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    let loaded = layers(args, std::env::vars_os()).and_then(|layers| Loaded::from_layers(&layers));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            let mistakes = match problems.0.len() {
                1 => "1 mistake".to_owned(),
                count => format!("{count} mistakes"),
            };
            eprintln!("{problems}\n{mistakes}: nothing was started. docs/CONFIGURATION.md has every setting");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.validate {
        return print(loaded.show().as_bytes());
    }
    // What SIGHUP reads again: the file may have changed, the rest is what the process was started with.
    let reread = || layers(args, std::env::vars_os()).and_then(|layers| Loaded::from_layers(&layers));
    finish(start(loaded, &reread))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duramen: {}", said_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line; a cause that was said already is not said again.
fn said_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            let gap = if text.is_empty() { "" } else { ": " };
            text.push_str(gap);
            text.push_str(&cause);
        }
    }
    text
}

/// What the file, the environment and the flags say, weakest first.
fn layers(
    args: &ServeArgs,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Layers, Problems> {
    let mut flags = Vec::new();
    let dedicated = [
        ("--data", "node.data", &args.data),
        ("--node-id", "node.id", &args.node_id),
        ("--archive", "archive.url", &args.archive),
        ("--branch", "archive.branch", &args.branch),
        ("--listen", "listen.clients", &args.listen),
        ("--admin-listen", "listen.admin", &args.admin_listen),
    ];
    let mut problems = Vec::new();
    for set in &args.set {
        match set.split_once('=') {
            Some((key, value)) => flags.push(("--set".to_owned(), key.trim().to_owned(), value.to_owned())),
            None => problems.push(Problem {
                at: Source::Flag("--set".to_owned()),
                key: String::new(),
                message: format!("{set:?} is not section.key=value"),
            }),
        }
    }
    for (flag, key, value) in dedicated {
        flags.extend(value.iter().map(|value| (flag.to_owned(), key.to_owned(), value.clone())));
    }
    if args.allow_insecure_listen {
        let flag = "--allow-insecure-listen";
        flags.push((flag.to_owned(), "listen.allow_insecure".to_owned(), "true".to_owned()));
    }
    // Names that aren't UTF-8 are none of ours; values that aren't will not parse and are reported.
    let environment = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let file = match &args.config {
        Some(path) => Some(path.as_path()),
        None => Some(Path::new(USUAL_FILE)).filter(|path| path.exists()),
    };
    let file = match file.map(|path| (path, std::fs::read_to_string(path))) {
        None => None,
        Some((path, Ok(text))) => Some((path.to_owned(), text)),
        Some((path, Err(error))) => {
            problems.push(Problem {
                at: Source::Flag("--config".to_owned()),
                key: String::new(),
                message: format!("{} can't be read: {error}", path.display()),
            });
            None
        }
    };
    if problems.is_empty() { Ok(Layers { file, environment, flags }) } else { Err(Problems(problems)) }
}

fn start(loaded: Loaded, reread: &dyn Fn() -> Result<Loaded, Problems>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")?;
    let started = {
        let _on_the_runtime = runtime.enter();
        telemetry::start(&loaded.config).context("telemetry")?
    };
    let ended = runtime.block_on(run_node(loaded, started.level, reread));
    if let Some(traces) = started.traces {
        traces.finish();
    }
    ended
}

/// Runs a node until SIGTERM or SIGINT, reloading its configuration on SIGHUP; a second signal ends it at once, as a crash would.
async fn run_node(
    loaded: Loaded,
    level: LogLevel,
    reread: &dyn Fn() -> Result<Loaded, Problems>,
) -> anyhow::Result<()> {
    let config = Arc::new(loaded.config.clone());
    let mut terminate = signal(SignalKind::terminate()).context("the handler of SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("the handler of SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("the handler of SIGHUP")?;
    // The ports come first: a second node on them fails before it touches anything.
    let listeners = Listeners::bind(&config.listen).await?;
    let node = tokio::select! {
        node = Node::start(&config) => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let metrics = Arc::clone(node.metrics());
    let mut serving = listeners.serve(node.clone(), Arc::clone(&config), metrics).await?;
    let branch = node.status().await.branch;
    tracing::info!(
        version = LONG_VERSION,
        node = config.node.id,
        clients = %serving.clients(),
        admin = %serving.admin(),
        data = %config.node.data.display(),
        archive = config.archive.url.as_deref().unwrap_or("none"),
        branch,
        "the node is serving"
    );
    let of_restore = std::env::var(BRANCH_VARIABLE).unwrap_or_default();
    if config.archive.branch.is_none() && !of_restore.is_empty() && of_restore != branch {
        tracing::warn!(
            branch,
            named = of_restore,
            "{BRANCH_VARIABLE} is for duramen-restore, and names another branch than this node's: a node takes --branch or archive.branch, and is told only when its directory is new"
        );
    }
    service_manager::ready();
    let watchdog = tokio::spawn(service_manager::watchdog(node.clone()));
    let metrics = tokio::spawn({
        let (node, config) = (node.clone(), Arc::clone(&config));
        async move { cloudwatch::report(node, &config).await }
    });
    let mut reload = Reload::new(loaded, node.clone(), level);
    let reloading = async {
        while hang_up.recv().await.is_some() {
            service_manager::reloading();
            reload.apply(reread());
            service_manager::ready();
        }
        std::future::pending().await
    };
    tokio::select! {
        () = reloading => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Nothing more can be promised: recovery after a restart finds out what the disk holds.
        failure = node.failed() => anyhow::bail!("{failure}"),
    }
    watchdog.abort();
    metrics.abort();
    service_manager::stopping();
    tracing::info!(timeout = ?config.shutdown.timeout, "stopping");
    let stop = async {
        if !serving.drain(config.shutdown.timeout).await {
            tracing::warn!("requests under way were cut off after shutdown.timeout");
        }
        node.shutdown(config.shutdown.timeout).await?;
        serving.close().await;
        tracing::info!("the node has stopped");
        Ok(())
    };
    tokio::select! {
        stopped = stop => stopped,
        _ = terminate.recv() => anyhow::bail!("stopped by a second signal before everything was archived"),
        _ = interrupt.recv() => anyhow::bail!("stopped by a second signal before everything was archived"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> ServeArgs {
        Cli::parse_from(std::iter::once("duramen").chain(line.iter().copied())).serve
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dedicated_flags_win_over_set_and_both_over_the_environment() {
        let args = parse(&["--set", "node.id=3", "--node-id", "4", "--set", "wal.fsync=interval"]);
        let environment =
            [("DURAMEN_NODE__ID".into(), "2".into()), ("DURAMEN_WAL__FSYNC".into(), "always".into())];
        let layers = layers(&args, environment.into_iter()).unwrap();
        let loaded = Loaded::from_layers(&layers).unwrap();
        assert_eq!(loaded.config.node.id, 4);
        assert_eq!(loaded.source("node.id").to_string(), "--node-id");
        assert_eq!(loaded.config.wal.fsync, config::Fsync::Interval);
        assert_eq!(loaded.source("wal.fsync").to_string(), "--set");
    }

    #[test]
    fn a_file_that_cannot_be_read_and_a_bad_set_are_reported_together() {
        let args = parse(&["--config", "/nowhere/duramen.toml", "--set", "nonsense"]);
        let problems = layers(&args, std::iter::empty()).unwrap_err().to_string();
        assert!(problems.contains("--config: /nowhere/duramen.toml can't be read"), "{problems}");
        assert!(problems.contains("--set: \"nonsense\" is not section.key=value"), "{problems}");
    }
}
