//! Damage that reads meet in local files: told once each, counted, and shown by the node's health.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::Node;
use crate::api::Error;
use crate::status::Condition;

/// How many different damages are remembered; one file can have many.
const REMEMBERED: usize = 64;

/// The damages met since the process started.
#[derive(Debug, Default)]
pub(super) struct Damages(Mutex<BTreeSet<String>>);

impl Damages {
    /// Remembers a damage; whether it is a new one.
    fn add(&self, message: &str) -> bool {
        let mut met = self.0.lock();
        met.len() < REMEMBERED && met.insert(message.to_owned())
    }

    /// What health says.
    pub(super) fn condition(&self) -> (Condition, String) {
        let met = self.0.lock();
        let Some(first) = met.first() else {
            return (Condition::Ok, "no read has met damage in local files".to_owned());
        };
        let more = if met.len() == 1 { String::new() } else { format!(" (and {} more)", met.len() - 1) };
        (
            Condition::Degraded,
            format!("{first}{more}. What the archive has of it is read from there meanwhile"),
        )
    }
}

impl Node {
    /// A read met damage in a local file; the error names it.
    pub(super) fn met_damage(&self, error: &Error) {
        self.metrics().observed().local_damage();
        if self.damages().add(&error.message) {
            tracing::error!(
                error = %error.message,
                "a local file is damaged; what the archive has of it is read from there, the rest fails"
            );
        }
    }
}
