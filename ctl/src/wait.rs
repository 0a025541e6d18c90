//! Waiting for a node: said where it takes long, and given up in the end.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;

use duramen_client::when;

use crate::failure::Failure;

/// Silence that is worth a word.
const NOTICE: Duration = Duration::from_secs(3);

/// How long to wait for an answer, and whether to say so.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub timeout: Duration,
    is_silent: bool,
}

/// A silence of the node; it ends with [`Silence::broken`].
#[derive(Debug)]
pub struct Silence {
    since: Instant,
    was_told: bool,
}

impl Silence {
    pub fn begin() -> Self {
        Self { since: Instant::now(), was_told: false }
    }

    /// The node has answered something: the next silence begins.
    pub fn broken(&mut self) {
        *self = Self::begin();
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
pub struct Awaited<'a> {
    /// As in "waiting for …"; asked for only where it is said.
    pub what: &'a dyn Fn() -> String,
    /// What may take that long.
    pub why: &'a str,
    /// Whether what was asked for changes something.
    pub is_change: bool,
}

impl Patience {
    /// Says nothing where a program reads the answers and what is said.
    pub fn new(timeout: Duration, as_json: bool) -> Self {
        Self { timeout, is_silent: as_json && !std::io::stderr().is_terminal() }
    }

    /// Gives the future's output, unless it takes longer than the timeout.
    pub async fn wait<T>(&self, awaited: Awaited<'_>, answer: impl Future<Output = T>) -> Result<T, Failure> {
        self.wait_on(&mut Silence::begin(), awaited, answer).await
    }

    /// The same in a silence that may have begun before.
    pub async fn wait_on<T>(
        &self,
        silence: &mut Silence,
        awaited: Awaited<'_>,
        answer: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::pin!(answer);
        loop {
            let (until, is_last) = match silence.was_told {
                false if NOTICE < self.timeout => (silence.since + NOTICE, false),
                _ => (silence.since + self.timeout, true),
            };
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                () = tokio::time::sleep_until(until) => {}
            }
            if is_last {
                return Err(Failure::timeout(&awaited, self.timeout));
            }
            silence.was_told = true;
            if !self.is_silent {
                let longest = when::format_duration(self.timeout);
                eprintln!("waiting for {}: {} (--timeout {longest})", (awaited.what)(), awaited.why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(seconds: u64) -> Patience {
        Patience { timeout: Duration::from_secs(seconds), is_silent: true }
    }

    fn awaited(is_change: bool) -> Awaited<'static> {
        Awaited { what: &|| "the answer".to_owned(), why: "it may", is_change }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_given_and_a_late_one_is_not_waited_for() {
        let after = |seconds| async move { tokio::time::sleep(Duration::from_secs(seconds)).await };
        assert!(patience(10).wait(awaited(false), after(9)).await.is_ok());
        let began = Instant::now();
        let failure = patience(10).wait(awaited(false), after(11)).await.unwrap_err();
        assert_eq!((failure.exit, began.elapsed()), (crate::failure::FAILED, Duration::from_secs(10)));
        // A change may have happened, and a timeout that is shorter than the notice is kept too.
        let began = Instant::now();
        let failure = patience(1).wait(awaited(true), after(2)).await.unwrap_err();
        assert_eq!(
            (failure.exit, began.elapsed()),
            (crate::failure::UNKNOWN_OUTCOME, Duration::from_secs(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_that_goes_on_counts_from_its_beginning() {
        let mut silence = Silence::begin();
        let after = |seconds| async move { tokio::time::sleep(Duration::from_secs(seconds)).await };
        assert!(patience(10).wait_on(&mut silence, awaited(false), after(6)).await.is_ok());
        assert!(patience(10).wait_on(&mut silence, awaited(false), after(6)).await.is_err());
        silence.broken();
        assert!(patience(10).wait_on(&mut silence, awaited(false), after(6)).await.is_ok());
    }
}
