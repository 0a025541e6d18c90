//! `kafka-protocol` reads what we write, and we read what it writes, wherever it can represent the value.

use bytes::BytesMut;
use kafka_protocol::records as kafka;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

const fn kafka_codec(codec: Codec) -> kafka::Compression {
    match codec {
        Codec::None => kafka::Compression::None,
        Codec::Gzip => kafka::Compression::Gzip,
        Codec::Snappy => kafka::Compression::Snappy,
        Codec::Lz4 => kafka::Compression::Lz4,
        Codec::Zstd => kafka::Compression::Zstd,
    }
}

/// Its headers are a map: no key twice.
fn any_record() -> impl Strategy<Value = Record> {
    let bytes = || option::of(vec(any::<u8>(), 0..200).prop_map(Bytes::from));
    let headers = btree_map("[a-zé]{0,4}", bytes(), 0..4);
    (bytes(), bytes(), headers, -1..2_000_000_000_000_i64).prop_map(|(key, value, headers, timestamp)| {
        Record { key, value, headers: headers.into_iter().collect(), timestamp }
    })
}

fn to_kafka(index: usize, record: &Record, producer: Option<Producer>) -> kafka::Record {
    let index = i32::try_from(index).unwrap();
    kafka::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: producer.map_or(-1, |p| p.id.get().cast_signed()),
        producer_epoch: producer.map_or(-1, |p| p.epoch.cast_signed()),
        timestamp_type: kafka::TimestampType::Creation,
        offset: index.into(),
        sequence: producer.map_or(-1, |p| p.sequence.cast_signed()).wrapping_add(index),
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().map(|(key, value)| (key.clone().into(), value.clone())).collect(),
    }
}

proptest! {
    #[test]
    fn each_reads_what_the_other_writes(
        records in vec(any_record(), 1..12),
        compression in proptest::sample::select(&CODECS[..]),
        stamp in option::of((0..1_u64 << 62, 0..1_u16 << 15, 0..1_u32 << 30)),
    ) {
        let producer =
            stamp.map(|(id, epoch, sequence)| Producer { id: ProducerId::new(id), epoch, sequence });
        let theirs: Vec<kafka::Record> =
            records.iter().enumerate().map(|(index, record)| to_kafka(index, record, producer)).collect();

        let ours = build(&records, Options { compression, producer, arrival: None });
        let decoded = kafka::RecordBatchDecoder::decode(&mut ours.bytes().clone()).unwrap();
        prop_assert_eq!(decoded.compression, kafka_codec(compression));
        prop_assert_eq!(&decoded.records, &theirs);

        let mut encoded = BytesMut::new();
        let options = kafka::RecordEncodeOptions { version: 2, compression: kafka_codec(compression) };
        kafka::RecordBatchEncoder::encode(&mut encoded, &theirs, &options).unwrap();
        let batch = check(encoded.freeze()).unwrap();
        prop_assert_eq!(read_all(&batch).unwrap(), records);
        prop_assert_eq!(batch.producer(), producer);
        prop_assert_eq!(batch.max_timestamp(), ours.max_timestamp());
        if compression == Codec::None && batch.base_timestamp() == ours.base_timestamp() {
            prop_assert_eq!(batch.bytes(), ours.bytes());
        }
    }
}

#[test]
fn the_time_of_arrival_is_understood() {
    let stamped = sample(Codec::Gzip).stamp_arrival(99);
    let decoded = kafka::RecordBatchDecoder::decode(&mut stamped.into_bytes()).unwrap();
    assert!(decoded.records.iter().all(|record| record.timestamp_type == kafka::TimestampType::LogAppend));
}

#[test]
fn a_served_base_offset_is_understood() {
    let mut served = sample(Codec::Snappy).with_base_offset(Offset::new(500));
    let decoded = kafka::RecordBatchDecoder::decode(&mut served).unwrap();
    assert_eq!(decoded.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [500, 501, 502]);
}

#[test]
fn the_crate_still_collapses_header_keys_that_occur_twice() {
    let decoded = kafka::RecordBatchDecoder::decode(&mut sample(Codec::None).into_bytes()).unwrap();
    assert_eq!(decoded.records[0].headers.len(), 3, "if this changes, docs/adr/0001 may be reconsidered");
}
