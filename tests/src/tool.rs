//! A program of the workspace that runs to its end.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{Bucket, NodeProcess, programs};

/// A program with its arguments; [`Tool::run`] runs it.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    input: Vec<u8>,
}

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// -1 if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Tool {
    /// The program at a path.
    pub fn at(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: Vec::new(),
        }
    }

    /// `duramen`.
    pub fn node() -> Result<Self> {
        Ok(Self::at(&programs()?.duramen))
    }

    /// `duramenctl`, with the addresses of `node`.
    pub fn ctl(node: &NodeProcess) -> Result<Self> {
        let tool = Self::at(&programs()?.duramenctl);
        Ok(tool.variable("DURAMEN_ENDPOINT", &node.client_url()).variable("DURAMEN_ADMIN", &node.admin_url()))
    }

    /// `duramen-restore` on the archive at `url`.
    pub fn restore(url: &str) -> Result<Self> {
        Ok(Self::at(&programs()?.duramen_restore).variable("DURAMEN_ARCHIVE", url))
    }

    /// `duramen-archiver` on the archive at `url`.
    pub fn archiver(url: &str) -> Result<Self> {
        Ok(Self::at(&programs()?.duramen_archiver).variable("DURAMEN_ARCHIVE", url))
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds the words of a command line that needs no quoting.
    #[must_use]
    pub fn line(self, words: &str) -> Self {
        self.args(words.split_whitespace())
    }

    /// Sets an environment variable; all that begin with `DURAMEN_` or `AWS_` are taken away otherwise.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it the credentials for a bucket.
    #[must_use]
    pub fn bucket(self, bucket: &Bucket) -> Self {
        bucket.environment().iter().fold(self, |tool, (name, value)| tool.variable(name, value))
    }

    /// What it reads on its standard input; nothing otherwise.
    #[must_use]
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = input.as_ref().to_vec();
        self
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Ran> {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DURAMEN_") || name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", self.program.display()))?;
        let mut stdin = child.stdin.take().context("it has an input")?;
        let input = self.input.clone();
        // On a thread of its own: it may fill its output before it has read its input. One that ends early need not
        // read all.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer of its input panicked"))?;
        Ok(Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it, and gives its standard output; an error if it fails.
    pub fn succeed(&self) -> Result<String> {
        let ran = self.run()?;
        ensure!(ran.code == 0, "{:?} ended with {}:\n{}{}", self.arguments, ran.code, ran.stdout, ran.stderr);
        Ok(ran.stdout)
    }

    /// Runs it; it must fail with `code`, and say each of `parts` on standard error, which is given.
    pub fn fail(&self, code: i32, parts: &[&str]) -> Result<String> {
        let ran = self.run()?;
        let said = &ran.stderr;
        ensure!(
            ran.code == code,
            "{:?} ended with {}, not {code}:\n{}{said}",
            self.arguments,
            ran.code,
            ran.stdout
        );
        for part in parts {
            ensure!(said.contains(part), "{:?} does not say {part:?}:\n{said}", self.arguments);
        }
        Ok(ran.stderr)
    }
}
