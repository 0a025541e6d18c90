//! The golden files of record batches, log entries and chain values (`tests/golden`).

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write;

use bytes::Bytes;
use duramen_golden::{Counting, Golden, assert_resists_damage, assert_total_behind_checksums, golden};
use duramen_types::batch::{self, Batch, BatchBuilder, Codec, Limits, Options, Record};
use duramen_types::{
    Acknowledgement, BatchHeader, Compression, ControlOp, CursorName, Entry, EntryBody, EntryHead, EntryId,
    FencingToken, HybridTime, Index, ManifestNumber, Offset, Producer, ProducerId, RescueOrigin,
    RescuePolicy, RestorePointName, RetentionPolicy, ShardId, StreamConfig, StreamId, StreamName, TenantName,
    Term, TimestampPolicy, genesis,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GOLDEN: Golden = golden!();

const PRODUCER: Producer = Producer { id: ProducerId::new(77), epoch: 3, sequence: 1000 };

/// Three records with everything that is easily lost: null and empty, a header key twice, time going back.
fn records() -> Vec<Record> {
    let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let headers = vec![
        ("trace".to_owned(), text("one")),
        ("trace".to_owned(), text("two")),
        ("null".to_owned(), None),
        (String::new(), text("")),
    ];
    let record = |key, value, headers, timestamp| Record { key, value, headers, timestamp };
    vec![
        record(text("key"), text("value"), headers, 1_700_000_000_000),
        record(None, None, vec![], 1_700_000_000_900),
        record(text(""), text("späße"), vec![], 1_699_999_999_000),
    ]
}

fn build(records: &[Record], options: Options) -> Batch {
    let mut builder = BatchBuilder::new(Limits::default());
    for record in records {
        builder.push_record(record).unwrap();
    }
    builder.finish(options).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Batch, Vec<Record>), batch::Error> {
    let batch = batch::validate(Bytes::copy_from_slice(bytes), &Limits::default())?;
    let found = batch.records(Offset::ZERO)?;
    let records = found.iter().map(|record| record.map(|record| record.to_record()));
    let records = records.collect::<Result<_, _>>()?;
    Ok((batch, records))
}

#[test]
fn uncompressed_batches_are_the_golden_ones() {
    let stamped = Options { producer: Some(PRODUCER), ..Options::default() };
    let arrived = Options { arrival: Some(1_700_000_001_000), ..Options::default() };
    for (name, options) in [("batch-none.bin", stamped), ("batch-arrival.bin", arrived)] {
        let batch = build(&records(), options);
        let bytes = GOLDEN.assert_golden(name, batch.bytes());
        let (found, read_back) = assert_resists_damage(&bytes, read);
        assert_eq!((&found, found.producer()), (&batch, options.producer), "{name}");
        let expected = records().into_iter().map(|record| {
            let timestamp = options.arrival.unwrap_or(record.timestamp);
            Record { timestamp, ..record }
        });
        assert_eq!(read_back, expected.collect::<Vec<_>>(), "{name}");
    }
}

/// Another version of a codec's library may compress otherwise: what is compressed is compared when it is read.
#[test]
fn compressed_batches_read_like_the_golden_ones() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch =
            build(&records(), Options { compression: codec, producer: Some(PRODUCER), ..Options::default() });
        let bytes = GOLDEN.committed(&format!("batch-{codec}.bin"), batch.bytes());
        let (found, read_back) = assert_resists_damage(&bytes, read);
        assert_eq!((found.compression(), found.producer()), (codec, Some(PRODUCER)));
        assert_eq!(read_back, records(), "{codec}");
        let now = read(batch.bytes()).unwrap();
        assert_eq!(now.1, records(), "{codec}");
        // All of the header but length and checksum.
        assert_eq!(batch.bytes()[21..61], bytes[21..61], "{codec}");
        assert_eq!(batch.bytes()[..8], bytes[..8], "{codec}");
        assert_total_behind_checksums(&bytes, |bytes| seal(bytes), read);
    }
}

