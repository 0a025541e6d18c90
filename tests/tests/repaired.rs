//! Damage in the local log: found at the start, named, repaired from the archive, and the node goes on.

#![expect(clippy::disallowed_methods, reason = "the test puts an archive away and back")]

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeSettings, Tool, programs};

fn ctl(endpoint: &str, admin: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(&programs()?.duramenctl)
        .env("DURAMEN_ENDPOINT", endpoint)
        .env("DURAMEN_ADMIN", admin)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("it has an input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "duramenctl {arguments:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Turns one bit of a record that was appended: a frame that is known to be synced.
fn damage(wal: &Path) -> Result<()> {
    for file in std::fs::read_dir(wal)? {
        let path = file?.path();
        let bytes = std::fs::read(&path)?;
        let needle = b"record 100";
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            let mut file = std::fs::File::options().write(true).open(path)?;
            file.seek(SeekFrom::Start(u64::try_from(at)?))?;
            file.write_all(&[needle[0] ^ 1])?;
            return Ok(());
        }
    }
    anyhow::bail!("no segment holds the record")
}

#[test]
fn a_damaged_log_is_refused_and_repaired_from_the_archive() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (data, archive) = (directory.path().join("node"), directory.path().join("archive"));
    let settings =
        NodeSettings::in_directory(&data).archive_in_directory(&archive).set("cluster.shards", "2");
    let mut node = settings.clone().start()?;
    let lines: String = (0..500).map(|n| format!("record {n}\n")).collect();
    ctl(&node.client_url(), &node.admin_url(), &["append", "orders", "-"], &lines)?;
    let before = ctl(&node.client_url(), &node.admin_url(), &["read", "orders", "--json"], "")?;
    ctl(&node.client_url(), &node.admin_url(), &["archive", "flush"], "")?;
    node.kill_9()?;
    drop(node);
    damage(&data.join("wal"))?;

    let (status, output) = settings.clone().start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{output}");
    ensure!(output.contains("is damaged at byte") && output.contains("duramen-restore repair"), "{output}");

    let doctor = Command::new(&programs()?.duramen).args(["doctor", "--data"]).arg(&data).output()?;
    ensure!(doctor.status.code() == Some(3) && said(&doctor).contains("damage"), "{}", said(&doctor));

    let url = format!("file://{}", archive.display());
    let repair = Command::new(&programs()?.duramen_restore)
        .args(["repair", "--archive", &url, "--data"])
        .arg(&data)
        .output()?;
    ensure!(matches!(repair.status.code(), Some(0 | 3)), "{}", said(&repair));

    let mut node = settings.start()?;
    let after = ctl(&node.client_url(), &node.admin_url(), &["read", "orders", "--json"], "")?;
    ensure!(before == after, "the repaired node holds something else");
    ctl(&node.client_url(), &node.admin_url(), &["append", "orders", "-"], "it goes on\n")?;
    ensure!(node.terminate()?.code() == Some(0), "{}", node.process().output());
    Ok(())
}

#[test]
fn damage_met_by_a_running_node_is_told_and_the_archive_stands_in() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (data, archive) = (directory.path().join("node"), directory.path().join("archive"));
    let settings =
        NodeSettings::in_directory(&data).archive_in_directory(&archive).set("cluster.shards", "1");
    let mut node = settings.clone().start()?;
    let lines: String = (0..500).map(|n| format!("record {n}\n")).collect();
    ctl(&node.client_url(), &node.admin_url(), &["append", "orders", "-"], &lines)?;
    let before = ctl(&node.client_url(), &node.admin_url(), &["read", "orders", "--json"], "")?;
    ctl(&node.client_url(), &node.admin_url(), &["archive", "flush"], "")?;
    ensure!(node.terminate()?.success(), "{}", node.process().output());

    // A sealed segment is not read as a whole at the start.
    damage(&data.join("wal"))?;
    let mut node = settings.clone().start()?;
    let (endpoint, admin) = (node.client_url(), node.admin_url());
    let health = || ctl(&endpoint, &admin, &["health", "--degraded-ok"], "");
    ensure!(health()?.contains("no read has met damage"), "{}", health()?);
    for _ in 0..2 {
        let read = ctl(&endpoint, &admin, &["read", "orders", "--json"], "")?;
        ensure!(read == before, "the archive has it as it was");
    }
    let told = health()?;
    for expected in ["local_files", "degraded", "is damaged at byte", "duramen-restore repair"] {
        ensure!(told.contains(expected), "{told}");
    }
    let log = node.process().output();
    ensure!(log.matches("a local file is damaged").count() == 1, "it is logged once:\n{log}");
    let metrics = ctl(&endpoint, &admin, &["metrics"], "")?;
    ensure!(!metrics.contains("duramen_local_damage_total 0"), "{metrics}");
    ctl(&endpoint, &admin, &["append", "orders", "-"], "it goes on\n")?;

    // Without the archive it is an error that says what to do.
    let away = directory.path().join("away");
    std::fs::rename(&archive, &away)?;
    ensure!(node.terminate()?.code().is_some(), "{}", node.process().output());
    std::fs::rename(&away, &archive)?;
    let mut node = settings.clone().start()?;
    std::fs::rename(&archive, &away)?;
    let error = ctl(&node.client_url(), &node.admin_url(), &["read", "orders"], "").unwrap_err().to_string();
    for expected in ["is damaged at byte", "duramen-restore repair"] {
        ensure!(error.contains(expected), "{error}");
    }
    std::fs::rename(&away, &archive)?;
    ensure!(node.terminate()?.success(), "{}", node.process().output());

    let url = format!("file://{}", archive.display());
    Tool::restore(&url)?.args(["repair", "--data", &data.display().to_string()]).succeed()?;
    let node = settings.start()?;
    let (endpoint, admin) = (node.client_url(), node.admin_url());
    let after = ctl(&endpoint, &admin, &["read", "orders", "--json"], "")?;
    ensure!(after.starts_with(&before) && after.contains("it goes on"), "{after}");
    ensure!(ctl(&endpoint, &admin, &["health"], "")?.contains("no read has met damage"), "it is mended");
    Ok(())
}

