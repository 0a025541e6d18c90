mod damage;
mod oracle;
mod refusals;
mod round_trip;

use bytes::Bytes;

use super::*;
use crate::ProducerId;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn record(timestamp: i64, key: Option<&'static str>, value: Option<&'static str>) -> Record {
    Record { key: key.map(Bytes::from), value: value.map(Bytes::from), headers: Vec::new(), timestamp }
}

/// Three records with everything that is easily lost: null and empty, a header key twice, time going back.
fn sample_records() -> Vec<Record> {
    let mut first = record(1_700_000_000_000, Some("key"), Some("value"));
    first.headers = vec![
        ("trace".into(), Some(Bytes::from_static(b"one"))),
        ("trace".into(), Some(Bytes::from_static(b"two"))),
        ("null".into(), None),
        (String::new(), Some(Bytes::new())),
    ];
    vec![first, record(1_700_000_000_900, None, None), record(1_699_999_999_000, Some(""), Some(""))]
}

fn build(records: &[Record], options: Options) -> Batch {
    let mut builder = BatchBuilder::new(Limits::default());
    for record in records {
        builder.push_record(record).unwrap();
    }
    builder.finish(options).unwrap()
}

fn sample(codec: Codec) -> Batch {
    let producer = Some(Producer { id: ProducerId::new(77), epoch: 3, sequence: 1000 });
    build(&sample_records(), Options { compression: codec, producer, arrival: None })
}

fn check(bytes: impl Into<Bytes>) -> Result<Batch, Error> {
    validate(bytes.into(), &Limits::default())
}

fn read_all(batch: &Batch) -> Result<Vec<Record>, Error> {
    batch.records(Offset::ZERO)?.iter().map(|item| item.map(|found| found.to_record())).collect()
}

/// Makes length and checksum true again after a change.
fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A batch with `count` in its header and these (compressed) bytes after it.
fn assemble(codec: Codec, count: i32, records: &[u8]) -> Vec<u8> {
    let mut bytes = sample(Codec::None).bytes()[..header::LEN].to_vec();
    bytes[22] = codec.id();
    bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(records);
    reseal(bytes)
}
