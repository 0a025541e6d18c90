//! Golden files: committed bytes of each format, and what must hold of them. For tests only.
//!
//! A format is frozen by a file in `tests/golden` of the crate that owns it. Its test builds a fixed value and checks
//! that the encoder gives exactly the file ([`Golden::assert_golden`]), that the decoder gives the value back, and that every
//! truncation and every flipped bit is an error or the same value, in memory that does not follow what damaged bytes
//! claim ([`assert_resists_damage`]).
//!
//! `DURAMEN_REGENERATE_GOLDEN=1` writes the files anew. A diff of them is a change of a format: it needs a new format
//! version, and a decoder that still reads the old file.
//!
//! Memory is only measured where the test binary installs [`Counting`]:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: duramen_golden::Counting = duramen_golden::Counting;
//! ```

#![expect(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "it is for tests, which fail by panicking, and writes the files that are committed"
)]

mod memory;

use std::fmt::{Debug, Write};
use std::path::PathBuf;

pub use memory::{Counting, peak_of};

/// What decoding may take in any case: messages of errors, small tables, a codec's own state.
const ALLOWANCE: usize = 256 << 10;

/// A crate's folder of golden files; made by [`golden!`].
#[derive(Debug, Clone, Copy)]
pub struct Golden {
    directory: &'static str,
}

/// The golden files of the crate that is compiled.
#[macro_export]
macro_rules! golden {
    () => {
        $crate::Golden::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
    };
}

impl Golden {
    #[doc(hidden)]
    pub const fn new(directory: &'static str) -> Self {
        Self { directory }
    }

    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(self.directory).join(name)
    }

    /// The committed bytes of a file; `encoded` is what they are when files are made anew.
    ///
    /// For formats whose bytes depend on a compression library: the caller compares what is decoded.
    #[track_caller]
    pub fn committed(self, name: &str, encoded: &[u8]) -> Vec<u8> {
        let path = self.path(name);
        if std::env::var_os("DURAMEN_REGENERATE_GOLDEN").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(self.directory)
                .and_then(|()| std::fs::write(&path, encoded))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Checks that `encoded` is byte for byte what is committed, and gives that.
    #[track_caller]
    pub fn assert_golden(self, name: &str, encoded: &[u8]) -> Vec<u8> {
        let committed = self.committed(name, encoded);
        if let Some(at) = first_difference(&committed, encoded) {
            panic!(
                "the encoder gives other bytes than {}, from byte {at} on:\ncommitted {}\nencoded   {}\nA format that \
                 changes needs a new version",
                self.path(name).display(),
                around(&committed, at),
                around(encoded, at),
            );
        }
        committed
    }
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (common < one.len().max(other.len())).then_some(common)
}

/// Up to 16 bytes from `at` on, as hexadecimal.
fn around(bytes: &[u8], at: usize) -> String {
    let mut shown = String::new();
    for byte in bytes.iter().skip(at).take(16) {
        let _ = write!(shown, "{byte:02x} ");
    }
    shown
}

/// Checks that every truncation and every single-bit flip of `bytes` decodes to an error or to the same value, without
/// a panic and in bounded memory. Gives the value.
#[track_caller]
pub fn assert_resists_damage<T, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) -> T
where
    T: PartialEq + Debug,
    E: Debug,
{
    let (value, limit) = undamaged(bytes, &decode);
    for_each_damage(bytes, |damaged, what| {
        if let Some(found) = bounded(damaged, limit, what, &decode) {
            assert_eq!(found, value, "{what} gives another value");
        }
    });
    value
}

/// Checks that every truncation and every single-bit flip of `bytes` decodes without a panic and in bounded memory
/// after `mend` made the checksums true again: a decoder may not rely on them.
#[track_caller]
pub fn assert_total_behind_checksums<T, E>(
    bytes: &[u8],
    mend: impl Fn(&mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, E>,
) where
    E: Debug,
{
    let (_, limit) = undamaged(bytes, &decode);
    for_each_damage(bytes, |damaged, what| {
        let mut mended = damaged.to_vec();
        mend(&mut mended);
        drop(bounded(&mended, limit, what, &decode));
    });
}

/// The value, and the memory that damaged bytes may take to decode.
#[track_caller]
fn undamaged<T, E: Debug>(bytes: &[u8], decode: &impl Fn(&[u8]) -> Result<T, E>) -> (T, usize) {
    let (value, peak) = peak_of(|| decode(bytes));
    let value = value.unwrap_or_else(|error| panic!("the undamaged bytes can't be decoded: {error:?}"));
    (value, peak.saturating_mul(4).saturating_add(ALLOWANCE))
}

#[track_caller]
fn bounded<T, E>(
    bytes: &[u8],
    limit: usize,
    what: &str,
    decode: &impl Fn(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let (found, peak) = peak_of(|| decode(bytes));
    assert!(peak <= limit, "{what}: decoding {} bytes took {peak} bytes of memory", bytes.len());
    found.ok()
}

/// Calls `check` with every truncation and every single-bit flip of `bytes`, and with what it is.
///
/// In long runs of zeros, which are padding, one byte of 64 stands for its neighbours.
pub fn for_each_damage(bytes: &[u8], mut check: impl FnMut(&[u8], &str)) {
    let places = places(bytes);
    for len in &places {
        check(bytes.get(..*len).unwrap_or_default(), &format!("cut to {len} bytes"));
    }
    let mut flipped = bytes.to_vec();
    for at in places {
        for bit in 0..8 {
            flip(&mut flipped, at, bit);
            check(&flipped, &format!("bit {bit} of byte {at} flipped"));
            flip(&mut flipped, at, bit);
        }
    }
}

fn places(bytes: &[u8]) -> Vec<usize> {
    let is_padding = |at: usize| {
        let near = bytes.get(at.saturating_sub(64)..at.saturating_add(65).min(bytes.len()));
        near.is_some_and(|near| near.iter().all(|byte| *byte == 0))
    };
    (0..bytes.len()).filter(|at| !is_padding(*at) || at % 64 == 0).collect()
}

fn flip(bytes: &mut [u8], at: usize, bit: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

#[cfg(test)]
mod tests;
