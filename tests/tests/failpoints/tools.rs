//! Programs that run to their end, killed on the way and run again.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use duramen_failpoint::Point;
use duramen_tests::{NodeSettings, Ran, Tool};

use crate::{Scene, WITHOUT, cases, check_said, copy, killed_at, play};

const RECORDS: usize = 60;

/// A stopped node's directory and the archive that it has, some of whose log is not archived.
struct Base {
    directory: tempfile::TempDir,
    /// What the node's stream holds, all of it and what is archived.
    whole: String,
    archived: String,
}

/// A copy of a [`Base`], for one case.
struct Copied {
    directory: tempfile::TempDir,
}

fn settings(data: &Path, archive: &Path) -> NodeSettings {
    NodeSettings::in_directory(data)
        .archive_in_directory(archive)
        .set("cluster.shards", "2")
        .set("archive.segment_age", "1h")
        .set("wal.segment_size", "1MiB")
        .set("wal.reserve", "1MiB")
        .set("log.record_limit", "64KiB")
        .set("log.batch_limit", "128KiB")
        .variable("FAILPOINTS", WITHOUT)
}

impl Base {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (data, archive) = (directory.path().join("data"), directory.path().join("archive"));
        let mut node = settings(&data, &archive).start()?;
        let append = |node: &_, from: usize| -> Result<()> {
            let lines: String = (from..from + RECORDS / 4).map(|n| format!("record {n}\n")).collect();
            Tool::ctl(node)?.line("append orders").input(lines).succeed().map(drop)
        };
        for round in 0..3 {
            append(&node, round * RECORDS / 4)?;
            Tool::ctl(&node)?.line("archive flush").succeed()?;
        }
        let read = |node: &_| Tool::ctl(node)?.line("read orders --json").succeed();
        let archived = read(&node)?;
        append(&node, 3 * RECORDS / 4)?;
        let whole = read(&node)?;
        ensure!(whole.lines().count() == RECORDS && whole.starts_with(&archived), "{whole}");
        node.kill_9()?;
        Ok(Self { directory, whole, archived })
    }

    fn copied(&self) -> Result<Copied> {
        let directory = tempfile::tempdir()?;
        for part in ["data", "archive"] {
            copy(&self.directory.path().join(part), &directory.path().join(part))?;
        }
        Ok(Copied { directory })
    }
}

impl Copied {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn url(&self) -> String {
        format!("file://{}", self.at("archive").display())
    }

    fn restore(&self) -> Result<Tool> {
        Tool::restore(&self.url())
    }

    /// Verifies a branch, and exports what its stream holds.
    fn checked(&self, branch: &str) -> Result<String> {
        self.restore()?.line("verify --full --branch").args([branch]).succeed()?;
        self.restore()?.line("export orders --latest --branch").args([branch]).succeed()
    }

    /// The node starts on a directory, has these records, and goes on.
    fn check_starts(&self, data: &str, branch: &str, records: &str) -> Result<()> {
        let mut node = settings(&self.at(data), &self.at("archive")).set("archive.branch", branch).start()?;
        let read = Tool::ctl(&node)?.line("read orders --json").succeed()?;
        ensure!(read == records, "it has {} records: {read}", read.lines().count());
        Tool::ctl(&node)?.line("append orders").input("it goes on\n").succeed()?;
        Tool::ctl(&node)?.line("archive flush").succeed()?;
        ensure!(node.terminate()?.success(), "{}", node.process().output());
        let exported = self.checked(branch)?;
        ensure!(exported.lines().count() == records.lines().count() + 1, "{exported}");
        Ok(())
    }
}

/// Runs a tool that is killed at the point where it comes there after `before` times.
fn killed(tool: &Tool, point: Point, before: u32) -> Result<Ran> {
    let ran = tool.clone().variable("FAILPOINTS", &killed_at(point, before)).run()?;
    check_said(point, &ran.stderr)?;
    Ok(ran)
}

fn run(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    let run = Tool::archiver(&copied.url())?.line("run --snapshot --data").args([copied.at("data")]);
    killed(&run, point, 0)?;
    run.succeed()?;
    let exported = copied.checked("main")?;
    ensure!(exported == base.whole, "{} records are archived", exported.lines().count());
    let orphans = Tool::archiver(&copied.url())?.line("orphans --delete");
    let left = orphans.succeed()?;
    let uploaded = matches!(point, Point::UploadCreated | Point::UploadVerified);
    ensure!(!uploaded || left.contains("main/shard-"), "the killed upload is not found: {left}");
    copied.check_starts("data", "main", &base.whole)
}

