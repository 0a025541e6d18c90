//! A child process whose output is kept, that can be waited on, and that does not outlive its handle.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::{Condvar, Mutex};

use crate::Deadline;

/// How many lines of output are kept; a chatty process must not fill the memory of a long test.
const KEPT_LINES: usize = 20_000;

/// Standard output and standard error.
const PIPES: usize = 2;

/// How long to wait for the next line of output before something else is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A signal that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: the process gets no chance to do anything.
    Kill,
    /// SIGTERM: the polite request to stop.
    Terminate,
    /// SIGHUP: reload the configuration.
    HangUp,
    /// SIGSTOP: the process stands still, its sockets stay open.
    Stop,
    /// SIGCONT: it goes on.
    Continue,
}

/// A running child process; killed by its id and reaped when dropped.
///
/// Its output is shown on standard error if the handle is dropped by a test that fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// Lines that were dropped from the front.
    dropped: usize,
    /// Pipes that reached their end.
    ended: usize,
}

impl Process {
    /// Starts `command` under `name` (for messages), with nothing on its standard input.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: {} does not start", command.get_program().display()))?;
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("standard output was asked for as a pipe");
        let stderr = child.stderr.take().expect("standard error was asked for as a pipe");
        let readers = vec![output.collect(stdout), output.collect(stderr)];
        Ok(Self { name: name.to_owned(), child, output, readers, status: None })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Everything it has printed so far, both streams together in order of arrival.
    pub fn output(&self) -> String {
        let lines = self.output.lines.lock();
        let mut text = String::new();
        if lines.dropped > 0 {
            text.push_str(&format!("({} earlier lines are not kept)\n", lines.dropped));
        }
        for line in &lines.kept {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Waits until a line of its output, also an earlier one, makes `wanted` give a value.
    ///
    /// Fails when the process ends without it or the deadline passes.
    pub fn wait_for_line<T>(
        &mut self,
        deadline: Deadline,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let mut seen = 0;
        loop {
            let mut lines = self.output.lines.lock();
            let unseen = seen.max(lines.dropped) - lines.dropped;
            if let Some(found) = lines.kept.iter().skip(unseen).find_map(|line| wanted(line)) {
                return Ok(found);
            }
            seen = lines.dropped + lines.kept.len();
            if lines.ended == PIPES {
                break;
            }
            if deadline.has_passed() {
                bail!("{}: the expected line was not printed within {:?}", self.name, deadline.allowed());
            }
            self.output.changed.wait_for(&mut lines, PAUSE);
        }
        let status = self.wait(deadline)?;
        bail!("{}: ended with {status} before it printed the expected line\n{}", self.name, self.output());
    }

    /// Waits until `condition` gives a value, looking again with each line of output and every 20 ms.
    ///
    /// Fails when the process ends or the deadline passes; then the message carries the last error of `condition`.
    pub fn wait_until<T>(
        &mut self,
        deadline: Deadline,
        mut condition: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            let last = match condition() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Some(status) = self.poll() {
                bail!("{}: ended with {status} while it was waited for\n{}", self.name, self.output());
            }
            if deadline.has_passed() {
                return Err(last.context(format!("{}: not so within {:?}", self.name, deadline.allowed())));
            }
            self.output.changed.wait_for(&mut self.output.lines.lock(), PAUSE);
        }
    }

    /// Sends a signal; nothing happens if it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.poll().is_some() {
            return Ok(());
        }
        // Not reaped yet, so the id is still this child's.
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.context("a process id is a positive number")?;
        let signal = match signal {
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::HangUp => rustix::process::Signal::HUP,
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
        };
        rustix::process::kill_process(id, signal)
            .with_context(|| format!("{}: cannot be signalled", self.name))
    }

    /// Waits for its end, and until all its output has been read.
    pub fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.poll() {
                self.join_readers();
                return Ok(status);
            }
            if deadline.has_passed() {
                bail!("{}: still running after {:?}", self.name, deadline.allowed());
            }
            self.output.changed.wait_for(&mut self.output.lines.lock(), PAUSE);
        }
    }

    /// Kills it as `kill -9` does, and reaps it.
    pub fn kill_9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::Kill)?;
        let status = self.child.wait().with_context(|| format!("{}: cannot be waited for", self.name))?;
        self.status = Some(status);
        self.join_readers();
        Ok(status)
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child that was not reaped can be waited for");
        }
        self.status
    }

    /// A grandchild that holds a pipe open would make this wait; none of our programs leaves one behind.
    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of output does not panic");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.kill_9();
        if std::thread::panicking() {
            eprintln!("---- output of {} ----\n{}---- end of {} ----", self.name, self.output(), self.name);
        }
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

impl Output {
    /// Keeps what comes through `pipe` until its end, on a thread of its own.
    fn collect(self: &Arc<Self>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let mut lines = output.lines.lock();
                lines.kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                if lines.kept.len() > KEPT_LINES {
                    lines.kept.pop_front();
                    lines.dropped += 1;
                }
                output.changed.notify_all();
                line.clear();
            }
            output.lines.lock().ended += 1;
            output.changed.notify_all();
        })
    }
}
