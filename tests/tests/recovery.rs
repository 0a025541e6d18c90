//! docs/RECOVERY.md: each disaster is brought about, and the page's own commands get out of it.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeProcess, NodeSettings, Ran, Tool, programs, shell_blocks};
use tempfile::TempDir;

/// The instant that the page's examples go back to.
const INSTANT: &str = "2026-11-21T14:29:59Z";
/// Where the page keeps data directories.
const PLACE: &str = "/var/lib/";
/// A second node of the page.
const OTHER_NODE: &str = "http://127.0.0.1:7800";

/// The commands of a section, one a line.
fn commands(section: &str) -> Result<Vec<String>> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?;
    let page = std::fs::read_to_string(root.join("docs/RECOVERY.md"))?;
    let blocks = shell_blocks(&page, section);
    ensure!(!blocks.is_empty(), "docs/RECOVERY.md has no commands under {section:?}");
    Ok(blocks.iter().flat_map(|block| block.commands.lines()).map(ToOwned::to_owned).collect())
}

/// A machine on which the page's commands are typed.
struct Scene {
    directory: TempDir,
    instant: String,
    other: Option<NodeProcess>,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, instant: INSTANT.to_owned(), other: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn archive(&self) -> String {
        format!("file://{}", self.path("archive").display())
    }

    fn settings(&self, name: &str) -> NodeSettings {
        NodeSettings::in_directory(&self.path(name))
            .set("cluster.shards", "2")
            .set("archive.segment_age", "1s")
    }

    /// The node of all sections, in the directory that the page calls `/var/lib/duramen`, with a stream `orders` of
    /// 100 records and a cursor on it.
    fn node(&self) -> Result<NodeProcess> {
        let node = self.settings("duramen").set("archive.url", &self.archive()).start()?;
        let lines: String = (0..100).map(|n| format!("order {n}\n")).collect();
        Tool::ctl(&node)?.line("append orders").input(lines).succeed()?;
        Tool::ctl(&node)?.line("cursor commit orders billing 40").succeed()?;
        Ok(node)
    }

    /// What the page says, as it is typed here.
    fn here(&self, command: &str) -> String {
        let other = self.other.as_ref().map_or_else(|| OTHER_NODE.to_owned(), NodeProcess::client_url);
        command
            .replace(INSTANT, &self.instant)
            .replace(PLACE, &format!("{}/", self.directory.path().display()))
            .replace(OTHER_NODE, &other)
    }

    /// Types a command that ends by itself, with `node` at the default addresses.
    fn types(&self, command: &str, node: Option<&NodeProcess>) -> Result<Ran> {
        let mut bash = Command::new("bash");
        let built = programs()?.duramen.parent().context("a program is in a directory")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(built.to_owned()).chain(std::env::split_paths(&path));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
                bash.env_remove(name);
            }
        }
        bash.args(["-euc", &self.here(command)]).current_dir(self.directory.path());
        bash.env("PATH", std::env::join_paths(path)?).env("DURAMEN_ARCHIVE", self.archive());
        if let Some(node) = node {
            bash.env("DURAMEN_ENDPOINT", node.client_url()).env("DURAMEN_ADMIN", node.admin_url());
        }
        let output = bash.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Types a command that must succeed; gives its standard output.
    fn succeeds(&self, command: &str, node: Option<&NodeProcess>) -> Result<String> {
        let ran = self.types(command, node)?;
        ensure!(ran.code == 0, "{command}: exit code {}\n{}{}", ran.code, ran.stdout, ran.stderr);
        Ok(ran.stdout)
    }

    /// Types a `duramen serve`, and waits until the node is ready.
    fn serves(&self, command: &str) -> Result<NodeProcess> {
        let command = self.here(command).replace("\"$DURAMEN_ARCHIVE\"", &self.archive());
        let arguments =
            command.strip_prefix("duramen serve ").with_context(|| format!("{command} serves"))?;
        let settings = arguments.split_whitespace().fold(self.settings("unused"), NodeSettings::argument);
        settings.start()
    }
}

fn read(node: &NodeProcess, stream: &str) -> Result<String> {
    Tool::ctl(node)?.args(["read", stream, "--json"]).succeed()
}

/// Without offsets, which a stream that is brought back has anew.
fn records(lines: &str) -> Result<Vec<serde_json::Value>> {
    let record = |line: &str| -> Result<serde_json::Value> {
        let mut record: serde_json::Value = serde_json::from_str(line)?;
        record.as_object_mut().context("a record is an object")?.remove("offset");
        Ok(record)
    };
    lines.lines().map(record).collect()
}

