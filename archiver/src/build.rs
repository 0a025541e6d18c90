//! Makes one archived segment of the log's next entries, replaying the state on the way.

use std::num::NonZeroUsize;
use std::sync::Arc;

use duramen_archive::{SegmentIdentity, SegmentObject, SegmentOptions, SegmentWriter};
use duramen_state::ShardState;
use duramen_types::{Compression, Entry, EntryId, Index, StreamId, Term};
use duramen_wal::Wal;

use crate::{Error, Result};

/// Bytes of entries read from the log at once.
const READ_BYTES: u64 = 4 << 20;

/// How a segment is made.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub identity: SegmentIdentity,
    pub max_bytes: u64,
    pub compression: Compression,
    pub level: i32,
    pub threads: NonZeroUsize,
}

/// A segment, and the state after it.
#[derive(Debug)]
pub(crate) struct Built {
    pub object: SegmentObject,
    pub state: Arc<ShardState>,
    pub last_term: Term,
    pub has_user_entries: bool,
}

/// Takes entries from `state`'s end to before `through` until the segment is full. Blocking, and works hard.
///
/// The log's entries must continue `state`: a different history would be archived otherwise.
pub(crate) fn build(wal: &Wal, mut state: ShardState, through: Index, recipe: &Recipe) -> Result<Built> {
    let shard = state.shard();
    let first = state.end();
    let mut writer = SegmentWriter::new(SegmentOptions {
        identity: recipe.identity.clone(),
        first,
        chain_before: state.chain(),
        max_bytes: recipe.max_bytes,
        compression_level: recipe.level,
        threads: recipe.threads,
    });
    let (mut last_term, mut has_user_entries) = (Term::ZERO, false);
    'fill: while state.end() < through {
        let from = state.end();
        let read = wal.entries(shard, from..through, READ_BYTES);
        let entries = read.map_err(|source| Error::Log { shard, source })?;
        if entries.is_empty() {
            return Err(Error::NotInLog { shard, index: from });
        }
        for (id, payload) in entries {
            let wrong = |reason: String| Error::Entry { shard, id, reason };
            let entry = Entry::decode(payload).map_err(|error| wrong(error.to_string()))?;
            if !writer.is_empty() && writer.size_bound_with(&entry) > recipe.max_bytes {
                break 'fill;
            }
            push(&mut writer, &mut state, id, &entry)?;
            last_term = id.term;
            has_user_entries |= entry.body().is_user();
        }
    }
    let compression = |stream: StreamId| {
        state.stream(stream).and_then(|stream| stream.config.compression).unwrap_or(recipe.compression)
    };
    let object = writer.finish(&compression).map_err(|source| Error::Segment { shard, source })?;
    let state = Arc::new(state);
    Ok(Built { object, state, last_term, has_user_entries })
}

fn push(writer: &mut SegmentWriter, state: &mut ShardState, id: EntryId, entry: &Entry) -> Result<()> {
    let shard = state.shard();
    let applied = state.apply(id, entry.head(), &entry.head_bytes()).map_err(|error| Error::Entry {
        shard,
        id,
        reason: error.to_string(),
    })?;
    writer.push(id, applied.time, entry, &applied.batches).map_err(|source| Error::Segment { shard, source })
}
