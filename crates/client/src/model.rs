//! Streams, cursors, tenants and restore points as a node describes them.

use std::time::Duration;

use duramen_proto::v1;
use duramen_types::{
    Acknowledgement, Compression, HybridTime, Offset, RescuePolicy, RetentionPolicy, ShardId, StreamConfig,
    StreamId, TimestampPolicy,
};

use crate::Error;
use crate::retry::Effect;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to pass for the next page; `None`: this was the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub(crate) fn new(items: Vec<T>, token: String) -> Self {
        Self { items, next: Some(token).filter(|token| !token.is_empty()) }
    }
}

/// A stream as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    pub tenant: String,
    /// Text and no [`StreamName`](duramen_types::StreamName): a newer node may have streams of other kinds.
    pub name: String,
    pub id: StreamId,
    pub shard: ShardId,
    /// What was set.
    pub config: StreamConfig,
    /// What is in force, the cluster's defaults filled in.
    pub effective_config: StreamConfig,
    pub created: HybridTime,
    /// The time of the last append, or of the creation.
    pub last_append: HybridTime,
    /// The first readable offset.
    pub first_readable: Offset,
    /// The offset that the next record gets.
    pub tail: Offset,
    /// Bytes of all batches ever appended.
    pub appended_bytes: u64,
    /// Whether appends must carry a fencing token.
    pub fenced: bool,
    /// How many cursors it has.
    pub cursors: u64,
}

/// A named consumer position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorInfo {
    pub name: String,
    /// The next offset to read.
    pub offset: Offset,
    /// When it was committed.
    pub committed: HybridTime,
    /// Records between it and the tail.
    pub lag_records: u64,
    /// How long the first of them has been waiting.
    pub lag: Duration,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInfo {
    pub name: String,
    /// When it was created; zero for `default`.
    pub created: HybridTime,
}

/// A named instant that a restore can go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    pub name: String,
    pub time: HybridTime,
}

/// Changes of a stream's configuration: `None` leaves a setting as it is, `Some(None)` returns it to the default, which
/// for retention is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigChange {
    pub acknowledgement: Option<Option<Acknowledgement>>,
    pub retention_age_seconds: Option<Option<u64>>,
    pub retention_bytes: Option<Option<u64>>,
    pub compression: Option<Option<Compression>>,
    pub timestamps: Option<Option<TimestampPolicy>>,
    pub rescue: Option<Option<RescuePolicy>>,
}

impl ConfigChange {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn to_proto(self) -> v1::StreamConfigPatch {
        v1::StreamConfigPatch {
            acknowledgement: self.acknowledgement.map(acknowledgement_to_proto),
            retention_age_seconds: self.retention_age_seconds.map(Option::unwrap_or_default),
            retention_bytes: self.retention_bytes.map(Option::unwrap_or_default),
            compression: self.compression.map(compression_to_proto),
            timestamps: self.timestamps.map(timestamps_to_proto),
            rescue: self.rescue.map(rescue_to_proto),
        }
    }
}

pub(crate) fn acknowledgement_to_proto(level: Option<Acknowledgement>) -> i32 {
    match level {
        None => v1::Acknowledgement::Unspecified,
        Some(Acknowledgement::Local) => v1::Acknowledgement::Local,
        Some(Acknowledgement::Quorum) => v1::Acknowledgement::Quorum,
        Some(Acknowledgement::Archived) => v1::Acknowledgement::Archived,
    }
    .into()
}

fn compression_to_proto(compression: Option<Compression>) -> i32 {
    match compression {
        None => v1::Compression::Unspecified,
        Some(Compression::Zstd) => v1::Compression::Zstd,
        Some(Compression::None) => v1::Compression::None,
    }
    .into()
}

fn timestamps_to_proto(policy: Option<TimestampPolicy>) -> i32 {
    match policy {
        None => v1::TimestampPolicy::Unspecified,
        Some(TimestampPolicy::ClientPreferred) => v1::TimestampPolicy::ClientPreferred,
        Some(TimestampPolicy::Arrival) => v1::TimestampPolicy::Arrival,
    }
    .into()
}