/// The time of the node's latest entry, as people write it.
fn now(node: &NodeProcess, stream: &str) -> Result<String> {
    let described = Tool::ctl(node)?.args(["stream", "describe", stream, "--json"]).succeed()?;
    let described: serde_json::Value = serde_json::from_str(&described)?;
    Ok(described["last_append"].as_str().context("the time of the last append")?.to_owned())
}

#[test]
fn wrong_records_were_written() -> Result<()> {
    let commands = commands("Wrong records were written")?;
    let [look, branch, serve] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let mut scene = Scene::new()?;
    let node = scene.node()?;
    let before = read(&node, "orders")?;
    // The consumer's position was the last thing that was written.
    let cursor = Tool::ctl(&node)?.line("cursor get orders billing --json").succeed()?;
    let cursor: serde_json::Value = serde_json::from_str(&cursor)?;
    cursor["committed"].as_str().context("when it was committed")?.clone_into(&mut scene.instant);
    Tool::ctl(&node)?.line("append orders").input("nonsense\n").succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;

    let past = scene.succeeds(look, Some(&node))?;
    ensure!(past.lines().count() == 100 && !past.contains("nonsense"), "{past}");
    scene.succeeds(branch, Some(&node))?;
    let second = scene.serves(serve)?;
    ensure!(read(&second, "orders")? == before, "the branch holds something else");
    let cursors = Tool::ctl(&second)?.line("cursor list orders").succeed()?;
    ensure!(cursors.contains("billing  40"), "the consumer is where it was: {cursors}");
    ensure!(read(&node, "orders")?.contains("nonsense"), "the old node runs on");
    Ok(())
}

#[test]
fn a_stream_was_deleted() -> Result<()> {
    let commands = commands("A stream was deleted or trimmed")?;
    let [read_past, append] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let mut scene = Scene::new()?;
    let node = scene.node()?;
    let before = read(&node, "orders")?;
    scene.instant = now(&node, "orders")?;
    Tool::ctl(&node)?.line("stream delete orders").succeed()?;

    scene.succeeds(read_past, Some(&node))?;
    scene.succeeds(append, Some(&node))?;
    ensure!(records(&read(&node, "orders")?)? == records(&before)?, "the stream is another one");
    Ok(())
}

#[test]
fn many_streams_were_deleted() -> Result<()> {
    let commands = commands("Many streams were deleted or trimmed")?;
    let [export, append] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let mut scene = Scene::new()?;
    let node = scene.node()?;
    Tool::ctl(&node)?.line("append payments").input("1\n2\n").succeed()?;
    let before = [read(&node, "orders")?, read(&node, "payments")?];
    scene.instant = now(&node, "payments")?;
    Tool::ctl(&node)?.line("stream delete orders").succeed()?;
    Tool::ctl(&node)?.line("stream delete payments").succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;

    scene.succeeds(export, None)?;
    scene.succeeds(append, Some(&node))?;
    for (stream, before) in ["orders", "payments"].into_iter().zip(before) {
        ensure!(records(&read(&node, stream)?)? == records(&before)?, "{stream} is another one");
    }
    Ok(())
}

#[test]
fn the_node_s_disk_is_lost() -> Result<()> {
    let commands = commands("The node's disk is lost")?;
    let [hydrate, serve] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let scene = Scene::new()?;
    let mut node = scene.node()?;
    let before = read(&node, "orders")?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    node.kill_9()?;
    std::fs::remove_dir_all(scene.path("duramen"))?;

    let said = scene.succeeds(hydrate, None)?;
    ensure!(said.contains("is ready as branch main-"), "{said}");
    let node = scene.serves(serve)?;
    ensure!(read(&node, "orders")? == before, "the rebuilt node holds something else");
    Ok(())
}

#[test]
fn the_data_directory_is_damaged() -> Result<()> {
    let commands = commands("The data directory is damaged")?;
    let [doctor, dry_run, repair] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let scene = Scene::new()?;
    let mut node = scene.node()?;
    let before = read(&node, "orders")?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    node.kill_9()?;
    damage(&scene.path("duramen/wal"), b"order 50")?;

    let said = scene.types(doctor, None)?;
    ensure!(said.code == 3 && said.stdout.contains("duramen-restore repair"), "{said:?}");
    let said = scene.types(dry_run, None)?;
    ensure!(said.stdout.contains("nothing was changed (dry run)"), "{said:?}");
    // What was neither archived nor in a valid frame is gone, and may be a tick without records.
    let said = scene.types(repair, None)?;
    ensure!(matches!(said.code, 0 | 3) && said.stdout.contains("repaired"), "{said:?}");
    node.start_again()?;
    ensure!(read(&node, "orders")? == before, "the repaired node holds something else");
    Ok(())
}

