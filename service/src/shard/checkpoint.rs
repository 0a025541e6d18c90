//! A shard's applied state on the local disk, so that a restart replays little.
//!
//! `{shard:04}.checkpoint`, little-endian:
//!
//! ```text
//! magic "DURCHKPT" | version u32 | membership length u32, bytes | state length u32, bytes | crc32 u32
//! ```
//!
//! The state is [`ShardState::encode`]. The hot index's files end where the checkpoint does: they are made durable
//! before it. A checkpoint is taken every `wal.checkpoint_bytes` of applied entries and at a graceful shutdown; losing one costs a
//! longer replay, never data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_archive::{Blocking, Work};
use duramen_state::ShardState;
use duramen_types::{DecodeError, Index, Reader, ShardId, Writer};
use duramen_wal::{Disk, durable};

use super::machine::View;
use super::raft::{RaftMembership, decode_stored_membership, encode_stored_membership, io_error};

const WHAT: &str = "checkpoint";
const MAGIC: &[u8; 8] = b"DURCHKPT";
const VERSION: u32 = 1;
const LARGEST: u64 = 4 << 30;

/// A checkpoint as it is read back.
#[derive(Debug)]
pub struct Checkpoint {
    pub state: ShardState,
    pub membership: RaftMembership,
}

impl Checkpoint {
    /// Where the checkpoint of `shard` is within the data directory's folder for checkpoints.
    pub fn path(directory: &Path, shard: ShardId) -> PathBuf {
        directory.join(format!("{:04}.checkpoint", shard.get()))
    }

