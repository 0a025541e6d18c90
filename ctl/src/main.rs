//! `duramenctl`: a client of a node's public and admin interfaces.

mod admin;
mod append;
mod catalogue;
mod cli;
mod failure;
mod input;
mod output;
mod read;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use duramen_client::{Client, ConnectOptions};

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// A person waits: shorter than a service would.
const RETRY_FOR: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::failed("runtime", error.to_string(), "free resources of this machine");
            failure.report(cli.json);
            return failure.exit.into();
        }
    };
    let (as_json, outcome) = (cli.json, runtime.block_on(run(cli)));
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

async fn run(cli: Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Stream(command) => catalogue::stream(&connect(&cli).await?, command, cli.json).await,
        Command::Cursor(command) => catalogue::cursor(&connect(&cli).await?, command, cli.json).await,
        Command::Tenant(command) => catalogue::tenant(&connect(&cli).await?, command, cli.json).await,
        Command::RestorePoint(command) => {
            catalogue::restore_point(&connect(&cli).await?, command, cli.json).await
        }
        Command::Append(args) => {
            let plan = append::Plan::new(args, cli.tenant.is_some())?;
            append::run(&connect(&cli).await?, plan, cli.json).await
        }
        Command::Read(args) => {
            let options = read::options(args)?;
            read::run(&connect(&cli).await?, &args.stream, options, cli.json).await
        }
        Command::Status => admin::show(&cli.admin, "/status", cli.json).await,
        Command::Metrics => admin::metrics(&cli.admin, cli.json).await,
        Command::Health { degraded_ok } => admin::health(&cli.admin, *degraded_ok, cli.json).await,
        Command::Archive(command) => admin::archive(&cli.admin, *command, cli.json).await,
        Command::Snapshot => admin::act(&cli.admin, "/admin/snapshot", cli.json).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "duramenctl", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

async fn connect(cli: &Cli) -> Result<Client, Failure> {
    let options = ConnectOptions { retry_for: RETRY_FOR, ..ConnectOptions::default() };
    let client = Client::connect_with(&cli.endpoint, options).await?;
    Ok(match &cli.tenant {
        Some(tenant) => client.with_tenant(tenant.clone()),
        None => client,
    })
}
