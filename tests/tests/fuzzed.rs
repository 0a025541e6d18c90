//! A short run of every fuzz target (`fuzz/`), without the fuzzer: its first inputs, and these broken in a thousand ways.
//!
//! The order is that of a seed; `DURAMEN_FUZZ_SEED` and `DURAMEN_FUZZ_PERCENT` change what is tried.

#![expect(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "the targets know what they index, and the fuzzer would find where not; a test writes its own files"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use duramen_tests::{run, setting};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

/// Each with how often its inputs are broken.
const TARGETS: [(&str, Target, u64); 9] = [
    ("batch", targets::batch, 40_000),
    ("entry", targets::entry, 40_000),
    ("state", targets::state, 40_000),
    ("object", targets::object, 40_000),
    ("segment", targets::segment, 5_000),
    ("text", targets::text, 5_000),
    ("wal", targets::wal, 1_000),
    ("http", targets::http, 300),
    ("grpc", targets::grpc, 300),
];

/// The first inputs of a target, below the directory that `fuzz/seed` filled.
fn inputs(corpus: &Path, target: &str) -> Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> = std::fs::read_dir(corpus.join(target))
        .with_context(|| format!("{target} has no inputs"))?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| Ok(std::fs::read(file)?)).collect()
}

/// Breaks an input as a fuzzer does.
fn mutate(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = at + random.random_range(0..=(bytes.len() - at).min(16));
        match random.random_range(0..7) {
            0 => {
                bytes.truncate(at);
            }
            1 => drop(bytes.drain(at..end)),
            2 => {
                let noise: Vec<u8> = (at..end).map(|_| random.random()).collect();
                bytes.splice(at..end, noise);
            }
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = corpus.choose(random).map_or(&[][..], |other| &other[at.min(other.len())..]);
                bytes.splice(at.., other.iter().copied());
            }
            5 => {
                let numbers = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
                let number = numbers.choose(random).copied().unwrap_or_default();
                let width = *[1, 2, 4, 8].choose(random).unwrap_or(&8);
                let end = bytes.len().min(at + width);
                let number =
                    if random.random() { number.to_le_bytes() } else { number.rotate_right(8).to_be_bytes() };
                bytes.splice(at..end, number[..width].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    bytes
}

#[test]
fn every_target_takes_its_inputs_and_what_is_like_them() -> Result<()> {
    let seed = setting("DURAMEN_FUZZ_SEED")?.unwrap_or(1);
    let percent: u64 = setting("DURAMEN_FUZZ_PERCENT")?.unwrap_or(100);
    let directory = tempfile::tempdir()?;
    run(Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seed")).arg(directory.path()))?;
    for (name, target, count) in TARGETS {
        let inputs = inputs(directory.path(), name)?;
        let mut random = StdRng::seed_from_u64(seed);
        let broken = (0..count * percent / 100).map(|_| mutate(&mut random, &inputs));
        for input in inputs.iter().cloned().chain(broken) {
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                let (_, file) = tempfile::NamedTempFile::with_prefix(format!("{name}-"))?.keep()?;
                std::fs::write(&file, &input)?;
                bail!("target {name} panics: `cargo fuzz run {name} {}` does so again", file.display());
            }
        }
    }
    Ok(())
}
