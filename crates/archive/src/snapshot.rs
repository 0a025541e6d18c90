//! Archived snapshots: a shard's state at one index, the nearest start for every later cut.
//!
//! ```text
//! snapshot = magic "DURASNAP" | version u32 = 1 | encryption u8 = 0 | shard u16 | archive id 16
//!          | branch length u8 | branch | end u64 | chain 32 | raw length u64 | stored length u64
//!          | zstd frame of the encoded state | BLAKE3 32 of everything before it
//! ```
//!
//! Little-endian. `end` is the index after the last applied entry, `chain` the chain value there, and both are also
//! in the state itself, whose encoding is `duramen_state`'s.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::io::Read;

use bytes::Bytes;
use duramen_state::ShardState;
use duramen_types::{ArchiveId, BranchName, ChainValue, DecodeError, Hash, Index, Reader, ShardId, Writer};

use crate::{ObjectKey, SnapshotRow};

const WHAT: &str = "snapshot";
const MAGIC: &[u8; 8] = b"DURASNAP";
const VERSION: u32 = 1;
const HASH: usize = 32;
/// The largest encoded state, and with it the memory that a hostile object can make a reader use.
const MAX_RAW: u64 = 2 << 30;

/// A shard's state, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub archive: ArchiveId,
    /// The branch whose snapshot this is: the one that wrote the last applied entry, or a descendant.
    pub branch: BranchName,
    pub state: ShardState,
}

impl Snapshot {
    /// The object's bytes; equal snapshots give equal bytes, so that an interrupted upload can be repeated.
    pub fn encode(&self) -> Bytes {
        let raw = self.state.encode();
        let stored = zstd::bulk::compress(&raw, 3).expect("compression into memory has no reason to fail");
        let mut out = Writer::with_capacity(stored.len().saturating_add(256));
        out.put(MAGIC).u32(VERSION).u8(0).u16(self.state.shard().get()).put(self.archive.as_bytes());
        let branch = self.branch.as_str().as_bytes();
        out.u8(u8::try_from(branch.len()).expect("a branch's name has at most 63 bytes")).put(branch);
        out.u64(self.state.end().get()).put(self.state.chain().as_bytes());
        out.u64(u64::try_from(raw.len()).unwrap_or(u64::MAX));
        out.u64(u64::try_from(stored.len()).unwrap_or(u64::MAX)).put(&stored);
        let mut bytes = out.into_bytes();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.into()
    }

    /// Reads what [`Snapshot::encode`] wrote; any damage is an error, and so is a newer or encrypted object.
    ///
    /// Memory follows what is decompressed, never what the object states, up to 2 GiB.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body_len = bytes.len().saturating_sub(HASH);
        let (body, hash) = bytes.split_at_checked(body_len).unwrap_or_default();
        let mut reader = Reader::new(WHAT, body);
        if reader.array()? != *MAGIC {
            return reader.invalid("it does not begin with DURASNAP");
        }
        if hash != blake3::hash(body).as_bytes() {
            return reader.invalid("its hash is not that of its bytes: it was altered or cut short");
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        if reader.u8()? != 0 {
            return reader.invalid("it is encrypted, which this release can't read: use a newer one");
        }
        let shard = ShardId::new(reader.u16()?);
        let archive = ArchiveId::from_bytes(reader.array()?);
        let len = usize::from(reader.u8()?);
        let branch =
            std::str::from_utf8(reader.take(len)?).ok().and_then(|name| BranchName::parse(name).ok());
        let Some(branch) = branch else { return reader.invalid("the branch's name is none") };
        let end = Index::new(reader.u64()?);
        let chain = Hash::from_bytes(reader.array()?);
        let raw_len = reader.u64()?;
        let stored = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let raw = decompress(reader.take(stored)?, raw_len)?;
        reader.finish()?;
        let state = ShardState::decode(&raw)?;
        if (state.shard(), state.end(), state.chain()) != (shard, end, chain) {
            return Err(DecodeError::invalid(WHAT, "its header is not that of the state in it"));
        }
        Ok(Self { archive, branch, state })
    }

