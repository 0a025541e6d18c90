//! The header of a segment file.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{DecodeError, HybridTime, NodeId, SegmentId};

use super::HEADER_BYTES;
use super::input::Input;

const WHAT: &str = "WAL segment header";
const MAGIC: &[u8; 4] = b"DWAL";
const VERSION: u16 = 1;
const RECYCLED: u16 = 1;

/// Who wrote a segment, and where it belongs in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    pub(crate) node: NodeId,
    pub(crate) created: HybridTime,
    pub(crate) sequence: u64,
    pub(crate) first_frame: u64,
    /// Whether the file held another segment before, whose bytes may still follow the last frame.
    pub(crate) recycled: bool,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.recycled { RECYCLED } else { 0 }).to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.node.get().to_le_bytes());
        out.extend_from_slice(&self.created.as_micros().to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.first_frame.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields add up to 64 bytes")
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut input = Input::new(WHAT, bytes);
        input.expect(MAGIC, "the magic number")?;
        let version = input.u16()?;
        if version > VERSION {
            return Err(DecodeError::Version {
                what: WHAT,
                found: version.into(),
                supported: VERSION.into(),
            });
        }
        let flags = input.u16()?;
        let header = Self {
            id: SegmentId::from_bytes(input.id16()?),
            node: NodeId::new(input.u64()?),
            created: HybridTime::from_micros(input.u64()?),
            sequence: input.u64()?,
            first_frame: input.u64()?,
            recycled: flags & RECYCLED != 0,
        };
        input.take(4)?;
        let (covered, _) = bytes.split_at(input.at());
        let (stored, computed) = (input.u32()?, crc32fast::hash(covered));
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        if version == 0 {
            return Err(DecodeError::invalid(WHAT, "version 0 was never used"));
        }
        Ok(header)
    }
}
