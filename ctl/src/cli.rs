//! The command line.

mod config;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use duramen_types::{CursorName, Offset, RestorePointName, StreamName, TenantName};

pub use self::config::{Ack, ChangeArgs, ConfigArgs};
use crate::connection::{AdminArg, BeforeArgs, EndpointArg, TenantArg};

const EXIT_CODES: &str = "Exit codes:
  0  done (health: ok)
  1  failed; what was asked for was not done (health: degraded)
  2  wrong usage; nothing was done (health: unhealthy or unreachable)
  3  unknown outcome: it may or may not have been done";

/// The command-line client of a Duramen node.
#[derive(Debug, Parser)]
#[command(name = "duramenctl", version = env!("DURAMEN_VERSION"), after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub before: BeforeArgs,
    /// Print JSON: one document, or one a line where there are many.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, change, trim and delete streams.
    Stream {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(flatten)]
        tenant: TenantArg,
        #[command(subcommand)]
        command: StreamCommand,
    },
    /// Append records: one a line, or with --import what `export` and `read --json` write.
    Append {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(flatten)]
        tenant: TenantArg,
        #[command(flatten)]
        args: AppendArgs,
    },
    /// Read records.
    Read {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(flatten)]
        tenant: TenantArg,
        #[command(flatten)]
        args: ReadArgs,
    },
    /// Read and set consumers' positions.
    Cursor {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(flatten)]
        tenant: TenantArg,
        #[command(subcommand)]
        command: CursorCommand,
    },
    /// Create and list tenants.
    Tenant {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Name instants that a restore can go back to.
    RestorePoint {
        #[command(flatten)]
        endpoint: EndpointArg,
        #[command(subcommand)]
        command: RestorePointCommand,
    },
    /// Show what the node is doing.
    Status {
        #[command(flatten)]
        admin: AdminArg,
    },
    /// Print the node's metrics.
    Metrics {
        #[command(flatten)]
        admin: AdminArg,
    },
    /// Check the node: exit code 0 is ok, 1 degraded, 2 unhealthy or unreachable.
    Health {
        #[command(flatten)]
        admin: AdminArg,
        /// Exit with 0 for degraded too: for a supervisor that restarts what fails, where a restart heals nothing.
        #[arg(long)]
        degraded_ok: bool,
    },
    /// Look after the archive.
    Archive {
        #[command(flatten)]
        admin: AdminArg,
        #[command(subcommand)]
        command: ArchiveCommand,
    },
    /// Have the node write a snapshot of its state machine to the archive.
    Snapshot {
        #[command(flatten)]
        admin: AdminArg,
    },
    /// Print a completion script for a shell.
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// Create a stream.
    Create {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List streams by name.
    List {
        /// Only names that begin with this.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Describe a stream.
    Describe {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
    },
    /// Change a stream's configuration; what is not given stays as it is.
    Set {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Make an offset the first readable one.
    Trim {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        /// The first offset to keep.
        to: Offset,
    },
    /// Delete a stream; its past stays readable with `read --as-of`.
    Delete {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
    },
}

#[derive(Debug, Args)]
pub struct AppendArgs {
    /// The stream (with --stream-field or --all: the file).
    #[arg(value_name = "STREAM")]
    pub first: Option<String>,
    /// The file to read; `-` or nothing is standard input.
    #[arg(value_name = "FILE")]
    pub second: Option<PathBuf>,
    /// Take each line as JSON, and send it to the stream that this field names; streams are created on the way.
    #[arg(long, value_name = "NAME", conflicts_with = "import")]
    pub stream_field: Option<String>,
    /// Take each line as JSON, and this field as the record's key.
    #[arg(long, value_name = "NAME", conflicts_with = "import")]
    pub key_field: Option<String>,
    /// Take each line as JSON, and this field as the record's timestamp: milliseconds since 1970, or RFC 3339.
    #[arg(long, value_name = "NAME", conflicts_with = "import")]
    pub timestamp_field: Option<String>,
    /// Take each line as a whole record with key, headers and timestamp, as `read --json` and `duramen-restore export`
    /// write it, compressed with gzip or not.
    #[arg(long)]
    pub import: bool,
    /// Import into the tenant and stream that each line names, as `duramen-restore export --all` writes it; both are
    /// created on the way.
    #[arg(long, requires = "import", conflicts_with = "stream_field")]
    pub all: bool,
    /// Import the records of a system stream such as `orders~rescued`, which nobody may append to, into `orders.rescued`.
    #[arg(long, requires = "all")]
    pub rename_rescued: bool,
    /// What each answer waits for; the stream's default if not given.
    #[arg(long, value_enum)]
    pub ack: Option<Ack>,
    /// At most this many records in one batch.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_records: u32,
}

#[derive(Debug, Args)]
pub struct ReadArgs {
    #[arg(value_parser = StreamName::parse)]
    pub stream: StreamName,
    /// Where to begin: an offset, `earliest`, `tail`, a record time (RFC 3339, or relative as -15m), or `cursor:NAME`.
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: String,
    /// End after this many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// At the tail, wait for more.
    #[arg(long, conflicts_with = "as_of")]
    pub follow: bool,
    /// Read the stream as it was at this instant: RFC 3339, relative as -15m, or microseconds since 1970.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub as_of: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum CursorCommand {
    /// List a stream's cursors with their lag.
    List {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
    },
    /// Show a cursor with its lag.
    Get {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        #[arg(value_parser = CursorName::parse)]
        cursor: CursorName,
    },
    /// Set a cursor to the next offset to read.
    Commit {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        #[arg(value_parser = CursorName::parse)]
        cursor: CursorName,
        offset: Offset,
    },
    /// Delete a cursor.
    Delete {
        #[arg(value_parser = StreamName::parse)]
        stream: StreamName,
        #[arg(value_parser = CursorName::parse)]
        cursor: CursorName,
    },
}

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant.
    Create {
        #[arg(value_parser = TenantName::parse)]
        name: TenantName,
    },
    /// List the tenants.
    List,
}

#[derive(Debug, Subcommand)]
pub enum RestorePointCommand {
    /// Name the present instant.
    Create {
        #[arg(value_parser = RestorePointName::parse)]
        name: RestorePointName,
    },
    /// List the named instants.
    List,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ArchiveCommand {
    /// Show how far the archive is.
    Status,
    /// Archive everything that is committed now.
    Flush,
    /// Prove that the archive's store does what is needed of it.
    Check,
}

impl StreamCommand {
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::List { .. } | Self::Describe { .. })
    }
}

impl CursorCommand {
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::List { .. } | Self::Get { .. })
    }
}