fn orphans(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    let segments = orders_segments(&copied.at("archive"))?;
    let first = segments.first().context("something is archived")?;
    let name = first.file_name().and_then(|name| name.to_str()).context("it has a name")?;
    let range = name.get(..41).context("a segment is named after its range")?;
    for orphan in 1..=3 {
        let left = first.with_file_name(format!("{range}-0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0{orphan}"));
        std::fs::copy(first, left)?;
    }
    let tool = Tool::archiver(&copied.url())?.line("orphans --delete");
    killed(&tool, point, 0)?;
    ensure!(orders_segments(&copied.at("archive"))?.len() == segments.len() + 2, "one orphan went");
    tool.succeed()?;
    ensure!(orders_segments(&copied.at("archive"))? == segments, "the orphans went, and nothing else");
    copied.check_starts("data", "main", &base.whole)
}

/// The segments of the one shard that has several.
fn orders_segments(archive: &Path) -> Result<Vec<PathBuf>> {
    let mut most = Vec::new();
    for shard in std::fs::read_dir(archive.join("main"))? {
        let Ok(folder) = std::fs::read_dir(shard?.path().join("segments")) else { continue };
        let found = folder.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
        if found.len() > most.len() {
            most = found;
        }
    }
    most.sort();
    Ok(most)
}

fn branch(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    let branch = copied.restore()?.line("branch other --latest");
    killed(&branch, point, 0)?;
    let said = branch.succeed()?;
    let exported = copied.checked("other")?;
    ensure!(exported == base.archived, "{said}: {exported}");
    // The killed one's hold is left, and lapses by itself.
    let holds = copied.restore()?.line("hold list --json").succeed()?;
    ensure!(holds.matches("\"deadline\"").count() == 1, "{holds}");
    copied.check_starts("data", "main", &base.whole)
}

fn hydrate(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    let hydrate =
        copied.restore()?.line("hydrate --latest --new-branch other --to").args([copied.at("restored")]);
    killed(&hydrate, point, 0)?;
    let begun = copied.at("restored/restore.json").exists();
    if point != Point::HydrateActivated {
        if begun {
            let node = settings(&copied.at("restored"), &copied.at("archive")).set("archive.branch", "other");
            let (status, said) = node.start_expecting_refusal()?;
            ensure!(status.code() == Some(1) && said.contains("is half restored"), "{said}");
        }
        hydrate.succeed()?;
    }
    // It is finished, and says so.
    hydrate.fail(1, &["restored"])?;
    copied.check_starts("restored", "other", &base.archived)
}

fn verify(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    killed(&copied.restore()?.line("verify --full"), point, 0)?;
    copied.restore()?.line("verify --full --since").succeed()?;
    copied.check_starts("data", "main", &base.whole)
}

fn repair(base: &Base, point: Point) -> Result<()> {
    let copied = base.copied()?;
    // A record that the archive has, in a frame that is known to be synced.
    damage(&copied.at("data/wal"), "record 7")?;
    let repair = copied.restore()?.line("repair --data").args([copied.at("data")]);
    killed(&repair, point, 0)?;
    let (status, said) = settings(&copied.at("data"), &copied.at("archive")).start_expecting_refusal()?;
    ensure!(status.code() == Some(1) && said.contains("duramen-restore repair --data"), "{said}");
    repair.succeed()?;
    copied.check_starts("data", "main", &base.whole)
}

/// Turns one bit of a text in the log.
fn damage(wal: &Path, text: &str) -> Result<()> {
    for file in std::fs::read_dir(wal)? {
        let path = file?.path();
        let bytes = std::fs::read(&path)?;
        let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) else {
            continue;
        };
        let mut file = std::fs::File::options().write(true).open(path)?;
        file.seek(SeekFrom::Start(u64::try_from(at)?))?;
        return Ok(file.write_all(&[bytes[at] ^ 1])?);
    }
    anyhow::bail!("no segment holds {text:?}")
}

#[test]
fn a_program_killed_at_any_step_completes_when_it_is_run_again() -> Result<()> {
    let base = Base::new()?;
    let cases = cases(|scene| !matches!(scene, Scene::FirstStart | Scene::Load { .. }));
    play(&cases, |point, scene| match scene {
        Scene::Run => run(&base, point),
        Scene::Orphans => orphans(&base, point),
        Scene::Branch => branch(&base, point),
        Scene::Hydrate => hydrate(&base, point),
        Scene::Verify => verify(&base, point),
        Scene::Repair => repair(&base, point),
        Scene::FirstStart | Scene::Load { .. } => Ok(()),
    });
    Ok(())
}

