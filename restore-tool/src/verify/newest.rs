//! The objects that nothing else in an archive speaks of: a verdict names them, and the next verification misses what is gone.
//!
//! These are the newest manifest and checkpoint of each shard, the newest closed object of each node, and the verdicts that no
//! other verdict names; and every branch, of which nothing speaks that does not descend from it.

use std::collections::{BTreeMap, BTreeSet};

use duramen_archive::{ObjectKey, Verdict, paths};
use duramen_types::BranchName;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Newest(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By what it is the newest of.
    newest: BTreeMap<String, String>,
    /// Verdicts, and branches: of these there is no newest.
    others: BTreeSet<String>,
    /// What verdicts name, each with a verdict that does.
    expected: BTreeMap<String, String>,
    /// What was found wrong before.
    reported: BTreeSet<String>,
}

impl Newest {
    /// Notes that an object of the branch, a verdict, or any branch is there.
    pub(crate) fn see(&self, key: &ObjectKey) {
        let text = key.to_string();
        let mut seen = self.0.lock();
        let of = match key {
            ObjectKey::Verdict { .. } | ObjectKey::Branch(_) => {
                seen.others.insert(text);
                return;
            }
            ObjectKey::Closed { node, .. } => format!("closed {node}"),
            ObjectKey::Manifest { shard, .. } => format!("manifest {shard}"),
            ObjectKey::Checkpoint { shard, .. } => format!("checkpoint {shard}"),
            _ => return,
        };
        seen.expected.remove(&text);
        let newest = seen.newest.entry(of).or_default();
        // Times and numbers in keys have a fixed width: the order of keys is theirs.
        if text > *newest {
            *newest = text;
        }
    }

    /// Takes what a verdict knows: of other branches only what it says of verdicts and branches.
    pub(crate) fn expect(&self, verdict: &Verdict, branch: &BranchName) {
        let mut seen = self.0.lock();
        seen.reported.extend(verdict.findings.iter().map(|finding| finding.key.clone()));
        for key in &verdict.newest {
            if verdict.branch == *branch || is_of_all(key) {
                seen.expected.insert(key.clone(), verdict.key().to_string());
            }
        }
    }

    /// What a verdict that is written now names.
    pub(crate) fn keys(&self) -> Vec<String> {
        let seen = self.0.lock();
        let unnamed = |key: &&String| !key.starts_with(paths::VERDICTS) || !seen.expected.contains_key(*key);
        seen.newest.values().chain(seen.others.iter().filter(unnamed)).cloned().collect()
    }

    /// What should be there and was not seen, each with the verdict that names it; to be asked when everything was seen. Verdicts that an earlier one found wrong are not among
    /// them: they may be deleted.
    pub(crate) fn missing(&self) -> Vec<(String, String)> {
        let seen = self.0.lock();
        let is_excused = |key: &String| {
            seen.others.contains(key) || (key.starts_with(paths::VERDICTS) && seen.reported.contains(key))
        };
        let missing = seen.expected.iter().filter(|(key, _)| !is_excused(key));
        missing.map(|(key, by)| (key.clone(), by.clone())).collect()
    }
}

/// What every verdict may speak of, whichever branch it is about.
fn is_of_all(key: &str) -> bool {
    key.starts_with(paths::VERDICTS) || key.starts_with(paths::BRANCHES)
}
