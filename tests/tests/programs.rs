//! What all four programs have in common: version, help with exit codes, completions, and quiet ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use duramen_tests::{NodeSettings, Tool, programs};

fn all() -> Result<[(&'static str, PathBuf); 4]> {
    let programs = programs()?;
    Ok([
        ("duramen", programs.duramen.clone()),
        ("duramenctl", programs.duramenctl.clone()),
        ("duramen-restore", programs.duramen_restore.clone()),
        ("duramen-archiver", programs.duramen_archiver.clone()),
    ])
}

#[test]
fn every_program_says_its_version_with_the_commit_and_its_exit_codes() -> Result<()> {
    for (name, program) in all()? {
        let version = Tool::at(&program).args(["--version"]).succeed()?;
        let (shown, commit) = version.trim().split_once(" (").with_context(|| version.clone())?;
        ensure!(shown == format!("{name} {}", env!("CARGO_PKG_VERSION")), "{version}");
        let commit = commit.trim_end_matches(')');
        let hexadecimal = commit
            .split('-')
            .next()
            .is_some_and(|hash| hash.len() >= 7 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        ensure!(hexadecimal || commit.starts_with("unknown"), "{version}");
        for help in ["-h", "--help"] {
            let help = Tool::at(&program).args([help]).succeed()?;
            ensure!(help.contains("Exit codes:") && help.contains("  2  wrong"), "{name}: {help}");
        }
        Tool::at(&program).args(["--no-such-option"]).fail(2, &["--no-such-option", "--help"])?;
    }
    Ok(())
}

#[test]
fn an_option_that_does_nothing_for_a_command_is_refused() -> Result<()> {
    let programs = programs()?;
    for (program, line, option) in [
        (&programs.duramenctl, "read orders --admin http://127.0.0.1:1", "--admin"),
        (&programs.duramenctl, "--admin http://127.0.0.1:1 read orders", "--admin"),
        (&programs.duramenctl, "--tenant acme status", "--tenant"),
        (&programs.duramenctl, "restore-point list --tenant acme", "--tenant"),
        (&programs.duramenctl, "health --endpoint http://127.0.0.1:1", "--endpoint"),
        (&programs.duramen_restore, "list --archive memory: --parallelism 2", "--parallelism"),
        (&programs.duramen_restore, "hold list --archive memory: --branch main", "--branch"),
        (&programs.duramen_restore, "export --all --latest --archive memory: --tenant acme", "--tenant"),
    ] {
        Tool::at(program).line(line).fail(2, &[option]).with_context(|| line.to_owned())?;
    }
    Ok(())
}

#[test]
fn every_program_gives_completions_for_every_shell() -> Result<()> {
    for (name, program) in all()? {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = Tool::at(&program).args(["completions", shell]).succeed()?;
            ensure!(script.contains(name) && script.contains("completions"), "{name} {shell}: {script}");
        }
        Tool::at(&program).args(["completions", "tcsh"]).fail(2, &["tcsh", "bash"])?;
    }
    Ok(())
}

/// Reads one line of a program's output and closes it, as `head -1` does; gives its exit code and standard error.
fn first_line_only(command: &mut Command) -> Result<(Option<i32>, String)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().context("it has an output")?).read_line(&mut line)?;
    let mut said = String::new();
    child.stderr.take().context("it has an error output")?.read_to_string(&mut said)?;
    Ok((child.wait()?.code(), said))
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let node =
        NodeSettings::in_directory(&directory.path().join("node")).archive_in_directory(&archive).start()?;
    // Far more than a pipe holds.
    Tool::ctl(&node)?.line("append orders").input("a line of a certain length\n".repeat(20_000)).succeed()?;
    Tool::ctl(&node)?.line("archive flush").succeed()?;
    let url = format!("file://{}", archive.display());
    let programs = programs()?;
    let endpoint = node.client_url();
    for (program, arguments) in [
        (&programs.duramenctl, vec!["read", "orders", "--endpoint", &endpoint]),
        (&programs.duramenctl, vec!["read", "orders", "--json", "--endpoint", &endpoint]),
        (&programs.duramen_restore, vec!["export", "orders", "--latest", "--archive", &url]),
        (&programs.duramen_restore, vec!["completions", "bash"]),
        (&programs.duramenctl, vec!["completions", "bash"]),
        (&programs.duramen, vec!["completions", "bash"]),
        (&programs.duramen, vec!["config-reference"]),
        (&programs.duramen, vec!["demo"]),
    ] {
        let (code, said) = first_line_only(Command::new(program).args(&arguments))?;
        ensure!(code == Some(0) && !said.contains("panicked"), "{arguments:?}: {code:?} {said}");
    }
    Ok(())
}
