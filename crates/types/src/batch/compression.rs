//! The codecs, as Kafka uses them: all records of a batch are compressed together.
//!
//! Each writes what Kafka's own Java client writes (snappy in snappy-java's framing, LZ4 in its frame format with
//! independent blocks of 64 KiB). Read is exactly one stream, frame or member with nothing after it: some readers
//! stop after the first, so that what follows would be a record to one and nothing to another.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use zstd::zstd_safe;

use super::Error;

/// No batch decompresses to more than this, whatever limits are set: 256 MiB.
pub const MAX_UNCOMPRESSED_BYTES: usize = 256 << 20;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The number that Kafka gave the codec.
    pub(super) const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(super) const fn from_id(id: u16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Snappy-java's stream header: its magic, its version, the oldest version that can read it.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_BLOCK: usize = 32 << 10;
/// A snappy copy makes at most 64 bytes of 3.
const SNAPPY_MOST_EXPANSION: usize = 22;
/// The LZ4 frame format's magic number; the older "legacy" frames, unknown to Kafka, have another.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
const ZSTD_LEVEL: i32 = 3;
/// The room first given to zstd: this many times the input, and more only once it has filled that.
const ZSTD_FIRST_GUESS: usize = 8;
const ZSTD_SMALLEST_ROOM: usize = 64 << 10;

/// Appends `records`, compressed, to `out`.
pub(super) fn compress(codec: Codec, records: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let result = match codec {
        Codec::None => {
            out.extend_from_slice(records);
            Ok(())
        }
        Codec::Gzip => compress_gzip(records, out),
        Codec::Snappy => compress_snappy(records, out),
        Codec::Lz4 => compress_lz4(records, out),
        Codec::Zstd => compress_zstd(records, out),
    };
    result.map_err(|error| Error::Compress { codec, reason: error.to_string() })
}

fn compress_gzip(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

fn compress_snappy(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    let mut room = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK)];
    out.extend_from_slice(XERIAL_HEADER);
    for block in records.chunks(XERIAL_BLOCK) {
        let len = encoder.compress(block, &mut room)?;
        let compressed = room.get(..len).unwrap_or_default();
        out.extend(u32::try_from(len).map_err(io::Error::other)?.to_be_bytes());
        out.extend_from_slice(compressed);
    }
    Ok(())
}

fn compress_lz4(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(records)?;
    encoder.finish().map(drop).map_err(io::Error::other)
}

fn compress_zstd(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
    encoder.set_pledged_src_size(u64::try_from(records.len()).ok())?;
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

/// What `data` decompresses to, if that is at most `limit` bytes.
///
/// Memory follows what was decompressed so far, never what the data states: at most about three times `limit`
/// (while a buffer grows) and the codec's fixed buffers (12 MiB for LZ4, far less for the others).
pub(super) fn decompress(codec: Codec, data: &[u8], limit: usize) -> Result<Bytes, Error> {
    let decompressed = match codec {
        Codec::None if data.len() > limit => Err(Failure::TooLarge),
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => decompress_gzip(data, limit),
        Codec::Snappy => decompress_snappy(data, limit),
        Codec::Lz4 => decompress_lz4(data, limit),
        Codec::Zstd => decompress_zstd(data, limit),
    };
    decompressed.map(Bytes::from).map_err(|failure| match failure {
        Failure::TooLarge => Error::UncompressedTooLarge { limit },
        Failure::Corrupt(reason) => Error::Decompress { codec, reason },
    })
}

enum Failure {
    TooLarge,
    Corrupt(String),
}

impl Failure {
    fn corrupt(reason: impl fmt::Display) -> Self {
        Self::Corrupt(reason.to_string())
    }

    fn trailing(rest: &[u8]) -> Result<(), Self> {
        match rest.len() {
            0 => Ok(()),
            extra => Err(Self::Corrupt(format!("{extra} bytes follow its end"))),
        }
    }
}

/// Reads to the end, or until there is one byte too many.
fn read_all(reader: &mut impl Read, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(most).read_to_end(&mut out).map_err(Failure::corrupt)?;
    if out.len() > limit { Err(Failure::TooLarge) } else { Ok(out) }
}

fn decompress_gzip(data: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let mut decoder = flate2::bufread::GzDecoder::new(data);
    let out = read_all(&mut decoder, limit)?;
    Failure::trailing(decoder.into_inner())?;
    Ok(out)
}

fn decompress_lz4(data: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    if !data.starts_with(&LZ4_MAGIC) {
        return Err(Failure::corrupt("it is not an LZ4 frame"));
    }
    let mut decoder = lz4_flex::frame::FrameDecoder::new(Input { rest: data, overrun: false });
    let out = read_all(&mut decoder, limit)?;
    let input = decoder.into_inner();
    if input.overrun {
        return Err(Failure::corrupt("it has no end mark"));
    }
    Failure::trailing(input.rest)?;
    Ok(out)
}

/// A reader that remembers whether more was asked of it than there is: `FrameDecoder` takes that for the end.
struct Input<'a> {
    rest: &'a [u8],
    overrun: bool,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.overrun |= buffer.len() > self.rest.len();
        self.rest.read(buffer)
    }
}

