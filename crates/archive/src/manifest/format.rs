//! The objects of a manifest log: manifests, row pages, checkpoints. All are framed protobuf (`frame`).
//!
//! ```text
//! message Manifest   { number 1, nonce 2 (16 bytes), cluster 3, node 4, created 5, previous_end 6, previous_chain 7,
//!                      repeated SegmentRow rows 8, repeated bytes removed 9 (segment ids), repeated SnapshotRow 10,
//!                      repeated uint64 removed_snapshots 11 (indexes), checkpoint 12 }
//! message Page       { repeated SegmentRow rows 1, repeated SnapshotRow snapshots 2 }
//! message Checkpoint { number 1, repeated PageRef pages 2, repeated SegmentRow tail 3, repeated SnapshotRow 4 }
//! message PageRef    { id 1, hash 2, bytes 3, rows 4, first 5, end 6, first_time 7, last_time 8, last_term 9,
//!                      chain_before 10, chain_after 11, exact_streams 12, bloom_probes 13, bloom 14,
//!                      first_snapshot 15, last_snapshot 16, segment_bytes 17, records 18 }
//! ```
//!
//! A page is named by the first 16 bytes of its BLAKE3 hash. Magics: `DURMANIF`, `DURMPAGE`, `DURCHECK`.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{
    ChainValue, ClusterId, DecodeError, Hash, HybridTime, Index, ManifestNumber, NodeId, SegmentId, Term,
};
use serde::Serialize;

use super::filter::StreamFilter;
use super::row::{SegmentRow, SnapshotRow, WireRow, WireSnapshot, filter_fields, hash_bytes};
use crate::frame::{FormatError, Frame, array};

const MANIFEST: Frame = Frame { what: "manifest", magic: b"DURMANIF", version: 1 };
const PAGE: Frame = Frame { what: "row page", magic: b"DURMPAGE", version: 1 };
const CHECKPOINT: Frame = Frame { what: "manifest checkpoint", magic: b"DURCHECK", version: 1 };

/// The largest objects that are read.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
pub(super) const MAX_PAGE_BYTES: u64 = 16 << 20;
pub(super) const MAX_CHECKPOINT_BYTES: u64 = 64 << 20;

/// The most rows, and the most snapshots, that one manifest adds.
pub const MAX_ROWS_PER_MANIFEST: usize = 1024;
/// The most rows of one page.
pub(super) const MAX_ROWS_PER_PAGE: usize = 4096;
/// The most snapshots of one page, and of a checkpoint's tail.
pub(super) const MAX_SNAPSHOTS: usize = 65_536;
const MAX_TAIL_ROWS: usize = 32_768;
const MAX_PAGES: usize = 65_536;

/// Who wrote a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Committer {
    pub cluster: ClusterId,
    pub node: NodeId,
}

/// One numbered step of a shard's history: what it adds to its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    pub number: ManifestNumber,
    /// Random: tells this manifest from another writer's with the same content.
    pub nonce: uuid::Uuid,
    pub committer: Committer,
    /// The committer's wall clock.
    pub created: HybridTime,
    /// Where the history ended before, and its chain value there.
    pub previous_end: Index,
    pub previous_chain: ChainValue,
    pub rows: Vec<Arc<SegmentRow>>,
    pub snapshots: Vec<SnapshotRow>,
    /// The newest checkpoint that the committer knew: so the loss of one leaves a trace.
    pub checkpoint: Option<ManifestNumber>,
}

impl Manifest {
    /// Where the history ends after it, and the chain value there.
    pub fn end(&self) -> (Index, ChainValue) {
        self.rows.last().map_or((self.previous_end, self.previous_chain), |row| (row.end, row.chain_after))
    }
}

/// Some thousands of rows in order; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Page {
    pub rows: Vec<Arc<SegmentRow>>,
    pub snapshots: Vec<SnapshotRow>,
}

/// What a checkpoint says of a page, so that most pages are never loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PageRef {
    pub id: SegmentId,
    pub hash: Hash,
    pub bytes: u64,
    pub rows: u64,
    pub first: Index,
    pub end: Index,
    pub first_time: HybridTime,
    pub last_time: HybridTime,
    pub last_term: Term,
    pub chain_before: ChainValue,
    pub chain_after: ChainValue,
    pub streams: StreamFilter,
    /// The smallest and the largest index of a snapshot in the page.
    pub snapshots: Option<(Index, Index)>,
    /// Sums over the page's segments.
    pub segment_bytes: u64,
    pub records: u64,
}

