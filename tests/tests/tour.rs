//! The README's five-minute tour, command by command, against the real MinIO.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Deadline, Shell, minio_program, programs, shell_blocks};

const SECTION: &str = "Five minutes with MinIO";

/// All that differs from what the README says: where files are, which ports are taken, and that the programs are those
/// of this build. Each of the texts must be there, or the README has moved on without this test.
fn as_in_a_test(commands: &str, files: &Path, ports: &Ports) -> Result<String> {
    let built = programs()?.duramen.parent().context("a program is in a directory")?;
    let substitutions = [
        ("cargo build --release --workspace", ":".to_owned()),
        ("$PWD/target/release", built.display().to_string()),
        ("/tmp/duramen-tour", files.display().to_string()),
        ("127.0.0.1:9000", format!("127.0.0.1:{}", ports.minio)),
        ("127.0.0.1:7702", format!("127.0.0.1:{}", ports.admin)),
        ("127.0.0.1:7800", format!("127.0.0.1:{}", ports.branch_clients)),
        ("127.0.0.1:7802", format!("127.0.0.1:{}", ports.branch_admin)),
    ];
    let mut commands = commands.to_owned();
    for (readme, here) in substitutions {
        ensure!(commands.contains(readme), "the README's tour does not have {readme:?} any more");
        commands = commands.replace(readme, &here);
    }
    Ok(commands)
}

struct Ports {
    minio: u16,
    clients: u16,
    admin: u16,
    branch_clients: u16,
    branch_admin: u16,
}

impl Ports {
    /// Ports that were free a moment ago, all different.
    fn free() -> Result<Self> {
        let listeners =
            (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let mut ports = Vec::new();
        for listener in &listeners {
            ports.push(listener.local_addr()?.port());
        }
        let [minio, clients, admin, branch_clients, branch_admin] = ports[..] else {
            anyhow::bail!("there are five listeners")
        };
        Ok(Self { minio, clients, admin, branch_clients, branch_admin })
    }
}

#[test]
fn the_readmes_tour_works_command_by_command() -> Result<()> {
    let Some(minio) = minio_program()? else { return Ok(()) };
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?;
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let mut blocks = shell_blocks(&readme, SECTION);
    ensure!(blocks.len() >= 10, "the README has {} blocks in its tour", blocks.len());

    let files = tempfile::tempdir()?;
    let ports = Ports::free()?;
    let separator = "\u{1}";
    let all = blocks.iter().map(|block| block.commands.as_str()).collect::<Vec<_>>().join(separator);
    let all = as_in_a_test(&all, &files.path().join("tour"), &ports)?;
    for (block, commands) in blocks.iter_mut().zip(all.split(separator)) {
        commands.clone_into(&mut block.commands);
    }

    let mut shell = Shell::new(root)?;
    shell.program(&minio)?;
    // The default ports, which the commands of the first node don't name.
    for (name, port) in [("DURAMEN_LISTEN__CLIENTS", ports.clients), ("DURAMEN_LISTEN__ADMIN", ports.admin)] {
        shell.variable(name, format!("127.0.0.1:{port}"));
    }
    for (name, port) in [("DURAMEN_ENDPOINT", ports.clients), ("DURAMEN_ADMIN", ports.admin)] {
        shell.variable(name, format!("http://127.0.0.1:{port}"));
    }
    for block in &blocks {
        shell.block(block);
    }
    let said = shell.run(Deadline::after_secs(600))?;
    for expected in ["1707 records", "created branch before-the-mishap", "no damage"] {
        ensure!(said.contains(expected), "the tour does not say {expected:?}:\n{said}");
    }
    ensure!(!files.path().join("tour").exists(), "the tour cleans up");
    Ok(())
}
