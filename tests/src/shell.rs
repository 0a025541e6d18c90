//! Shell blocks of a document, run as a reader would type them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{Deadline, Process, Signal, programs};

/// A fenced block of commands, and what the document calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub name: String,
    pub commands: String,
}

/// The blocks of a Markdown document's section, in order: those fenced as `sh`, or as nothing.
///
/// A block is called after the bold words that were last before it, else after the section.
pub fn shell_blocks(document: &str, section: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut inside, mut fence, mut name) = (false, None, section.to_owned());
    for line in document.lines() {
        match fence {
            None if line.starts_with("## ") => inside = line.trim_start_matches('#').trim() == section,
            None if line.starts_with("```") => {
                let kind = line.trim_start_matches('`').trim();
                let commands = inside && matches!(kind, "" | "sh");
                fence = Some(commands);
                if commands {
                    blocks.push(Block { name: name.clone(), commands: String::new() });
                }
            }
            None => {
                if let Some(bold) = line.strip_prefix("**").and_then(|rest| rest.split("**").next()) {
                    bold.trim_end_matches('.').clone_into(&mut name);
                }
            }
            Some(_) if line.starts_with("```") => fence = None,
            Some(true) => {
                let block = blocks.last_mut().expect("a block was begun with its fence");
                block.commands.push_str(line);
                block.commands.push('\n');
            }
            Some(false) => {}
        }
    }
    blocks
}

/// A shell that runs blocks one after the other, in one process, and stops at the first command that fails.
#[derive(Debug)]
pub struct Shell {
    script: String,
    command: Command,
}

impl Shell {
    /// A shell in `directory` that finds the workspace's programs; variables of the machine that configure them, or
    /// choose an object store, are taken away.
    pub fn new(directory: &Path) -> Result<Self> {
        let built = programs()?.duramen.parent().context("a program is in a directory")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(built.to_owned()).chain(std::env::split_paths(&path)))?;
        let mut command = Command::new("bash");
        command.current_dir(directory);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["DURAMEN_", "AWS_", "MINIO_"].iter().any(|start| name.starts_with(start)) {
                command.env_remove(name);
            }
        }
        command.env("PATH", path);
        let script = String::from(
            "set -eu\n\
             BLOCK=none\n\
             trap 'echo \"FAILED in block \\\"$BLOCK\\\" at: $BASH_COMMAND\" >&2' ERR\n\
             trap 'code=$?; trap - EXIT ERR TERM; set +e; kill $(jobs -p) 2>/dev/null; wait; exit $code' EXIT\n\
             trap 'echo \"still in block \\\"$BLOCK\\\"\" >&2; exit 143' TERM\n",
        );
        Ok(Self { script, command })
    }

    /// Sets an environment variable.
    pub fn variable(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.command.env(name, value);
        self
    }

    /// Puts a directory before all others where programs are looked for.
    pub fn program(&mut self, file: &Path) -> Result<&mut Self> {
        let path = self.command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
        let path = path.context("the path was set")?.to_owned();
        let directory = file.parent().context("a program is in a directory")?.to_owned();
        let path = std::env::join_paths(std::iter::once(directory).chain(std::env::split_paths(&path)))?;
        self.command.env("PATH", path);
        Ok(self)
    }

    /// Adds a block's commands.
    pub fn block(&mut self, block: &Block) -> &mut Self {
        let name = block.name.replace('\'', "");
        writeln!(self.script, "BLOCK='{name}'\n{}", block.commands).expect("writing to a String can't fail");
        self
    }

    /// Runs everything; gives all output. An error names the block and the command that failed.
    pub fn run(mut self, deadline: Deadline) -> Result<String> {
        let mut process = Process::start("the shell", self.command.args(["-c", &self.script]))?;
        match process.wait(deadline) {
            Ok(status) => {
                let output = process.output();
                ensure!(status.success(), "the shell ended with {status}:\n{output}");
                Ok(output)
            }
            Err(late) => {
                // It ends what it started.
                process.signal(Signal::Terminate)?;
                process.wait(Deadline::after_secs(60))?;
                bail!("{late:#}\n{}", process.output())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# T\n\n## One\n\n```sh\nfalse\n```\n\n## Two\n\n**First.** Text\n\n```sh\necho a\necho b\n```\n\
                            \n```rust\nfn\n```\n\n**Second**, more\n\n```\necho c\n```\n\n## Three\n\n```\nfalse\n```\n";

    #[test]
    fn a_section_s_blocks_are_found_and_named() {
        let blocks = shell_blocks(DOCUMENT, "Two");
        let found: Vec<_> =
            blocks.iter().map(|block| (block.name.as_str(), block.commands.as_str())).collect();
        assert_eq!(found, [("First", "echo a\necho b\n"), ("Second", "echo c\n")]);
    }

    fn run(commands: &str) -> Result<String> {
        let directory = tempfile::tempdir()?;
        let mut shell = Shell::new(directory.path())?;
        shell.block(&Block { name: "the block".to_owned(), commands: commands.to_owned() });
        shell.run(Deadline::after_secs(60))
    }

    #[test]
    fn a_command_that_fails_is_named_with_its_block_and_what_was_started_ends() {
        assert!(run("X=1; echo \"said $X\"\n").is_ok_and(|output| output.contains("said 1")));
        let error = run("tail -f /dev/null &\necho \"child $!\"\nfalse || true\ncmp /dev/null /etc/passwd\n")
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("FAILED in block \"the block\" at: cmp /dev/null"), "{message}");
        let child = message.lines().find_map(|line| line.strip_prefix("child ")).unwrap().parse().unwrap();
        let child = rustix::process::Pid::from_raw(child).unwrap();
        assert!(rustix::process::test_kill_process(child).is_err(), "the child is gone");
    }
}
