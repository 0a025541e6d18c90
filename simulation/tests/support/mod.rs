//! Makes a test program repeat itself: the random bytes that it gets from the operating system come from a seed.
//!
//! Hash maps, the runtime's choices and every library draw from those bytes, so that with a paused clock and one thread the same
//! seed gives the same history. The programs have no test harness: it would run other tests beside.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// Stands in front of the C library's function of this name, from which all randomness of the process comes.
#[expect(unsafe_code, reason = "the C library's interface: a pointer and a length")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: c_uint) -> isize {
    if buffer.is_null() {
        return -1;
    }
    // SAFETY: the caller gives `length` bytes that it owns, as for the function that this one stands for.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for piece in buffer.chunks_mut(8) {
        let bytes = next().to_le_bytes();
        piece.copy_from_slice(bytes.get(..piece.len()).unwrap_or_default());
    }
    isize::try_from(length).unwrap_or(-1)
}

/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let z = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs `body` so that it draws the same random bytes each time that it is run with `seed`.
///
/// On a thread of its own: hash maps keep what they drew first for as long as their thread lives.
pub fn seeded<T: Send>(seed: u64, body: impl FnOnce() -> T + Send) -> T {
    STATE.store(seed, Ordering::Relaxed);
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Prints the logs that `DURAMEN_SIM_LOG` asks for, like `info` or `duramen=debug`, to standard error.
pub fn log() {
    if let Ok(filter) = std::env::var("DURAMEN_SIM_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        let logs = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false);
        logs.with_writer(std::io::stderr).init();
    }
}

/// A setting of the test from the environment.
pub fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name}={value} is not what it should be"),
    }
}
