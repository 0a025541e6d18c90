//! Messages to the node's words and back.

use duramen_proto::v1;
use duramen_types::batch::Record;
use duramen_types::{
    Acknowledgement, Compression, CursorName, FencingToken, HybridTime, Offset, Producer, ProducerId,
    RescuePolicy, RetentionPolicy, StreamConfig, StreamName, TenantName, TimestampPolicy,
};

use crate::api::{
    AppendPayload, AppendRequest, Appended, Code, CursorInfo, Error, ReadFrom, ReadRequest, RestorePointInfo,
    Result, StreamConfigPatch, StreamInfo, StreamRef, TenantInfo,
};
use crate::node::NO_TIMESTAMP;

/// Kafka's epochs are signed.
const LARGEST_EPOCH: u16 = 32_767;
/// The tenant that an empty name stands for.
const DEFAULT_TENANT: &str = "default";

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}

pub(super) fn name<T>(parsed: std::result::Result<T, duramen_types::NameError>) -> Result<T> {
    parsed.map_err(|error| invalid(error.to_string()))
}

pub(super) fn tenant(text: &str) -> Result<TenantName> {
    name(TenantName::parse(if text.is_empty() { DEFAULT_TENANT } else { text }))
}

pub(super) fn stream_ref(tenant_name: &str, stream: &str) -> Result<StreamRef> {
    Ok(StreamRef { tenant: tenant(tenant_name)?, name: name(StreamName::parse(stream))? })
}

pub(super) fn token(text: Option<&String>) -> Result<Option<FencingToken>> {
    text.map(|text| name(FencingToken::parse(text))).transpose()
}

fn level(number: i32) -> Result<Option<Acknowledgement>> {
    match v1::Acknowledgement::try_from(number) {
        Ok(v1::Acknowledgement::Unspecified) => Ok(None),
        Ok(v1::Acknowledgement::Local) => Ok(Some(Acknowledgement::Local)),
        Ok(v1::Acknowledgement::Quorum) => Ok(Some(Acknowledgement::Quorum)),
        Ok(v1::Acknowledgement::Archived) => Ok(Some(Acknowledgement::Archived)),
        Err(_) => Err(invalid(format!("acknowledgement level {number} is not known to this node"))),
    }
}

fn compression(number: i32) -> Result<Option<Compression>> {
    match v1::Compression::try_from(number) {
        Ok(v1::Compression::Unspecified) => Ok(None),
        Ok(v1::Compression::Zstd) => Ok(Some(Compression::Zstd)),
        Ok(v1::Compression::None) => Ok(Some(Compression::None)),
        Err(_) => Err(invalid(format!("archive compression {number} is not known to this node"))),
    }
}

fn timestamps(number: i32) -> Result<Option<TimestampPolicy>> {
    match v1::TimestampPolicy::try_from(number) {
        Ok(v1::TimestampPolicy::Unspecified) => Ok(None),
        Ok(v1::TimestampPolicy::ClientPreferred) => Ok(Some(TimestampPolicy::ClientPreferred)),
        Ok(v1::TimestampPolicy::Arrival) => Ok(Some(TimestampPolicy::Arrival)),
        Err(_) => Err(invalid(format!("timestamp policy {number} is not known to this node"))),
    }
}

fn rescue(number: i32) -> Result<Option<RescuePolicy>> {
    match v1::RescuePolicy::try_from(number) {
        Ok(v1::RescuePolicy::Unspecified) => Ok(None),
        Ok(v1::RescuePolicy::Separate) => Ok(Some(RescuePolicy::Separate)),
        Ok(v1::RescuePolicy::Append) => Ok(Some(RescuePolicy::Append)),
        Err(_) => Err(invalid(format!("rescue policy {number} is not known to this node"))),
    }
}

pub(super) fn stream_config(config: v1::StreamConfig) -> Result<StreamConfig> {
    Ok(StreamConfig {
        acknowledgement: level(config.acknowledgement)?,
        retention: RetentionPolicy {
            age_seconds: config.retention_age_seconds,
            bytes: config.retention_bytes,
        },
        compression: compression(config.compression)?,
        timestamps: timestamps(config.timestamps)?,
        rescue: rescue(config.rescue)?,
    })
}

pub(super) fn config_patch(patch: &v1::StreamConfigPatch) -> Result<StreamConfigPatch> {
    // 0 removes a limit.
    let limit = |limit: Option<u64>| limit.map(|limit| (limit != 0).then_some(limit));
    Ok(StreamConfigPatch {
        acknowledgement: patch.acknowledgement.map(level).transpose()?,
        retention_age_seconds: limit(patch.retention_age_seconds),
        retention_bytes: limit(patch.retention_bytes),
        compression: patch.compression.map(compression).transpose()?,
        timestamps: patch.timestamps.map(timestamps).transpose()?,
        rescue: patch.rescue.map(rescue).transpose()?,
    })
}

const fn level_message(level: Option<Acknowledgement>) -> v1::Acknowledgement {
    match level {
        None => v1::Acknowledgement::Unspecified,
        Some(Acknowledgement::Local) => v1::Acknowledgement::Local,
        Some(Acknowledgement::Quorum) => v1::Acknowledgement::Quorum,
        Some(Acknowledgement::Archived) => v1::Acknowledgement::Archived,
    }
}

