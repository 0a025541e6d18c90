//! Each rule of the format and each limit, broken alone, is refused by its own error.

use std::io::Write;

use super::*;

/// The uncompressed sample with bytes changed at a position, under a true checksum.
fn changed(at: usize, with: &[u8]) -> Result<Batch, Error> {
    let mut bytes = sample(Codec::None).bytes().to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    check(reseal(bytes))
}

#[test]
fn each_header_field_out_of_range_is_refused() {
    let attributes = |bits: u16| match changed(21, &bits.to_be_bytes()) {
        Err(Error::Attributes { bits: found, reason }) => {
            assert_eq!(found, bits);
            reason
        }
        other => panic!("{bits:#x}: {other:?}"),
    };
    assert!(attributes(1 << 4).contains("transactions"));
    assert!(attributes(1 << 5).contains("control"));
    assert!(attributes(1 << 6).contains("delete horizon"));
    for bit in 7..16 {
        assert!(attributes(1 << bit).contains("bits 7 to 15"));
    }
    for codec in 5..8 {
        assert!(attributes(codec).contains("codec is unknown"));
    }
    assert_eq!(changed(16, &[1]), Err(Error::Magic { found: 1 }));
    assert_eq!(changed(57, &[0; 4]), Err(Error::Empty));
    assert_eq!(changed(57, &[0xff; 4]), Err(Error::Count { count: -1, last_offset_delta: 2 }));
    assert_eq!(changed(57, &[0, 0, 0, 2]), Err(Error::Count { count: 2, last_offset_delta: 2 }));
    assert_eq!(changed(23, &[0, 0, 0, 3]), Err(Error::Count { count: 3, last_offset_delta: 3 }));
    assert!(matches!(changed(43, &[0x80]), Err(Error::Producer { .. })), "id below -1");
    assert_eq!(changed(51, &[0xff, 0xff]), Err(Error::Producer { id: 77, epoch: -1, sequence: 1000 }));
    assert_eq!(changed(53, &[0xff; 4]), Err(Error::Producer { id: 77, epoch: 3, sequence: -1 }));
    assert_eq!(
        changed(43, &[0xff; 8]).unwrap().producer(),
        None,
        "epoch and sequence mean nothing without an id"
    );
    for wrong in [1_700_000_000_899_i64, 1_700_000_000_901] {
        let expected = Error::MaxTimestamp { stated: wrong, computed: 1_700_000_000_900 };
        assert_eq!(changed(35, &wrong.to_be_bytes()), Err(expected));
    }
    assert!(matches!(changed(27, &i64::MAX.to_be_bytes()), Err(Error::Record { index: 1, .. })), "overflow");
}

#[test]
fn a_producer_that_kafka_has_no_fields_for_is_refused() {
    let good = Producer { id: ProducerId::new(1), epoch: 1, sequence: 1 };
    for producer in [
        Producer { id: ProducerId::MAX, ..good },
        Producer { epoch: 1 << 15, ..good },
        Producer { sequence: 1 << 31, ..good },
    ] {
        let mut builder = BatchBuilder::new(Limits::default());
        builder.push_record(&Record::default()).unwrap();
        let options = Options { producer: Some(producer), ..Options::default() };
        assert!(matches!(builder.finish(options), Err(Error::Producer { .. })));
    }
}

