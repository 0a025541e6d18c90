//! `duramenctl`: a client of a node's public and admin interfaces.

mod admin;
mod append;
mod catalogue;
mod cli;
mod connection;
mod failure;
mod input;
mod output;
mod read;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use duramen_client::{Client, ConnectOptions};

use crate::cli::{Cli, Command};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::wait::{Awaited, Patience};

/// A person waits: shorter than a service would.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// How long a node may be silent.
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let to = match Connection::new(&cli, |name| std::env::var(name).ok()) {
        Ok(to) => to,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::failed("runtime", error.to_string(), "free resources of this machine");
            failure.report(cli.json);
            return failure.exit.into();
        }
    };
    let (as_json, outcome) = (cli.json, runtime.block_on(run(cli, &to)));
    // A thread that waits for standard input must not hold the program.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(as_json);
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli, to: &Connection) -> Result<(), Failure> {
    let json = cli.json;
    let patience = to.patience(TIMEOUT);
    match &cli.command {
        Command::Append { args, .. } => {
            let plan = append::Plan::new(args, to.tenant.is_some())?;
            append::run(&connect(to).await?, plan, patience, json).await
        }
        Command::Read { args, .. } => {
            let options = read::options(args)?;
            read::run(&connect(to).await?, &args.stream, options, patience, json).await
        }
        Command::Stream { command, .. } => {
            let (client, is_change) = (connect(to).await?, command.is_change());
            one_answer(patience, is_change, catalogue::stream(&client, command, json)).await
        }
        Command::Cursor { command, .. } => {
            let (client, is_change) = (connect(to).await?, command.is_change());
            one_answer(patience, is_change, catalogue::cursor(&client, command, json)).await
        }
        Command::Tenant { command, .. } => {
            let (client, is_change) = (connect(to).await?, command.is_change());
            one_answer(patience, is_change, catalogue::tenant(&client, command, json)).await
        }
        Command::RestorePoint { command, .. } => {
            let (client, is_change) = (connect(to).await?, command.is_change());
            one_answer(patience, is_change, catalogue::restore_point(&client, command, json)).await
        }
        Command::Status { .. } => admin::show(to, "/status", json).await,
        Command::Metrics { .. } => admin::metrics(to, json).await,
        Command::Health { degraded_ok, .. } => admin::health(to, *degraded_ok, json).await,
        Command::Archive { command, .. } => admin::archive(to, *command, json).await,
        Command::Snapshot { .. } => admin::snapshot(to, json).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "duramenctl", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

async fn one_answer(
    patience: Patience,
    is_change: bool,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let why = "a change waits for a majority of the cluster's nodes";
    let why = if is_change { why } else { "the node is busy, or can't be reached" };
    patience.wait(Awaited { what: &|| "the node's answer".to_owned(), why, is_change }, command).await?
}

async fn connect(to: &Connection) -> Result<Client, Failure> {
    let timeout = to.timeout.unwrap_or(TIMEOUT);
    let defaults = ConnectOptions::default();
    let options = ConnectOptions {
        connect_timeout: defaults.connect_timeout.min(timeout),
        // Who waits says so first.
        request_timeout: timeout.saturating_add(defaults.connect_timeout),
        retry_for: RETRY_FOR.min(timeout),
        ..defaults
    };
    let client = Client::connect_with(&to.endpoint, options).await?;
    Ok(match &to.tenant {
        Some(tenant) => client.with_tenant(tenant.clone()),
        None => client,
    })
}
