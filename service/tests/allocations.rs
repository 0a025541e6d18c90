//! What an append and a read take from the allocator: a copy too many, or an allocation for each record, is seen here.
//!
//! A process of its own, with one test, because it counts every allocation of the process.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use duramen::Node;
use duramen::api::{AppendPayload, AppendRequest, ReadFrom, ReadRequest, StreamRef};
use duramen::config::Config;
use duramen_types::batch::{BatchBuilder, Limits, Options};
use duramen_types::{HybridTime, StreamConfig, StreamName, TenantName};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What happened since the last look: allocations, and their bytes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    calls: f64,
    bytes: f64,
}

#[expect(clippy::cast_precision_loss, reason = "the counts are small")]
fn taken(before: (u64, u64), per: u64) -> Taken {
    let (calls, bytes) = now();
    Taken { calls: (calls - before.0) as f64 / per as f64, bytes: (bytes - before.1) as f64 / per as f64 }
}

fn now() -> (u64, u64) {
    (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

fn batch(records: usize, value: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    let value = vec![b'x'; value];
    for _ in 0..records {
        builder.push(1_700_000_000_000, None, Some(&value), []).unwrap();
    }
    builder.finish(Options::default()).unwrap().into_bytes().to_vec()
}

async fn append(node: &Node, stream: &StreamRef, batch: Bytes) {
    let request = AppendRequest {
        stream: stream.clone(),
        payload: AppendPayload::Encoded(batch),
        acknowledgement: None,
        match_offset: None,
        fencing_token: None,
        producer: None,
        seen: HybridTime::ZERO,
    };
    node.append(request, true).await.unwrap().acknowledged().await.unwrap();
}

/// Reads a stream to its tail; gives the bytes of its batches.
async fn read(node: &Node, stream: &StreamRef) -> u64 {
    let request = ReadRequest {
        stream: stream.clone(),
        from: ReadFrom::Earliest,
        max_records: None,
        max_bytes: None,
        follow: false,
        as_of: None,
        seen: HybridTime::ZERO,
    };
    let mut session = node.read(request).await.unwrap();
    let mut bytes = 0;
    while let Some(batch) = session.next().await {
        bytes += batch.unwrap().batch.len() as u64;
    }
    bytes
}

/// The numbers are bounds, with some room above what was measured (in brackets) for what the node does besides. Lower
/// them when something gets better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_reads_take_no_more_from_the_allocator_than_they_need() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.node.data = directory.path().to_owned();
    config.cluster.shards = Some(1);
    let node = Node::start(&config).await.unwrap();
    let stream = |name: &str| StreamRef {
        tenant: TenantName::parse("default").unwrap(),
        name: StreamName::parse(name).unwrap(),
    };
    let (small, large) = (stream("small"), stream("large"));
    for stream in [&small, &large] {
        node.create_stream(stream, StreamConfig::default()).await.unwrap();
    }

    const SMALL: u64 = 2_000;
    const RECORDS: usize = 1_000;
    let one = Bytes::from(batch(1, 1024));
    for _ in 0..100 {
        append(&node, &small, one.clone()).await;
    }
    let before = now();
    for _ in 0..SMALL {
        append(&node, &small, one.clone()).await;
    }
    let single = taken(before, SMALL);

    let many = Bytes::from(batch(RECORDS, 1024));
    let bytes = many.len() as u64;
    append(&node, &large, many.clone()).await;
    const LARGE: u64 = 40;
    let before = now();
    for _ in 0..LARGE {
        append(&node, &large, many.clone()).await;
    }
    let batches = taken(before, LARGE);
    let copies = taken(before, LARGE * bytes);

    let before = now();
    assert_eq!(read(&node, &large).await, bytes * (LARGE + 1));
    let reads = taken(before, LARGE + 1);
    let read_copies = taken(before, bytes * (LARGE + 1));

    println!("an append of one record: {single:.1?}");
    println!("an append of {RECORDS} records: {batches:.1?}; for each byte {:.2}", copies.bytes);
    println!("a read of a batch of {RECORDS} records: {reads:.1?}; for each byte {:.2}", read_copies.bytes);
    // [57]: the session, the sequencer, consensus, the log's queue, the index, the answer.
    assert!(single.calls < 75.0, "an append of one record: {single:?}");
    // [57]: the same for a thousand records, so none of them is for a record.
    assert!(batches.calls < 75.0, "an append of {RECORDS} records: {batches:?}");
    // [1.01]: the batch is copied once, into its entry; the log's own buffer is used again.
    assert!(copies.bytes < 1.25, "an append allocates {:.2} bytes for each of its own", copies.bytes);
    // [6]
    assert!(reads.calls < 12.0, "a read of {RECORDS} records: {reads:?}");
    // [0.98]: the newest entries are in memory; the batch is copied once, to get its offset.
    assert!(
        read_copies.bytes < 1.25,
        "a read allocates {:.2} bytes for each that it gives",
        read_copies.bytes
    );
    node.shutdown(std::time::Duration::from_secs(30)).await.unwrap();
}
