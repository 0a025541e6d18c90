use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_bytes(most: usize) -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..most).prop_map(Bytes::from))
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = vec(("[a-cé]{0,3}", any_bytes(20)), 0..5);
    let timestamp = prop_oneof![0..4_000_000_000_000_i64, -5..5_i64, any::<i32>().prop_map(i64::from)];
    (any_bytes(40), any_bytes(300), headers, timestamp).prop_map(|(key, value, headers, timestamp)| Record {
        key,
        value,
        headers,
        timestamp,
    })
}

fn any_producer() -> impl Strategy<Value = Option<Producer>> {
    let fields = (0..=i64::MAX.unsigned_abs(), 0..=i16::MAX.unsigned_abs(), 0..=i32::MAX.unsigned_abs());
    option::of(fields.prop_map(|(id, epoch, sequence)| Producer { id: ProducerId::new(id), epoch, sequence }))
}

proptest! {
    #[test]
    fn what_is_built_validates_and_reads_back_the_same(
        records in vec(any_record(), 1..20),
        compression in proptest::sample::select(&CODECS[..]),
        producer in any_producer(),
        arrival in option::of(any::<i64>()),
        base in any::<u32>(),
    ) {
        let mut builder = BatchBuilder::new(Limits::default());
        for record in &records {
            let expected = builder.size_with(record);
            builder.push_record(record).unwrap();
            prop_assert_eq!(builder.size(), expected);
        }
        let built = builder.finish(Options { compression, producer, arrival }).unwrap();
        let batch = check(built.bytes().clone()).unwrap();
        prop_assert_eq!(&batch, &built);
        prop_assert_eq!(&Batch::from_trusted(built.bytes().clone()).unwrap(), &built);
        prop_assert_eq!(usize::try_from(batch.count()).unwrap(), records.len());
        prop_assert_eq!(batch.compression(), compression);
        prop_assert_eq!(batch.producer(), producer);
        prop_assert_eq!(batch.base_timestamp(), records[0].timestamp);
        let largest = records.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(batch.max_timestamp(), arrival.unwrap_or(largest));

        let expected: Vec<Record> = records
            .into_iter()
            .map(|record| Record { timestamp: arrival.unwrap_or(record.timestamp), ..record })
            .collect();
        prop_assert_eq!(read_all(&batch).unwrap(), expected);
        let opened = batch.records(Offset::new(base.into())).unwrap();
        for (offset, item) in (u64::from(base)..).zip(&opened) {
            prop_assert_eq!(item.unwrap().offset.get(), offset);
        }
    }

    #[test]
    fn a_varint_takes_the_stated_length_and_reads_back(value in any::<i64>(), shift in 0..64_u32) {
        let value = value >> shift;
        let mut bytes = Vec::new();
        varint::write(&mut bytes, value);
        prop_assert_eq!(bytes.len(), varint::len(value));
        prop_assert_eq!(varint::read_i64(&mut &bytes[..]), Some(value));
        prop_assert_eq!(varint::read_i32(&mut &bytes[..]), i32::try_from(value).ok());
        prop_assert_eq!(varint::read_i64(&mut &bytes[..bytes.len() - 1]), None);
    }
}

#[test]
fn the_layout_is_kafkas_byte_by_byte() {
    let mut one = record(1000, Some("k"), None);
    one.headers = vec![("h".into(), None)];
    let batch = build(&[one, record(1064, None, Some("vv"))], Options::default());
    let mut expected = vec![];
    expected.extend([0; 8]); // base offset
    expected.extend([0, 0, 0, 70]); // batch length
    expected.extend([0xff; 4]); // leader epoch
    expected.push(2); // magic
    expected.extend([0; 4]); // checksum, below, computed by another program
    expected.extend([0, 0]); // attributes
    expected.extend([0, 0, 0, 1]); // last offset delta
    expected.extend([0, 0, 0, 0, 0, 0, 0x03, 0xe8]); // base timestamp
    expected.extend([0, 0, 0, 0, 0, 0, 0x04, 0x28]); // max timestamp
    expected.extend([0xff; 14]); // producer id, epoch, base sequence
    expected.extend([0, 0, 0, 2]); // count
    // Length 10, attributes, delta 0, offset 0, key of 1, null value, 1 header: key of 1, null value.
    expected.extend([20, 0, 0, 0, 2, b'k', 1, 2, 2, b'h', 1]);
    // Length 9, attributes, delta 64, offset 1, null key, value of 2, no headers.
    expected.extend([18, 0, 0x80, 1, 2, 1, 4, b'v', b'v', 0]);
    expected[17..21].copy_from_slice(&0x5a88_fc91_u32.to_be_bytes());
    assert_eq!(batch.bytes(), &expected);
}

