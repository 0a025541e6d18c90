//! A total little-endian reader and its writer; the base of every own binary format.

use crate::DecodeError;

/// Reads fields off the front of a byte slice; every method fails with [`DecodeError`] instead of panicking.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `what` names the format in errors.
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub const fn position(&self) -> usize {
        self.at
    }

    pub const fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(len);
        match self.bytes.get(self.at..end) {
            Some(slice) => {
                self.at = end;
                Ok(slice)
            }
            None => Err(DecodeError::Truncated {
                what: self.what,
                at: self.at,
                needed: len.saturating_sub(self.remaining()),
            }),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let slice = self.take(N)?;
        Ok(slice.try_into().expect("take returns exactly the length asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::invalid(self.what, format!("a flag is {other}, not 0 or 1"))),
        }
    }

    /// `u16` length, then that many bytes.
    pub fn short_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// `u16` length, then that many bytes of UTF-8.
    pub fn short_text(&mut self) -> Result<&'a str, DecodeError> {
        let what = self.what;
        std::str::from_utf8(self.short_bytes()?).map_err(|_| DecodeError::invalid(what, "text is not UTF-8"))
    }

    /// `u32` length, then that many bytes.
    pub fn long_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A flag byte, then the value if the flag is 1.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A `u32` count whose items take at least `min_size` bytes each, so that it can size an allocation.
    pub fn count(&mut self, min_size: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let needed = count.saturating_mul(min_size.max(1));
        if needed > self.remaining() {
            return Err(DecodeError::Truncated {
                what: self.what,
                at: self.at,
                needed: needed.saturating_sub(self.remaining()),
            });
        }
        Ok(count)
    }

    /// Fails with [`DecodeError::Invalid`] for this format.
    pub fn invalid<T>(&self, reason: impl Into<String>) -> Result<T, DecodeError> {
        Err(DecodeError::invalid(self.what, reason))
    }

    /// Fails if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { what: self.what, extra }),
        }
    }
}

/// Appends fields to a buffer in the form that [`Reader`] reads.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// `u16` length and bytes; the caller's types bound the length to 65,535.
    pub fn short_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(
            u16::try_from(bytes.len()).expect("short fields are bounded to 65,535 bytes by their types"),
        );
        self.put(bytes)
    }

    /// `u32` length and bytes; the caller's limits bound the length below 4 GiB.
    pub fn long_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.put(bytes)
    }

    /// A `u32` count; the caller's limits bound it.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).expect("counts and lengths are bounded below 2^32 by their types"))
    }

    pub fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
