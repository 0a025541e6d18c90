//! Encoding records as a batch.

use bytes::Bytes;

use super::header::{self, Header, TimestampType};
use super::{Batch, Codec, Error, Limits, Record, compression, varint};
use crate::Producer;

/// Encodes records into one batch, into one buffer, without an allocation per record.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    limits: Limits,
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// How a batch is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What compresses the records; nothing by default.
    pub compression: Codec,
    /// An idempotent producer's stamp, with the first record's sequence; none by default.
    pub producer: Option<Producer>,
    /// The time of arrival, ms since 1970, that becomes the timestamp of all records; by default each keeps its own.
    pub arrival: Option<i64>,
}

impl BatchBuilder {
    /// An empty batch that refuses what [`validate()`](super::validate()) would refuse under the same limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: vec![0; header::LEN], count: 0, base_timestamp: 0, max_timestamp: i64::MIN }
    }

    /// Appends a record; after an error the batch is as it was before.
    ///
    /// `timestamp` is in ms since 1970. `None` for the value is Kafka's null, which differs from an empty value.
    /// The headers' iterator is run three times and must give the same each time.
    pub fn push<'h, H>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), Error>
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        let index = self.count;
        if index >= self.limits.max_records {
            return Err(Error::TooManyRecords {
                count: index.saturating_add(1),
                limit: self.limits.max_records,
            });
        }
        let base_timestamp = if index == 0 { timestamp } else { self.base_timestamp };
        let delta = timestamp
            .checked_sub(base_timestamp)
            .ok_or(Error::Record { index, reason: "its timestamp is too far from the first record's" })?;
        let size = body_len(delta, index, key, value, headers.clone());
        if size > self.limits.max_record_bytes {
            return Err(Error::RecordTooLarge { index, size, limit: self.limits.max_record_bytes });
        }
        let records = prefixed(size).saturating_add(self.buffer.len()).saturating_sub(header::LEN);
        if records > self.limits.uncompressed() {
            return Err(Error::UncompressedTooLarge { limit: self.limits.uncompressed() });
        }

        let out = &mut self.buffer;
        out.reserve(prefixed(size));
        write_len(out, size);
        out.push(0);
        varint::write(out, delta);
        varint::write(out, i64::from(index));
        write_sized(out, key);
        write_sized(out, value);
        write_len(out, headers.clone().count());
        for (key, value) in headers {
            write_sized(out, Some(key.as_bytes()));
            write_sized(out, value);
        }
        self.count = index.saturating_add(1);
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    /// Appends a record; after an error the batch is as it was before.
    pub fn push_record(&mut self, record: &Record) -> Result<(), Error> {
        let headers = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        self.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), headers)
    }

    /// How many records there are so far.
    pub const fn count(&self) -> u32 {
        self.count
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch's size in bytes so far, header included, before compression.
    pub const fn size(&self) -> usize {
        self.buffer.len()
    }

    /// What [`size`](Self::size) would be after appending `record`, to know whether it still fits.
    pub fn size_with(&self, record: &Record) -> usize {
        let base_timestamp = if self.count == 0 { record.timestamp } else { self.base_timestamp };
        let headers = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        let delta = record.timestamp.saturating_sub(base_timestamp);
        let size = body_len(delta, self.count, record.key.as_deref(), record.value.as_deref(), headers);
        prefixed(size).saturating_add(self.buffer.len())
    }

    /// The finished batch: compressed, stamped, with its checksum.
    ///
    /// Fails if there is no record, or if the batch as encoded exceeds its limit.
    pub fn finish(self, options: Options) -> Result<Batch, Error> {
        if self.is_empty() {
            return Err(Error::Empty);
        }
        let (timestamp_type, max_timestamp) = match options.arrival {
            None => (TimestampType::Create, self.max_timestamp),
            Some(arrival) => (TimestampType::Arrival, arrival),
        };
        let header = Header {
            codec: options.compression,
            timestamp_type,
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp,
            producer: options.producer,
        };
        let mut bytes = match options.compression {
            Codec::None => self.buffer,
            codec => {
                let mut compressed = vec![0; header::LEN];
                let records = self.buffer.get(header::LEN..).unwrap_or_default();
                compression::compress(codec, records, &mut compressed)?;
                compressed
            }
        };
        let (size, limit) = (bytes.len(), self.limits.max_batch_bytes);
        if size > limit {
            return Err(Error::BatchTooLarge { size, limit });
        }
        header.write(&mut bytes)?;
        Ok(Batch { bytes: Bytes::from(bytes), header })
    }
}

/// The length of a record's body: all but its length prefix.
fn body_len<'h>(
    delta: i64,
    index: u32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
) -> usize {
    let (mut size, mut count) = (1_usize, 0_usize);
    for (key, value) in headers {
        count = count.saturating_add(1);
        size = size.saturating_add(sized_len(Some(key.as_bytes()))).saturating_add(sized_len(value));
    }
    size.saturating_add(varint::len(delta))
        .saturating_add(varint::len(i64::from(index)))
        .saturating_add(sized_len(key))
        .saturating_add(sized_len(value))
        .saturating_add(varint::len(signed(count)))
}

fn sized_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| prefixed(bytes.len()))
}

/// `len` bytes and a varint that says so.
fn prefixed(len: usize) -> usize {
    varint::len(signed(len)).saturating_add(len)
}

fn write_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write(out, -1),
        Some(bytes) => {
            write_len(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

fn write_len(out: &mut Vec<u8>, len: usize) {
    varint::write(out, signed(len));
}

/// A length as varints take it: lengths of what is in memory always fit.
fn signed(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
