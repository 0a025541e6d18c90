//! The `duramen-archiver` program: archives what a stopped node has left, and tidies an archive.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use duramen_archive::{
    BranchView, Committer, History, HistoryOptions, Owner, Random, SegmentCache, Store, StoreOptions,
};
use duramen_archiver::{Settings, ShardArchiver, collect_orphans};
use duramen_types::{BranchName, Clock, Compression, SegmentId, SystemClock};
use duramen_wal::datadir::DataDir;
use duramen_wal::{RealDisk, Wal, WalOptions};
use tokio::sync::Semaphore;

/// Memory for index pages while states are rebuilt.
const CACHE: usize = 32 << 20;

/// Archives what a stopped node has left, and tidies an archive.
#[derive(Debug, Parser)]
#[command(name = "duramen-archiver", version)]
struct Cli {
    /// The archive: s3://bucket/prefix, gs://…, az://…, file:///directory. Options follow as a query, like
    /// `s3://bucket?endpoint=http://127.0.0.1:9000&path_style=true&allow_http=true`
    #[arg(long, env = "DURAMEN_ARCHIVE", value_name = "URL", global = true, default_value = "")]
    archive: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Archive everything in the data directory of a node that is not running
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
        #[arg(long, default_value = "main")]
        branch: BranchName,
        /// Delete them; without it nothing is changed
        #[arg(long)]
        delete: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("the async runtime").and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("duramen-archiver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    anyhow::ensure!(!cli.archive.is_empty(), "which archive? Give --archive URL or set DURAMEN_ARCHIVE");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let random = Random::from_system();
    let store =
        Store::open(&cli.archive, &StoreOptions::default(), Arc::clone(&clock), random.clone()).await?;
    match cli.command {
        Command::Run { data, snapshot } => archive(&store, data, snapshot, clock, random, cli.json).await,
        Command::Orphans { branch, delete } => orphans(&store, &branch, delete, cli.json).await,
    }
}

async fn archive(
    store: &Store,
    data: PathBuf,
    snapshot: bool,
    clock: Arc<dyn Clock>,
    random: Random,
    json: bool,
) -> anyhow::Result<()> {
    let disk = Arc::new(RealDisk);
    let directory = DataDir::open(disk.clone(), &data)?;
    let node = directory.node()?.with_context(|| format!("{} holds no node", data.display()))?;
    let branch =
        node.branch.as_deref().context("the node was never bound to an archive: start it with one first")?;
    let branch = BranchName::parse(branch)?;
    let view = BranchView::open(store, &branch).await?;
    anyhow::ensure!(
        node.archive == Some(view.identity().archive),
        "the data directory belongs to archive {:?}, {} is archive {}",
        node.archive,
        store.url(),
        view.identity().archive
    );
    Owner::claim(store, &branch, node.cluster).await?;
    let ids = Box::new(move || SegmentId::from_random(random.bytes16()));
    let (wal, _) = Wal::open(disk, &directory.wal(), WalOptions::new(node.node), clock, ids)?;
    let cache = SegmentCache::new(CACHE);
    let history = History::new(store.clone(), view.identity().archive, cache, HistoryOptions::default());
    let settings = Settings {
        archive: view.identity().archive,
        committer: Committer { cluster: node.cluster, node: node.node },
        segment_bytes: 64 << 20,
        compression: Compression::Zstd,
        level: 1,
        threads: NonZeroUsize::MIN,
        uploads: Arc::new(Semaphore::new(4)),
    };
    for shard in view.shard_ids() {
        let log = view.log(shard).await?.clone();
        let boundary = history.state_at(&view.shard(shard).await?, log.tip().end).await?;
        let mut archiver = ShardArchiver::new(log, boundary, settings.clone()).await?;
        // A sole voter's log is committed as far as it reaches.
        let cut = archiver.cut(&wal, wal.log_state(shard).end, |_| {}).await?;
        let taken = if snapshot { archiver.snapshot().await? } else { None };
        if json {
            let report = serde_json::json!({
                "shard": shard, "archived": archiver.end(), "segments": cut.segments, "bytes": cut.bytes,
                "entries": cut.entries, "records": cut.records, "snapshot": taken.map(|snapshot| snapshot.index),
            });
            println!("{report}");
        } else {
            println!(
                "shard {shard}: {} entries with {} records in {} segments of {} bytes; archived to index {}",
                cut.entries,
                cut.records,
                cut.segments,
                cut.bytes,
                archiver.end()
            );
        }
    }
    wal.shutdown()?;
    Ok(())
}

async fn orphans(store: &Store, branch: &BranchName, delete: bool, json: bool) -> anyhow::Result<()> {
    let view = BranchView::open(store, branch).await?;
    for shard in view.shard_ids() {
        let found = collect_orphans(&view, shard, !delete).await?;
        if json {
            let report = serde_json::json!({
                "shard": shard, "deleted": delete, "bytes": found.bytes, "keys": found.keys,
            });
            println!("{report}");
        } else {
            let verb = if delete { "deleted" } else { "found" };
            println!("shard {shard}: {verb} {} orphans of {} bytes", found.keys.len(), found.bytes);
            for key in found.keys {
                println!("  {key}");
            }
        }
    }
    Ok(())
}