#[test]
fn each_malformed_record_is_refused_by_number_and_reason() {
    // Length, attributes, timestamp delta, offset delta, key, value, headers; -1 is the varint 1.
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert!(
        matches!(check(assemble(Codec::None, 1, &good)), Err(Error::MaxTimestamp { .. })),
        "sound but for that"
    );
    let cases: &[(&[u8], &str)] = &[
        (&[], "length is cut short"),
        (&[0x80], "length is cut short"),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f], "length is cut short or too large"),
        (
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            "length is cut short or too large",
        ),
        (&[1], "length is negative"),
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f], "runs past the batch's end"),
        (&[14, 0, 0, 0, 1, 1, 0], "runs past the batch's end"),
        (&[0], "no attributes"),
        (&[12, 1, 0, 0, 1, 1, 0], "attributes are not 0"),
        (&[12, 0, 0, 2, 1, 1, 0], "offset delta is not its position"),
        (&[12, 0, 0, 1, 1, 1, 0], "offset delta is not its position"),
        (&[12, 0, 0, 0, 3, 1, 0], "key runs past"),
        (&[12, 0, 0, 0, 1, 3, 0], "value runs past"),
        (&[12, 0, 0, 0, 20, 1, 0], "key runs past"),
        (&[12, 0, 0, 0, 1, 20, 0], "value runs past"),
        (&[12, 0, 0, 0, 1, 1, 1], "header count is negative"),
        (&[12, 0, 0, 0, 1, 1, 2], "a header's key"),
        (&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], "a header's key"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], "a header's key is null"),
        (&[18, 0, 0, 0, 1, 1, 2, 2, 0xff, 1], "not UTF-8"),
        (&[16, 0, 0, 0, 1, 1, 2, 0, 8], "a header's value runs past"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "bytes after its last header"),
        (
            &[26, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 1, 0],
            "timestamp delta is cut short",
        ),
    ];
    for (bytes, expected) in cases {
        match check(assemble(Codec::None, 1, bytes)) {
            Err(Error::Record { index: 0, reason }) => {
                assert!(reason.contains(expected), "{bytes:?}: {reason}")
            }
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    let more = [&good[..], &good].concat();
    assert!(
        matches!(check(assemble(Codec::None, 2, &more)), Err(Error::Record { index: 1, .. })),
        "offset 0 twice"
    );
    assert_eq!(check(assemble(Codec::None, 1, &more)), Err(Error::Trailing { extra: 7 }));
}

#[test]
fn a_huge_count_over_few_bytes_is_refused() {
    let bytes = assemble(Codec::None, i32::MAX, &[12, 0, 0, 0, 1, 1, 0]);
    let limit = Limits::default().max_records;
    let count = i32::MAX.unsigned_abs();
    assert_eq!(check(bytes.clone()), Err(Error::TooManyRecords { count, limit }));
    let unlimited = Limits { max_records: u32::MAX, ..Limits::default() };
    assert!(matches!(validate(bytes.clone().into(), &unlimited), Err(Error::Record { index: 1, .. })));
    let trusted = Batch::from_trusted(bytes.into()).unwrap();
    let records = trusted.records(Offset::ZERO).unwrap();
    assert_eq!(records.iter().size_hint().0, 0, "a collection must not reserve what the header says");
    assert_eq!(records.iter().count(), 2, "one record and one error");
}

#[test]
fn each_limit_holds_to_the_byte_when_validating() {
    let batch = sample(Codec::None);
    let records = batch.records(Offset::ZERO).unwrap();
    let largest = records.iter().map(|item| item.unwrap().encoded_len()).max().unwrap();
    let exact = Limits {
        max_batch_bytes: batch.bytes().len(),
        max_record_bytes: largest,
        max_records: 3,
        max_uncompressed_bytes: batch.bytes().len() - header::LEN,
    };
    let check = |limits: &Limits| validate(batch.bytes().clone(), limits);
    assert_eq!(check(&exact).unwrap(), batch);
    let (size, limit) = (batch.bytes().len(), batch.bytes().len() - 1);
    assert_eq!(check(&Limits { max_batch_bytes: limit, ..exact }), Err(Error::BatchTooLarge { size, limit }));
    assert_eq!(
        check(&Limits { max_record_bytes: largest - 1, ..exact }),
        Err(Error::RecordTooLarge { index: 0, size: largest, limit: largest - 1 })
    );
    assert_eq!(check(&Limits { max_records: 2, ..exact }), Err(Error::TooManyRecords { count: 3, limit: 2 }));
    for codec in CODECS {
        let bytes = sample(codec).into_bytes();
        let exact = Limits { max_batch_bytes: bytes.len(), ..exact };
        assert!(validate(bytes.clone(), &exact).is_ok(), "{codec}");
        let limit = exact.max_uncompressed_bytes - 1;
        let tight = Limits { max_uncompressed_bytes: limit, ..exact };
        assert_eq!(validate(bytes, &tight), Err(Error::UncompressedTooLarge { limit }), "{codec}");
    }
}

#[test]
fn the_builder_refuses_what_validation_would_and_stays_usable() {
    let batch = sample(Codec::None);
    let records = sample_records();
    let build = |limits: Limits| {
        let mut builder = BatchBuilder::new(limits);
        let mut refused = Vec::new();
        for record in &records {
            let before = (builder.size(), builder.count());
            if let Err(error) = builder.push_record(record) {
                assert_eq!((builder.size(), builder.count()), before);
                refused.push(error);
            }
        }
        (builder.finish(Options::default()), refused)
    };
    let size = batch.bytes().len();
    let limits = Limits::default();
    let (built, refused) = build(Limits { max_record_bytes: 20, ..limits });
    assert_eq!(built.unwrap().count(), 2);
    assert!(matches!(refused[..], [Error::RecordTooLarge { index: 0, limit: 20, .. }]));
    let (built, refused) = build(Limits { max_records: 2, ..limits });
    assert_eq!((built.unwrap().count(), refused), (2, vec![Error::TooManyRecords { count: 3, limit: 2 }]));
    let limit = size - header::LEN - 1;
    let (built, refused) = build(Limits { max_uncompressed_bytes: limit, ..limits });
    assert_eq!((built.unwrap().count(), refused), (2, vec![Error::UncompressedTooLarge { limit }]));
    let (built, refused) = build(Limits { max_batch_bytes: size - 1, ..limits });
    assert_eq!((built, refused), (Err(Error::BatchTooLarge { size, limit: size - 1 }), vec![]));
    assert_eq!(BatchBuilder::new(limits).finish(Options::default()), Err(Error::Empty));
}

#[test]
fn timestamps_too_far_apart_for_a_difference_are_refused() {
    let mut builder = BatchBuilder::new(Limits::default());
    builder.push_record(&record(i64::MAX, None, None)).unwrap();
    assert!(matches!(builder.push_record(&record(-2, None, None)), Err(Error::Record { index: 1, .. })));
    builder.push_record(&record(0, None, None)).unwrap();
    let batch = builder.finish(Options::default()).unwrap();
    assert_eq!(check(batch.bytes().clone()).unwrap(), batch);
}

/// The sample's records as the codec gives them.
fn data(codec: Codec) -> Bytes {
    sample(codec).into_bytes().slice(header::LEN..)
}

#[test]
fn a_second_member_or_frame_is_refused() {
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        match check(assemble(codec, 6, &[data(codec), data(codec)].concat())) {
            Err(Error::Decompress { codec: found, reason }) => {
                assert_eq!(found, codec);
                assert!(reason.contains("bytes follow its end"), "{codec}: {reason}");
            }
            other => panic!("{codec}: {other:?}"),
        }
    }
}

