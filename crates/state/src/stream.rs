//! A stream as the state machine knows it.

use std::collections::{BTreeMap, VecDeque};

use duramen_types::{
    CursorName, FencingToken, HybridTime, Offset, ProducerId, StreamConfig, StreamName, TenantName,
};

/// One stream of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub tenant: TenantName,
    pub name: StreamName,
    pub config: StreamConfig,
    pub created: HybridTime,
    /// The time of the last append that was accepted, or of the creation.
    pub last_append: HybridTime,
    /// The tail: the offset that the next record gets.
    pub next: Offset,
    /// The first readable offset.
    pub trimmed: Offset,
    /// Bytes of all batches ever appended; with the hot index it tells what size-based retention trims.
    pub appended_bytes: u64,
    pub fencing_token: Option<FencingToken>,
    pub cursors: BTreeMap<CursorName, Cursor>,
    pub producers: BTreeMap<ProducerId, ProducerState>,
}

/// A named consumer position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The next offset to read.
    pub offset: Offset,
    /// When it was committed.
    pub committed: HybridTime,
}

/// What a stream remembers of an idempotent producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: u16,
    pub last_seen: HybridTime,
    /// The latest batches, oldest first; at most [`crate::REMEMBERED_BATCHES`], never empty.
    pub batches: VecDeque<RememberedBatch>,
}

/// An accepted batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    pub sequence: u32,
    pub records: u32,
    pub base: Offset,
    /// When it was appended.
    pub time: HybridTime,
}

impl Stream {
    pub(crate) fn new(
        tenant: TenantName,
        name: StreamName,
        config: StreamConfig,
        created: HybridTime,
    ) -> Self {
        Self {
            tenant,
            name,
            config,
            created,
            last_append: created,
            next: Offset::ZERO,
            trimmed: Offset::ZERO,
            appended_bytes: 0,
            fencing_token: None,
            cursors: BTreeMap::new(),
            producers: BTreeMap::new(),
        }
    }
}
