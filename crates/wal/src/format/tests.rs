use std::collections::BTreeMap;

use bytes::Bytes;
use duramen_types::{EntryId, HybridTime, Index, NodeId, SegmentId, ShardId, Term};
use proptest::prelude::*;

use super::*;

const SEGMENT: SegmentId = SegmentId::from_bytes([7; 16]);

fn entry_id() -> impl Strategy<Value = EntryId> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(index, term)| EntryId { index: Index::new(index), term: Term::new(term) })
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let shard = any::<u16>().prop_map(ShardId::new);
    (shard, entry_id(), payload(), 0..8).prop_map(|(shard, id, payload, kind)| match kind {
        0 => Record::Entry { shard, id, payload },
        1 => Record::Truncate { shard, from: id.index },
        2 => Record::Displaced { shard, id },
        3 => Record::Released { shard, id },
        4 => Record::Vote { shard, bytes: payload },
        5 => Record::Committed { shard, id },
        6 => Record::Purged { shard, id },
        _ => Record::DisplacedCopy { shard, id, payload },
    })
}

fn header() -> SegmentHeader {
    SegmentHeader {
        id: SEGMENT,
        node: NodeId::new(3),
        created: HybridTime::from_micros(1_700_000_000_000_000),
        sequence: 12,
        first_frame: 99,
        recycled: true,
    }
}

/// A segment's summary with everything in it.
fn summary() -> (Summary, Vec<Row>, Vec<u8>) {
    let rows: Vec<Row> =
        (0..50_u32).map(|n| Row { position: 4136 + u64::from(n) * 1000, length: n * 7 }).collect();
    let page = encode_page(&rows);
    let id = |index, term| EntryId { index: Index::new(index), term: Term::new(term) };
    let run = Run {
        first: Index::new(40),
        term: Term::new(2),
        bytes: 8575,
        page_at: 65536,
        page_len: u32::try_from(page.len()).unwrap(),
        page_crc: crc32fast::hash(&page),
        count: 50,
    };
    let full = ShardSummary {
        truncated_from: Some(Index::new(40)),
        committed: Some(id(45, 2)),
        purged: Some(id(12, 1)),
        vote: Some(Bytes::from_static(b"a vote")),
        runs: vec![run],
        displaced: vec![
            DisplacedRow { id: id(40, 1), row: None },
            DisplacedRow { id: id(41, 1), row: Some(Row { position: 5000, length: 9 }) },
        ],
        released: [id(3, 1)].into(),
    };
    let shards = BTreeMap::from([(ShardId::META, ShardSummary::default()), (ShardId::new(5), full)]);
    (Summary(shards), rows, page)
}

/// Every truncation and single-bit flip of `bytes` must be an error or the same value.
fn survives_damage<T: PartialEq + std::fmt::Debug, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) {
    let value = decode(bytes).ok().expect("undamaged bytes decode");
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = decode(&flipped) {
            assert_eq!(other, value, "bit {bit}");
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ()> {
    bytes.try_into().map_err(|_| ())
}

#[test]
fn a_damaged_segment_header_is_an_error() {
    let bytes = header().encode();
    assert_eq!(SegmentHeader::decode(&bytes).unwrap(), header());
    survives_damage(&bytes, |bytes| SegmentHeader::decode(&fixed(bytes)?).map_err(drop));
}

#[test]
fn a_header_of_a_newer_version_asks_for_a_newer_release() {
    let mut bytes = header().encode();
    bytes[4] = 2;
    let error = SegmentHeader::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("use a newer release"), "{error}");
}

#[test]
fn a_damaged_frame_header_is_an_error() {
    let frame = FrameHeader { length: 1234, sequence: 5, synced_through: 4, records: 2, body_crc: 77 };
    let bytes = frame.encode(SEGMENT, 8192);
    assert_eq!(FrameHeader::decode(&bytes, SEGMENT, 8192).unwrap(), frame);
    survives_damage(&bytes, |bytes| FrameHeader::decode(&fixed(bytes)?, SEGMENT, 8192).map_err(drop));
}

#[test]
fn a_frame_of_another_segment_or_place_is_refused() {
    let frame = FrameHeader { length: 0, sequence: 5, synced_through: 4, records: 0, body_crc: 0 };
    let bytes = frame.encode(SEGMENT, 8192);
    assert!(FrameHeader::decode(&bytes, SEGMENT, 4096).is_err());
    assert!(FrameHeader::decode(&bytes, SegmentId::from_bytes([8; 16]), 8192).is_err());
}

#[test]
fn a_damaged_footer_is_an_error() {
    let (summary, rows, page) = summary();
    let encoded = summary.encode();
    let trailer = Trailer {
        footer_at: 65536,
        summary_at: 65536 + page.len() as u64,
        first_frame: 99,
        end_frame: 120,
        summary_len: u32::try_from(encoded.len()).unwrap(),
        summary_crc: crc32fast::hash(&encoded),
    };
    let bytes = trailer.encode(SEGMENT, 100_000);
    assert_eq!(Trailer::decode(&bytes, SEGMENT, 100_000).unwrap(), trailer);
    assert!(Trailer::decode(&bytes, SEGMENT, 100_001).is_err());
    survives_damage(&bytes, |bytes| Trailer::decode(&fixed(bytes)?, SEGMENT, 100_000).map_err(drop));
    survives_damage(&encoded, |bytes| {
        if crc32fast::hash(bytes) == trailer.summary_crc {
            Summary::decode(bytes).map_err(drop)
        } else {
            Err(())
        }
    });
    let run = summary.0[&ShardId::new(5)].runs[0];
    assert_eq!(decode_page(&page, &run).unwrap(), rows);
    survives_damage(&page, |bytes| decode_page(bytes, &run));
}

#[test]
fn a_summary_without_its_checksum_never_panics() {
    let encoded = summary().0.encode();
    for len in 0..encoded.len() {
        assert!(Summary::decode(&encoded[..len]).is_err());
    }
    for bit in 0..encoded.len() * 8 {
        let mut flipped = encoded.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Summary::decode(&flipped);
    }
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_written(records in prop::collection::vec(record(), 0..20)) {
        let mut body = Vec::new();
        for record in &records {
            let before = body.len();
            encode_record(&mut body, record);
            prop_assert_eq!(body.len() - before, encoded_len(record));
        }
        let body = Bytes::from(body);
        let (mut at, mut found) = (0, Vec::new());
        while at < body.len() {
            let (record, len) = decode_record(&body[at..]).unwrap();
            found.push(record.to_record(&body));
            at += len;
        }
        prop_assert_eq!(found, records);
    }

    #[test]
    fn a_damaged_record_is_an_error(record in record()) {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record);
        let bytes = Bytes::from(bytes);
        survives_damage(&bytes, |bytes| {
            let whole = Bytes::copy_from_slice(bytes);
            decode_record(&whole).map(|(view, _)| view.to_record(&whole))
        });
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_record(&bytes);
        let _ = Summary::decode(&bytes);
        let run = Run { page_crc: crc32fast::hash(&bytes), ..summary().0.0[&ShardId::new(5)].runs[0] };
        let _ = decode_page(&bytes, &run);
    }
}
