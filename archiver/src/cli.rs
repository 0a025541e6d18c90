//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use duramen_types::BranchName;

/// The command line makes no sense; also what clap exits with.
pub const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; run it again: what was archived stays, and is not archived twice
  2  wrong usage; nothing was done";

/// Archives what a stopped node has left, and tidies an archive.
#[derive(Debug, Parser)]
#[command(
    name = "duramen-archiver",
    version = env!("DURAMEN_VERSION"),
    after_help = EXIT_CODES,
    after_long_help = EXIT_CODES
)]
pub struct Cli {
    /// The archive: s3://bucket/prefix, gs://…, az://…, file:///directory. Options follow as a query, like
    /// `s3://bucket?endpoint=http://127.0.0.1:9000&path_style=true&allow_http=true`
    #[arg(
        long,
        env = "DURAMEN_ARCHIVE",
        value_name = "URL",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub archive: String,
    /// Print JSON, one document a line
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Archive everything in the data directory of a node that is not running, so that `--latest` restores all of it
    Run {
        /// The node's data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Also write a snapshot of every shard
        #[arg(long)]
        snapshot: bool,
    },
    /// List uploaded segments that no manifest names; the branch must not be in use while they are deleted
    Orphans {
        /// The branch to look at
        #[arg(long, value_name = "NAME", default_value = "main", env = "DURAMEN_BRANCH")]
        branch: BranchName,
        /// Delete them; without it nothing is changed
        #[arg(long)]
        delete: bool,
    },
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