#[test]
fn an_lz4_frame_without_its_end_mark_is_refused() {
    let data = data(Codec::Lz4);
    for cut in 1..=4 {
        let result = check(assemble(Codec::Lz4, 3, &data[..data.len() - cut]));
        let reason = "it has no end mark".to_owned();
        assert_eq!(result, Err(Error::Decompress { codec: Codec::Lz4, reason }));
    }
}

#[test]
fn a_legacy_lz4_frame_is_refused() {
    let mut legacy = data(Codec::Lz4).to_vec();
    legacy[..4].copy_from_slice(&[0x02, 0x21, 0x4c, 0x18]);
    let reason = "it is not an LZ4 frame".to_owned();
    let result = check(assemble(Codec::Lz4, 3, &legacy));
    assert_eq!(result, Err(Error::Decompress { codec: Codec::Lz4, reason }));
}

#[test]
fn what_other_writers_produce_is_accepted() {
    let plain = &data(Codec::None)[..];
    let raw_snappy = snap::raw::Encoder::new().compress_vec(plain).unwrap();
    // A zstd stream of unknown length, at a level whose window is 128 MiB.
    let mut stream = zstd::stream::write::Encoder::new(Vec::new(), 22).unwrap();
    stream.write_all(plain).unwrap();
    stream.flush().unwrap();
    let zstd = stream.finish().unwrap();
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&zstd).unwrap(), None);
    let mut linked = lz4_flex::frame::FrameEncoder::with_frame_info(
        lz4_flex::frame::FrameInfo::new()
            .block_mode(lz4_flex::frame::BlockMode::Linked)
            .content_checksum(true)
            .block_checksums(true)
            .content_size(Some(u64::try_from(plain.len()).unwrap())),
        Vec::new(),
    );
    linked.write_all(plain).unwrap();
    let lz4 = linked.finish().unwrap();
    for (codec, data) in [(Codec::Snappy, raw_snappy), (Codec::Zstd, zstd), (Codec::Lz4, lz4)] {
        let batch = check(assemble(codec, 3, &data)).unwrap();
        assert_eq!(read_all(&batch).unwrap(), sample_records(), "{codec}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let error = Error::RecordTooLarge { index: 4, size: 2_000_000, limit: 1_048_576 };
    assert_eq!(
        error.to_string(),
        "record 4 of the batch is 2000000 bytes, the limit is 1048576: split it, or store it elsewhere"
    );
    assert_eq!(Error::Empty.to_string(), "the batch has no records: send at least one");
}
