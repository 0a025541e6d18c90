//! The build script of all four programs: puts version and commit into them, as `DURAMEN_COMMIT` and `DURAMEN_VERSION`.
//!
//! The commit is that of the checkout, or what `DURAMEN_COMMIT` says where there is no Git, as in a container's build;
//! without both it is "unknown".

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../version.rs");
    println!("cargo::rerun-if-env-changed=DURAMEN_COMMIT");
    let given = std::env::var("DURAMEN_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.unwrap_or_else(commit_of_checkout);
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=DURAMEN_COMMIT={commit}");
    println!("cargo::rustc-env=DURAMEN_VERSION={version} ({commit})");
}

fn commit_of_checkout() -> String {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        // A debug build is not made anew for each commit, so it may be later than the commit that it names.
        return format!("{commit}-debug");
    }
    // Changes with every commit and every change of branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists())
    {
        println!("cargo::rerun-if-changed={log}");
    }
    commit
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