/// The archived segments that a restore downloaded.
fn hydrated_segments(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("segments")) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[test]
fn a_damaged_copy_of_what_was_restored_is_found_and_gives_way_to_the_archive() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (archive, restored) = (directory.path().join("archive"), directory.path().join("restored"));
    let url = format!("file://{}", archive.display());
    let settings = NodeSettings::in_directory(&directory.path().join("node"))
        .archive_in_directory(&archive)
        .set("cluster.shards", "1");
    let mut node = settings.start()?;
    let lines: String = (0..500).map(|n| format!("record {n}\n")).collect();
    ctl(&node.client_url(), &node.admin_url(), &["append", "orders", "-"], &lines)?;
    let before = ctl(&node.client_url(), &node.admin_url(), &["read", "orders", "--json"], "")?;
    ctl(&node.client_url(), &node.admin_url(), &["archive", "flush"], "")?;
    ensure!(node.terminate()?.success(), "the node stops badly");
    let data = restored.display().to_string();
    Tool::restore(&url)?.args(["hydrate", "--to", &data, "--latest"]).succeed()?;
    let doctor = || {
        Command::new(&programs()?.duramen)
            .args(["doctor", "--data", &data])
            .output()
            .map_err(anyhow::Error::from)
    };
    ensure!(doctor()?.status.success(), "{}", said(&doctor()?));
    let repair = |more: &[&str]| {
        let repair = Tool::restore(&url)?.args(["repair", "--data", &data]).args(more);
        repair.run().map(|done| (done.code, done.stdout + &done.stderr))
    };
    let json = |more: &[&str]| {
        let (code, said) = repair(&[&["--json"], more].concat())?;
        serde_json::from_str::<serde_json::Value>(&said).map(|said| (code, said)).context(said)
    };
    // One that no node was ever started on can be sound all the same.
    for more in [&[][..], &["--dry-run"]] {
        let (code, said) = repair(more)?;
        ensure!(code == 0 && said == "nothing is damaged, nothing was changed\n", "{code} {said}");
    }
    let (code, sound) = json(&[])?;
    ensure!(code == 0 && sound["sound"] == true && sound["dry_run"] == false, "{code} {sound}");

    let mut damaged = hydrated_segments(&restored.join("hydrated"))?;
    damaged.sort();
    for path in &damaged {
        let bytes = std::fs::read(path)?;
        let middle = bytes.len() / 2;
        let mut file = std::fs::File::options().write(true).open(path)?;
        file.seek(SeekFrom::Start(u64::try_from(middle)?))?;
        file.write_all(&[bytes[middle] ^ 1])?;
    }
    let found = doctor()?;
    ensure!(found.status.code() == Some(3), "{}", said(&found));
    ensure!(
        said(&found).contains("hydrated/") && said(&found).contains("duramen-restore repair"),
        "{}",
        said(&found)
    );

    let files = serde_json::json!(damaged);
    let (_, planned) = repair(&["--dry-run"])?;
    ensure!(
        planned.contains("hydrated/") && planned.ends_with("nothing was changed (dry run)\n"),
        "{planned}"
    );
    let (_, planned) = json(&["--dry-run"])?;
    ensure!(planned["dry_run"] == true && planned["removed"] == files, "{planned}");
    ensure!(doctor()?.status.code() == Some(3), "a dry run changes nothing");

    // What the archive has not is not taken away, and nobody is told that it was mended.
    let (main, away) = (archive.join("main"), directory.path().join("away"));
    std::fs::rename(&main, &away)?;
    let (code, left) = repair(&[])?;
    ensure!(code == 3 && left.contains("stays as it is"), "{code} {left}");
    ensure!(left.contains("still damaged") && !left.contains("dry run"), "{left}");
    ensure!(damaged.iter().all(|path| path.exists()), "the only copy was removed");
    std::fs::rename(&away, &main)?;

    // Once for each way of saying it.
    let kept = directory.path().join("kept");
    std::fs::copy(&damaged[0], &kept)?;
    let (code, mended) = json(&[])?;
    ensure!(code == 0 && mended["dry_run"] == false && mended["sound"] == false, "{code} {mended}");
    ensure!(mended["removed"] == files && damaged.iter().all(|path| !path.exists()), "{mended}");
    std::fs::copy(&kept, &damaged[0])?;
    let (code, done) = repair(&[])?;
    ensure!(code == 0 && done.contains("is read from the archive"), "{code} {done}");
    let end = done.lines().last().unwrap_or_default();
    ensure!(end.starts_with("repaired; ") && end.contains("1 damaged file"), "{done}");
    ensure!(end.contains("node reads") && end.contains("from the archive"), "{done}");
    ensure!(!done.contains("dry run"), "{done}");
    let (code, again) = repair(&[])?;
    ensure!(code == 0 && again == "nothing is damaged, nothing was changed\n", "{code} {again}");
    ensure!(doctor()?.status.success(), "{}", said(&doctor()?));
    let node = NodeSettings::in_directory(&restored)
        .archive_in_directory(&archive)
        .set("cluster.shards", "1")
        .start()?;
    let after = ctl(&node.client_url(), &node.admin_url(), &["read", "orders", "--json"], "")?;
    ensure!(after == before, "everything is read from the archive");
    Ok(())
}
