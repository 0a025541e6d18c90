//! `duramen-restore`: a thin layer of arguments and printing over the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
