//! The command line of `duramen-restore`.

mod args;
mod commands;
mod print;
mod progress;

use std::process::ExitCode;

use clap::Parser as _;
use duramen_restore::Error;

use self::args::Cli;

/// Something failed that no other code stands for.
const EXIT_FAILED: u8 = 1;
/// The command line makes no sense; also what clap exits with.
const EXIT_USAGE: u8 = 2;
/// Stored bytes are damaged, altered or missing.
const EXIT_DAMAGE: u8 = 3;
/// The archive does not cover, or not prove, the target.
const EXIT_NOT_COVERED: u8 = 4;
/// A branch, stream, restore point, hold or archive that was named does not exist.
const EXIT_NOT_FOUND: u8 = 5;
/// The same command may succeed later: the store can't be reached, or throttles.
const EXIT_TRY_AGAIN: u8 = 6;

/// How a command came out.
pub(crate) enum Outcome {
    Done,
    /// It did its work, and found damage.
    Damage,
}

/// A command that failed.
pub(crate) enum Failure {
    Restore(Error),
    Usage(String),
    Other(String),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Restore(error.into())
    }
}

/// Parses the arguments, runs the command and says with what code to exit.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::Other(format!("cannot start the runtime: {error}"))),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Damage) => ExitCode::from(EXIT_DAMAGE),
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Restore(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
        }
        Failure::Usage(reason) | Failure::Other(reason) => eprintln!("error: {reason}"),
    }
    ExitCode::from(code(failure))
}

fn code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => EXIT_USAGE,
        Failure::Other(_) => EXIT_FAILED,
        Failure::Restore(error) if error.is_damage() => EXIT_DAMAGE,
        Failure::Restore(error) if error.is_not_covered() => EXIT_NOT_COVERED,
        Failure::Restore(error) if error.is_not_found() => EXIT_NOT_FOUND,
        Failure::Restore(Error::Position { .. } | Error::NotAKey { .. }) => EXIT_USAGE,
        Failure::Restore(error) if error.is_retryable() => EXIT_TRY_AGAIN,
        Failure::Restore(_) => EXIT_FAILED,
    }
}
