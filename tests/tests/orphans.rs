//! Objects that a killed archiver left: found, removed when told to, and nothing else with them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeSettings, Tool};

fn segments(archive: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(archive.join("main"))? {
        let folder = shard?.path().join("segments");
        if folder.is_dir() {
            for file in std::fs::read_dir(folder)? {
                found.push(file?.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A segment of the same entries under another id, as an upload leaves it whose manifest was never written; `end` as given.
fn leave(segment: &Path, end: Option<u64>) -> Result<PathBuf> {
    let name = segment.file_name().and_then(|name| name.to_str()).context("a name")?;
    let (first, rest) = name.split_once('-').context("first")?;
    let (found, _) = rest.split_once('-').context("end")?;
    let end = end.map_or_else(|| found.to_owned(), |end| format!("{end:020}"));
    let left = segment.with_file_name(format!("{first}-{end}-0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c"));
    std::fs::copy(segment, &left)?;
    Ok(left)
}

#[test]
fn orphans_are_listed_and_removed_and_what_may_still_be_committed_is_spared() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let mut node = NodeSettings::in_directory(&directory.path().join("node"))
        .archive_in_directory(&archive)
        .set("cluster.shards", "1")
        .start()?;
    for line in ["one\n", "two\n"] {
        Tool::ctl(&node)?.line("append orders").input(line).succeed()?;
        Tool::ctl(&node)?.line("archive flush").succeed()?;
    }
    ensure!(node.terminate()?.success(), "the node stops badly");
    let committed = segments(&archive)?;
    let first = committed.first().context("something is archived")?;
    let orphan = leave(first, None)?;
    let on_its_way = leave(first, Some(1_000_000))?;

    let url = format!("file://{}", archive.display());
    let orphans = || Ok::<_, anyhow::Error>(Tool::archiver(&url)?.line("orphans"));
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let said = orphans()?.succeed()?;
    ensure!(said.contains(&name(&orphan)), "{said}");
    ensure!(!said.contains(&name(&on_its_way)), "its manifest may come yet: {said}");
    ensure!(!committed.iter().any(|path| said.contains(&name(path))), "it is named by a manifest: {said}");
    ensure!(orphan.exists(), "nothing was to be deleted");

    orphans()?.args(["--delete"]).succeed()?;
    ensure!(!orphan.exists() && on_its_way.exists(), "{:?}", segments(&archive)?);
    ensure!(committed.iter().all(|path| path.exists()), "{:?}", segments(&archive)?);
    Tool::restore(&url)?.line("verify --full").succeed()?;
    Ok(())
}
