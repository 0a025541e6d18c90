//! Runs the commands.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;
use duramen_archive::{BranchView, Depth, Random, Store};
use duramen_client::when;
use duramen_restore::{
    BranchOptions, Error, ExportFormat, HydrateOptions, Plan, Position, RepairOptions, Streams, Target,
    VerifyOptions,
};
use duramen_types::{BranchName, Clock, HybridTime, SystemClock, counted};

use super::args::{Cli, Command, Common, FormatArg, HoldCommand, TargetArgs};
use super::print;
use super::progress::Progress;
use super::{EXIT_FAILED, Failure, Outcome};

type Result<T = Outcome> = std::result::Result<T, Failure>;

pub(crate) async fn run(cli: Cli) -> Result {
    let Cli { common, command } = cli;
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "duramen-restore", &mut script);
        print::out(&String::from_utf8_lossy(&script))?;
        return Ok(Outcome::Done);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let Some(url) = common.archive.as_deref().filter(|url| !url.is_empty()) else {
        return Err(Failure::usage("which archive? give --archive URL, or set DURAMEN_ARCHIVE"));
    };
    let store = Store::open(url, &common.store_options(), Arc::clone(&clock), Random::from_system()).await?;
    let now = clock.now();
    match command {
        Command::List => {
            let listing = duramen_restore::list(&store).await?;
            print::show(&common, &listing, || print::listing(&listing))?;
            Ok(Outcome::Done)
        }
        Command::Plan { on, target } => {
            let target = wanted(&target, now)?;
            let view = BranchView::open(&store, &on.branch).await?;
            let plan = duramen_restore::plan(&view, &target).await?;
            print::show(&common, &plan, || print::plan(&plan))?;
            Ok(Outcome::Done)
        }
        Command::Branch { on, name, target, dry_run } => {
            let target = wanted(&target, now)?;
            let options = BranchOptions { dry_run, ..BranchOptions::default() };
            let report =
                duramen_restore::branch(&store, &on.branch, name.as_ref(), &target, &options).await?;
            print::show(&common, &report, || {
                print::branch(&report, &archive(&common, &report.plan), dry_run)
            })?;
            Ok(Outcome::Done)
        }
        Command::Hydrate { on, to, target, node_id, new_branch, parallelism, dry_run } => {
            let progress = Progress::new("downloading");
            let mut options = HydrateOptions::new(node_id);
            options.branch = new_branch;
            options.parallelism = parallelism.unwrap_or(options.parallelism);
            options.dry_run = dry_run;
            options.observer = progress.observer.clone();
            let report = match chosen(&target, now)? {
                Some(target) => {
                    tell_later(&store, &on.branch).await;
                    duramen_restore::hydrate(&store, &on.branch, &target, &to, &options).await?
                }
                None => duramen_restore::resume(&store, &to, &options).await?,
            };
            drop(progress);
            print::show(&common, &report, || print::hydrated(&report, &archive(&common, &report.plan), &to))?;
            Ok(Outcome::Done)
        }
        Command::Verify { on, quick: _, full, since, parallelism, dry_run } => {
            let progress = Progress::new("verifying");
            let mut options = VerifyOptions::new(if full { Depth::Full } else { Depth::Quick });
            options.since = since;
            options.parallelism = parallelism.unwrap_or(options.parallelism);
            options.record = !dry_run;
            options.observer = progress.observer.clone();
            let report = duramen_restore::verify(&store, &on.branch, &options).await?;
            drop(progress);
            print::show(&common, &report, || print::verified(&report))?;
            Ok(if report.is_clean() { Outcome::Done } else { Outcome::Damage })
        }
        Command::Export { on, stream, all: _, tenant, format, output, target } => {
            let target = wanted(&target, now)?;
            let streams = stream.map_or(Streams::All, |stream| Streams::One { tenant, stream });
            let asked = Export {
                branch: &on.branch,
                target: &target,
                streams: &streams,
                format,
                output: output.as_deref(),
            };
            export(&store, asked, common.json).await
        }
        Command::Show { key } => {
            let value = duramen_restore::show(&store, &key).await?;
            print::json(&value)?;
            Ok(Outcome::Done)
        }
        Command::Check => {
            let checked = duramen_restore::check(&store).await?;
            print::show(&common, &checked, || print::checked(&checked))?;
            if checked.passed() {
                Ok(Outcome::Done)
            } else {
                Err(Failure::Other(
                    EXIT_FAILED,
                    "the store did not pass: an archive can't be kept there until what failed above is mended"
                        .to_owned(),
                ))
            }
        }
        Command::Hold { command: HoldCommand::List } => {
            let holds = duramen_restore::holds(&store).await?;
            print::show(&common, &holds, || print::holds(&holds, now))?;
            Ok(Outcome::Done)
        }
        Command::Hold { command: HoldCommand::Release { id } } => {
            duramen_restore::release_hold(&store, &id).await?;
            print::show(&common, &serde_json::json!({ "released": id }), || {
                format!("hold {id} is released\n")
            })?;
            Ok(Outcome::Done)
        }
        // Needs no archive, and is answered above.
        Command::Completions { .. } => Ok(Outcome::Done),
        Command::Repair { data, dry_run } => {
            let options = RepairOptions { dry_run, ..RepairOptions::default() };
            let report = duramen_restore::repair(&store, &data, &options).await?;
            print::show(&common, &report, || print::repaired(&report))?;
            Ok(if report.lost_nothing() { Outcome::Done } else { Outcome::Damage })
        }
    }
}

