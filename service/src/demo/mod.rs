//! `duramen demo`: appends real records, archives them, loses them twice, and gets them back.
//!
//! Everything goes through the interfaces that users have: a node with its ports, the client, the restore library.
//! Each step says what it does, how long it took, and the commands that a person would type for it. They work as they are
//! in a directory that was kept.

mod cluster;
mod content;
mod input;
mod script;
mod typed;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

/// What the demo can be told.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Keep everything in this directory, to play with it afterwards; it must be empty or absent
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Take the records from this file, one JSON object a line [default: 1,707 earthquakes that come with the program]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The field that names a record's stream [default: net, if every record has it; else all go to the stream `records`]
    #[arg(long, value_name = "NAME")]
    stream_field: Option<String>,
    /// The field that is a record's key [default: id, if every record has it; else there are no keys]
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// The field that is a record's timestamp, in milliseconds since 1970 or RFC 3339 [default: time, if every record has
    /// it; else the time of the append]
    #[arg(long, value_name = "NAME")]
    timestamp_field: Option<String>,
}

/// Runs the demo; an error where a comparison failed.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")?;
    let (directory, temporary) = match &args.keep {
        Some(directory) => (directory.clone(), None),
        None => {
            let temporary =
                tempfile::Builder::new().prefix("duramen-demo-").tempdir().context("a directory")?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
    let occupied = std::fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))?.next();
    anyhow::ensure!(occupied.is_none(), "{} is not empty: name an empty directory", directory.display());
    let directory = directory.canonicalize().with_context(|| format!("{}", directory.display()))?;
    runtime.block_on(script::play(args, &directory))?;
    match temporary {
        Some(temporary) => temporary.close().context("removing the demo's directory"),
        None => Ok(()),
    }
}