/// Makes a batch's length and checksum true again.
fn seal(bytes: &mut [u8]) {
    if bytes.len() > 21 {
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A log of one shard, which has every kind of entry and every control operation.
fn log() -> Vec<(&'static str, EntryId, Entry)> {
    let stream = StreamId::new(2);
    let time = |at: u64| HybridTime::from_micros(1_700_000_000_000_000 + at);
    let untimed = |body| Entry::new(EntryHead { time: HybridTime::ZERO, body });
    let control = |at, op| Entry::new(EntryHead { time: time(at), body: EntryBody::Control(op) });
    let plain = build(&records(), Options::default());
    let first = Producer { sequence: 0, ..PRODUCER };
    let stamped = build(&records(), Options { producer: Some(first), ..Options::default() });
    let header = |batch: &Batch| BatchHeader {
        stream,
        records: batch.count(),
        bytes: u32::try_from(batch.bytes().len()).unwrap(),
        base_timestamp: batch.base_timestamp(),
        max_timestamp: batch.max_timestamp(),
        hash: batch.hash(),
        producer: batch.producer(),
        match_offset: None,
        fencing_token: None,
    };
    let conditional = BatchHeader {
        match_offset: Some(Offset::new(3)),
        fencing_token: Some(FencingToken::parse("writer ä").unwrap()),
        ..header(&stamped)
    };
    let batches = [plain.bytes().clone(), stamped.bytes().clone()];
    let repeated = [batches.clone(), batches.clone()].concat();
    // Appended, appended, refused for its condition, and a duplicate of the second.
    let late = BatchHeader { match_offset: Some(Offset::new(3)), ..header(&plain) };
    let append = EntryBody::Append(vec![header(&plain), conditional, late, header(&stamped)]);
    let rescue = EntryBody::Rescue {
        origin: RescueOrigin { term: Term::new(1), index: Index::new(12) },
        batches: vec![header(&plain), header(&stamped)],
    };
    let tenant = TenantName::parse("default").unwrap();
    let cursor = CursorName::parse("späße").unwrap();
    let point = RestorePointName::parse("before.the_fall").unwrap();
    let token = Some(FencingToken::parse("writer ä").unwrap());
    let full = StreamConfig {
        acknowledgement: Some(Acknowledgement::Quorum),
        retention: RetentionPolicy { age_seconds: Some(86_400), bytes: Some(1 << 40) },
        compression: Some(Compression::None),
        timestamps: Some(TimestampPolicy::Arrival),
        rescue: Some(RescuePolicy::Separate),
    };
    let create = ControlOp::CreateStream {
        tenant: tenant.clone(),
        name: StreamName::parse("orders").unwrap(),
        config: StreamConfig::default(),
    };
    let configure = ControlOp::ConfigureStream { stream, expected: StreamConfig::default(), config: full };
    let commit = ControlOp::CommitCursor { stream, cursor: cursor.clone(), offset: Offset::new(2) };
    let fence = ControlOp::SetFencingToken { stream, expected: None, token };
    let mark = ControlOp::CreateRestorePoint { name: point.clone(), time: time(10) };
    // One group with the voter 1, and one node.
    let voters = Bytes::from_static(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0");
    let archived = EntryBody::Archived { manifest: ManifestNumber::new(3), end: Index::new(5) };
    let timed = |at, body| EntryHead { time: time(at), body };
    let entries = vec![
        ("membership", 1, untimed(EntryBody::Membership(voters))),
        ("blank", 1, untimed(EntryBody::Blank)),
        ("create_stream", 1, control(2, create)),
        ("append", 1, Entry::with_batches(timed(3, append), &repeated)),
        ("configure_stream", 1, control(4, configure)),
        ("commit_cursor", 1, control(5, commit)),
        ("trim_stream", 1, control(6, ControlOp::TrimStream { stream, to: Offset::new(1) })),
        ("set_fencing_token", 1, control(7, fence)),
        ("archived", 1, untimed(archived)),
        ("tick", 1, Entry::new(timed(9, EntryBody::Tick))),
        ("create_restore_point", 1, control(10, mark)),
        ("delete_restore_point", 1, control(11, ControlOp::DeleteRestorePoint { name: point })),
        ("blank", 4, untimed(EntryBody::Blank)),
        ("rescue", 4, Entry::with_batches(timed(13, rescue), &batches)),
        ("delete_cursor", 4, control(14, ControlOp::DeleteCursor { stream, cursor })),
        ("create_tenant", 4, control(15, ControlOp::CreateTenant { tenant })),
        ("allocate_producer", 4, control(16, ControlOp::AllocateProducer)),
        ("delete_stream", 4, control(17, ControlOp::DeleteStream { stream })),
    ];
    let with_id = |(index, (name, term, entry))| {
        (name, EntryId { index: Index::new(index), term: Term::new(term) }, entry)
    };
    (0..).zip(entries).map(with_id).collect()
}

/// An entry has no checksum of its own: where it is stored, the WAL's record, the segment's block and page, and the
/// history chain have one. Here damage may give another entry, but neither a panic nor memory by what it claims.
#[test]
fn entries_are_the_golden_ones() {
    for (name, id, entry) in log() {
        let file = format!("entry-{:02}-{name}.bin", id.index.get());
        let bytes = GOLDEN.assert_golden(&file, entry.payload());
        assert_eq!(Entry::decode(bytes.clone().into()).unwrap(), entry, "{name}");
        assert_eq!(EntryHead::decode(&entry.head_bytes()).as_ref(), Ok(entry.head()), "{name}");
        assert_total_behind_checksums(&bytes, |_| {}, |bytes| Entry::decode(Bytes::copy_from_slice(bytes)));
        for len in 0..bytes.len() {
            assert!(
                Entry::decode(Bytes::copy_from_slice(&bytes[..len])).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
}

/// One line for each entry: index, term, effective time, leaf, chain value; the first line is the genesis value.
#[test]
fn the_chain_is_the_golden_one() {
    let mut chain = genesis(ShardId::new(1));
    let mut time = HybridTime::ZERO;
    let mut text = format!("genesis of shard 1 {chain}\n");
    for (_, id, entry) in log() {
        time = entry.head().effective_time(time);
        let leaf = entry.leaf(id, time);
        chain = chain.extend(&leaf);
        writeln!(text, "{} {} {} {leaf} {chain}", id.index, id.term, time.as_micros()).unwrap();
    }
    GOLDEN.assert_golden("chain.txt", text.as_bytes());
}
