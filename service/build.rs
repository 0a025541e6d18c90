//! Tells the program which commit it was built from; "unknown" where there is no Git.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| !commit.is_empty());
    let commit = commit.as_deref().unwrap_or("unknown");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        // A debug build is not made anew for each commit, so it may be later than the commit that it names.
        println!("cargo::rustc-env=DURAMEN_COMMIT={commit}-debug");
        return;
    }
    println!("cargo::rustc-env=DURAMEN_COMMIT={commit}");
    // Changes with every commit and every change of branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists())
    {
        println!("cargo::rerun-if-changed={log}");
    }
}
