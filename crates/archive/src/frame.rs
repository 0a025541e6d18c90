//! The frame around every protobuf object of an archive.
//!
//! ```text
//! magic 8 | version u32 | length u32 | body (protobuf) | crc32 u32 (of everything before it)
//! ```
//!
//! Little-endian. The version changes whenever an older reader would misread the body: unknown protobuf fields are
//! skipped only within one version.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use std::fmt;

use bytes::{Buf, Bytes};
use duramen_types::{DecodeError, Reader, Writer};
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// A kind of framed object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Names the format in errors.
    pub what: &'static str,
    pub magic: &'static [u8; 8],
    pub version: u32,
}

const CRC_LEN: usize = 4;

/// Why an object could not be read as what its key says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// It uses a feature that this release has no code for.
    #[error("it uses {0}, which this release cannot read: use a newer release")]
    NotSupported(&'static str),
}

impl Frame {
    pub(crate) fn seal(self, message: &impl prost::Message) -> Bytes {
        let mut out = Writer::with_capacity(message.encoded_len().saturating_add(20));
        out.put(self.magic).u32(self.version).long_bytes(&message.encode_to_vec());
        let mut bytes = out.into_bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.into()
    }

    /// Reads the message in `bytes`. `limits` are the largest numbers of its repeated fields: they are counted before
    /// anything is allocated for them, because a repeated message may be far larger in memory than in the object.
    pub(crate) fn open<M: prost::Message + Default>(
        self,
        bytes: &Bytes,
        limits: &[(u32, usize)],
    ) -> Result<M, DecodeError> {
        let body_len = bytes.len().checked_sub(CRC_LEN);
        let Some((framed, crc)) = body_len.and_then(|len| bytes.split_at_checked(len)) else {
            return Err(DecodeError::Truncated { what: self.what, at: 0, needed: CRC_LEN });
        };
        let mut reader = Reader::new(self.what, framed);
        if reader.array()? != *self.magic {
            return reader.invalid(format!("it does not begin with {}", Shown(self.magic)));
        }
        let stored = Reader::new(self.what, crc).u32()?;
        let computed = crc32fast::hash(framed);
        if stored != computed {
            return Err(DecodeError::Checksum { what: self.what, stored, computed });
        }
        let version = reader.u32()?;
        if version != self.version {
            return Err(DecodeError::Version { what: self.what, found: version, supported: self.version });
        }
        let body = reader.long_bytes()?;
        reader.finish()?;
        self.count(body, limits)?;
        M::decode(bytes.slice_ref(body)).map_err(|error| DecodeError::invalid(self.what, error.to_string()))
    }

    fn count(self, mut body: &[u8], limits: &[(u32, usize)]) -> Result<(), DecodeError> {
        let invalid = |error: prost::DecodeError| DecodeError::invalid(self.what, error.to_string());
        let mut left: Vec<_> = limits.to_vec();
        while body.has_remaining() {
            let (tag, wire_type) = decode_key(&mut body).map_err(invalid)?;
            if let Some((_, left)) = left.iter_mut().find(|(limited, _)| *limited == tag) {
                let Some(rest) = left.checked_sub(1) else {
                    return Err(DecodeError::invalid(
                        self.what,
                        format!("field {tag} is repeated too often"),
                    ));
                };
                *left = rest;
            }
            skip_field(wire_type, tag, &mut body, DecodeContext::default()).map_err(invalid)?;
        }
        Ok(())
    }
}

struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

/// `N` bytes of a protobuf field, or an error that names it.
pub(crate) fn array<const N: usize>(
    what: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], DecodeError> {
    bytes
        .try_into()
        .map_err(|_| DecodeError::invalid(what, format!("{field} has {} bytes, not {N}", bytes.len())))
}
