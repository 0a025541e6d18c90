//! `duramen doctor`: what a stopped node's data directory holds, up to where each shard is good, what is damaged, and
//! what to do. Changes nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use duramen_restore::Restored;
use duramen_types::{Index, ShardId, counted};
use duramen_wal::datadir::{DataDir, NodeDescription};
use duramen_wal::{Disk, RealDisk};
use serde::Serialize;

use crate::archive::archived_ends;
use crate::index::check_file;
use crate::shard::{Checkpoint, check_recoverable};
use crate::time::rfc3339;

/// What the doctor is asked.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The data directory of a node that is not running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    directory: String,
    node: Option<u64>,
    cluster: Option<String>,
    branch: Option<String>,
    /// Where a restore took it from; `None` for a directory that a node made.
    restored: Option<RestoredFrom>,
    segments: Vec<Segment>,
    shards: Vec<ShardFound>,
    /// What an unclean stop left behind the last synced frame; nothing acknowledged.
    unsynced_end: Option<String>,
    damage: Vec<Damage>,
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RestoredFrom {
    archive: String,
    parent: String,
    /// The instant, RFC 3339.
    at: String,
    branch: String,
    started: String,
    /// Whether the restore has finished, so that a node can start.
    activated: bool,
    /// How far the restore is, in its own words.
    progress: String,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    bytes: u64,
    good_through: u64,
    sealed: bool,
}

#[derive(Debug, Serialize)]
struct ShardFound {
    shard: ShardId,
    first: Index,
    end: Index,
    committed: Option<Index>,
    checkpoint_end: Option<Index>,
    checkpoint_problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    offset: u64,
    problem: String,
}

/// Examines the directory; gives what is to be printed, and whether a node can start on it.
pub fn run(args: &DoctorArgs) -> anyhow::Result<(String, bool)> {
    // Opening makes what is missing; here only a directory that is one already is opened.
    anyhow::ensure!(
        ["node.json", "restore.json", "wal"].iter().any(|name| args.data.join(name).exists()),
        "{} is no node's data directory, it has neither node.json nor restore.json nor wal: name the one that the node \
         was started with",
        args.data.display()
    );
    let disk = Arc::new(RealDisk);
    let directory = DataDir::open_to_look(disk.clone(), &args.data)?;
    let node = directory.node()?;
    let has_log = directory.wal().is_dir();
    let report = if has_log {
        duramen_wal::inspect(&*disk, &directory.wal())?
    } else {
        duramen_wal::Report::default()
    };
    let mut damage: Vec<Damage> = report
        .damage
        .iter()
        .map(|found| Damage {
            file: found.file.display().to_string(),
            offset: found.offset,
            problem: found.reason.clone(),
        })
        .collect();
    let mut shards = Vec::new();
    let mut bad_checkpoints = Vec::new();
    // What the log has lost, as far as others than the log tell.
    let mut lost = Vec::new();
    let noted = node.as_ref().map_or_else(Vec::new, |node| archived_ends(&directory.archived(), node));
    // Behind damage the end of the log is not known.
    let end_is_known = report.damage.is_empty();
    for shard in shards_of(&report, node.as_ref()) {
        let log = report.shards.get(&shard).cloned().unwrap_or_default();
        let file = Checkpoint::path(&directory.checkpoint(), shard).display().to_string();
        let mut archived = noted.get(usize::from(shard.get())).copied().unwrap_or_default();
        let (checkpoint_end, checkpoint_problem) =
            match Checkpoint::load(&*disk, &directory.checkpoint(), shard) {
                Ok(checkpoint) => {
                    // One that ends before the log begins is made anew at the start, from the archive.
                    let ahead =
                        checkpoint.as_ref().filter(|found| end_is_known && found.state.end() > log.end);
                    if let Some(found) = ahead
                        && let Err(error) = check_recoverable(&found.state, log.purged, log.last)
                    {
                        lost.push(Damage { file, offset: 0, problem: error.to_string() });
                        // It is said already.
                        archived = Index::ZERO;
                    }
                    (checkpoint.map(|checkpoint| checkpoint.state.end()), None)
                }
                Err(error) => {
                    let problem = error.to_string();
                    bad_checkpoints.push(Damage { file, offset: 0, problem: problem.clone() });
                    (None, Some(problem))
                }
            };
        if end_is_known && archived > log.end {
            let problem = format!(
                "shard {shard}: it was archived to index {archived}, and the log here ends at {}: it has lost entries",
                log.end
            );
            lost.push(Damage { file: directory.wal().display().to_string(), offset: 0, problem });
        }
        if !report.shards.contains_key(&shard) && checkpoint_end.is_none() && checkpoint_problem.is_none() {
            continue;
        }
        shards.push(ShardFound {
            shard,
            first: log.first,
            end: log.end,
            committed: log.committed.map(|id| id.index.next()),
            checkpoint_end,
            checkpoint_problem,
        });
    }
    let mut advice = Vec::new();
    let note = directory.restore()?;
    let activated = directory.is_activated()?;
    let restored = note.as_ref().and_then(|note| {
        let found = Restored::of(note)?;
        Some(RestoredFrom {
            archive: found.source,
            parent: found.parent.to_string(),
            at: rfc3339(found.at),
            branch: found.branch.to_string(),
            started: rfc3339(found.started),
            activated,
            progress: note.progress.clone(),
        })
    });
    if let Some(restore) = note.filter(|_| !activated) {
        advice.push(format!(
            "a restore of branch {} has not finished ({}): run `duramen-restore hydrate` again, it goes on where it \
             stopped",
            restore.branch, restore.progress
        ));
    }
    if let Some(archive) = node.as_ref().and_then(|node| node.archive).filter(|_| activated) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let hydrated = directory.hydrated();
        for (file, problem) in runtime.block_on(duramen_restore::damaged_hydrated(&hydrated, archive))? {
            damage.push(Damage { file: file.display().to_string(), offset: 0, problem });
        }
    }
    let index = damaged_index_files(&*disk, &directory.index())?;
    if !lost.is_empty() {
        let data = args.data.display();
        advice.push(format!(
            "run `duramen-restore repair --data {data} --archive URL`. Where that finds nothing damaged, the rest of the log is \
             not here any more: `duramen-archiver run --data {data} --archive URL` archives what is left, and \
             `duramen-restore hydrate --latest` rebuilds the node in another directory"
        ));
        damage.append(&mut lost);
    } else if !damage.is_empty() {
        advice.push(format!(
            "run `duramen-restore repair --data {} --archive URL`: it rebuilds the log from the archive and from every \
             valid frame here, and says what, if anything, is gone",
            args.data.display()
        ));
    }
    for (file, problem) in index {
        advice.push(format!(
            "delete {}: the next start makes anew what it covered, or it is read from the archive",
            file.display()
        ));
        damage.push(Damage { file: file.display().to_string(), offset: 0, problem });
    }
    let sound = advice.is_empty();
    if !bad_checkpoints.is_empty() {
        advice.push(
            "a damaged checkpoint is made anew at the next start: from the log or, where the log doesn't begin at its first \
             entry, from the archive, which has to answer then"
                .to_owned(),
        );
        damage.append(&mut bad_checkpoints);
    }
    if sound {
        let nothing = if advice.is_empty() { "nothing" } else { "nothing more" };
        advice.push(format!("{nothing}: a node can start on it"));
    }
    let diagnosis = Diagnosis {
        directory: args.data.display().to_string(),
        node: node.as_ref().map(|node| node.node.get()),
        cluster: node.as_ref().map(|node| node.cluster.to_string()),
        branch: node.as_ref().and_then(|node| node.branch.clone()),
        restored,
        segments: report
            .segments
            .iter()
            .map(|segment| Segment {
                file: segment.path.display().to_string(),
                bytes: segment.bytes,
                good_through: segment.good_through,
                sealed: segment.sealed,
            })
            .collect(),
        shards,
        unsynced_end: report.cut.as_ref().map(|cut| {
            format!("{} is cut at byte {} at the next start: {}", cut.file.display(), cut.offset, cut.reason)
        }),
        damage,
        advice,
    };
    let text =
        if args.json { serde_json::to_string_pretty(&diagnosis)? + "\n" } else { describe(&diagnosis)? };
    Ok((text, sound))
}