#[test]
fn an_object_of_the_archive_is_damaged() -> Result<()> {
    let commands = commands("An object of the archive is damaged or missing")?;
    let [full, since] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let scene = Scene::new()?;
    let mut node = scene.node()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    node.terminate()?;
    scene.succeeds(full, None)?;
    scene.succeeds(since, None)?;

    let (segment, object) = largest_segment(&scene.path("archive"))?;
    let whole = std::fs::read(&segment)?;
    let mut file = std::fs::File::options().write(true).open(&segment)?;
    file.seek(SeekFrom::Start(u64::try_from(whole.len() / 2)?))?;
    file.write_all(&[whole[whole.len() / 2] ^ 1])?;
    drop(file);
    let said = scene.types(full, None)?;
    ensure!(said.code == 3 && said.stdout.contains(&object), "it names {object}: {said:?}");
    // Put back from a copy.
    std::fs::remove_file(&segment)?;
    #[expect(clippy::disallowed_methods, reason = "an object is put back")]
    std::fs::write(&segment, &whole)?;
    scene.succeeds(full, None)?;
    Ok(())
}

#[test]
fn the_bucket_is_lost() -> Result<()> {
    let commands = commands("The bucket is lost")?;
    let [list, read_all, append] = &commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    let mut scene = Scene::new()?;
    let node = scene.node()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    std::fs::remove_dir_all(scene.path("archive"))?;

    let new_archive = format!("file://{}", scene.path("new-archive").display());
    scene.other = Some(scene.settings("new-node").set("archive.url", &new_archive).start()?);
    ensure!(scene.succeeds(list, Some(&node))?.contains("\"orders\""), "the streams are listed");
    scene.succeeds(read_all, Some(&node))?;
    scene.succeeds(append, Some(&node))?;
    let other = scene.other.as_ref().context("it was started")?;
    ensure!(
        records(&read(other, "orders")?)? == records(&read(&node, "orders")?)?,
        "other records came over"
    );
    Ok(())
}

#[test]
fn what_can_be_restored_is_listed_and_planned() -> Result<()> {
    let scene = Scene::new()?;
    let mut node = scene.node()?;
    node.terminate()?;
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?;
    let page = std::fs::read_to_string(root.join("docs/RECOVERY.md"))?;
    let (_, first) = page.split_once("\n```\n").context("the page begins with commands")?;
    let (first, _) = first.split_once("```").context("the block ends")?;
    let commands: Vec<&str> = first.lines().collect();
    let [_, list, plan] = commands[..] else { anyhow::bail!("other commands: {commands:?}") };
    ensure!(scene.succeeds(list, None)?.contains("branch main"), "the branch is listed");
    // A log that is younger than the example's time has no such past, and says so.
    let said = scene.types(plan, None)?;
    ensure!(said.code == 4 && said.stderr.contains("its recovery window begins at"), "{said:?}");
    Ok(())
}

/// Turns one bit of a record that was appended: a frame that is known to be synced.
fn damage(wal: &Path, needle: &[u8]) -> Result<()> {
    for file in std::fs::read_dir(wal)? {
        let path = file?.path();
        let bytes = std::fs::read(&path)?;
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            let mut file = std::fs::File::options().write(true).open(path)?;
            file.seek(SeekFrom::Start(u64::try_from(at)?))?;
            file.write_all(&[needle[0] ^ 1])?;
            return Ok(());
        }
    }
    anyhow::bail!("no segment holds the record")
}

/// The largest archived segment of a directory: its file, and its key.
fn largest_segment(archive: &Path) -> Result<(PathBuf, String)> {
    let mut largest: Option<(u64, PathBuf)> = None;
    for shard in 0..=2 {
        let Ok(files) = std::fs::read_dir(archive.join(format!("main/shard-{shard:04}/segments"))) else {
            continue;
        };
        for file in files {
            let path = file?.path();
            let size = path.metadata()?.len();
            if largest.as_ref().is_none_or(|(largest, _)| size > *largest) {
                largest = Some((size, path));
            }
        }
    }
    let (_, path) = largest.context("the archive has a segment")?;
    let key = path.strip_prefix(archive)?.display().to_string();
    Ok((path, key))
}
