//! The workspace's programs, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Where the four programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The node.
    pub duramen: PathBuf,
    pub duramen_archiver: PathBuf,
    pub duramen_restore: PathBuf,
    pub duramenctl: PathBuf,
}

/// A test of this package, built along with the programs so that Cargo takes the same features of all dependencies
/// as `cargo test --workspace` does, and builds none of them twice.
const ALONG: &str = "zz_object_store_used";

/// Builds the programs, in the profile and target directory of the running test, and says where they are.
///
/// Cargo makes the first call in a fresh directory wait for the build; after that it takes a second a test program.
pub fn programs() -> Result<&'static Programs> {
    static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_ref().map_err(|error| anyhow::anyhow!("the programs can't be built: {error}"))
}

fn build() -> Result<Programs> {
    let running = std::env::current_exe().context("a test can find its own file")?;
    let layout = "a test is at TARGET/PROFILE/deps/NAME";
    let profile_directory = running.parent().and_then(Path::parent).context(layout)?;
    let target_directory = profile_directory.parent().context(layout)?;
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()).context(layout)? {
        "debug" => "dev",
        profile => profile,
    };

    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?,
        )
        .args(["build", "--quiet", "--workspace", "--bins", "--test", ALONG, "--profile", profile])
        .arg("--target-dir")
        .arg(target_directory);
    // What Cargo told this test about itself would look to build scripts like a change, and rebuild half the world.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
                .iter()
                .any(|start| name.starts_with(start))
        });
        if told {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo build: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    let program = |name: &str| {
        let file = profile_directory.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if file.is_file() { Ok(file) } else { bail!("{} is not there after the build", file.display()) }
    };
    Ok(Programs {
        duramen: program("duramen")?,
        duramen_archiver: program("duramen-archiver")?,
        duramen_restore: program("duramen-restore")?,
        duramenctl: program("duramenctl")?,
    })
}
