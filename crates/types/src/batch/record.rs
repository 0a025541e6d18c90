//! Records: owned ones to encode, borrowed ones to read, and the walk over a batch's records.

use bytes::Bytes;

use super::header::{self, Header, TimestampType};
use super::{Batch, Codec, Error, compression, varint};
use crate::Offset;

/// A record of its own: what a producer appends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    pub key: Option<Bytes>,
    /// `None` is Kafka's null value (a tombstone, to compacting readers), which differs from an empty one.
    pub value: Option<Bytes>,
    /// In order; a key may occur more than once.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// A record inside a batch, without a copy of its bytes.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    pub offset: Offset,
    /// Milliseconds since 1970: the producer's, or the batch's time of arrival.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null value, which differs from an empty one.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
    encoded_len: usize,
    source: &'a Bytes,
}

impl<'a> RecordRef<'a> {
    /// The headers in order; a key may occur more than once.
    pub const fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The record's size in bytes as encoded, uncompressed and without its length prefix.
    pub const fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// The record on its own: key, value and header values share the batch's (decompressed) bytes, and so keep
    /// them in memory.
    pub fn to_record(&self) -> Record {
        let share = |part: &[u8]| self.source.slice_ref(part);
        Record {
            key: self.key.map(share),
            value: self.value.map(share),
            headers: self.headers.map(|(key, value)| (key.to_owned(), value.map(share))).collect(),
            timestamp: self.timestamp,
        }
    }
}

/// An iterator over a record's headers, as key and value; `None` is a null value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    remaining: u32,
}

impl<'a> Headers<'a> {
    /// How many headers are still to come.
    pub const fn count_left(&self) -> u32 {
        self.remaining
    }

    fn step(&mut self) -> Result<(&'a str, Option<&'a [u8]>), &'static str> {
        let key =
            sized(&mut self.rest).flatten().ok_or("a header's key is null or runs past the record's end")?;
        let key = std::str::from_utf8(key).map_err(|_| "a header's key is not UTF-8")?;
        let value = sized(&mut self.rest).ok_or("a header's value runs past the record's end")?;
        Ok((key, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        // The walk that made this checked every header.
        self.step().ok()
    }
}

/// A batch's records, decompressed; iterate over a reference to it.
#[derive(Debug, Clone)]
pub struct Records {
    data: Bytes,
    header: Header,
    base_offset: Offset,
}

impl Records {
    /// Decompresses to at most `limit` bytes; the records themselves are checked by the iteration.
    pub(super) fn open(batch: &Batch, base_offset: Offset, limit: usize) -> Result<Self, Error> {
        let stored = batch.bytes.slice(header::LEN..);
        let data = match batch.header.codec {
            Codec::None if stored.len() > limit => return Err(Error::UncompressedTooLarge { limit }),
            Codec::None => stored,
            codec => compression::decompress(codec, &stored, limit)?,
        };
        Ok(Self { data, header: batch.header, base_offset })
    }

    /// The records in order; stops after the first error.
    ///
    /// There is an error if the batch has fewer or more records than its header says, or a malformed one; none of
    /// this can happen to a batch that was validated or built here.
    pub fn iter(&self) -> Iter<'_> {
        Iter { records: self, rest: &self.data, index: 0, ended: false }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordRef<'a>, Error>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The iterator of [`Records`].
///
/// It gives no size hint: the count comes from bytes that may never have been checked.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    records: &'a Records,
    rest: &'a [u8],
    index: u32,
    ended: bool,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<RecordRef<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let index = self.index;
        if index == self.records.header.count {
            self.ended = true;
            let extra = self.rest.len();
            return (extra != 0).then_some(Err(Error::Trailing { extra }));
        }
        self.index = index.saturating_add(1);
        let item = self.record(index).map_err(|reason| Error::Record { index, reason });
        self.ended = item.is_err();
        Some(item)
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

impl<'a> Iter<'a> {
    fn record(&mut self, index: u32) -> Result<RecordRef<'a>, &'static str> {
        let header = &self.records.header;
        let length = varint::read_i32(&mut self.rest).ok_or("its length is cut short or too large")?;
        let encoded_len = usize::try_from(length).map_err(|_| "its length is negative")?;
        let mut body = take(&mut self.rest, encoded_len).ok_or("it runs past the batch's end")?;

        if take(&mut body, 1).ok_or("it has no attributes")? != [0] {
            return Err("its attributes are not 0");
        }
        let delta = varint::read_i64(&mut body).ok_or("its timestamp delta is cut short or too large")?;
        let created = header.base_timestamp.checked_add(delta).ok_or("its timestamp is out of range")?;
        let offset_delta = varint::read_i32(&mut body).ok_or("its offset delta is cut short or too large")?;
        if u32::try_from(offset_delta) != Ok(index) {
            return Err("its offset delta is not its position in the batch");
        }
        let key = sized(&mut body).ok_or("its key runs past its end")?;
        let value = sized(&mut body).ok_or("its value runs past its end")?;
        let count = varint::read_i32(&mut body).ok_or("its header count is cut short or too large")?;
        let count = u32::try_from(count).map_err(|_| "its header count is negative")?;

        let headers = Headers { rest: body, remaining: count };
        let mut check = headers;
        for _ in 0..count {
            check.step()?;
        }
        if !check.rest.is_empty() {
            return Err("it has bytes after its last header");
        }
        let timestamp = match header.timestamp_type {
            TimestampType::Create => created,
            TimestampType::Arrival => header.max_timestamp,
        };
        let offset = self.records.base_offset.plus(u64::from(index));
        Ok(RecordRef { offset, timestamp, key, value, headers, encoded_len, source: &self.records.data })
    }
}

/// The next `len` bytes of `input`, which moves past them.
fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

/// The next bytes of `input` with their length before them; the inner `None` is null (length -1).
fn sized<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint::read_i32(input)? {
        -1 => Some(None),
        len => take(input, usize::try_from(len).ok()?).map(Some),
    }
}
