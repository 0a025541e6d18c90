//! The `duramen-archiver` program: archives what a stopped node has left, and tidies an archive.

mod cli;
mod run;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use duramen_archive::{BranchView, LOG_DIRECTIVES, Random, Store, StoreOptions};
use duramen_archiver::collect_orphans;
use duramen_types::{BranchName, Clock, SystemClock, counted};

use self::cli::{Cli, Command, EXIT_USAGE};

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(format!("warn,{LOG_DIRECTIVES}"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "duramen-archiver", &mut script);
            say(String::from_utf8_lossy(&script).trim_end())
        }
        _ if cli.archive.is_empty() => {
            eprintln!("error: which archive? give --archive URL, or set DURAMEN_ARCHIVE");
            return ExitCode::from(EXIT_USAGE);
        }
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = runtime.context("the async runtime");
            runtime.and_then(|runtime| runtime.block_on(work(command, &cli.archive, cli.json)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.chain().any(|cause| {
                matches!(
                    cause.downcast_ref::<duramen_archive::Error>(),
                    Some(duramen_archive::Error::Config { .. })
                )
            });
            if usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

async fn work(command: Command, archive: &str, json: bool) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let random = Random::from_system();
    let store = Store::open(archive, &StoreOptions::default(), Arc::clone(&clock), random.clone()).await?;
    match command {
        Command::Run { data, snapshot } => run::run(&store, &data, snapshot, clock, random, json).await,
        Command::Orphans { branch, delete } => orphans(&store, &branch, delete, json).await,
        // Answered before there was a store.
        Command::Completions { .. } => Ok(()),
    }
}

async fn orphans(store: &Store, branch: &BranchName, delete: bool, json: bool) -> anyhow::Result<()> {
    let view = BranchView::open(store, branch).await?;
    for shard in view.shard_ids() {
        let found = collect_orphans(&view, shard, !delete).await?;
        if json {
            let report = serde_json::json!({
                "shard": shard, "deleted": delete, "bytes": found.bytes, "keys": found.keys,
            });
            say(&report.to_string())?;
        } else {
            let verb = if delete { "deleted" } else { "found" };
            let orphans = counted(found.keys.len(), "orphan");
            say(&format!("shard {shard}: {verb} {orphans} of {}", counted(found.bytes, "byte")))?;
            for key in found.keys {
                say(&format!("  {key}"))?;
            }
        }
    }
    Ok(())
}

/// Prints a line; a reader that has closed the output has read enough.
fn say(line: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("the output can't be written")
        }
        _ => Ok(()),
    }
}
