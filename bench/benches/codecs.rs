//! The formats on the hot paths: `cargo bench -p duramen-bench`. A regression shows as a difference to the last run.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duramen_archive::{BytesSource, SegmentIdentity, SegmentOptions, SegmentReader, SegmentWriter};
use duramen_state::{Applied, ShardState};
use duramen_types::batch::{self, Batch, BatchBuilder, Limits, Options};
use duramen_types::{
    AppendItem, ArchiveId, BatchHeader, BranchName, ChainValue, Clock as _, Compression, ControlOp, Entry,
    EntryBody, EntryHead, EntryId, HybridTime, Index, NodeId, SegmentId, ShardId, StreamConfig, StreamId,
    StreamName, SystemClock, TenantName, Term, leaf,
};
use duramen_wal::{Fsync, RealDisk, Record, Wal, WalOptions};

const SHARD: ShardId = ShardId::new(1);
const RECORD: usize = 1024;
/// Entries after which the log lets go of what it holds.
const KEPT: u64 = 2048;

/// A batch whose records have some likeness with each other, and some noise.
fn batch_of(records: usize) -> Batch {
    let mut builder = BatchBuilder::new(Limits::default());
    for number in 0..records {
        let value: Vec<u8> =
            (0..RECORD).map(|at| if at % 4 == 0 { (number * 31 + at * 7) as u8 } else { b'a' }).collect();
        builder.push(1_700_000_000_000, None, Some(&value), []).expect("records are within the limits");
    }
    builder.finish(Options::default()).expect("there are records")
}

fn header(batch: &Batch) -> BatchHeader {
    BatchHeader {
        stream: StreamId::new(1),
        records: batch.count(),
        bytes: u32::try_from(batch.bytes().len()).expect("a batch is below 4 GiB"),
        base_timestamp: batch.base_timestamp(),
        max_timestamp: batch.max_timestamp(),
        hash: batch.hash(),
        producer: None,
        match_offset: None,
        fencing_token: None,
    }
}

fn entry(time: u64, batch: &Batch) -> Entry {
    let item = AppendItem { header: header(batch), batch: batch.bytes().clone() };
    Entry::append(HybridTime::from_micros(time), vec![item])
}

/// Batches: from records, back to records, and what the node does with one that comes in.
fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for records in [1, 100] {
        let batch = batch_of(records);
        let bytes = batch.bytes().clone();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("encode", records), &records, |bencher, records| {
            let value = vec![b'a'; RECORD];
            bencher.iter(|| {
                let mut builder = BatchBuilder::new(Limits::default());
                for _ in 0..*records {
                    builder
                        .push(1_700_000_000_000, None, Some(&value), [])
                        .expect("records are within the limits");
                }
                builder.finish(Options::default()).expect("there are records")
            });
        });
        group.bench_with_input(BenchmarkId::new("validate", records), &bytes, |bencher, bytes| {
            bencher.iter(|| batch::validate(bytes.clone(), &Limits::default()).expect("it is valid"));
        });
        group.bench_with_input(BenchmarkId::new("hash", records), &batch, |bencher, batch| {
            bencher.iter(|| batch.hash());
        });
        group.bench_with_input(BenchmarkId::new("walk", records), &batch, |bencher, batch| {
            bencher.iter(|| {
                let records = batch.records(duramen_types::Offset::ZERO).expect("it is valid");
                records.iter().map(|record| record.map_or(0, |record| record.encoded_len())).sum::<usize>()
            });
        });
    }
    group.finish();
}

/// Entries: with their batches from memory to the log's payload and back, and the chain over their heads.
fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entry");
    for records in [1, 100] {
        let batch = batch_of(records);
        let made = entry(1, &batch);
        group.throughput(Throughput::Bytes(made.payload().len() as u64));
        group.bench_function(BenchmarkId::new("append", records), |bencher| {
            let header = header(&batch);
            bencher.iter(|| {
                let item = AppendItem { header: header.clone(), batch: batch.bytes().clone() };
                Entry::append(HybridTime::from_micros(1), vec![item])
            });
        });
        group.bench_function(BenchmarkId::new("decode", records), |bencher| {
            bencher.iter(|| Entry::decode(made.payload().clone()).expect("it is valid"));
        });
    }
    group.finish();
    let made = entry(1, &batch_of(1));
    let head = made.head_bytes();
    criterion.bench_function("chain/leaf and extend", |bencher| {
        let id = EntryId { index: Index::new(7), term: Term::new(1) };
        let mut chain = ChainValue::from_bytes([7; 32]);
        bencher.iter(|| {
            chain = chain.extend(&leaf(id, HybridTime::from_micros(1), black_box(&head)));
        });
    });
}

/// Applying an append of one batch.
fn state(criterion: &mut Criterion) {
    let (mut state, mut index) = state_with_stream();
    let batch = batch_of(1);
    criterion.bench_function("state/apply an append", |bencher| {
        bencher.iter_batched(
            || {
                index += 1;
                entry(index + 1, &batch)
            },
            |entry| apply(&mut state, &entry),
            BatchSize::SmallInput,
        );
    });
}