/// The whole state of a manifest log after the manifest `number`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Checkpoint {
    pub number: ManifestNumber,
    pub pages: Vec<Arc<PageRef>>,
    pub tail: Vec<Arc<SegmentRow>>,
    pub snapshots: Vec<SnapshotRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireManifest {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "bytes", tag = "2")]
    nonce: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    cluster: Bytes,
    #[prost(uint64, tag = "4")]
    node: u64,
    #[prost(uint64, tag = "5")]
    created: u64,
    #[prost(uint64, tag = "6")]
    previous_end: u64,
    #[prost(bytes = "bytes", tag = "7")]
    previous_chain: Bytes,
    #[prost(message, repeated, tag = "8")]
    rows: Vec<WireRow>,
    /// Segments that merging or expiry took out.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    removed: Vec<Bytes>,
    #[prost(message, repeated, tag = "10")]
    snapshots: Vec<WireSnapshot>,
    /// Snapshots that expiry took out, by their index.
    #[prost(uint64, repeated, tag = "11")]
    removed_snapshots: Vec<u64>,
    #[prost(uint64, optional, tag = "12")]
    checkpoint: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePage {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<WireRow>,
    #[prost(message, repeated, tag = "2")]
    snapshots: Vec<WireSnapshot>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePageRef {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    hash: Bytes,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(uint64, tag = "4")]
    rows: u64,
    #[prost(uint64, tag = "5")]
    first: u64,
    #[prost(uint64, tag = "6")]
    end: u64,
    #[prost(uint64, tag = "7")]
    first_time: u64,
    #[prost(uint64, tag = "8")]
    last_time: u64,
    #[prost(uint64, tag = "9")]
    last_term: u64,
    #[prost(bytes = "bytes", tag = "10")]
    chain_before: Bytes,
    #[prost(bytes = "bytes", tag = "11")]
    chain_after: Bytes,
    #[prost(bytes = "bytes", optional, tag = "12")]
    exact_streams: Option<Bytes>,
    #[prost(uint32, tag = "13")]
    bloom_probes: u32,
    #[prost(bytes = "bytes", optional, tag = "14")]
    bloom: Option<Bytes>,
    #[prost(uint64, optional, tag = "15")]
    first_snapshot: Option<u64>,
    #[prost(uint64, optional, tag = "16")]
    last_snapshot: Option<u64>,
    #[prost(uint64, tag = "17")]
    segment_bytes: u64,
    #[prost(uint64, tag = "18")]
    records: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCheckpoint {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, repeated, tag = "2")]
    pages: Vec<WirePageRef>,
    #[prost(message, repeated, tag = "3")]
    tail: Vec<WireRow>,
    #[prost(message, repeated, tag = "4")]
    snapshots: Vec<WireSnapshot>,
}

fn wire_rows(rows: &[Arc<SegmentRow>]) -> Vec<WireRow> {
    rows.iter().map(|row| WireRow::from(&**row)).collect()
}

fn rows(what: &'static str, wire: Vec<WireRow>) -> Result<Vec<Arc<SegmentRow>>, FormatError> {
    wire.into_iter().map(|row| row.into_row(what).map(Arc::new)).collect()
}

fn snapshots(what: &'static str, wire: Vec<WireSnapshot>) -> Result<Vec<SnapshotRow>, FormatError> {
    wire.into_iter().map(|row| row.into_row(what)).collect()
}

impl Manifest {
    pub(crate) fn encode(&self) -> Bytes {
        MANIFEST.seal(&WireManifest {
            number: self.number.get(),
            nonce: Bytes::copy_from_slice(self.nonce.as_bytes()),
            cluster: Bytes::copy_from_slice(self.committer.cluster.as_bytes()),
            node: self.committer.node.get(),
            created: self.created.as_micros(),
            previous_end: self.previous_end.get(),
            previous_chain: hash_bytes(&self.previous_chain),
            rows: wire_rows(&self.rows),
            removed: Vec::new(),
            snapshots: self.snapshots.iter().map(WireSnapshot::from).collect(),
            removed_snapshots: Vec::new(),
            checkpoint: self.checkpoint.map(ManifestNumber::get),
        })
    }

