//! The trailer: the fixed-size end of a segment, from which everything else is found.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{
    ArchiveId, BranchName, ChainValue, DecodeError, Hash, HybridTime, Index, Reader, SegmentId, ShardId,
    Writer,
};

use super::format::{END_MAGIC, SegmentIdentity, TRAILER_MAGIC, VERSION};

const WHAT: &str = "segment trailer";
const BRANCH: usize = 63;

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    pub identity: SegmentIdentity,
    /// How often its entries were merged into larger segments.
    pub level: u8,
    pub first: Index,
    pub end: Index,
    /// The effective times of the first and the last entry.
    pub first_time: HybridTime,
    pub last_time: HybridTime,
    pub chain_before: ChainValue,
    pub chain_after: ChainValue,
    /// Batches of all fates, and the records in those that were appended.
    pub batches: u64,
    pub records: u64,
    /// The smallest and the largest record timestamp, ms since 1970, of the appended batches; `None` without any.
    pub timestamps: Option<(i64, i64)>,
    pub(crate) object: u64,
    pub(crate) blocks: Extent,
    pub(crate) entries: Extent,
    pub(crate) streams: Extent,
    /// 0: none; anything else is of a later version.
    pub(crate) encryption: u8,
}

/// Where a directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub position: u64,
    pub length: u32,
    pub crc: u32,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.position.saturating_add(self.length.into())
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.position).u32(self.length).u32(self.crc);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { position: reader.u64()?, length: reader.u32()?, crc: reader.u32()? })
    }

    /// Checks the directory's bytes.
    pub(crate) fn check(&self, what: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
        let computed = crc32fast::hash(bytes);
        if computed != self.crc {
            return Err(DecodeError::Checksum { what, stored: self.crc, computed });
        }
        Ok(())
    }
}

impl Trailer {
    /// The trailer's size in bytes: what to read back of a segment that was just uploaded.
    pub const LEN: usize = 324;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(Self::LEN);
        out.put(TRAILER_MAGIC).u32(VERSION).u8(self.encryption).u8(self.level);
        out.u16(self.identity.shard.get()).put(self.identity.archive.as_bytes());
        out.put(self.identity.segment.as_bytes());
        let branch = self.identity.branch.as_str().as_bytes();
        out.u8(u8::try_from(branch.len()).expect("a branch's name has at most 63 bytes")).put(branch);
        out.put(&vec![0; BRANCH.saturating_sub(branch.len())]);
        out.u64(self.first.get()).u64(self.end.get());
        out.u64(self.first_time.as_micros()).u64(self.last_time.as_micros());
        out.put(self.chain_before.as_bytes()).put(self.chain_after.as_bytes());
        let (min, max) = self.timestamps.unwrap_or((i64::MAX, i64::MIN));
        out.u64(self.batches).u64(self.records).i64(min).i64(max).u64(self.object);
        for extent in [&self.blocks, &self.entries, &self.streams] {
            extent.encode(&mut out);
        }
        Extent { position: 0, length: 0, crc: 0 }.encode(&mut out);
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(END_MAGIC);
        debug_assert_eq!(bytes.len(), Self::LEN, "the trailer has a fixed size");
        bytes
    }

    /// Reads the last [`Trailer::LEN`] bytes of an object.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body_len = Self::LEN.saturating_sub(4).saturating_sub(END_MAGIC.len());
        let mut reader = Reader::new(WHAT, bytes);
        let body = reader.take(body_len)?;
        let stored = reader.u32()?;
        if reader.array()? != *END_MAGIC {
            return reader
                .invalid("the object does not end as a segment does: it is cut short, or something else");
        }
        reader.finish()?;
        let mut reader = Reader::new(WHAT, body);
        if reader.array()? != *TRAILER_MAGIC {
            return reader.invalid("it does not begin with DURASEGT");
        }
        let computed = crc32fast::hash(body);
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(DecodeError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let trailer = Self::decode_body(&mut reader)?;
        reader.finish()?;
        Ok(trailer)
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let encryption = reader.u8()?;
        let level = reader.u8()?;
        let shard = ShardId::new(reader.u16()?);
        let archive = ArchiveId::from_bytes(reader.array()?);
        let segment = SegmentId::from_bytes(reader.array()?);
        let branch = decode_branch(reader)?;
        let (first, end) = (Index::new(reader.u64()?), Index::new(reader.u64()?));
        if first >= end {
            return reader.invalid(format!("it covers no entries: {first}..{end}"));
        }
        let first_time = HybridTime::from_micros(reader.u64()?);
        let last_time = HybridTime::from_micros(reader.u64()?);
        let chain_before = Hash::from_bytes(reader.array()?);
        let chain_after = Hash::from_bytes(reader.array()?);
        let (batches, records) = (reader.u64()?, reader.u64()?);
        let timestamps = match (reader.i64()?, reader.i64()?) {
            (min, max) if min <= max => Some((min, max)),
            (i64::MAX, i64::MIN) => None,
            (min, max) => return reader.invalid(format!("record timestamps run from {min} to {max}")),
        };
        let object = reader.u64()?;
        let (blocks, entries, streams) =
            (Extent::decode(reader)?, Extent::decode(reader)?, Extent::decode(reader)?);
        let envelope = Extent::decode(reader)?;
        if encryption == 0 && envelope != (Extent { position: 0, length: 0, crc: 0 }) {
            return reader.invalid("it has a key envelope, but is not encrypted");
        }
        Ok(Self {
            identity: SegmentIdentity { archive, branch, shard, segment },
            level,
            first,
            end,
            first_time,
            last_time,
            chain_before,
            chain_after,
            batches,
            records,
            timestamps,
            object,
            blocks,
            entries,
            streams,
            encryption,
        })
    }
}

fn decode_branch(reader: &mut Reader<'_>) -> Result<BranchName, DecodeError> {
    let len = usize::from(reader.u8()?);
    let field: [u8; BRANCH] = reader.array()?;
    let (name, padding) = match field.split_at_checked(len) {
        Some(split) => split,
        None => return reader.invalid(format!("the branch's name is {len} bytes long")),
    };
    if padding.iter().any(|byte| *byte != 0) {
        return reader.invalid("the branch's name has bytes after its end");
    }
    let parsed = std::str::from_utf8(name).ok().and_then(|name| BranchName::parse(name).ok());
    parsed.ok_or_else(|| DecodeError::invalid(WHAT, "the branch's name is none"))
}
