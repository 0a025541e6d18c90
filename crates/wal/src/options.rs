//! What a log can be told about how to work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use duramen_types::NodeId;

use crate::Error;
use crate::format::{BLOCK, MAX_FRAME_BODY_BYTES};

const MIB: u64 = 1024 * 1024;

/// When a frame is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Each frame, before its completions run: what was acknowledged survives a power cut.
    Always,
    /// At most this long after it was written; completions run before. A power cut loses what was acknowledged in
    /// that time, a crash of the process alone does not.
    Interval(Duration),
}

/// One frame that was written, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameWritten {
    /// How many records shared it.
    pub records: u64,
    /// How many submissions shared it.
    pub group: u64,
    /// Bytes written, with header and padding.
    pub bytes: u64,
    /// How long the write took.
    pub write: Duration,
    /// How long the fsync took; `None` if the frame was not fsynced by itself.
    pub sync: Option<Duration>,
}

/// Called by the writer after each frame; must return quickly and not call the log.
pub type FrameObserver = Arc<dyn Fn(&FrameWritten) + Send + Sync>;

/// How a log works; every size is in bytes.
#[derive(Clone)]
pub struct WalOptions {
    /// The node that owns the log; a log of another node is refused.
    pub node: NodeId,
    /// The size files are written ahead to, at which a segment is sealed (64 MiB).
    pub segment_bytes: u64,
    /// The most bytes of records that group commit puts into one frame (4 MiB); one larger record still gets one.
    pub max_frame_bytes: u64,
    /// Payload bytes of the newest entries that are kept in memory for readers (64 MiB).
    pub cache_bytes: u64,
    /// Memory for row pages of sealed segments (16 MiB).
    pub index_cache_bytes: u64,
    /// Free disk space that entries leave alone (256 MiB); votes and purges may use it.
    pub reserve_bytes: u64,
    /// The most live bytes of the oldest segment that are written anew to free the rest of it (1 MiB).
    pub copy_forward_bytes: u64,
    /// How many files are kept written ahead, zeroed or recycled (1). With 0 none are, and each fsync costs more.
    pub spare_files: usize,
    /// When frames are fsynced ([`Fsync::Always`]).
    pub fsync: Fsync,
    /// Called after each frame (nobody).
    pub on_frame: Option<FrameObserver>,
}

impl WalOptions {
    /// The defaults, for one node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            segment_bytes: 64 * MIB,
            max_frame_bytes: 4 * MIB,
            cache_bytes: 64 * MIB,
            index_cache_bytes: 16 * MIB,
            reserve_bytes: 256 * MIB,
            copy_forward_bytes: MIB,
            spare_files: 1,
            fsync: Fsync::Always,
            on_frame: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let fail = |option, reason: String| Err(Error::Options { option, reason });
        if self.segment_bytes < 4 * BLOCK || !self.segment_bytes.is_multiple_of(BLOCK) {
            return fail(
                "segment_bytes",
                format!("{} is not a multiple of 4096 ≥ 16384", self.segment_bytes),
            );
        }
        if self.segment_bytes > 1024 * MIB {
            return fail("segment_bytes", format!("{} exceeds 1 GiB", self.segment_bytes));
        }
        if self.max_frame_bytes == 0
            || self.max_frame_bytes > (self.segment_bytes / 2).min(MAX_FRAME_BODY_BYTES / 4)
        {
            return fail(
                "max_frame_bytes",
                format!("{} is not in 1..={}", self.max_frame_bytes, self.segment_bytes / 2),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for WalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalOptions")
            .field("node", &self.node)
            .field("segment_bytes", &self.segment_bytes)
            .field("max_frame_bytes", &self.max_frame_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("index_cache_bytes", &self.index_cache_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("copy_forward_bytes", &self.copy_forward_bytes)
            .field("spare_files", &self.spare_files)
            .field("fsync", &self.fsync)
            .finish_non_exhaustive()
    }
}
