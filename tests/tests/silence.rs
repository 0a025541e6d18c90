//! `duramenctl` and a node that takes connections and never answers.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use duramen_tests::{Ran, Tool, programs};
use duramen_types::{Clock as _, SystemClock};

/// Takes every connection, and keeps it without a word for as long as the test runs.
fn mute() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept() {
            connections.push(connection);
        }
    });
    Ok(format!("http://{address}"))
}

fn ctl(node: &str, line: &str) -> Result<Ran> {
    let tool = Tool::at(&programs()?.duramenctl).variable("DURAMEN_ENDPOINT", node);
    tool.variable("DURAMEN_ADMIN", node).line(line).input("a\nb\n").run()
}

#[test]
fn a_silence_is_explained_and_then_given_up_with_what_may_have_happened() -> Result<()> {
    let node = mute()?;
    for (line, awaited, exit, outcome) in [
        ("read orders", "records of orders", 1, "nothing was changed"),
        (
            "append orders --ack archived",
            "the answer to 2 records, from line 1 of standard input on",
            3,
            "it may or may not have been done",
        ),
        ("stream list", "the node's answer", 1, "nothing was changed"),
        ("stream create orders", "the node's answer", 3, "it may or may not have been done"),
        ("archive flush", "the answer to /admin/archive/flush", 3, "it may or may not have been done"),
        ("status", "the answer to /status", 1, "nothing was changed"),
    ] {
        let clock = SystemClock::new();
        let ran = ctl(&node, &format!("{line} --timeout 4s"))?;
        let took = clock.monotonic();
        let said: Vec<&str> = ran.stderr.lines().collect();
        ensure!(ran.code == exit && said.len() == 3, "{line}: {ran:?}");
        ensure!(said[0].starts_with(&format!("waiting for {awaited}")), "{line}: {ran:?}");
        ensure!(said[0].ends_with("(--timeout 4s)"), "{line}: {ran:?}");
        for part in ["error: ", "no answer within 4s", awaited, outcome] {
            ensure!(said[1].contains(part), "{line} does not say {part:?}: {ran:?}");
        }
        ensure!(said[2].contains("what to do: ") && said[2].contains("--timeout"), "{line}: {ran:?}");
        ensure!((3..20).contains(&took.as_secs()), "{line} took {took:?}");
    }
    Ok(())
}

#[test]
fn a_program_that_reads_json_is_told_once_and_a_short_wait_is_not_explained() -> Result<()> {
    let node = mute()?;
    let ran = ctl(&node, "read orders --json --timeout 4s")?;
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim())?;
    ensure!(ran.stdout.is_empty() && ran.code == 1 && error["error"]["code"] == "unavailable", "{ran:?}");
    let clock = SystemClock::new();
    let ran = ctl(&node, "append orders --timeout 500ms")?;
    ensure!(ran.code == 3 && !ran.stderr.contains("waiting for the answer to 2 records:"), "{ran:?}");
    ensure!(clock.monotonic() < Duration::from_secs(10), "{:?}", clock.monotonic());
    Ok(())
}
