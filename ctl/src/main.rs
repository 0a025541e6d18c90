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

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use duramen_client::{Client, ConnectOptions};

use crate::cli::{Cli, Command};
use crate::connection::Connection;
use crate::failure::Failure;

/// A person waits: shorter than a service would.
const RETRY_FOR: Duration = Duration::from_secs(20);

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
    match &cli.command {
        Command::Stream { command, .. } => catalogue::stream(&connect(to).await?, command, json).await,
        Command::Cursor { command, .. } => catalogue::cursor(&connect(to).await?, command, json).await,
        Command::Tenant { command, .. } => catalogue::tenant(&connect(to).await?, command, json).await,
        Command::RestorePoint { command, .. } => {
            catalogue::restore_point(&connect(to).await?, command, json).await
        }
        Command::Append { args, .. } => {
            let plan = append::Plan::new(args, to.tenant.is_some())?;
            append::run(&connect(to).await?, plan, json).await
        }
        Command::Read { args, .. } => {
            let options = read::options(args)?;
            read::run(&connect(to).await?, &args.stream, options, json).await
        }
        Command::Status { .. } => admin::show(&to.admin, "/status", json).await,
        Command::Metrics { .. } => admin::metrics(&to.admin, json).await,
        Command::Health { degraded_ok, .. } => admin::health(&to.admin, *degraded_ok, json).await,
        Command::Archive { command, .. } => admin::archive(&to.admin, *command, json).await,
        Command::Snapshot { .. } => admin::act(&to.admin, "/admin/snapshot", json).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "duramenctl", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

async fn connect(to: &Connection) -> Result<Client, Failure> {
    let options = ConnectOptions { retry_for: RETRY_FOR, ..ConnectOptions::default() };
    let client = Client::connect_with(&to.endpoint, options).await?;
    Ok(match &to.tenant {
        Some(tenant) => client.with_tenant(tenant.clone()),
        None => client,
    })
}