/// The archive as a person would type it for another command: as it was given here, options included.
fn archive(common: &Common, plan: &Plan) -> String {
    match &common.archive {
        // An URL with a query is quoted for the shell; one that may hold a password is not repeated.
        Some(url) if url.contains('?') && !url.contains(['@', '\'']) => format!("'{url}'"),
        _ => plan.url.clone(),
    }
}

/// The target, which must be given.
fn wanted(args: &TargetArgs, now: HybridTime) -> Result<Target> {
    chosen(args, now)?.ok_or_else(|| {
        let hint = "where to stop? give --target-time, --target-position, --target-name, --latest or --latest-per-shard";
        Failure::usage(hint)
    })
}

fn chosen(args: &TargetArgs, now: HybridTime) -> Result<Option<Target>> {
    if let Some(text) = &args.target_time {
        let time =
            when::parse(text, now).map_err(|error| Failure::usage(format!("--target-time: {error}")))?;
        return Ok(Some(Target::Time(time)));
    }
    if let Some(text) = &args.target_position {
        let read = text.strip_prefix('@').map(|file| {
            std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("--target-position: {file} can't be read: {error}")))
        });
        let text = read.unwrap_or_else(|| Ok(text.clone()))?;
        let position: Position = text.parse()?;
        return Ok(Some(Target::Position(position)));
    }
    Ok(match (&args.target_name, args.latest, args.latest_per_shard) {
        (Some(name), ..) => Some(Target::Name(name.clone())),
        (None, true, _) => Some(Target::Latest),
        (None, false, true) => Some(Target::LatestPerShard),
        (None, false, false) => None,
    })
}

/// What an export was asked for.
struct Export<'a> {
    branch: &'a BranchName,
    target: &'a Target,
    streams: &'a Streams,
    format: Option<FormatArg>,
    output: Option<&'a Path>,
}

async fn export(store: &Store, export: Export<'_>, as_json: bool) -> Result {
    let Export { branch, target, streams, format, output } = export;
    let is_named_gz = output.is_some_and(|path| path.extension().is_some_and(|extension| extension == "gz"));
    let format = match format {
        Some(FormatArg::JsonlGz) => ExportFormat::JsonlGz,
        None if is_named_gz => ExportFormat::JsonlGz,
        Some(FormatArg::Jsonl) | None => ExportFormat::Jsonl,
    };
    let progress = Progress::new("exporting");
    let mut out: Box<dyn Write + Send> = match output {
        Some(path) => {
            let path = path.to_owned();
            let created = File::create_new(&path).map_err(|source| match source.kind() {
                std::io::ErrorKind::AlreadyExists => Error::OutputExists { path },
                _ => Error::OutputFile { path, source },
            });
            Box::new(BufWriter::new(created?))
        }
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let done = duramen_restore::export(store, branch, target, streams, format, &mut *out, &progress.observer);
    let report = match done.await {
        // Whoever reads the pipe has enough.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return Ok(Outcome::Done);
        }
        Ok(report) => report,
        Err(error) => {
            // The beginning of an export looks like a whole one. What can't be removed stays; the error counts.
            if let Some(path) = output {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    drop(progress);
    let (records, streams, at) = (report.records, report.streams, when::format(report.time));
    match (as_json, output) {
        (true, Some(_)) => print::json(&report)?,
        // Standard output has the records.
        (true, None) => eprintln!("{}", serde_json::json!(report)),
        (false, _) => {
            eprintln!("{} of {} as of {at}", counted(records, "record"), counted(streams, "stream"));
        }
    }
    Ok(Outcome::Done)
}

/// Says that the branch is not where its node went on, if so: who rebuilds a node a second time may mean the other one.
async fn tell_later(store: &Store, branch: &BranchName) {
    // Whatever is wrong, the restore says it.
    let Ok(listing) = duramen_restore::list(store).await else { return };
    if let Some(latest) = listing.later(branch).last() {
        eprintln!(
            "note: branch {} continues {branch} and was written later, through {}: to restore that one, --branch {0}",
            latest.name,
            when::format(latest.latest)
        );
    }
}
