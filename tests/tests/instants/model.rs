//! What a log should hold: the simplest thing that could be right.

use std::collections::BTreeMap;

use duramen_types::HybridTime;
use rand::Rng;
use rand::rngs::StdRng;

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

/// The log after each operation, by the time of its last entry.
#[derive(Debug, Default)]
pub struct Past {
    states: Vec<(HybridTime, Log)>,
}

impl Past {
    pub fn push(&mut self, time: HybridTime, log: Log) {
        self.states.push((time, log));
    }

    /// Every stream that ever was.
    pub fn streams(&self) -> Vec<String> {
        let mut names: Vec<String> = self.states.iter().flat_map(|(_, log)| log.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The instant at which some operation was done, and the log as it was then.
    pub fn at_random(&self, random: &mut StdRng) -> (HybridTime, Log) {
        let at = random.random_range(0..self.states.len());
        self.states[at].clone()
    }
}
