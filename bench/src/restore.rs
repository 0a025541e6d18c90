//! Restores, in processes of their own: so that their memory and processor time are theirs alone.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use duramen_archive::{Random, Store, StoreOptions};
use duramen_restore::{BranchOptions, HydrateOptions, MAX_PARALLELISM, Target};
use duramen_tests::{Deadline, Process};
use duramen_types::{BranchName, Clock as _, NodeId, SystemClock};
use serde::{Deserialize, Serialize};

use crate::node::Archive;
use crate::usage;

/// The arguments with which this program restores: then the archive's URL, the new branch, and for `hydrate` a directory.
pub const BRANCH: &str = "restore-branch";
pub const HYDRATE: &str = "restore-hydrate";

const PARENT: &str = "main";
const LONGEST: u64 = 280;

/// What a restore took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {
    /// Of the work itself, without the start of the process.
    pub took: Duration,
    pub objects: u64,
    pub bytes: u64,
    pub cpu: Duration,
    /// Bytes of resident memory at most.
    pub peak: u64,
}

/// Makes a branch at the archive's end.
pub fn branch(archive: &Archive, name: &str) -> Result<Done> {
    run(archive, &[BRANCH, &archive.url(), name])
}

/// Makes a branch at the archive's end, and a data directory with all that it reaches.
pub fn hydrate(archive: &Archive, name: &str, to: &Path) -> Result<Done> {
    run(archive, &[HYDRATE, &archive.url(), name, &to.display().to_string()])
}

fn run(archive: &Archive, arguments: &[&str]) -> Result<Done> {
    let mut command = Command::new(std::env::current_exe().context("this program's own file")?);
    command.args(arguments).envs(archive.environment());
    let mut process = Process::start("a restore", &mut command)?;
    let deadline = Deadline::after_secs(LONGEST);
    process.wait_for_line(deadline, |line| serde_json::from_str(line).ok())
}

/// What the process of [`branch`] and [`hydrate`] does; prints a [`Done`].
pub fn main(arguments: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (took, reach) = runtime.block_on(restore(arguments))?;
    let me = std::process::id();
    let done = Done {
        took,
        objects: reach.segments + reach.snapshots,
        bytes: reach.bytes,
        cpu: usage::cpu(me)?,
        peak: usage::memory(me)?.peak,
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

async fn restore(arguments: &[String]) -> Result<(Duration, duramen_restore::Reach)> {
    let [what, url, name, rest @ ..] = arguments else { anyhow::bail!("a restore needs a URL and a branch") };
    let clock = SystemClock::new();
    let store = Store::open(url, &StoreOptions::default(), Arc::new(clock), Random::from_system()).await?;
    let (parent, name) = (BranchName::parse(PARENT)?, BranchName::parse(name)?);
    let target = Target::LatestPerShard;
    if what == BRANCH {
        let options = BranchOptions { creator: "duramen-bench".to_owned(), dry_run: false };
        duramen_restore::branch(&store, &parent, Some(&name), &target, &options).await?;
        return Ok((clock.monotonic(), duramen_restore::Reach::default()));
    }
    let to = rest.first().context("hydrate needs a directory")?;
    let mut options = HydrateOptions::new(NodeId::new(1));
    options.branch = Some(name);
    options.parallelism = MAX_PARALLELISM.min(16);
    let report = duramen_restore::hydrate(&store, &parent, &target, Path::new(to), &options).await?;
    Ok((clock.monotonic(), report.fetched))
}
