//! What a log should hold: the simplest thing that could be right.

use std::collections::BTreeMap;

use duramen_types::HybridTime;

/// One stream as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// The value of every record that was ever appended to this incarnation.
    pub values: Vec<String>,
    pub first: u64,
    pub retention_bytes: Option<u64>,
    pub cursors: BTreeMap<String, u64>,
}

/// What a reader can see of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub first: u64,
    pub next: u64,
    pub values: Vec<String>,
    pub retention_bytes: Option<u64>,
    pub cursors: BTreeMap<String, u64>,
}

/// All streams, by name.
pub type Log = BTreeMap<String, Seen>;

impl Stream {
    pub fn seen(&self) -> Seen {
        let first = usize::try_from(self.first).expect("offsets of a test fit");
        Seen {
            first: self.first,
            next: self.values.len() as u64,
            values: self.values[first..].to_vec(),
            retention_bytes: self.retention_bytes,
            cursors: self.cursors.clone(),
        }
    }
}

/// What became of a stream by one change.
#[derive(Debug, Clone)]
struct Version {
    /// The change's time is later than this,
    after: HybridTime,
    /// and not later than this.
    by: HybridTime,
    /// The stream from then on; `None` where there is none.
    seen: Option<Seen>,
}

/// One stream at every instant, its incarnations included.
#[derive(Debug, Clone, Default)]
pub struct Past {
    versions: Vec<Version>,
}

impl Past {
    /// Notes a change that was made after `after`, and by `by`.
    pub fn push(&mut self, after: HybridTime, by: HybridTime, stream: Option<&Stream>) {
        self.versions.push(Version { after, by, seen: stream.map(Stream::seen) });
    }

    /// What the stream may have been at `time`: one possibility, unless a change fell about then.
    pub fn at(&self, time: HybridTime) -> Vec<Option<Seen>> {
        let certain = self.versions.iter().rposition(|version| version.by <= time);
        let later = certain.map_or(0, |at| at + 1);
        let mut possible = vec![certain.and_then(|at| self.versions[at].seen.clone())];
        let maybe = self.versions[later..].iter().take_while(|version| version.after < time);
        possible.extend(maybe.map(|version| version.seen.clone()));
        possible
    }

    /// The instants at which changes were certainly made.
    pub fn instants(&self) -> impl Iterator<Item = HybridTime> {
        self.versions.iter().map(|version| version.by)
    }
}