#[test]
fn records_of_an_uncompressed_batch_are_not_copied() {
    let batch = sample(Codec::None);
    let whole = batch.bytes().as_ptr_range();
    let records = batch.records(Offset::ZERO).unwrap();
    let first = records.iter().next().unwrap().unwrap();
    assert!(whole.contains(&first.value.unwrap().as_ptr()));
    assert!(whole.contains(&first.to_record().value.unwrap().as_ptr()));
    assert_eq!(first.headers().count_left(), 4);
}

#[test]
fn stamping_the_arrival_is_the_same_as_building_with_it() {
    for codec in CODECS {
        let created = sample(codec);
        let stamped = created.clone().stamp_arrival(42);
        assert_eq!(check(stamped.bytes().clone()).unwrap(), stamped);
        assert_eq!(stamped.timestamp_type(), TimestampType::Arrival);
        assert_eq!((stamped.max_timestamp(), stamped.base_timestamp()), (42, created.base_timestamp()));
        assert!(read_all(&stamped).unwrap().iter().all(|record| record.timestamp == 42));
        let options = Options { compression: codec, producer: created.producer(), arrival: Some(42) };
        assert_eq!(build(&sample_records(), options), stamped);
        assert_eq!(
            check(created.bytes().clone()).unwrap(),
            sample(codec),
            "the shared original is untouched"
        );
        assert_ne!(created.hash(), stamped.hash());
    }
}

#[test]
fn stamping_the_only_owner_copies_nothing() {
    let batch = check(sample(Codec::Zstd).bytes().to_vec()).unwrap();
    let before = batch.bytes().as_ptr();
    assert_eq!(batch.stamp_arrival(7).bytes().as_ptr(), before);
}

#[test]
fn a_base_offset_is_filled_in_when_served_and_taken_out_again() {
    let batch = sample(Codec::Lz4);
    let base = Offset::new(0x0102_0304_0506);
    let served = batch.with_base_offset(base);
    let (head, rest) = batch.split_with_base_offset(base);
    assert_eq!([&head[..], &rest[..]].concat(), served);
    assert_eq!(
        check(served.clone()),
        Err(Error::NotNormalised { base_offset: 0x0102_0304_0506, leader_epoch: -1 })
    );
    let (found, bytes) = normalise(served).unwrap();
    assert_eq!(found, base);
    assert_eq!(check(bytes).unwrap(), batch);
    assert_eq!(batch.with_base_offset(Offset::ZERO).as_ptr(), batch.bytes().as_ptr(), "nothing to copy");
}

#[test]
fn normalising_repairs_what_clients_put_into_the_leader_epoch() {
    let batch = sample(Codec::None);
    let mut bytes = batch.bytes().to_vec();
    bytes[12..16].fill(0);
    assert_eq!(check(bytes.clone()), Err(Error::NotNormalised { base_offset: 0, leader_epoch: 0 }));
    let (base, bytes) = normalise(bytes.into()).unwrap();
    assert_eq!((base, check(bytes).unwrap()), (Offset::ZERO, batch.clone()));

    let mut bytes = batch.bytes().to_vec();
    bytes[..8].fill(0xff);
    assert_eq!(normalise(bytes.into()), Err(Error::BaseOffset { found: -1 }));
    assert_eq!(normalise(Bytes::from_static(&[0; 60])), Err(Error::Truncated { needed: 61, found: 60 }));
}

#[test]
fn offsets_beyond_the_last_saturate() {
    let batch = sample(Codec::None);
    let records = batch.records(Offset::MAX).unwrap();
    assert!(records.iter().all(|item| item.unwrap().offset == Offset::MAX));
}

#[test]
fn equal_records_compressed_differently_have_different_hashes() {
    let mut hashes: Vec<_> = CODECS.map(|codec| sample(codec).hash()).into();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), CODECS.len());
    assert_ne!(sample(Codec::None).hash().as_bytes(), blake3::hash(sample(Codec::None).bytes()).as_bytes());
}

#[test]
fn data_that_shrinks_or_does_not_shrink_a_lot_survives_every_codec() {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(900_000)
    .collect();
    for value in [noise, vec![b'a'; 900_000]] {
        let records = vec![Record { value: Some(value.into()), ..Record::default() }; 3];
        for compression in CODECS {
            let batch = build(&records, Options { compression, ..Options::default() });
            assert_eq!(read_all(&check(batch.into_bytes()).unwrap()).unwrap(), records, "{compression}");
        }
    }
}