    /// The key under which the snapshot belongs.
    pub fn key(&self) -> ObjectKey {
        let (shard, index) = (self.state.shard(), self.state.end());
        ObjectKey::Snapshot { branch: self.branch.clone(), shard, index }
    }

    /// The manifest's row of the snapshot, whose encoding is `bytes`.
    pub fn row(&self, bytes: &[u8]) -> SnapshotRow {
        SnapshotRow {
            index: self.state.end(),
            time: self.state.time(),
            chain: self.state.chain(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            hash: Hash::from_bytes(blake3::hash(bytes).into()),
        }
    }

    /// Checks that this is the snapshot that a key and a row speak of.
    pub fn check(
        &self,
        archive: ArchiveId,
        branch: &BranchName,
        shard: ShardId,
        row: &SnapshotRow,
    ) -> Result<(), DecodeError> {
        let found: (ArchiveId, &BranchName, ShardId, Index, ChainValue) =
            (self.archive, &self.branch, self.state.shard(), self.state.end(), self.state.chain());
        if found == (archive, branch, shard, row.index, row.chain) {
            return Ok(());
        }
        let (index, expected) = (self.state.end(), row.index);
        let reason = format!(
            "it is that of archive {}, branch {}, shard {}, index {index}; expected were {archive}, {branch}, {shard}, \
             index {expected}, and its chain value",
            self.archive,
            self.branch,
            self.state.shard()
        );
        Err(DecodeError::invalid(WHAT, reason))
    }
}

fn decompress(stored: &[u8], raw: u64) -> Result<Vec<u8>, DecodeError> {
    if raw > MAX_RAW {
        return Err(DecodeError::TooLarge { what: WHAT, size: raw, limit: MAX_RAW });
    }
    let invalid =
        |error: std::io::Error| DecodeError::invalid(WHAT, format!("it does not decompress: {error}"));
    let mut out = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(invalid)?;
    decoder.take(raw.saturating_add(1)).read_to_end(&mut out).map_err(invalid)?;
    if u64::try_from(out.len()).ok() != Some(raw) {
        let reason = format!("{raw} bytes are stated, it decompresses to {} or more", out.len());
        return Err(DecodeError::invalid(WHAT, reason));
    }
    Ok(out)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;
    use crate::segment::tests::log::RandomLog;

    fn snapshot(entries: usize) -> Snapshot {
        let mut log = RandomLog::new(11);
        log.take(entries);
        let branch = BranchName::parse("main").unwrap();
        Snapshot { archive: ArchiveId::from_bytes([7; 16]), branch, state: log.state }
    }

    #[test]
    fn a_snapshot_reads_back_as_it_was() {
        for entries in [0, 1, 500] {
            let snapshot = snapshot(entries);
            assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
        }
    }

    #[test]
    fn every_bit_flip_and_truncation_is_an_error() {
        let good = snapshot(60).encode();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                assert!(Snapshot::decode(&bad).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Snapshot::decode(&good[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_size_it_states() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        assert!(decompress(&bomb, 1000).is_err());
        assert!(decompress(&bomb, (64 << 20) + 1).is_err());
        assert!(matches!(decompress(&bomb, u64::MAX), Err(DecodeError::TooLarge { .. })));
        assert_eq!(decompress(&bomb, 64 << 20).unwrap().len(), 64 << 20);
    }

    #[test]
    fn another_snapshot_under_the_key_is_named() {
        let snapshot = snapshot(60);
        let row = snapshot.row(&snapshot.encode());
        let (archive, shard) = (snapshot.archive, snapshot.state.shard());
        snapshot.check(archive, &snapshot.branch, shard, &row).unwrap();
        let other = BranchName::parse("other").unwrap();
        let error = snapshot.check(archive, &other, shard, &row).unwrap_err();
        assert!(error.to_string().contains("expected were"), "{error}");
        let row = SnapshotRow { index: row.index.next(), ..row };
        assert!(snapshot.check(archive, &snapshot.branch, shard, &row).is_err());
    }
}
