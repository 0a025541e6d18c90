//! A port in use, a configuration file with three mistakes, a disk that is full at the start. One that fills up later is in
//! `disk_full`.

use std::net::TcpListener;

use anyhow::Result;
use duramen_tests::SmallDisk;

use super::*;

#[test]
fn a_port_in_use_is_refused_with_its_setting_and_its_flag() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for (key, flag) in [("listen.clients", "--listen"), ("listen.admin", "--admin-listen")] {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        let (status, said) =
            NodeSettings::in_directory(&data).set(key, &address).start_expecting_refusal()?;
        ensure!(status.code() == Some(1), "{status}: {said}");
        let what = format!("{address} ({key}) is in use by another process");
        for part in [what.as_str(), "stop that", &format!("choose another address with {flag}")] {
            ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
        }
        ensure!(!data.exists(), "nothing was made before the ports were had");
    }
    Ok(())
}

#[test]
fn three_mistakes_in_a_configuration_file_are_reported_at_once_with_their_lines() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("duramen.toml");
    let text = "[node]\nid = \"one\"\n\n[wal]\nsegment_sise = \"64MiB\"\n\n[cluster]\nshards = 300\n";
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&file, text)?;
    let named = file.display();
    let parts = [
        format!("{named}:2: node.id: is a string, expected a whole number"),
        format!("{named}:5: wal.segment_sise: there is no such setting; did you mean wal.segment_size?"),
        format!("{named}:8: cluster.shards: 300 is out of range; it must be from 1 to 256"),
    ];
    let parts = parts.each_ref().map(String::as_str);
    for serve in [&["serve"][..], &[], &["serve", "--validate"]] {
        let tool = Tool::node()?.args(serve.to_vec()).args(["--config"]).args([file.as_os_str()]);
        let said = tool.fail(2, &parts)?;
        ensure!(said.contains("3 mistakes") && said.contains("docs/CONFIGURATION.md"), "{said}");
    }
    // The same file through its variable.
    let tool = Tool::node()?.variable("DURAMEN_CONFIG", &file.display().to_string());
    tool.fail(2, &parts)?;
    Ok(())
}

#[test]
fn a_disk_that_is_full_at_the_start_is_refused_with_what_is_missing() -> Result<()> {
    let Some(disk) = SmallDisk::mount(6 << 20)? else { return Ok(()) };
    let data = disk.path().join("data");
    let settings = NodeSettings::in_directory(&data).set("wal.segment_size", "32MiB");
    let (status, said) = settings.clone().start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    let named = data.display().to_string();
    for part in [named.as_str(), "bytes free", "Free space", "--data", "wal.reserve"] {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn a_node_that_finds_its_disk_full_to_the_last_byte_says_so_and_starts_once_it_is_not() -> Result<()> {
    let Some(disk) = SmallDisk::mount(48 << 20)? else { return Ok(()) };
    let data = disk.path().join("data");
    let settings = NodeSettings::in_directory(&data)
        .set("wal.segment_size", "4MiB")
        .set("wal.reserve", "1MiB")
        .set("log.record_limit", "256KiB")
        .set("log.batch_limit", "1MiB")
        .set("cluster.shards", "1");
    let mut node = settings.clone().start()?;
    Tool::ctl(&node)?.line("append orders").input("before\n").succeed()?;
    node.kill_9()?;
    let ballast = disk.path().join("ballast");
    #[expect(clippy::disallowed_methods, reason = "somebody else's file, which fills the disk")]
    std::fs::write(&ballast, vec![0; 64 << 20]).expect_err("the disk is full");
    let (status, said) = settings.start_expecting_refusal()?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    for part in [data.display().to_string().as_str(), "No space left on device"] {
        ensure!(said.contains(part), "the node does not say {part:?}:\n{said}");
    }
    std::fs::remove_file(&ballast)?;
    node.start_again()?;
    ensure!(Tool::ctl(&node)?.line("read orders").succeed()?.contains("before"), "nothing is lost");
    Ok(())
}
