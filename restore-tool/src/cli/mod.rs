//! The command line of `duramen-restore`.

mod args;
mod commands;
mod print;
mod progress;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use duramen_archive::LOG_DIRECTIVES;
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
    /// With the exit code.
    Other(u8, String),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Restore(error.into())
    }
}

/// Parses the arguments, runs the command and says with what code to exit.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.common.json;
    tracing_subscriber::fmt()
        .with_env_filter(format!("warn,{LOG_DIRECTIVES}"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let what = format!("cannot start the runtime: {error}; free resources of this machine");
            return Failure::Other(EXIT_FAILED, what).report(as_json);
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Damage) => ExitCode::from(EXIT_DAMAGE),
        Err(failure) => failure.report(as_json),
    }
}

impl Failure {
    /// A command line that makes no sense; nothing was done.
    fn usage(what: impl Into<String>) -> Self {
        Self::Other(EXIT_USAGE, what.into())
    }

    /// Says on standard error what went wrong, and with what code to exit.
    fn report(&self, as_json: bool) -> ExitCode {
        let (message, causes) = match self {
            Self::Restore(error) => (error.to_string(), causes(error)),
            Self::Other(_, reason) => (reason.clone(), Vec::new()),
        };
        let code = self.code();
        if as_json {
            let (retryable, effect) = match self {
                Self::Restore(error) => (error.is_retryable(), error.may_have_had_effect()),
                Self::Other(..) => (false, false),
            };
            let error = serde_json::json!({
                "code": name(code),
                "message": message,
                "causes": causes,
                "retryable": retryable,
                "may_have_had_effect": effect,
            });
            eprintln!("{}", serde_json::json!({ "error": error }));
        } else {
            eprintln!("error: {message}");
            causes.iter().for_each(|cause| eprintln!("  because: {cause}"));
        }
        ExitCode::from(code)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Other(code, _) => *code,
            Self::Restore(error) if error.is_damage() => EXIT_DAMAGE,
            Self::Restore(error) if error.is_not_covered() => EXIT_NOT_COVERED,
            Self::Restore(error) if error.is_not_found() => EXIT_NOT_FOUND,
            Self::Restore(
                Error::Position { .. }
                | Error::NotAKey { .. }
                | Error::Archive(duramen_archive::Error::Config { .. }),
            ) => EXIT_USAGE,
            Self::Restore(error) if error.is_retryable() => EXIT_TRY_AGAIN,
            Self::Restore(_) => EXIT_FAILED,
        }
    }
}

/// The stable name of an exit code.
const fn name(code: u8) -> &'static str {
    match code {
        EXIT_USAGE => "usage",
        EXIT_DAMAGE => "damage",
        EXIT_NOT_COVERED => "not_covered",
        EXIT_NOT_FOUND => "not_found",
        EXIT_TRY_AGAIN => "try_again",
        _ => "failed",
    }
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}