fn rescue_to_proto(policy: Option<RescuePolicy>) -> i32 {
    match policy {
        None => v1::RescuePolicy::Unspecified,
        Some(RescuePolicy::Separate) => v1::RescuePolicy::Separate,
        Some(RescuePolicy::Append) => v1::RescuePolicy::Append,
    }
    .into()
}

pub(crate) fn config_to_proto(config: &StreamConfig) -> v1::StreamConfig {
    v1::StreamConfig {
        acknowledgement: acknowledgement_to_proto(config.acknowledgement),
        retention_age_seconds: config.retention.age_seconds,
        retention_bytes: config.retention.bytes,
        compression: compression_to_proto(config.compression),
        timestamps: timestamps_to_proto(config.timestamps),
        rescue: rescue_to_proto(config.rescue),
    }
}

/// Values of a newer node that this version does not know show as "the default".
fn config_from_proto(config: v1::StreamConfig) -> StreamConfig {
    StreamConfig {
        acknowledgement: match config.acknowledgement() {
            v1::Acknowledgement::Unspecified => None,
            v1::Acknowledgement::Local => Some(Acknowledgement::Local),
            v1::Acknowledgement::Quorum => Some(Acknowledgement::Quorum),
            v1::Acknowledgement::Archived => Some(Acknowledgement::Archived),
        },
        retention: RetentionPolicy {
            age_seconds: config.retention_age_seconds,
            bytes: config.retention_bytes,
        },
        compression: match config.compression() {
            v1::Compression::Unspecified => None,
            v1::Compression::Zstd => Some(Compression::Zstd),
            v1::Compression::None => Some(Compression::None),
        },
        timestamps: match config.timestamps() {
            v1::TimestampPolicy::Unspecified => None,
            v1::TimestampPolicy::ClientPreferred => Some(TimestampPolicy::ClientPreferred),
            v1::TimestampPolicy::Arrival => Some(TimestampPolicy::Arrival),
        },
        rescue: match config.rescue() {
            v1::RescuePolicy::Unspecified => None,
            v1::RescuePolicy::Separate => Some(RescuePolicy::Separate),
            v1::RescuePolicy::Append => Some(RescuePolicy::Append),
        },
    }
}

impl StreamInfo {
    pub(crate) fn from_proto(
        call: &'static str,
        effect: Effect,
        info: v1::StreamInfo,
    ) -> Result<Self, Error> {
        let shard = u16::try_from(info.shard)
            .map_err(|_| Error::protocol(call, effect, format!("{} is no shard", info.shard)))?;
        Ok(Self {
            tenant: info.tenant,
            name: info.name,
            id: StreamId::new(info.id),
            shard: ShardId::new(shard),
            config: config_from_proto(info.config.unwrap_or_default()),
            effective_config: config_from_proto(info.effective_config.unwrap_or_default()),
            created: HybridTime::from_micros(info.created),
            last_append: HybridTime::from_micros(info.last_append),
            first_readable: Offset::new(info.first_readable),
            tail: Offset::new(info.tail),
            appended_bytes: info.appended_bytes,
            fenced: info.fenced,
            cursors: info.cursors,
        })
    }
}

impl From<v1::CursorInfo> for CursorInfo {
    fn from(info: v1::CursorInfo) -> Self {
        Self {
            name: info.cursor,
            offset: Offset::new(info.offset),
            committed: HybridTime::from_micros(info.committed),
            lag_records: info.lag_records,
            lag: Duration::from_micros(info.lag_micros),
        }
    }
}

impl From<v1::TenantInfo> for TenantInfo {
    fn from(info: v1::TenantInfo) -> Self {
        Self { name: info.name, created: HybridTime::from_micros(info.created) }
    }
}

impl From<v1::RestorePoint> for RestorePoint {
    fn from(point: v1::RestorePoint) -> Self {
        Self { name: point.name, time: HybridTime::from_micros(point.time) }
    }
}
