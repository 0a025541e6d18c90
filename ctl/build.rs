//! Puts the commit that was built into the program's version, where it is known.

fn main() {
    println!("cargo::rerun-if-env-changed=DURAMEN_COMMIT");
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let given = std::env::var("DURAMEN_COMMIT").ok().filter(|commit| !commit.is_empty());
    let version = match given.or_else(commit_of_checkout) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=DURAMEN_VERSION={version}");
}

fn commit_of_checkout() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| output.status.success() && !commit.is_empty())
}
