//! The bytes of a WAL segment file. Little-endian throughout; CRC-32 is the IEEE one (as in zlib).
//!
//! # File
//!
//! A segment is named `{sequence:020}.wal`. Sequences are dense: files disappear at the low end only.
//!
//! ```text
//! byte 0         4096                                    footer_at         summary_at             length
//! +--------+-----+---------+---------+-- - - --+---------+---------------+----------+-----+--------+
//! | header | pad | frame   | frame   |         | frame   | row pages     | summary  | pad |trailer |
//! | 64     |  0  | 4k*n    | 4k*n    |         | 4k*n    |               |          |  0  | 64     |
//! +--------+-----+---------+---------+-- - - --+---------+---------------+----------+-----+--------+
//!                                               `------------- only once sealed -------------------'
//! ```
//!
//! Header, frames, footer and the file's end lie on 4 KiB boundaries, so that no write touches a block that holds
//! acknowledged bytes. The bytes between the last frame and the end of an unsealed file mean nothing: they are
//! zeros, or what a recycled file held before. Files named `spare-{n}` are such files waiting for their turn, files
//! that end in `.tmp` are leftovers of an interrupted step.
//!
//! # Header (64 bytes, at byte 0)
//!
//! ```text
//! 0       4         6       8             24     32        40         48            56         60
//! +-------+---------+-------+-------------+------+---------+----------+-------------+----------+-------+
//! | magic | version | flags | segment id  | node | created | sequence | first frame | reserved | crc32 |
//! | DWAL  | u16 = 1 | u16   | 16 bytes    | u64  | u64 µs  | u64      | u64         | u32 = 0  | u32   |
//! +-------+---------+-------+-------------+------+---------+----------+-------------+----------+-------+
//! ```
//!
//! The CRC covers bytes 0..60. Flag 1: the file was recycled, so that stale bytes behind the last frame are
//! expected. `first frame` is the sequence number of the first frame: every earlier frame was fsynced before this
//! file got its name.
//!
//! # Frame (one per group commit, on a 4 KiB boundary)
//!
//! ```text
//! 0       4        8          16               24        28         32         36             40
//! +-------+--------+----------+----------------+---------+----------+----------+--------------+---------+---
//! | magic | length | sequence | synced_through | records | body crc | reserved | header crc32 | records | 0…
//! | DFRM  | u32    | u64      | u64            | u32     | u32      | u32 = 0  | u32          | length  |
//! +-------+--------+----------+----------------+---------+----------+----------+--------------+---------+---
//! ```
//!
//! `sequence` counts frames across segments without a gap, from 1. `synced_through` is the last frame known to be
//! fsynced when this one was written (0: none). An idle writer publishes it in a frame without records. The header
//! CRC covers the segment id (16 bytes), the frame's position in the file (u64) and bytes 0..36: a frame of the
//! file's former life, or one that strayed, never passes. The body CRC covers the `length` bytes of records. Two
//! CRCs rather than one tell a torn frame (its header is there) from a place that never held one.
//!
//! # Record
//!
//! ```text
//! 0        4        8       10     11      19     27
//! +--------+--------+-------+------+-------+------+---------+
//! | length | crc32  | shard | kind | index | term | payload |
//! | u32    | u32    | u16   | u8   | u64   | u64  | length  |
//! +--------+--------+-------+------+-------+------+---------+
//! ```
//!
//! The CRC covers `length` and bytes 8.. up to the payload's end, so a record can be read alone.
//!
//! | kind | name | index, term | payload | effect |
//! | --- | --- | --- | --- | --- |
//! | 1 | entry | its id | the entry | appended; with the id of an entry already there: that entry moved here |
//! | 2 | truncate | first removed, 0 | none | entries from index on leave the log |
//! | 3 | displaced | its id | none | that entry's bytes are kept although it leaves the log |
//! | 4 | vote | 0, 0 | opaque | replaces the shard's vote |
//! | 5 | committed | last committed | none | replaces the shard's committed id |
//! | 6 | purged | last purged | none | entries up to and including index leave the log |
//! | 7 | released | its id | none | that displaced entry's bytes are no longer needed |
//! | 8 | displaced copy | its id | the entry | that displaced entry moved here |
//!
//! Write order is replay order. The first frame of each segment begins with every shard's vote, committed and
//! purged.
//!
//! # Footer
//!
//! A **row page** lists at most 4,096 entries with dense indexes and one term: per entry two LEB128 varints,
//! `gap` (bytes from the end of the previous entry's record, or from byte 0 for the first, to the start of this
//! record) and `length` (of the payload).
//!
//! The **summary** is what the segment as a whole does to the log. `count u16`, then per shard, ascending:
//!
//! ```text
//! shard u16 | flags u8
//! flag 1: truncated_from u64      the lowest truncation; it concerns entries of earlier segments
//! flag 2: committed index, term   u64, u64
//! flag 4: purged index, term      u64, u64
//! flag 8: vote                    u32 length, bytes
//! runs      u32 count, each: first u64 | term u64 | bytes u64 | page_at u64 | page_len u32 | page_crc u32 | count u32
//! displaced u32 count, each: index u64 | term u64 | position u64 | length u32     position 0: in an earlier segment
//! released  u32 count, each: index u64 | term u64
//! ```
//!
//! It is replayed in this order: displaced, truncated_from, runs, released, then the hard state. Runs hold only
//! what was still in the log when the segment was sealed.
//!
//! # Trailer (the last 64 bytes)
//!
//! ```text
//! 0       4         6          8           16           24            32          40            44            48         60
//! +-------+---------+----------+-----------+------------+-------------+-----------+-------------+-------------+----------+-------+
//! | magic | version | reserved | footer_at | summary_at | first_frame | end_frame | summary_len | summary_crc | reserved | crc32 |
//! | DEND  | u16 = 1 | u16      | u64       | u64        | u64         | u64       | u32         | u32         | 12 bytes | u32   |
//! +-------+---------+----------+-----------+------------+-------------+-----------+-------------+-------------+----------+-------+
//! ```
//!
//! The CRC covers the segment id, the trailer's position (u64) and bytes 0..60. It is written after everything before
//! it was fsynced: where it is valid, so is the rest, or it rotted.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod footer;
mod frame;
mod header;
mod input;
mod record;

pub(crate) use footer::{
    DisplacedRow, RUN_ROWS, Row, Run, ShardSummary, Summary, Trailer, decode_page, encode_page,
};
pub(crate) use frame::{FrameHeader, body_crc};
pub(crate) use header::SegmentHeader;
pub use record::{MAX_PAYLOAD_BYTES, Record};
pub(crate) use record::{RecordView, decode_record, encode_record, encoded_len};

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may fail by panicking")]
mod tests;

/// What headers, frames, footers and the file's end are aligned to.
pub(crate) const BLOCK: u64 = 4096;
/// The size of a segment's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// The size of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
/// The size of a record's head, up to its payload.
pub(crate) const RECORD_HEAD_BYTES: usize = 27;
/// The size of a sealed segment's trailer.
pub(crate) const TRAILER_BYTES: usize = 64;
/// The most bytes of records that a reader accepts in one frame.
pub(crate) const MAX_FRAME_BODY_BYTES: u64 = 256 * 1024 * 1024;

/// `n` rounded up to a whole number of blocks; saturates.
pub(crate) fn align(n: u64) -> u64 {
    n.div_ceil(BLOCK).saturating_mul(BLOCK)
}
