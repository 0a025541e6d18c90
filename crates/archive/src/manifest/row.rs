//! What a manifest says of one archived segment, and of one snapshot.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use bytes::Bytes;
use duramen_types::{BranchName, ChainValue, DecodeError, Hash, HybridTime, Index, SegmentId, ShardId, Term};
use serde::Serialize;

use super::filter::StreamFilter;
use crate::ObjectKey;
use crate::frame::{FormatError, array};

/// One archived segment: everything that decides whether it must be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentRow {
    pub id: SegmentId,
    /// The entries `first..end` of the shard.
    pub first: Index,
    pub end: Index,
    /// The effective times of the first and the last entry.
    pub first_time: HybridTime,
    pub last_time: HybridTime,
    /// The term of the last entry.
    pub last_term: Term,
    /// The size of the object.
    pub bytes: u64,
    pub records: u64,
    /// The smallest and largest timestamp of a record, milliseconds since 1970; `None` without records.
    pub record_times: Option<(i64, i64)>,
    /// Whether it holds more than blank, membership, tick and archived entries.
    pub has_user_entries: bool,
    /// The chain values before the first and after the last entry.
    pub chain_before: ChainValue,
    pub chain_after: ChainValue,
    pub streams: StreamFilter,
    /// The BLAKE3 hash of the whole object.
    pub hash: Hash,
    /// How often it was merged.
    pub level: u32,
}

impl SegmentRow {
    /// The key of the segment's object, in the branch that wrote it.
    pub fn key(&self, branch: &BranchName, shard: ShardId) -> ObjectKey {
        ObjectKey::Segment { branch: branch.clone(), shard, first: self.first, end: self.end, id: self.id }
    }
}

/// One archived snapshot of a shard's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotRow {
    /// The state after every entry before this index.
    pub index: Index,
    /// The effective time of the last of these entries.
    pub time: HybridTime,
    /// The chain value after them.
    pub chain: ChainValue,
    /// The size of the object.
    pub bytes: u64,
    /// The BLAKE3 hash of the whole object.
    pub hash: Hash,
}

impl SnapshotRow {
    /// The key of the snapshot's object, in the branch that wrote it.
    pub fn key(&self, branch: &BranchName, shard: ShardId) -> ObjectKey {
        ObjectKey::Snapshot { branch: branch.clone(), shard, index: self.index }
    }
}

/// `message SegmentRow`; the numbers are the format.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint64, tag = "3")]
    pub end: u64,
    #[prost(uint64, tag = "4")]
    pub first_time: u64,
    #[prost(uint64, tag = "5")]
    pub last_time: u64,
    #[prost(uint64, tag = "6")]
    pub last_term: u64,
    #[prost(uint64, tag = "7")]
    pub bytes: u64,
    #[prost(uint64, tag = "8")]
    pub records: u64,
    #[prost(sint64, optional, tag = "9")]
    pub min_timestamp: Option<i64>,
    #[prost(sint64, optional, tag = "10")]
    pub max_timestamp: Option<i64>,
    #[prost(bool, tag = "11")]
    pub has_user_entries: bool,
    #[prost(bytes = "bytes", tag = "12")]
    pub chain_before: Bytes,
    #[prost(bytes = "bytes", tag = "13")]
    pub chain_after: Bytes,
    #[prost(bytes = "bytes", optional, tag = "14")]
    pub exact_streams: Option<Bytes>,
    #[prost(uint32, tag = "15")]
    pub bloom_probes: u32,
    #[prost(bytes = "bytes", optional, tag = "16")]
    pub bloom: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "17")]
    pub hash: Bytes,
    #[prost(uint32, tag = "18")]
    pub level: u32,
    /// The data key, wrapped: present in encrypted segments.
    #[prost(bytes = "bytes", optional, tag = "19")]
    pub wrapped_key: Option<Bytes>,
    /// Whether expired batches were left out when the segment was merged.
    #[prost(bool, tag = "20")]
    pub batches_dropped: bool,
}

/// `message SnapshotRow`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireSnapshot {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub time: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub chain: Bytes,
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub hash: Bytes,
    /// The data key, wrapped: present in encrypted snapshots.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub wrapped_key: Option<Bytes>,
}

