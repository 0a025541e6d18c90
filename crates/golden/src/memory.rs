//! How much memory a piece of code takes.

#![expect(unsafe_code, reason = "a global allocator that counts cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread allocated and did not free again. Memory that another thread frees stays counted.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts for each thread. It does not see what C libraries allocate.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

fn count(bytes: isize) {
    let live = LIVE.get().saturating_add(bytes);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor panics, because the
// counters need no initialisation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(signed(layout.size()).saturating_neg());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new exist side by side for a moment.
        count(signed(size));
        count(signed(layout.size()).saturating_neg());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What `run` gives, and the most bytes that it had allocated on this thread at once, its result included.
///
/// Panics where [`Counting`] is not the global allocator.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    drop(std::hint::black_box(Box::new(0_u64)));
    PEAK.set(before);
    drop(std::hint::black_box(Box::new(0_u64)));
    assert!(PEAK.get() > before, "make duramen_golden::Counting the global allocator of this test");
    PEAK.set(before);
    let result = run();
    let peak = PEAK.get().saturating_sub(before);
    (result, usize::try_from(peak).unwrap_or_default())
}
