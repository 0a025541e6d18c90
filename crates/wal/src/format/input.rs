//! Reading fixed fields off a slice without trusting it.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use duramen_types::{DecodeError, EntryId, Index, Term};

/// A position in bytes that are read as `what`.
pub(crate) struct Input<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(n);
        let taken = self.bytes.get(self.at..end).ok_or(DecodeError::Truncated {
            what: self.what,
            at: self.at,
            needed: n.saturating_sub(self.remaining()),
        })?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn id16(&mut self) -> Result<[u8; 16], DecodeError> {
        self.array()
    }

    pub(crate) fn entry_id(&mut self) -> Result<EntryId, DecodeError> {
        Ok(EntryId { index: Index::new(self.u64()?), term: Term::new(self.u64()?) })
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64_u32).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part.checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::invalid(self.what, "a varint exceeds 64 bits"))
    }

    /// A count of items of at least `size` bytes each, refused when the rest of the input can't hold them.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let needed = count.saturating_mul(size);
        if needed > self.remaining() {
            return Err(DecodeError::Truncated {
                what: self.what,
                at: self.at,
                needed: needed.saturating_sub(self.remaining()),
            });
        }
        Ok(count)
    }

    pub(crate) fn expect(&mut self, expected: &[u8], field: &'static str) -> Result<(), DecodeError> {
        if self.take(expected.len())? == expected {
            Ok(())
        } else {
            Err(DecodeError::invalid(self.what, format!("{field} is not as expected")))
        }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { what: self.what, extra }),
        }
    }
}

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(crate) fn put_entry_id(out: &mut Vec<u8>, id: EntryId) {
    out.extend_from_slice(&id.index.get().to_le_bytes());
    out.extend_from_slice(&id.term.get().to_le_bytes());
}

/// A length that the format stores in 32 bits.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("what the log writes at once is bounded far below 4 GiB")
}
