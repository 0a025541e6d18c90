//! What goes wrong, as people and scripts are told: one line what happened, one line what to do, an exit code.

use std::io;
use std::time::Duration;

use duramen_client::{Error, ErrorCode, when};
use serde_json::json;

use crate::wait::Awaited;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNKNOWN_OUTCOME: u8 = 3;

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    what: String,
    advice: String,
    code: &'static str,
    retryable: bool,
    may_have_had_effect: bool,
    pub exit: u8,
}

impl Failure {
    /// Wrong usage; nothing was done.
    pub fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::failed("usage", what, advice) }
    }

    /// Something on this machine, or the node's admin side, is not as it should be.
    pub fn failed(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            advice: advice.into(),
            code,
            retryable: false,
            may_have_had_effect: false,
            exit: FAILED,
        }
    }

    /// The same with what the node's own error says of itself.
    pub fn of_node(self, code: ErrorCode, retryable: bool, may_have_had_effect: bool) -> Self {
        let exit = if may_have_had_effect { UNKNOWN_OUTCOME } else { self.exit };
        Self { code: code.as_str(), retryable, may_have_had_effect, exit, ..self }
    }

    /// Nothing was heard for as long as one would wait.
    pub fn timeout(awaited: &Awaited<'_>, timeout: Duration) -> Self {
        let longest = when::format_duration(timeout);
        let (code, effect, exit, outcome) = match awaited.is_change {
            true => (
                ErrorCode::UnknownOutcome,
                true,
                UNKNOWN_OUTCOME,
                "it may or may not have been done, or be yet",
            ),
            false => (ErrorCode::Unavailable, false, FAILED, "nothing was changed"),
        };
        let first = if awaited.is_change { "look what is there before doing it again" } else { "try again" };
        let what =
            format!("no answer within {longest} while waiting for {}: {outcome} [{code}]", (awaited.what)());
        let advice =
            format!("{first}; `duramenctl health` tells how the node is, and --timeout waits longer");
        Self {
            retryable: true,
            may_have_had_effect: effect,
            exit,
            ..Self::failed(code.as_str(), what, advice)
        }
    }

    /// The command's verdict is its exit code; all is said already.
    pub fn verdict(exit: u8) -> Self {
        Self { exit, ..Self::failed("", "", "") }
    }

    /// The reader of our output has gone, as `head` does: no failure worth a word.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::verdict(0);
        }
        Self::failed("output", format!("the output can't be written: {error}"), "check where it goes to")
    }

    /// The same with the place where it happened.
    pub fn at(self, place: &str) -> Self {
        Self { what: format!("{place}: {}", self.what), ..self }
    }

    /// The same with another exit code.
    pub fn with_exit(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// The same of a record that has a place of its own: what is said of its place in a batch goes.
    pub fn of_one_record(mut self) -> Self {
        const BATCH: &str = " of the batch";
        let Some(record) = self.what.find("record ") else { return self };
        let number = record + "record ".len();
        let rest = &self.what[number..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && rest[digits..].starts_with(BATCH) {
            self.what.replace_range(record..number + digits + BATCH.len(), "the record");
        }
        self
    }

    /// Says on standard error what there is to say.
    pub fn report(&self, as_json: bool) {
        if self.what.is_empty() {
            return;
        }
        if as_json {
            let error = json!({
                "code": self.code,
                "message": self.what,
                "advice": self.advice,
                "retryable": self.retryable,
                "may_have_had_effect": self.may_have_had_effect,
            });
            eprintln!("{}", json!({ "error": error }));
        } else {
            eprintln!("error: {}\n  what to do: {}", self.what, self.advice);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = error.code();
        let effect = error.may_have_had_effect();
        Self {
            what: format!("{error} [{code}]"),
            advice: advice(&error),
            code: code.as_str(),
            retryable: error.is_retryable(),
            may_have_had_effect: effect,
            exit: match code {
                ErrorCode::InvalidArgument if error.node().is_none() => USAGE,
                _ if effect => UNKNOWN_OUTCOME,
                _ => FAILED,
            },
        }
    }
}

fn advice(error: &Error) -> String {
    let known = |what: &str, position: Option<duramen_types::Offset>| {
        position.map(|position| format!("; {what} is {position}")).unwrap_or_default()
    };
    if let Error::Unreachable { .. } = error {
        return "start the node, or name its address with --endpoint or DURAMEN_ENDPOINT".to_owned();
    }
    if error.may_have_had_effect() {
        return "look at the stream before doing it again: it may have been done".to_owned();
    }
    match error.code() {
        ErrorCode::InvalidArgument => "correct the command; see --help".to_owned(),
        ErrorCode::RecordTooLarge => "split the record, or raise the node's limit".to_owned(),
        ErrorCode::BatchTooLarge => {
            "send less at once (--batch-records), or raise the node's limit".to_owned()
        }
        ErrorCode::EmptyBatch => "give at least one record".to_owned(),
        ErrorCode::UnknownTenant => "see `duramenctl tenant list`, or create it".to_owned(),
        ErrorCode::UnknownStream => {
            "see `duramenctl stream list`, or create it with `duramenctl stream create NAME`; one that was deleted is read \
             with `duramenctl read NAME --as-of TIME`"
                .to_owned()
        }
        ErrorCode::UnknownCursor => "see `duramenctl cursor list STREAM`".to_owned(),
        ErrorCode::UnknownRestorePoint => "see `duramenctl restore-point list`".to_owned(),
        ErrorCode::StreamExists | ErrorCode::TenantExists | ErrorCode::RestorePointExists => {
            "use the one that exists, or choose another name".to_owned()
        }
        ErrorCode::OffsetMismatch => {
            format!("read what was appended meanwhile, then try again{}", known("the tail", error.tail()))
        }
        ErrorCode::Fenced | ErrorCode::ProducerFenced => {
            "another writer has taken over: find out which, and stop one of them".to_owned()
        }
        ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer => {
            "run the command again for what is missing; compare with the stream's tail first".to_owned()
        }
        ErrorCode::ConfigChanged => "run it again".to_owned(),
        ErrorCode::OutOfRange => format!(
            "ask for what there is{}{}",
            known("the first readable offset", error.first_readable()),
            known("the tail", error.tail())
        ),
        ErrorCode::NotCovered => {
            "choose an instant inside the recovery window (duramen-restore list)".to_owned()
        }
        ErrorCode::FutureTime => {
            "choose an instant that has passed, and compare the machines' clocks".to_owned()
        }
        ErrorCode::LimitReached => "delete some first".to_owned(),
        ErrorCode::ResourceExhausted => "try again, with less at once".to_owned(),
        ErrorCode::DiskFull => "free space on the node's disk, or shorten its local retention".to_owned(),
        ErrorCode::Unavailable => "try again; `duramenctl health` tells how the node is".to_owned(),
        ErrorCode::UnknownOutcome => "look at the stream before doing it again".to_owned(),
        ErrorCode::Corruption => {
            "run `duramen doctor` on the node's data and `duramen-restore verify` on the archive".to_owned()
        }
        ErrorCode::Unimplemented => "use a client and a node of the same release".to_owned(),
        ErrorCode::Internal => "look into the node's log".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_a_line_of_its_own_has_no_place_in_a_batch() {
        for (what, expected) in [
            (
                "record 4 of the batch is 2 bytes, the limit is 1: split it",
                "the record is 2 bytes, the limit is 1: split it",
            ),
            ("stream s: record 10 of the batch is malformed", "stream s: the record is malformed"),
            ("record of the batch", "record of the batch"),
            ("record 4", "record 4"),
        ] {
            let failure = Failure::failed("x", what, "").of_one_record();
            assert_eq!(failure.what, expected);
        }
    }
}