    /// The checkpoint of `shard`, if there is one.
    pub fn load(disk: &dyn Disk, directory: &Path, shard: ShardId) -> io::Result<Option<Self>> {
        let path = Self::path(directory, shard);
        let bytes = match durable::read_file(disk, &path, LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let reason = format!("{} can't be read: {error}; check the disk", path.display());
                return Err(io::Error::new(error.kind(), reason));
            }
        };
        let checkpoint = Self::decode(&bytes).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {error}", path.display()))
        })?;
        if checkpoint.state.shard() != shard {
            let reason = format!("{} holds shard {}", path.display(), checkpoint.state.shard());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Some(checkpoint))
    }

    /// Replaces the checkpoint of the state's shard. When it returns, the new one survives a power cut.
    pub fn save(&self, disk: &dyn Disk, directory: &Path) -> io::Result<()> {
        durable::write_file(disk, &Self::path(directory, self.state.shard()), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.put(MAGIC).u32(VERSION);
        out.long_bytes(&encode_stored_membership(&self.membership)).long_bytes(&self.state.encode());
        let mut bytes = out.into_bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError::Truncated { what: WHAT, at: 0, needed: 4 };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(truncated)?;
        let (stored, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        let mut reader = Reader::new(WHAT, body);
        if reader.array()? != *MAGIC {
            return reader.invalid("it does not begin with DURCHKPT");
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let membership = decode_stored_membership(reader.long_bytes()?)?;
        let state = ShardState::decode(reader.long_bytes()?)?;
        reader.finish()?;
        Ok(Self { state, membership })
    }
}

/// Applied bytes after which one that failed is tried again.
const RETRY_AFTER_BYTES: u64 = 16 << 20;

/// Takes a shard's checkpoints when they are due.
#[derive(Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    blocking: Blocking,
    /// Applied bytes after which another one is due.
    due_after: u64,
    /// The applied bytes at which the next one is due.
    due_at: u64,
    /// The end of the latest checkpoint that is durable, of those taken since the start.
    saved_end: Index,
    writing: Option<Writing>,
}

/// What is on its way to the disk.
#[derive(Debug)]
struct Writing {
    work: Work<io::Result<()>>,
    /// The end of the checkpoint; `None` for an index file alone.
    end: Option<Index>,
}

impl Checkpoints {
    /// One is due after every `due_after` bytes of applied entries.
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf, due_after: u64, blocking: Blocking) -> Self {
        Self {
            disk,
            directory,
            blocking,
            due_after,
            due_at: due_after,
            saved_end: Index::ZERO,
            writing: None,
        }
    }

    /// Starts a checkpoint in the background if one is due, or else puts a full chunk of the hot index on disk;
    /// whatever is under way is waited for first, which bounds what waits in memory.
    pub async fn save_if_due(&mut self, view: &Arc<View>, membership: &RaftMembership) -> io::Result<()> {
        if self.writing.as_ref().is_some_and(|writing| writing.work.is_finished()) {
            self.finish().await?;
        }
        let bytes = view.progress().bytes;
        let due = bytes >= self.due_at;
        if !due && !view.index_is_full() {
            return Ok(());
        }
        self.finish().await?;
        self.writing = Some(if due {
            self.due_at = bytes.saturating_add(self.due_after);
            self.start(view, membership)
        } else {
            view.seal_index();
            let view = Arc::clone(view);
            let work = self.blocking.start(move || view.index.write_sealed().map_err(io_error));
            Writing { work, end: None }
        });
        Ok(())
    }

    /// Makes sure that a checkpoint at or beyond `end`, which is applied, is durable: then the log before it may go.
    pub async fn save_beyond(
        &mut self,
        view: &Arc<View>,
        membership: &RaftMembership,
        end: Index,
    ) -> io::Result<()> {
        if self.saved_end >= end { self.finish().await } else { self.save_now(view, membership).await }
    }

    /// Takes a checkpoint now and waits for it.
    pub async fn save_now(&mut self, view: &Arc<View>, membership: &RaftMembership) -> io::Result<()> {
        self.finish().await?;
        self.writing = Some(self.start(view, membership));
        self.finish().await
    }

    fn start(&self, view: &Arc<View>, membership: &RaftMembership) -> Writing {
        // The caller is the only one who applies, so the index is sealed exactly at the state's end.
        view.seal_index();
        let checkpoint = Checkpoint { state: view.state.read().clone(), membership: membership.clone() };
        let end = checkpoint.state.end();
        let (disk, directory, view) = (Arc::clone(&self.disk), self.directory.clone(), Arc::clone(view));
        let work = self.blocking.start(move || {
            view.index.write_sealed().map_err(io_error)?;
            checkpoint.save(&*disk, &directory)
        });
        Writing { work, end: Some(end) }
    }

    /// After one that failed: makes the next one due before long.
    pub fn retry_soon(&mut self, view: &View) {
        self.due_at = self.due_at.min(view.progress().bytes.saturating_add(RETRY_AFTER_BYTES));
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self.writing.take() {
            Some(Writing { work, end }) => {
                work.finished().await.map_err(io_error)??;
                self.saved_end = self.saved_end.max(end.unwrap_or_default());
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use duramen_golden::{assert_resists_damage, assert_total_behind_checksums};
    use duramen_types::{EntryId, Term};

    use super::super::raft::sole_voter;
    use super::*;
    use crate::golden::{GOLDEN, mend};

    #[test]
    fn a_checkpoint_is_the_golden_one() {
        let state = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/state/tests/golden/state-data.bin");
        let state = ShardState::decode(&std::fs::read(state).unwrap()).unwrap();
        let id = EntryId { index: Index::new(0), term: Term::new(1) };
        let checkpoint = Checkpoint { state, membership: sole_voter(1, Some(id)) };
        let bytes = GOLDEN.assert_golden("0001.checkpoint", &checkpoint.encode());
        let decode = |bytes: &[u8]| Checkpoint::decode(bytes).map(|found| (found.state, found.membership));
        let found = assert_resists_damage(&bytes, decode);
        assert_eq!(found, (checkpoint.state, checkpoint.membership));
        assert_total_behind_checksums(&bytes, mend, decode);
    }
}
