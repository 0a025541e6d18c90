//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use duramen_archive::{Checksum, StoreOptions};
use duramen_restore::MAX_PARALLELISM;
use duramen_types::{BranchName, NodeId, RestorePointName, StreamName, TenantName};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage; nothing was done
  3  damage: something is altered or missing; repair: entries are gone, or damage stays
  4  the archive does not cover the target, or does not prove it
  5  a branch, stream, restore point, hold or archive that was named does not exist
  6  try again later: the store can't be reached, or throttles

Times are RFC 3339 with a zone (2026-11-21T14:29:59Z), relative to now (-15m, -1h30m), or microseconds since 1970.";

/// Brings a log back from its archive, or branches it, as it was at any instant.
#[derive(Debug, Parser)]
#[command(
    name = "duramen-restore",
    version = env!("DURAMEN_VERSION"),
    after_help = EXIT_CODES,
    after_long_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// How the archive is reached, and how results are shown.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The archive: s3://bucket/prefix, gs://…, az://…, file:///directory
    #[arg(long, global = true, value_name = "URL", env = "DURAMEN_ARCHIVE")]
    pub archive: Option<String>,
    /// The server of an S3-compatible store
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The bucket is part of the path, not of the host name
    #[arg(long, global = true, value_name = "BOOL")]
    pub path_style: Option<bool>,
    /// The region of an S3 bucket
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// An endpoint on another machine may be spoken to without TLS
    #[arg(long, global = true)]
    pub allow_http: bool,
    /// S3 requests go unsigned, for a public bucket
    #[arg(long, global = true)]
    pub anonymous: bool,
    /// The checksum that S3 verifies on arrival
    #[arg(long, global = true, value_enum)]
    pub checksum: Option<ChecksumArg>,
    /// How many seconds one request may take, beside one for each MiB
    #[arg(long, global = true, value_name = "SECONDS")]
    pub request_timeout: Option<u64>,
    /// How often a request is tried
    #[arg(long, global = true, value_name = "N")]
    pub attempts: Option<u32>,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub json: bool,
}

/// Which history is meant.
#[derive(Debug, Args)]
pub(crate) struct BranchArg {
    /// The branch to work on
    #[arg(long, value_name = "NAME", default_value = "main", env = "DURAMEN_BRANCH")]
    pub branch: BranchName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ChecksumArg {
    Sha256,
    Crc64nvme,
    None,
}

impl Common {
    pub(crate) fn store_options(&self) -> StoreOptions {
        let defaults = StoreOptions::default();
        StoreOptions {
            endpoint: self.endpoint.clone(),
            path_style: self.path_style,
            region: self.region.clone(),
            allow_http: self.allow_http,
            anonymous: self.anonymous,
            checksum: match self.checksum {
                Some(ChecksumArg::Sha256) => Checksum::Sha256,
                Some(ChecksumArg::Crc64nvme) => Checksum::Crc64nvme,
                Some(ChecksumArg::None) => Checksum::None,
                None => defaults.checksum,
            },
            request_timeout: self.request_timeout.map_or(defaults.request_timeout, Duration::from_secs),
            attempts: self.attempts.unwrap_or(defaults.attempts),
            ..defaults
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists branches, recovery windows, snapshots and named restore points
    List,
    /// Says what a restore would do, and whether all that it needs is there
    Plan {
        #[command(flatten)]
        on: BranchArg,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Creates a branch at an instant of --branch; copies nothing
    Branch {
        #[command(flatten)]
        on: BranchArg,
        /// The new branch; made of the parent's name and the instant if it is left out
        name: Option<BranchName>,
        #[command(flatten)]
        target: TargetArgs,
        /// Print the plan and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Creates a branch and downloads its history into a data directory; run again to go on after an interruption
    Hydrate {
        #[command(flatten)]
        on: BranchArg,
        /// The data directory: new or empty, or half restored (then without a target)
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        target: TargetArgs,
        /// The number of the node that will run on the directory
        #[arg(long, value_name = "NUMBER", default_value = "1")]
        node_id: NodeId,
        /// The new branch
        #[arg(long, value_name = "NAME")]
        new_branch: Option<BranchName>,
        /// How many objects are downloaded at once, 1 to 16
        #[arg(long, value_name = "N", value_parser = parallelism())]
        parallelism: Option<usize>,
        /// Print the plan and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Proves the archive, and records the verdict in it
    Verify {
        #[command(flatten)]
        on: BranchArg,
        /// Structure and chain continuity (the default)
        #[arg(long, conflicts_with = "full")]
        quick: bool,
        /// Every byte of every object
        #[arg(long)]
        full: bool,
        /// Skip what the newest clean verdict covers
        #[arg(long)]
        since: bool,
        /// How many shards are verified at once, 1 to 16
        #[arg(long, value_name = "N", value_parser = parallelism())]
        parallelism: Option<usize>,
        /// Do not write the verdict into the archive
        #[arg(long)]
        dry_run: bool,
    },
    /// Writes records as JSON lines, as they were at an instant
    Export {
        #[command(flatten)]
        on: BranchArg,
        /// The stream
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        stream: Option<StreamName>,
        /// Every stream of every tenant
        #[arg(long)]
        all: bool,
        /// The tenant of the stream
        #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "all")]
        tenant: TenantName,
        /// How the records are written [default: jsonl.gz if the file's name ends in .gz, else jsonl]
        #[arg(long, value_enum)]
        format: Option<FormatArg>,
        /// The file to create [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Prints any object of the archive as JSON
    Show { key: String },
    /// Proves that the store does what an archive needs
    Check,
    /// Holds: what expiry must leave alone
    Hold {
        #[command(subcommand)]
        command: HoldCommand,
    },
    /// Repairs a damaged node's directory from the archive and every valid local frame beyond it
    Repair {
        /// The data directory of the stopped node
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Say what would be done and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Lists all holds
    List,
    /// Removes a hold
    Release {
        /// Its id, as `hold list` shows it
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Jsonl,
    #[value(name = "jsonl.gz")]
    JsonlGz,
}

/// How many things may be done at once.
fn parallelism() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_PARALLELISM as u64)
}

/// Where to stop.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct TargetArgs {
    /// With everything up to this instant: RFC 3339 with a zone, relative such as -15m, or microseconds since 1970
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub target_time: Option<String>,
    /// At these positions: `shard:index` for every shard, a plan's JSON, or @FILE with either
    #[arg(long, value_name = "POSITION")]
    pub target_position: Option<String>,
    /// At a named restore point
    #[arg(long, value_name = "NAME")]
    pub target_name: Option<RestorePointName>,
    /// At the latest instant through which every shard is proven complete
    #[arg(long)]
    pub latest: bool,
    /// At the end of each shard on its own: more than --latest, and not causal between shards
    #[arg(long)]
    pub latest_per_shard: bool,
}