/// The shards that the log knows, and those that the node has, in order.
fn shards_of(report: &duramen_wal::Report, node: Option<&NodeDescription>) -> BTreeSet<ShardId> {
    let has = node.map_or(0..0, |node| 0..node.shards.saturating_add(1)).map(ShardId::new);
    report.shards.keys().copied().chain(has).collect()
}

/// Index files that can't be read, and why. A node starts with them, and fails to read what they cover.
fn damaged_index_files(disk: &dyn Disk, directory: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut damaged = Vec::new();
    if !directory.is_dir() {
        return Ok(damaged);
    }
    for name in disk.list(directory)?.into_iter().filter(|name| name.ends_with(".index")) {
        let file = directory.join(&name);
        if let Err(problem) = check_file(disk, &file, &name) {
            damaged.push((file, problem));
        }
    }
    Ok(damaged)
}

fn describe(found: &Diagnosis) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    writeln!(
        out,
        "{}: node {}, cluster {}, branch {}",
        found.directory,
        found.node.map_or_else(|| "none".to_owned(), |node| node.to_string()),
        or_none(&found.cluster),
        or_none(&found.branch)
    )?;
    if let Some(restored) = &found.restored {
        let state = match restored.activated {
            true => "activated, a node may start".to_owned(),
            false => format!("not activated, no node starts ({})", restored.progress),
        };
        writeln!(
            out,
            "\nrestored\n  from branch {} of {} as of {}, begun at {}\n  as branch {}: {state}",
            restored.parent, restored.archive, restored.at, restored.started, restored.branch
        )?;
    }
    writeln!(out, "\nsegments")?;
    for segment in &found.segments {
        let state = if segment.sealed { "sealed" } else { "open" };
        writeln!(
            out,
            "  {}  {}, good through byte {}, {state}",
            segment.file,
            counted(segment.bytes, "byte"),
            segment.good_through
        )?;
    }
    writeln!(out, "\nshards")?;
    for shard in &found.shards {
        let index = |index: Option<Index>| index.map_or_else(|| "none".to_owned(), |index| index.to_string());
        writeln!(
            out,
            "  shard {}: entries {} to before {}, committed to {}, checkpoint to {}",
            shard.shard,
            shard.first,
            shard.end,
            index(shard.committed),
            index(shard.checkpoint_end)
        )?;
    }
    if let Some(end) = &found.unsynced_end {
        writeln!(out, "\nunsynced end (nothing acknowledged)\n  {end}")?;
    }
    if !found.damage.is_empty() {
        writeln!(out, "\ndamage")?;
        for damage in &found.damage {
            writeln!(out, "  {} at byte {}: {}", damage.file, damage.offset, damage.problem)?;
        }
    }
    writeln!(out, "\nwhat to do")?;
    for advice in &found.advice {
        writeln!(out, "  {advice}")?;
    }
    Ok(out)
}