fn state_with_stream() -> (ShardState, u64) {
    let mut state = ShardState::new(SHARD);
    let op = ControlOp::CreateStream {
        tenant: TenantName::parse("default").expect("a good name"),
        name: StreamName::parse("stream").expect("a good name"),
        config: StreamConfig::default(),
    };
    let blank = Entry::new(EntryHead { time: HybridTime::ZERO, body: EntryBody::Blank });
    let create = Entry::new(EntryHead { time: HybridTime::from_micros(1), body: EntryBody::Control(op) });
    apply(&mut state, &blank);
    // The stream's id is the index of its creation: 1, as the batches' headers say.
    apply(&mut state, &create);
    (state, 1)
}

fn apply(state: &mut ShardState, entry: &Entry) -> Applied {
    let id = EntryId { index: state.end(), term: Term::new(1) };
    state.apply(id, entry.head(), &entry.head_bytes()).expect("it comes next")
}

/// The log: submitted, written as one frame, entered into the catalogue. The page cache takes it; nothing is fsynced.
fn wal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    for records in [1, 100, 1000] {
        let payload = entry(1, &batch_of(records)).payload().clone();
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(BenchmarkId::new("frame", records), |bencher| {
            let directory = tempfile::tempdir().expect("a directory");
            let options = WalOptions {
                fsync: Fsync::Interval(Duration::from_secs(3600)),
                cache_bytes: 1 << 20,
                ..WalOptions::new(NodeId::new(1))
            };
            let mut id = 0_u8;
            let ids = Box::new(move || {
                id = id.wrapping_add(1);
                SegmentId::from_random([id; 16])
            });
            let clock = SystemClock::new();
            let (wal, _) = Wal::open(Arc::new(RealDisk), directory.path(), options, Arc::new(clock), ids)
                .expect("a fresh log opens");
            let mut index = 0;
            bencher.iter_custom(|rounds| {
                let begun = clock.monotonic();
                for _ in 0..rounds {
                    let id = EntryId { index: Index::new(index), term: Term::new(1) };
                    wal.submit(
                        vec![Record::Entry { shard: SHARD, id, payload: payload.clone() }],
                        Box::new(|written| written.expect("the log takes it")),
                    );
                    wal.drive().expect("the log writes it");
                    index += 1;
                    if index % KEPT == 0 {
                        let purged = Record::Purged { shard: SHARD, id };
                        wal.submit(vec![purged], Box::new(|written| written.expect("the log takes it")));
                        wal.drive().expect("the log writes it");
                    }
                }
                clock.monotonic().saturating_sub(begun)
            });
        });
    }
    group.finish();
}

/// An archived segment of 8 MiB: laid out with its hashes and its compression, and its blocks read back and verified.
fn segment(criterion: &mut Criterion) {
    let batch = batch_of(100);
    let (start, _) = state_with_stream();
    let mut ahead = start.clone();
    let log: Vec<_> = (0..80)
        .map(|number| {
            let id = EntryId { index: ahead.end(), term: Term::new(1) };
            let entry = entry(number + 2, &batch);
            let applied = apply(&mut ahead, &entry);
            (id, entry, applied)
        })
        .collect();
    let identity = SegmentIdentity {
        archive: ArchiveId::from_random([1; 16]),
        branch: BranchName::parse("main").expect("a good name"),
        shard: SHARD,
        segment: SegmentId::from_random([2; 16]),
    };
    let fill = || {
        let mut writer = SegmentWriter::new(SegmentOptions {
            identity: identity.clone(),
            first: start.end(),
            chain_before: start.chain(),
            max_bytes: 64 << 20,
            compression_level: 1,
            threads: NonZeroUsize::MIN,
        });
        for (id, entry, applied) in &log {
            writer.push(*id, applied.time, entry, &applied.batches).expect("it comes next");
        }
        writer
    };
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(80 * batch.bytes().len() as u64));
    for compression in [Compression::Zstd, Compression::None] {
        group.bench_function(BenchmarkId::new("lay out", format!("{compression:?}")), |bencher| {
            let compression = move |_: StreamId| compression;
            bencher.iter_batched(
                fill,
                |writer| writer.finish(&compression).expect("it is laid out"),
                BatchSize::LargeInput,
            );
        });
    }
    let object: Bytes = fill().finish(&|_| Compression::Zstd).expect("it is laid out").into_bytes();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    group.bench_function("read blocks", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let source = BytesSource::new("segment", object.clone());
                let length = object.len() as u64;
                let reader =
                    SegmentReader::open(Arc::new(source), length, &identity).await.expect("it opens");
                let mut batches = 0;
                let mut next = 0;
                while let Ok(block) = reader.block(next).await {
                    batches += block.batches().len();
                    next += 1;
                }
                assert_eq!(batches, 80);
            });
        });
    });
    group.finish();
}

criterion_group! {
    name = codecs;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = batches, entries, state, wal, segment
}
criterion_main!(codecs);
