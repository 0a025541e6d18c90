//! The archived-segment format.
//!
//! ```text
//! object  = lead | data block … | entry page … | stream page … | block directory | entry directory
//!         | stream directory | trailer                                      nothing lies between or beside them
//! lead    = magic "DURASEGM" | version u32 = 1 | zero u32
//!
//! part    = position u64 | stored length u32 | raw length u32 | codec u8 (0 stored, 1 zstd) | crc32 u32
//!           where a block or page lies; the checksum is of the stored bytes
//!
//! data block (raw)  = count u32 | batch row … | batch bytes, in the order of their rows
//! batch row         = stream u64 | index u64 | time u64 | base offset u64 | records u32 | length u32
//! block directory   = count u32 | (part | kind u8 | batches u32) …
//!           kind 0: appended and rescued batches, by (stream, base offset) of where they are now, through all blocks
//!           of this kind, which come first;
//!           kind 1: batches that got no offsets (duplicates with their first base offset, rejected ones with 0),
//!           by index
//!
//! entry page (raw)  = entry …, in index order
//! entry             = index u64 | term u64 | effective time u64 | head length u32 | head, as in the log
//!                   | for each batch of the head: fate
//! fate              = outcome u8 (0 appended, 1 duplicate, 2 rejected, 3 rescued; + 128: the batch's bytes were
//!                     dropped)
//!                   | appended, duplicate: base offset u64; rejected: reason u8; rescued: stream u64, base offset u64
//!                   | unless dropped: block u32 | row in the block u32
//! entry directory   = count u32 | (part | first index u64 | entries u32 | first time u64 | chain before 32) …
//!
//! stream page (raw) = stream row …, by (stream, first offset): one for each block that the stream has batches in
//! stream row        = stream u64 | first offset u64 | end offset u64 | block u32 | first row in the block u32
//!                   | batches u32 | min and max record timestamp i64, i64 | first and last time u64, u64
//! stream directory  = count u32 | (part | first stream u64 | first offset u64 | rows u32) …
//!
//! trailer = magic "DURASEGT" | version u32 | encryption u8 = 0 | level u8 | shard u16 | archive id 16
//!         | segment id 16 | branch length u8 | branch 63, zero-padded | first u64 | end u64
//!         | first time u64 | last time u64 | chain before 32 | chain after 32 | batches u64 | records u64
//!         | min and max record timestamp i64, i64 (min > max: no batch) | object length u64
//!         | block, entry, stream directory: (position u64 | length u32 | crc32 u32) each
//!         | key envelope: position u64 = 0 | length u32 = 0 | crc32 u32 = 0
//!         | crc32 u32 of the trailer before it | magic "DURASEGZ"
//! ```
//!
//! Little-endian; CRC-32 is that of zlib. `first time` and `last time` are effective hybrid times. `encryption` and
//! the key envelope are for encrypted segments, which this version refuses; then each block would be encrypted, and
//! its stored length and checksum be those of what is stored.
//!
//! A raw block or page is at most [`MAX_PART`] long; a block is closed at about [`TARGET_BLOCK`], a page at
//! [`TARGET_ENTRY_PAGE`] or [`TARGET_STREAM_PAGE`], and holds at least one item.

use duramen_types::{ArchiveId, BranchName, SegmentId, ShardId};

pub(super) const LEAD: &[u8; 16] = b"DURASEGM\x01\0\0\0\0\0\0\0";
pub(super) const VERSION: u32 = 1;
pub(super) const TRAILER_MAGIC: &[u8; 8] = b"DURASEGT";
pub(super) const END_MAGIC: &[u8; 8] = b"DURASEGZ";

/// The largest raw block or page: bounds what one part can make a reader allocate.
pub(super) const MAX_PART: u32 = 96 << 20;
pub(super) const TARGET_BLOCK: usize = 1 << 20;
pub(super) const TARGET_ENTRY_PAGE: usize = 128 << 10;
pub(super) const TARGET_STREAM_PAGE: usize = 32 << 10;

/// Whose segment an object is; part of its trailer, so that an object under another's key is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIdentity {
    pub archive: ArchiveId,
    pub branch: BranchName,
    pub shard: ShardId,
    pub segment: SegmentId,
}
