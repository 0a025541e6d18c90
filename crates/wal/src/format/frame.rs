//! The header of a frame.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{DecodeError, SegmentId};

use super::input::Input;
use super::{FRAME_HEADER_BYTES, MAX_FRAME_BODY_BYTES, align};

const WHAT: &str = "WAL frame header";
const MAGIC: &[u8; 4] = b"DFRM";

/// What one group commit says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of records.
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    /// The last frame known to be fsynced when this one was written; 0 for none.
    pub(crate) synced_through: u64,
    pub(crate) records: u32,
    pub(crate) body_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, segment: SegmentId, position: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_through.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = placed_crc(segment, position, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields add up to 40 bytes")
    }

    /// The header of the frame at `position` of the segment; an error if none was written there.
    pub(crate) fn decode(
        bytes: &[u8; FRAME_HEADER_BYTES],
        segment: SegmentId,
        position: u64,
    ) -> Result<Self, DecodeError> {
        let mut input = Input::new(WHAT, bytes);
        input.expect(MAGIC, "the magic number")?;
        let header = Self {
            length: input.u32()?,
            sequence: input.u64()?,
            synced_through: input.u64()?,
            records: input.u32()?,
            body_crc: input.u32()?,
        };
        input.take(4)?;
        let (covered, _) = bytes.split_at(input.at());
        let (stored, computed) = (input.u32()?, placed_crc(segment, position, covered));
        if stored != computed {
            return Err(DecodeError::Checksum { what: WHAT, stored, computed });
        }
        if u64::from(header.length) > MAX_FRAME_BODY_BYTES {
            return Err(DecodeError::TooLarge {
                what: WHAT,
                size: header.length.into(),
                limit: MAX_FRAME_BODY_BYTES,
            });
        }
        Ok(header)
    }

    /// The bytes that the frame takes in the file, with its padding.
    pub(crate) fn size(&self) -> u64 {
        Self::size_of(u64::from(self.length))
    }

    /// The bytes that a frame with `length` bytes of records takes in the file.
    pub(crate) fn size_of(length: u64) -> u64 {
        align(length.saturating_add(FRAME_HEADER_BYTES as u64))
    }
}

/// The CRC of a frame's records.
pub(crate) fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}

/// The CRC of bytes that belong to one place of one segment only.
pub(super) fn placed_crc(segment: SegmentId, position: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(segment.as_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}