impl TenantCommand {
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::List)
    }
}

impl RestorePointCommand {
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use duramen_client::ConfigChange;
    use duramen_types::RescuePolicy;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn set(args: &[&str]) -> Result<ConfigChange, clap::Error> {
        let args = ["duramenctl", "stream", "set", "orders"].iter().chain(args);
        match Cli::try_parse_from(args)?.command {
            Command::Stream { command: StreamCommand::Set { change, .. }, .. } => Ok(change.change()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_tells_default_from_unchanged() {
        let change =
            set(&["--ack", "default", "--retention-age", "1h", "--retention-bytes", "none"]).unwrap();
        assert_eq!(
            change,
            ConfigChange {
                acknowledgement: Some(None),
                retention_age_seconds: Some(Some(3600)),
                retention_bytes: Some(None),
                compression: None,
                timestamps: None,
                rescue: None,
            }
        );
        let rescue = |choice| set(&["--rescue", choice]).map(|change| change.rescue);
        assert_eq!(rescue("append").unwrap(), Some(Some(RescuePolicy::Append)));
        assert_eq!(rescue("default").unwrap(), Some(None));
        assert!(set(&[]).is_err(), "nothing to change is wrong usage");
        assert!(
            set(&["--ack", "all"]).unwrap_err().to_string().contains("local, quorum, archived or default")
        );
        assert!(set(&["--retention-age", "0s"]).is_err());
        assert!(set(&["--retention-bytes", "10GiB"]).is_ok());
    }

    #[test]
    fn a_bad_name_is_refused_before_anything_is_sent() {
        for stream in ["a/b", "a~b", "", "..", "a b"] {
            let error = Cli::try_parse_from(["duramenctl", "stream", "describe", stream]).unwrap_err();
            assert!(error.to_string().contains("name"), "{error}");
        }
    }

    #[test]
    fn a_relative_time_is_no_flag() {
        let cli = Cli::try_parse_from(["duramenctl", "read", "orders", "--from", "-15m", "--as-of", "-1h"])
            .unwrap();
        let Command::Read { args, .. } = cli.command else { panic!("not a read") };
        assert_eq!((args.from.as_str(), args.as_of.as_deref()), ("-15m", Some("-1h")));
    }
}
