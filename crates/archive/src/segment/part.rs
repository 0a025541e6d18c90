//! Blocks and pages: compressed pieces of an object, each with a checksum.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::ops::Range;

use bytes::Bytes;
use duramen_types::{DecodeError, Reader, Writer};

use super::format::MAX_PART;

/// Where a block or page lies in its object, and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub position: u64,
    pub stored: u32,
    pub raw: u32,
    pub codec: PartCodec,
    /// CRC-32 of the stored bytes.
    pub crc: u32,
}

/// How a part's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartCodec {
    Stored,
    Zstd,
}

impl Part {
    pub(crate) const ENCODED: usize = 21;

    /// Compresses `raw` where `compressor` is given and that saves at least a thirty-second of it.
    ///
    /// The position is 0 until the object is laid out. Fails if `raw` is larger than a part may be.
    pub(crate) fn seal(
        what: &'static str,
        raw: Vec<u8>,
        compressor: Option<&mut zstd::bulk::Compressor<'_>>,
    ) -> Result<(Self, Bytes), DecodeError> {
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        if raw_len > MAX_PART {
            return Err(DecodeError::TooLarge { what, size: raw_len.into(), limit: MAX_PART.into() });
        }
        let compressed = match compressor {
            // A compressor that fails costs space, not data: the part is then stored as it is.
            Some(compressor) => compressor.compress(&raw).ok(),
            None => None,
        };
        let worth_it = raw.len().saturating_sub(raw.len() >> 5);
        let (codec, stored) = match compressed {
            Some(compressed) if compressed.len() < worth_it => (PartCodec::Zstd, compressed),
            Some(_) | None => (PartCodec::Stored, raw),
        };
        let part = Self {
            position: 0,
            stored: u32::try_from(stored.len()).expect("what is stored is no longer than the raw part"),
            raw: raw_len,
            codec,
            crc: crc32fast::hash(&stored),
        };
        Ok((part, stored.into()))
    }

    /// Whether these are the stored bytes, by length and checksum.
    pub(crate) fn is(&self, stored: &[u8]) -> bool {
        stored.len() == length(self.stored) && crc32fast::hash(stored) == self.crc
    }

    /// The raw bytes, after checking length and checksum; memory is bounded by the raw length stated.
    pub(crate) fn open(&self, what: &'static str, stored: Bytes) -> Result<Bytes, DecodeError> {
        let found = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        if found != u64::from(self.stored) {
            return Err(DecodeError::invalid(
                what,
                format!("{found} bytes were read, {} expected", self.stored),
            ));
        }
        let computed = crc32fast::hash(&stored);
        if computed != self.crc {
            return Err(DecodeError::Checksum { what, stored: self.crc, computed });
        }
        let raw = match self.codec {
            PartCodec::Stored => stored,
            PartCodec::Zstd => zstd::bulk::decompress(&stored, length(self.raw))
                .map_err(|error| DecodeError::invalid(what, format!("it does not decompress: {error}")))?
                .into(),
        };
        if raw.len() != length(self.raw) {
            let reason = format!("it decompresses to {} bytes, {} are stated", raw.len(), self.raw);
            return Err(DecodeError::invalid(what, reason));
        }
        Ok(raw)
    }

    /// The bytes of the object that hold the part.
    pub(crate) fn range(&self) -> Range<u64> {
        self.position..self.end()
    }

    pub(crate) fn end(&self) -> u64 {
        self.position.saturating_add(self.stored.into())
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.position).u32(self.stored).u32(self.raw);
        out.u8(match self.codec {
            PartCodec::Stored => 0,
            PartCodec::Zstd => 1,
        });
        out.u32(self.crc);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let position = reader.u64()?;
        let stored = reader.u32()?;
        let raw = reader.u32()?;
        let codec = match reader.u8()? {
            0 => PartCodec::Stored,
            1 => PartCodec::Zstd,
            other => return reader.invalid(format!("codec {other} is unknown")),
        };
        let crc = reader.u32()?;
        if raw > MAX_PART || stored > raw || (codec == PartCodec::Stored && stored != raw) {
            return reader
                .invalid(format!("a part of {raw} bytes is stored in {stored}, the limit is {MAX_PART}"));
        }
        Ok(Self { position, stored, raw, codec, crc })
    }
}

/// A stated length for use with memory; on a 16-bit machine none would fit.
pub(crate) fn length(stated: u32) -> usize {
    usize::try_from(stated).unwrap_or(usize::MAX)
}
