//! What a stream costs in memory: a shard may hold a million of them.
//!
//! A process of its own, with one test, because it counts every allocation of the process.

#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use duramen_state::ShardState;
use duramen_types::{
    ControlOp, EntryBody, EntryHead, EntryId, HybridTime, Index, ShardId, StreamConfig, StreamName,
    TenantName, Term,
};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What glibc's allocator takes for a request: 8 bytes more, rounded up to 16, at least 32.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const STREAMS: usize = 100_000;
const MOST_BYTES_PER_STREAM: usize = 600;

#[test]
fn a_stream_without_records_takes_less_than_600_bytes() {
    let before = LIVE.load(Ordering::Relaxed);
    let mut state = ShardState::new(ShardId::new(1));
    let tenant = TenantName::parse("default").unwrap();
    for number in 0..STREAMS {
        let name =
            StreamName::parse(&format!("customers.{}.events", number.wrapping_mul(7919) % STREAMS)).unwrap();
        let op = ControlOp::CreateStream { tenant: tenant.clone(), name, config: StreamConfig::default() };
        let index = u64::try_from(number).unwrap();
        let head = EntryHead { time: HybridTime::from_micros(index + 1), body: EntryBody::Control(op) };
        let id = EntryId { index: Index::new(index), term: Term::new(1) };
        let applied = state.apply(id, &head, &head.encode()).unwrap();
        assert!(applied.control.unwrap().is_ok());
    }
    let applied = (LIVE.load(Ordering::Relaxed) - before) / STREAMS;

    let bytes = state.encode();
    let before_decoding = LIVE.load(Ordering::Relaxed);
    let decoded = ShardState::decode(&bytes).unwrap();
    let restored = (LIVE.load(Ordering::Relaxed) - before_decoding) / STREAMS;
    assert_eq!(decoded, state);

    println!("{applied} bytes per stream applied, {restored} decoded, {} encoded", bytes.len() / STREAMS);
    assert!(applied < MOST_BYTES_PER_STREAM, "{applied} bytes per stream after applying");
    assert!(restored < MOST_BYTES_PER_STREAM, "{restored} bytes per stream after decoding");
}
