//! Decompression bombs are refused at the limit, in memory that follows the limit and not the bomb.
//!
//! A process of its own, with one test, because it measures the process's peak memory: that counts what the codecs'
//! C code allocates as well.

#![cfg(target_os = "linux")]

use std::io::Write;

use duramen_types::Offset;
use duramen_types::batch::{self, Batch, BatchBuilder, Codec, Error, Limits, Options, Record};

const LIMIT: usize = 4 << 20;
const BOMB: usize = 512 << 20;
/// Three times the limit while a buffer grows, the codecs' own buffers, and what the allocator keeps.
const MOST: usize = 40 << 20;

/// A batch whose header is true and whose compressed records are `data`.
fn assemble(codec: Codec, data: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    builder.push_record(&Record::default()).expect("an empty record is within the limits");
    let options = Options { compression: codec, ..Options::default() };
    let batch = builder.finish(options).expect("one record makes a batch");
    let mut bytes = batch.bytes()[..61].to_vec();
    bytes.extend_from_slice(data);
    let length = u32::try_from(bytes.len() - 12).expect("bombs are small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What `writer` makes of `BOMB` zeros.
fn zeros<W: Write>(mut writer: W, finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
    let block = vec![0; 1 << 20];
    for _ in 0..BOMB / block.len() {
        writer.write_all(&block).expect("memory takes all");
    }
    finish(writer)
}

/// A zstd frame that states no size, in run-length blocks of 128 KiB from 4 bytes each, with a window of 2^`log`.
fn zstd_runs(log: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    let run = |last: u32| (last | 1 << 1 | (128 << 10) << 3).to_le_bytes();
    for _ in 1..BOMB / (128 << 10) {
        frame.extend_from_slice(&run(0)[..3]);
        frame.push(0);
    }
    frame.extend_from_slice(&run(1)[..3]);
    frame.push(0);
    frame
}

fn bombs() -> Vec<(&'static str, Codec, Vec<u8>)> {
    use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let largest = FrameInfo::new().block_size(BlockSize::Max4MB);
    let lz4 = FrameEncoder::with_frame_info(largest, Vec::new());
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("there is memory for it");
    zstd.set_pledged_src_size(Some(BOMB as u64)).expect("nothing was written yet");

    let block = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).expect("memory takes all");
    let mut xerial = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for _ in 0..BOMB >> 20 {
        xerial.extend(u32::try_from(block.len()).expect("it is small").to_be_bytes());
        xerial.extend_from_slice(&block);
    }
    vec![
        ("gzip of zeros", Codec::Gzip, zeros(gzip, |w| w.finish().expect("memory takes all"))),
        ("lz4 of zeros", Codec::Lz4, zeros(lz4, |w| w.finish().expect("memory takes all"))),
        ("zstd that states its size", Codec::Zstd, zeros(zstd, |w| w.finish().expect("memory takes all"))),
        ("zstd that states none", Codec::Zstd, zstd_runs(27)),
        ("zstd with a window of 2 GiB", Codec::Zstd, zstd_runs(31)),
        ("snappy in blocks", Codec::Snappy, xerial),
        ("snappy that states 4 GiB", Codec::Snappy, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
    ]
}

/// The most memory that the process ever had resident since the peak was reset, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux reports it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("it is a number") << 10
}

/// Makes the present memory the peak, and gives it.
fn reset_peak() -> usize {
    let mut file =
        std::fs::OpenOptions::new().write(true).open("/proc/self/clear_refs").expect("Linux has it");
    file.write_all(b"5").expect("a process may reset its own peak");
    peak()
}

#[test]
fn bombs_are_refused_at_the_limit_in_bounded_memory() {
    let limits = Limits { max_batch_bytes: 64 << 20, max_uncompressed_bytes: LIMIT, ..Limits::default() };
    let bombs = bombs();
    for (name, codec, data) in bombs {
        let bytes = bytes::Bytes::from(assemble(codec, &data));
        let before = reset_peak();
        let refused = batch::validate(bytes.clone(), &limits);
        let grown = peak() - before;
        println!("{name}: {} bytes, {} KiB more memory", bytes.len(), grown >> 10);
        assert_eq!(refused, Err(Error::UncompressedTooLarge { limit: LIMIT }), "{name}");
        assert!(grown < MOST, "{name} took {grown} bytes");
        let trusted = Batch::from_trusted(bytes).expect("its header is sound");
        assert!(trusted.records(Offset::ZERO).is_err(), "{name} is more than any batch may be");
    }
}