/// Everything below a directory with its bytes, but for the lock file, which says who looked last.
fn contents(directory: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    if !directory.exists() {
        return Ok(found);
    }
    found.push((directory.to_owned(), Vec::new()));
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else if path.file_name().is_none_or(|name| name != "LOCK") {
            found.push((path.clone(), std::fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_dry_run_of_a_restore_changes_nothing_and_is_refused_where_the_restore_is() -> Result<()> {
    let base = Base::new()?;
    let copied = base.copied()?;
    let hydrate = |to: &str, line: &str| {
        Ok::<_, anyhow::Error>(copied.restore()?.line("hydrate --to").args([copied.at(to)]).line(line))
    };
    let untouched = |tool: &Tool| {
        let before = contents(copied.directory.path())?;
        let ran = tool.run()?;
        ensure!(contents(copied.directory.path())? == before, "something was written: {ran:?}");
        Ok::<_, anyhow::Error>(ran)
    };
    let counted = |said: &str| -> Result<(u64, u64, bool)> {
        let said: serde_json::Value = serde_json::from_str(said)?;
        let objects = |of: &str| -> Result<u64> {
            let number = |what: &str| said[of][what].as_u64().with_context(|| format!("{of} of {said}"));
            Ok(number("segments")? + number("snapshots")?)
        };
        Ok((objects("fetched")?, objects("present")?, said["dry_run"].as_bool().context("dry_run")?))
    };

    // Into a new directory: everything.
    let planned = untouched(&hydrate("new", "--latest --dry-run --json")?)?;
    let (all, present, is_dry) = counted(&planned.stdout)?;
    ensure!(all > 3 && present == 0 && is_dry, "{planned:?}");
    let nothing_begun = untouched(&hydrate("new", "--dry-run")?)?;
    ensure!(
        nothing_begun.code == 5 && nothing_begun.stderr.contains("no interrupted restore"),
        "{nothing_begun:?}"
    );
    ensure!(untouched(&hydrate("new", "")?)?.code == 5, "there is nothing to go on with");

    // Into one that is half restored, before and after its branch was made: what is left of it.
    for (name, point, stored) in [("noted", Point::HydrateNoted, 0), ("half", Point::HydrateStored, 1)] {
        killed(&hydrate(name, &format!("--latest --parallelism 1 --new-branch {name}"))?, point, stored)?;
        let stored = u64::from(stored) + u64::from(point == Point::HydrateStored);
        let todo = untouched(&hydrate(name, "--dry-run --json")?)?;
        ensure!(counted(&todo.stdout)? == (all - stored, stored, true), "{name}: {todo:?}");
        let todo = untouched(&hydrate(name, "--dry-run")?)?;
        let would = format!("would go on as branch {name}");
        ensure!(todo.stdout.contains("nothing was written") && todo.stdout.contains(&would), "{todo:?}");
        ensure!(!copied.at(name).join("activated.json").exists(), "it was restored: {todo:?}");
        // The same target goes on, another one is another restore.
        let same = untouched(&hydrate(name, "--latest --dry-run --json")?)?;
        ensure!(counted(&same.stdout)? == (all - stored, stored, true), "{name}: {same:?}");
        let other = untouched(&hydrate(name, "--latest-per-shard --dry-run")?)?;
        ensure!(other.code == 1 && other.stderr.contains("the beginning of another restore"), "{other:?}");
        ensure!(
            hydrate(name, "--latest-per-shard")?.run()?.stderr == other.stderr,
            "the restore says something else"
        );
    }

    // One that is finished, one of a node, one of something else, and a name that is taken.
    let done = counted(&hydrate("half", "--json")?.succeed()?)?;
    ensure!(done == (all - 2, 2, false), "{done:?}");
    std::fs::create_dir(copied.at("foreign"))?;
    std::fs::File::create(copied.at("foreign/notes.txt"))?;
    for (to, line, says) in [
        ("half", "", "is restored already, as branch half"),
        ("half", "--latest", "is restored already, as branch half"),
        ("data", "--latest", "is not empty"),
        ("data", "", "is not empty"),
        ("foreign", "--latest", "it has \"notes.txt\""),
        ("foreign", "", "it has \"notes.txt\""),
        ("new", "--latest --new-branch main", "branch main"),
    ] {
        let dry = untouched(&hydrate(to, &format!("{line} --dry-run"))?)?;
        let real = hydrate(to, line)?.run()?;
        ensure!(dry.code != 0 && dry.stderr.contains(says), "{to} {line}: {dry:?}");
        ensure!((dry.code, &dry.stderr) == (real.code, &real.stderr), "{to} {line}: {dry:?}, {real:?}");
    }
    copied.check_starts("half", "half", &base.archived)
}