    /// Reads a manifest; any damage is an error, and so is a feature that this release lacks.
    pub fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let what = MANIFEST.what;
        let limits = [8, 9, 10, 11].map(|tag| (tag, MAX_ROWS_PER_MANIFEST));
        let wire: WireManifest = MANIFEST.open(bytes, &limits)?;
        if !wire.removed.is_empty() || !wire.removed_snapshots.is_empty() {
            return Err(FormatError::NotSupported("merging or expiry"));
        }
        Ok(Self {
            number: ManifestNumber::new(wire.number),
            nonce: uuid::Uuid::from_bytes(array(what, "its nonce", &wire.nonce)?),
            committer: Committer {
                cluster: ClusterId::from_bytes(array(what, "its cluster id", &wire.cluster)?),
                node: NodeId::new(wire.node),
            },
            created: HybridTime::from_micros(wire.created),
            previous_end: Index::new(wire.previous_end),
            previous_chain: Hash::from_bytes(array(what, "its chain value", &wire.previous_chain)?),
            rows: rows(what, wire.rows)?,
            snapshots: snapshots(what, wire.snapshots)?,
            checkpoint: wire.checkpoint.map(ManifestNumber::new),
        })
    }
}

impl Page {
    pub(crate) fn encode(&self) -> Bytes {
        PAGE.seal(&WirePage {
            rows: wire_rows(&self.rows),
            snapshots: self.snapshots.iter().map(WireSnapshot::from).collect(),
        })
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let wire: WirePage = PAGE.open(bytes, &[(1, MAX_ROWS_PER_PAGE), (2, MAX_SNAPSHOTS)])?;
        Ok(Self { rows: rows(PAGE.what, wire.rows)?, snapshots: snapshots(PAGE.what, wire.snapshots)? })
    }
}

impl From<&PageRef> for WirePageRef {
    fn from(page: &PageRef) -> Self {
        let (exact_streams, bloom_probes, bloom) = filter_fields(&page.streams);
        Self {
            id: Bytes::copy_from_slice(page.id.as_bytes()),
            hash: hash_bytes(&page.hash),
            bytes: page.bytes,
            rows: page.rows,
            first: page.first.get(),
            end: page.end.get(),
            first_time: page.first_time.as_micros(),
            last_time: page.last_time.as_micros(),
            last_term: page.last_term.get(),
            chain_before: hash_bytes(&page.chain_before),
            chain_after: hash_bytes(&page.chain_after),
            exact_streams,
            bloom_probes,
            bloom,
            first_snapshot: page.snapshots.map(|(first, _)| first.get()),
            last_snapshot: page.snapshots.map(|(_, last)| last.get()),
            segment_bytes: page.segment_bytes,
            records: page.records,
        }
    }
}

impl WirePageRef {
    fn into_page_ref(self) -> Result<PageRef, FormatError> {
        let what = CHECKPOINT.what;
        if self.first >= self.end || self.rows == 0 {
            return Err(
                DecodeError::invalid(what, format!("a page covers {}..{}", self.first, self.end)).into()
            );
        }
        Ok(PageRef {
            id: SegmentId::from_bytes(array(what, "a page's id", &self.id)?),
            hash: Hash::from_bytes(array(what, "a page's hash", &self.hash)?),
            bytes: self.bytes,
            rows: self.rows,
            first: Index::new(self.first),
            end: Index::new(self.end),
            first_time: HybridTime::from_micros(self.first_time),
            last_time: HybridTime::from_micros(self.last_time),
            last_term: Term::new(self.last_term),
            chain_before: Hash::from_bytes(array(what, "a chain value", &self.chain_before)?),
            chain_after: Hash::from_bytes(array(what, "a chain value", &self.chain_after)?),
            streams: StreamFilter::decode(
                what,
                self.exact_streams.as_deref(),
                self.bloom_probes,
                self.bloom.as_deref(),
            )?,
            snapshots: self
                .first_snapshot
                .zip(self.last_snapshot)
                .map(|(a, b)| (Index::new(a), Index::new(b))),
            segment_bytes: self.segment_bytes,
            records: self.records,
        })
    }
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Bytes {
        CHECKPOINT.seal(&WireCheckpoint {
            number: self.number.get(),
            pages: self.pages.iter().map(|page| WirePageRef::from(&**page)).collect(),
            tail: wire_rows(&self.tail),
            snapshots: self.snapshots.iter().map(WireSnapshot::from).collect(),
        })
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let limits = [(2, MAX_PAGES), (3, MAX_TAIL_ROWS), (4, MAX_SNAPSHOTS)];
        let wire: WireCheckpoint = CHECKPOINT.open(bytes, &limits)?;
        let pages = wire.pages.into_iter().map(|page| page.into_page_ref().map(Arc::new));
        Ok(Self {
            number: ManifestNumber::new(wire.number),
            pages: pages.collect::<Result<_, FormatError>>()?,
            tail: rows(CHECKPOINT.what, wire.tail)?,
            snapshots: snapshots(CHECKPOINT.what, wire.snapshots)?,
        })
    }
}
