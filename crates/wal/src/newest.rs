//! How far the log went, in the name of an empty file: what tells that its newest segment is gone.
//!
//! Segments follow each other, so a missing one in between is seen; that the last one is missing is seen by this alone. The
//! file `newest-{sequence}` is renamed after the first fsync of a segment, and no fsync of its own makes that durable:
//! after a power cut it may name an earlier segment, never one that held nothing.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::format::SegmentHeader;
use crate::{durable, segment};

const PREFIX: &str = "newest-";

/// What is written down, and what is to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Newest {
    recorded: Option<u64>,
}

impl Newest {
    /// The one that the log's directory has; of several the highest.
    pub(crate) fn of(names: &[String]) -> Self {
        Self { recorded: names.iter().filter_map(|name| sequence_of(name)).max() }
    }

    /// What is missing where the last segment there is has this sequence number; `None` if nothing is.
    pub(crate) fn missing_after(self, last: Option<u64>) -> Option<String> {
        let recorded = self.recorded?;
        let first = last.map_or(recorded, |last| last + 1);
        (first <= recorded).then(|| match recorded - first {
            0 => format!("segment {recorded} is missing, which was the newest"),
            _ => format!("segments {first} to {recorded} are missing, of which the last was the newest"),
        })
    }

    /// The file of the segment that was the newest.
    pub(crate) fn segment(self, dir: &Path) -> PathBuf {
        segment::path(dir, self.recorded.unwrap_or_default())
    }

    /// The frame up to which a segment is known to have been fsynced, by sequence number, at least.
    pub(crate) fn synced_end(self, header: &SegmentHeader) -> u64 {
        if self.recorded == Some(header.sequence) { header.first_frame + 1 } else { 0 }
    }

    /// Writes down that the segment `sequence` holds something durable. Where that fails, the next call tries again: what
    /// was fsynced stays so.
    pub(crate) fn record(&mut self, disk: &dyn Disk, dir: &Path, sequence: u64) {
        if self.recorded.is_some_and(|recorded| recorded >= sequence) {
            return;
        }
        let to = path(dir, sequence);
        let written = match self.recorded {
            Some(recorded) => disk.rename(&path(dir, recorded), &to),
            None => durable::create_over(disk, &to).map(drop),
        };
        match written {
            Ok(()) => self.recorded = Some(sequence),
            // Somebody took it away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.recorded = None,
            Err(_) => {}
        }
    }
}

fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{sequence:020}"))
}

fn sequence_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}
