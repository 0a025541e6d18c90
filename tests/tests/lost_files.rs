//! Files of a data directory that are gone: the node, `doctor` and `repair` say so, or make them anew.

#![expect(clippy::disallowed_methods, reason = "a test damages files as nothing of the project would")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeSettings, Tool};
use tempfile::TempDir;

/// The files below `folder` whose names end so, in order.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let mut found: Vec<_> = all.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    Ok(found)
}

/// Everything that the streams hold, as `duramenctl` reads it.
fn content(node: &duramen_tests::NodeProcess) -> Result<String> {
    let mut all = String::new();
    for stream in ["a", "b", "c"] {
        all += &Tool::ctl(node)?.line(&format!("read --json {stream}")).succeed()?;
    }
    Ok(all)
}

/// A node's directory with some segments, ended by `kill -9` or told to stop, and what its streams held.
fn ended(archived: bool, killed: bool) -> Result<(TempDir, NodeSettings, String)> {
    let directory = tempfile::tempdir()?;
    let mut settings = NodeSettings::in_directory(&directory.path().join("data"))
        .set("cluster.shards", "2")
        .set("log.batch_limit", "256KiB")
        .set("log.record_limit", "64KiB")
        .set("wal.segment_size", "1MiB");
    if archived {
        settings = settings
            .archive_in_directory(&directory.path().join("archive"))
            .set("archive.segment_age", "1h")
            .set("archive.recovery_window", "1h");
    }
    let mut node = settings.clone().start()?;
    let line = "x".repeat(999);
    for stream in ["a", "b", "c"] {
        let input = format!("{line}\n").repeat(900);
        Tool::ctl(&node)?.line(&format!("append --batch-records 50 {stream}")).input(input).succeed()?;
    }
    let held = content(&node)?;
    if killed {
        node.kill_9()?;
    } else {
        node.terminate()?;
    }
    Ok((directory, settings, held))
}

fn doctor(directory: &TempDir) -> Result<Tool> {
    Ok(Tool::node()?.args(["doctor", "--data"]).args([directory.path().join("data")]))
}

/// The doctor finds something to do, and says so.
fn diagnosed(directory: &TempDir, parts: &[&str]) -> Result<()> {
    let ran = doctor(directory)?.run()?;
    ensure!(ran.code == 3, "{ran:?}");
    for part in parts {
        ensure!(ran.stdout.contains(part), "the doctor does not say {part:?}:\n{}", ran.stdout);
    }
    Ok(())
}

fn refused(settings: &NodeSettings, parts: &[&str]) -> Result<()> {
    let (_, said) = settings.clone().start_expecting_refusal()?;
    for part in parts {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn the_newest_segment() -> Result<()> {
    for archived in [false, true] {
        let (directory, settings, _) = ended(archived, true)?;
        let data = directory.path().join("data");
        let newest = files(&data.join("wal"), ".wal")?.pop().context("there are segments")?;
        std::fs::remove_file(&newest)?;
        diagnosed(&directory, &["is missing, which was the newest", "duramen-restore repair"])?;
        refused(&settings, &["is missing, which was the newest", "duramen-restore repair"])?;
        if archived {
            let url = format!("file://{}", directory.path().join("archive").display());
            let repair = Tool::restore(&url)?.args(["repair", "--data"]).args([&data]);
            let said = repair.run()?;
            ensure!(said.stdout.contains("is missing, which was the newest"), "{said:?}");
            let node = settings.start()?;
            ensure!(!content(&node)?.is_empty());
        }
    }
    Ok(())
}

#[test]
fn the_end_or_all_of_the_log_after_a_stop() -> Result<()> {
    for archived in [false, true] {
        let (directory, settings, _) = ended(archived, false)?;
        std::fs::remove_dir_all(directory.path().join("data/wal"))?;
        diagnosed(&directory, &["its checkpoint ends at index", "lost entries", "duramen-restore hydrate"])?;
        ensure!(!directory.path().join("data/wal").exists(), "the doctor changes nothing");
        refused(&settings, &["duramen-restore hydrate"])?;
    }
    // Without a checkpoint it is the note of what was archived that tells.
    let (directory, ..) = ended(true, false)?;
    for folder in ["wal", "checkpoint"] {
        std::fs::remove_dir_all(directory.path().join("data").join(folder))?;
    }
    diagnosed(&directory, &["it was archived to index", "lost entries"])?;
    Ok(())
}

#[test]
fn index_files_of_a_log_that_is_all_here() -> Result<()> {
    let (directory, settings, held) = ended(false, false)?;
    let index = files(&directory.path().join("data/index"), ".index")?;
    ensure!(!index.is_empty());
    for file in index {
        std::fs::remove_file(file)?;
    }
    doctor(&directory)?.succeed()?;
    let mut node = settings.start()?;
    ensure!(content(&node)? == held, "{}", node.process().output());
    ensure!(node.process().output().contains("the whole log is here and is replayed"));
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_made_anew() -> Result<()> {
    let (directory, settings, held) = ended(false, false)?;
    for file in files(&directory.path().join("data/checkpoint"), ".checkpoint")? {
        let mut bytes = std::fs::read(&file)?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("it has a middle")? ^= 1;
        std::fs::write(&file, bytes)?;
    }
    let said = doctor(&directory)?.succeed()?;
    ensure!(said.contains("is damaged") && said.contains("made anew at the next start"), "{said}");
    let node = settings.start()?;
    ensure!(content(&node)? == held);
    Ok(())
}