fn config_message(config: &StreamConfig) -> v1::StreamConfig {
    v1::StreamConfig {
        acknowledgement: level_message(config.acknowledgement).into(),
        retention_age_seconds: config.retention.age_seconds,
        retention_bytes: config.retention.bytes,
        compression: match config.compression {
            None => v1::Compression::Unspecified,
            Some(Compression::Zstd) => v1::Compression::Zstd,
            Some(Compression::None) => v1::Compression::None,
        }
        .into(),
        timestamps: match config.timestamps {
            None => v1::TimestampPolicy::Unspecified,
            Some(TimestampPolicy::ClientPreferred) => v1::TimestampPolicy::ClientPreferred,
            Some(TimestampPolicy::Arrival) => v1::TimestampPolicy::Arrival,
        }
        .into(),
        rescue: match config.rescue {
            None => v1::RescuePolicy::Unspecified,
            Some(RescuePolicy::Separate) => v1::RescuePolicy::Separate,
            Some(RescuePolicy::Append) => v1::RescuePolicy::Append,
        }
        .into(),
    }
}

pub(super) fn stream_info(info: &StreamInfo) -> v1::StreamInfo {
    let effective = StreamConfig {
        acknowledgement: Some(info.acknowledgement),
        retention: info.config.retention,
        compression: Some(info.compression),
        timestamps: Some(info.timestamps),
        rescue: Some(info.config.rescue_policy()),
    };
    v1::StreamInfo {
        tenant: info.stream.tenant.to_string(),
        name: info.stream.name.to_string(),
        id: info.id.get(),
        shard: info.shard.get().into(),
        config: Some(config_message(&info.config)),
        effective_config: Some(config_message(&effective)),
        created: info.created.as_micros(),
        last_append: info.last_append.as_micros(),
        first_readable: info.first.get(),
        tail: info.next.get(),
        appended_bytes: info.appended_bytes,
        fenced: info.fenced,
        cursors: u64::try_from(info.cursors).unwrap_or(u64::MAX),
    }
}

pub(super) fn cursor_info(info: &CursorInfo) -> v1::CursorInfo {
    v1::CursorInfo {
        cursor: info.cursor.to_string(),
        offset: info.offset.get(),
        committed: info.committed.as_micros(),
        lag_records: info.lag_records,
        lag_micros: u64::try_from(info.lag.as_micros()).unwrap_or(u64::MAX),
    }
}

pub(super) fn tenant_info(info: &TenantInfo) -> v1::TenantInfo {
    v1::TenantInfo { name: info.tenant.to_string(), created: info.created.as_micros() }
}

pub(super) fn restore_point(info: &RestorePointInfo) -> v1::RestorePoint {
    v1::RestorePoint { name: info.name.to_string(), time: info.time.as_micros() }
}

fn record(record: v1::Record) -> Record {
    Record {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        timestamp: record.timestamp.unwrap_or(NO_TIMESTAMP),
    }
}

fn producer(producer: v1::Producer) -> Result<Producer> {
    let epoch = u16::try_from(producer.epoch)
        .ok()
        .filter(|epoch| *epoch <= LARGEST_EPOCH)
        .ok_or_else(|| invalid(format!("the producer epoch {} is beyond 32767", producer.epoch)))?;
    Ok(Producer { id: ProducerId::new(producer.id), epoch, sequence: producer.sequence })
}

pub(super) fn append(request: v1::AppendRequest) -> Result<AppendRequest> {
    use v1::append_request::Payload;
    let payload = match request.payload {
        Some(Payload::Records(records)) => {
            AppendPayload::Records(records.records.into_iter().map(record).collect())
        }
        Some(Payload::EncodedBatch(batch)) => AppendPayload::Encoded(batch),
        None => return Err(invalid("an append needs records or an encoded_batch")),
    };
    Ok(AppendRequest {
        stream: stream_ref(&request.tenant, &request.stream)?,
        payload,
        acknowledgement: level(request.acknowledgement)?,
        match_offset: request.match_offset.map(Offset::new),
        fencing_token: token(request.fencing_token.as_ref())?,
        producer: request.producer.map(producer).transpose()?,
        seen: HybridTime::from_micros(request.seen),
    })
}

pub(super) fn ack(appended: &Appended) -> v1::AppendAck {
    v1::AppendAck {
        first_offset: appended.first.get(),
        next_offset: appended.next.get(),
        time: appended.time.as_micros(),
        provisional: appended.provisional,
        term: appended.term.get(),
        duplicate: appended.duplicate,
    }
}

/// The read, and the form in which its records are sent.
pub(super) fn read(request: v1::ReadRequest, seen: HybridTime) -> Result<(ReadRequest, v1::ReadFormat)> {
    use v1::read_request::From;
    let format = v1::ReadFormat::try_from(request.format)
        .map_err(|_| invalid(format!("read format {} is not known to this node", request.format)))?;
    if request.limit_records == Some(0) || request.limit_bytes == Some(0) {
        return Err(invalid("limit_records and limit_bytes must be at least 1"));
    }
    if request.follow && request.as_of.is_some() {
        return Err(invalid("follow and as_of exclude each other: the past gets no new records"));
    }
    let from = match request.from {
        None | Some(From::Earliest(_)) => ReadFrom::Earliest,
        Some(From::Offset(offset)) => ReadFrom::Offset(Offset::new(offset)),
        Some(From::Timestamp(millis)) => ReadFrom::Timestamp(millis),
        Some(From::Tail(_)) => ReadFrom::Tail,
        Some(From::Cursor(cursor)) => ReadFrom::Cursor(name(CursorName::parse(&cursor))?),
    };
    let read = ReadRequest {
        stream: stream_ref(&request.tenant, &request.stream)?,
        from,
        max_records: request.limit_records,
        max_bytes: request.limit_bytes,
        follow: request.follow,
        as_of: request.as_of.map(HybridTime::from_micros),
        seen,
    };
    Ok((read, format))
}
