//! The last test of this package says which object store the others ran against. It has no harness, because a harness
//! hides what a passing test prints.

use std::process::ExitCode;

fn main() -> ExitCode {
    match duramen_tests::object_store_used() {
        Ok(sentence) => {
            println!("\n{sentence}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}