fn decompress_snappy(data: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    if !data.starts_with(XERIAL_MAGIC) {
        append_snappy_block(data, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest =
        data.get(XERIAL_HEADER.len()..).ok_or_else(|| Failure::corrupt("its header is cut short"))?;
    while !rest.is_empty() {
        let (block, after) = rest
            .split_first_chunk()
            .and_then(|(len, after)| after.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?))
            .ok_or_else(|| Failure::corrupt("a block runs past its end"))?;
        rest = after;
        append_snappy_block(block, limit, &mut out)?;
    }
    Ok(out)
}

fn append_snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let len = snap::raw::decompress_len(block).map_err(Failure::corrupt)?;
    let start = out.len();
    let end = start.saturating_add(len);
    if end > limit {
        return Err(Failure::TooLarge);
    }
    if len > block.len().saturating_mul(SNAPPY_MOST_EXPANSION) {
        return Err(Failure::corrupt("a block states more bytes than it can hold"));
    }
    out.resize(end, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, room).map(drop).map_err(Failure::corrupt)
}

/// Decompresses in one go, into room that grows whenever it proves too small: a stream would need, beside the
/// output, a window whose size (up to 128 MiB) the data chooses.
fn decompress_zstd(data: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let frame = zstd_safe::find_frame_compressed_size(data).map_err(zstd_failure)?;
    Failure::trailing(data.get(frame..).unwrap_or_default())?;
    let stated = zstd_safe::get_frame_content_size(data)
        .map_err(|_| Failure::corrupt("its header is invalid"))?
        .map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if stated.is_some_and(|size| size > limit) {
        return Err(Failure::TooLarge);
    }
    let most = stated.unwrap_or(limit);
    let mut room = data.len().saturating_mul(ZSTD_FIRST_GUESS).max(ZSTD_SMALLEST_ROOM).min(most);
    let mut context =
        zstd_safe::DCtx::try_create().ok_or_else(|| Failure::corrupt("no memory for its context"))?;
    loop {
        let mut out = Vec::with_capacity(room);
        match context.decompress(&mut out, data) {
            Ok(_) => return Ok(out),
            Err(code) if !is_room_too_small(code) => return Err(zstd_failure(code)),
            Err(_) if room < most => room = room.saturating_mul(4).min(most),
            Err(_) if stated.is_some() => {
                return Err(Failure::corrupt("it holds more than its header states"));
            }
            Err(_) => return Err(Failure::TooLarge),
        }
    }
}

fn zstd_failure(code: zstd_safe::ErrorCode) -> Failure {
    Failure::corrupt(zstd_safe::get_error_name(code))
}

/// Zstd returns errors as the negated codes of its `zstd_errors.h`, whose numbers are stable.
fn is_room_too_small(code: zstd_safe::ErrorCode) -> bool {
    const DESTINATION_TOO_SMALL: usize = 70;
    code == 0_usize.wrapping_sub(DESTINATION_TOO_SMALL)
}