pub(super) fn hash_bytes(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

pub(super) fn filter_fields(filter: &StreamFilter) -> (Option<Bytes>, u32, Option<Bytes>) {
    match filter {
        StreamFilter::Exact(exact) => (Some(Bytes::copy_from_slice(exact)), 0, None),
        StreamFilter::Bloom { probes, bits } => {
            (None, u32::from(*probes), Some(Bytes::copy_from_slice(bits)))
        }
        StreamFilter::Any => (None, 0, None),
    }
}

impl From<&SegmentRow> for WireRow {
    fn from(row: &SegmentRow) -> Self {
        let (exact_streams, bloom_probes, bloom) = filter_fields(&row.streams);
        Self {
            id: Bytes::copy_from_slice(row.id.as_bytes()),
            first: row.first.get(),
            end: row.end.get(),
            first_time: row.first_time.as_micros(),
            last_time: row.last_time.as_micros(),
            last_term: row.last_term.get(),
            bytes: row.bytes,
            records: row.records,
            min_timestamp: row.record_times.map(|(min, _)| min),
            max_timestamp: row.record_times.map(|(_, max)| max),
            has_user_entries: row.has_user_entries,
            chain_before: hash_bytes(&row.chain_before),
            chain_after: hash_bytes(&row.chain_after),
            exact_streams,
            bloom_probes,
            bloom,
            hash: hash_bytes(&row.hash),
            level: row.level,
            wrapped_key: None,
            batches_dropped: false,
        }
    }
}

impl WireRow {
    pub(super) fn into_row(self, what: &'static str) -> Result<SegmentRow, FormatError> {
        if self.wrapped_key.is_some() {
            return Err(FormatError::NotSupported("encryption"));
        }
        if self.batches_dropped {
            return Err(FormatError::NotSupported("segments without their expired batches"));
        }
        let row = SegmentRow {
            id: SegmentId::from_bytes(array(what, "a segment's id", &self.id)?),
            first: Index::new(self.first),
            end: Index::new(self.end),
            first_time: HybridTime::from_micros(self.first_time),
            last_time: HybridTime::from_micros(self.last_time),
            last_term: Term::new(self.last_term),
            bytes: self.bytes,
            records: self.records,
            record_times: self.min_timestamp.zip(self.max_timestamp),
            has_user_entries: self.has_user_entries,
            chain_before: Hash::from_bytes(array(what, "a chain value", &self.chain_before)?),
            chain_after: Hash::from_bytes(array(what, "a chain value", &self.chain_after)?),
            streams: StreamFilter::decode(
                what,
                self.exact_streams.as_deref(),
                self.bloom_probes,
                self.bloom.as_deref(),
            )?,
            hash: Hash::from_bytes(array(what, "a segment's hash", &self.hash)?),
            level: self.level,
        };
        if row.first >= row.end || row.first_time > row.last_time {
            let reason = format!("segment {} covers {}..{} backwards", row.id, row.first, row.end);
            return Err(DecodeError::invalid(what, reason).into());
        }
        Ok(row)
    }
}

impl From<&SnapshotRow> for WireSnapshot {
    fn from(row: &SnapshotRow) -> Self {
        Self {
            index: row.index.get(),
            time: row.time.as_micros(),
            chain: hash_bytes(&row.chain),
            bytes: row.bytes,
            hash: hash_bytes(&row.hash),
            wrapped_key: None,
        }
    }
}

impl WireSnapshot {
    pub(super) fn into_row(self, what: &'static str) -> Result<SnapshotRow, FormatError> {
        if self.wrapped_key.is_some() {
            return Err(FormatError::NotSupported("encryption"));
        }
        Ok(SnapshotRow {
            index: Index::new(self.index),
            time: HybridTime::from_micros(self.time),
            chain: Hash::from_bytes(array(what, "a chain value", &self.chain)?),
            bytes: self.bytes,
            hash: Hash::from_bytes(array(what, "a snapshot's hash", &self.hash)?),
        })
    }
}
