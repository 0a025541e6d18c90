//! Streams: create, describe, list, configure, trim, delete, fence.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use duramen_types::{
    Acknowledgement, Compression, FencingToken, Offset, RescuePolicy, RetentionPolicy, StreamConfig,
    StreamName, TenantName, TimestampPolicy,
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Committed;
use super::error::{ErrorBody, Failure, JsonBody, Path, Query};
use crate::api::{StreamConfigPatch, StreamInfo, StreamRef};
use crate::edge::Edge;

/// Streams of a page if the request says nothing.
const PAGE: usize = 100;
/// Streams of a page at most.
const LARGEST_PAGE: usize = 1000;

/// The stream of a path.
pub(super) fn stream_ref(tenant: &str, stream: &str) -> Result<StreamRef, Failure> {
    Ok(StreamRef { tenant: TenantName::parse(tenant)?, name: StreamName::parse(stream)? })
}

/// A level of acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ack {
    /// Fsynced on the leader.
    Local,
    /// Fsynced on a majority.
    Quorum,
    /// In the object store as well.
    Archived,
}

impl From<Ack> for Acknowledgement {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Local => Self::Local,
            Ack::Quorum => Self::Quorum,
            Ack::Archived => Self::Archived,
        }
    }
}

impl From<Acknowledgement> for Ack {
    fn from(level: Acknowledgement) -> Self {
        match level {
            Acknowledgement::Local => Self::Local,
            Acknowledgement::Quorum => Self::Quorum,
            Acknowledgement::Archived => Self::Archived,
        }
    }
}

/// How archived blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CompressionJson {
    Zstd,
    None,
}

/// Whose time a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum TimestampsJson {
    /// The producer's, or the arrival time where it gave none.
    ClientPreferred,
    /// The time at which the batch arrived, always.
    Arrival,
}

/// Where records go that were acknowledged `local` and then displaced by another leader's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RescueJson {
    /// To the stream `{stream}~rescued`.
    Separate,
    /// To the stream's own tail.
    Append,
}

impl From<RescueJson> for RescuePolicy {
    fn from(rescue: RescueJson) -> Self {
        match rescue {
            RescueJson::Separate => Self::Separate,
            RescueJson::Append => Self::Append,
        }
    }
}

impl From<RescuePolicy> for RescueJson {
    fn from(rescue: RescuePolicy) -> Self {
        match rescue {
            RescuePolicy::Separate => Self::Separate,
            RescuePolicy::Append => Self::Append,
        }
    }
}

impl From<CompressionJson> for Compression {
    fn from(compression: CompressionJson) -> Self {
        match compression {
            CompressionJson::Zstd => Self::Zstd,
            CompressionJson::None => Self::None,
        }
    }
}

impl From<Compression> for CompressionJson {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => Self::Zstd,
            Compression::None => Self::None,
        }
    }
}

impl From<TimestampsJson> for TimestampPolicy {
    fn from(timestamps: TimestampsJson) -> Self {
        match timestamps {
            TimestampsJson::ClientPreferred => Self::ClientPreferred,
            TimestampsJson::Arrival => Self::Arrival,
        }
    }
}

impl From<TimestampPolicy> for TimestampsJson {
    fn from(timestamps: TimestampPolicy) -> Self {
        match timestamps {
            TimestampPolicy::ClientPreferred => Self::ClientPreferred,
            TimestampPolicy::Arrival => Self::Arrival,
        }
    }
}

/// A stream's configuration; what is absent or null follows the cluster's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigJson {
    /// What appends wait for that don't say.
    acknowledgement: Option<Ack>,
    /// Seconds after its hybrid time that a record is kept; absent: for ever.
    retention_age_seconds: Option<u64>,
    /// Bytes of batches that are kept, newest first; absent: all.
    retention_bytes: Option<u64>,
    compression: Option<CompressionJson>,
    timestamps: Option<TimestampsJson>,
    /// `separate` if absent.
    rescue: Option<RescueJson>,
}

impl From<ConfigJson> for StreamConfig {
    fn from(config: ConfigJson) -> Self {
        Self {
            acknowledgement: config.acknowledgement.map(Into::into),
            retention: RetentionPolicy {
                age_seconds: config.retention_age_seconds,
                bytes: config.retention_bytes,
            },
            compression: config.compression.map(Into::into),
            timestamps: config.timestamps.map(Into::into),
            rescue: config.rescue.map(Into::into),
        }
    }
}

/// Tells an absent field (`None`) from a null one (`Some(None)`).
#[expect(clippy::option_option, reason = "the three cases of a merge patch")]
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A change of a stream's configuration: absent fields stay as they are, null returns to the default.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::option_option, reason = "the three cases of a merge patch")]
pub(crate) struct ConfigPatchJson {
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Ack>)]
    acknowledgement: Option<Option<Ack>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    retention_age_seconds: Option<Option<u64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    retention_bytes: Option<Option<u64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<CompressionJson>)]
    compression: Option<Option<CompressionJson>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<TimestampsJson>)]
    timestamps: Option<Option<TimestampsJson>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<RescueJson>)]
    rescue: Option<Option<RescueJson>>,
}

impl From<ConfigPatchJson> for StreamConfigPatch {
    fn from(patch: ConfigPatchJson) -> Self {
        Self {
            acknowledgement: patch.acknowledgement.map(|level| level.map(Into::into)),
            retention_age_seconds: patch.retention_age_seconds,
            retention_bytes: patch.retention_bytes,
            compression: patch.compression.map(|compression| compression.map(Into::into)),
            timestamps: patch.timestamps.map(|timestamps| timestamps.map(Into::into)),
            rescue: patch.rescue.map(|rescue| rescue.map(Into::into)),
        }
    }
}

/// A stream as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamJson {
    tenant: String,
    name: String,
    /// Its identity in its shard: another one after the stream was deleted and created again.
    id: u64,
    shard: u16,
    /// The configuration as it was set.
    config: ConfigJson,
    /// The configuration in force, defaults filled in.
    effective_config: ConfigJson,
    /// Hybrid time of the creation, microseconds since 1970.
    created: u64,
    /// Hybrid time of the last append, or of the creation, microseconds since 1970.
    last_append: u64,
    first_readable: u64,
    /// The offset that the next record gets.
    tail: u64,
    /// Bytes of all batches ever appended.
    appended_bytes: u64,
    /// Whether appends must carry a fencing token.
    fenced: bool,
    cursors: usize,
}

impl From<StreamInfo> for StreamJson {
    fn from(info: StreamInfo) -> Self {
        let set = ConfigJson {
            acknowledgement: info.config.acknowledgement.map(Into::into),
            retention_age_seconds: info.config.retention.age_seconds,
            retention_bytes: info.config.retention.bytes,
            compression: info.config.compression.map(Into::into),
            timestamps: info.config.timestamps.map(Into::into),
            rescue: info.config.rescue.map(Into::into),
        };
        let effective = ConfigJson {
            acknowledgement: Some(info.acknowledgement.into()),
            compression: Some(info.compression.into()),
            timestamps: Some(info.timestamps.into()),
            rescue: Some(info.config.rescue_policy().into()),
            ..set.clone()
        };
        Self {
            tenant: info.stream.tenant.to_string(),
            name: info.stream.name.to_string(),
            id: info.id.get(),
            shard: info.shard.get(),
            config: set,
            effective_config: effective,
            created: info.created.as_micros(),
            last_append: info.last_append.as_micros(),
            first_readable: info.first.get(),
            tail: info.next.get(),
            appended_bytes: info.appended_bytes,
            fenced: info.fenced,
            cursors: info.cursors,
        }
    }
}

/// Creates a stream.
///
/// The body may be empty: the stream then follows the cluster's defaults.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/streams/{stream}", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    request_body(content = Option<ConfigJson>, content_type = "application/json"),
    responses(
        (status = 201, description = "The stream is there", body = StreamJson),
        (status = 409, description = "`stream_exists`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn create_stream(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    JsonBody(config): JsonBody<Option<ConfigJson>>,
) -> Result<impl IntoResponse, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    let info = edge.node.create_stream(&stream, config.unwrap_or_default().into()).await?;
    Ok((StatusCode::CREATED, Json(StreamJson::from(info))))
}

/// Describes a stream.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/streams/{stream}", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    responses(
        (status = 200, description = "The stream as it is now", body = StreamJson),
        (status = 404, description = "`unknown_stream` or `unknown_tenant`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn describe_stream(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
) -> Result<Json<StreamJson>, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    Ok(Json(edge.node.describe_stream(&stream).await?.into()))
}

/// Changes a stream's configuration (JSON merge patch).
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/streams/{stream}", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    request_body = ConfigPatchJson,
    responses(
        (status = 200, description = "The stream as it is then", body = StreamJson),
        (status = 409, description = "`config_changed`: changed by another at the same time", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn configure_stream(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    JsonBody(patch): JsonBody<ConfigPatchJson>,
) -> Result<Json<StreamJson>, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    Ok(Json(edge.node.configure_stream(&stream, patch.into()).await?.into()))
}

/// Deletes a stream with its cursors; its past stays readable with `as_of` inside the recovery window.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/streams/{stream}", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    responses(
        (status = 204, description = "The stream is gone", headers(("duramen-committed" = u64, description = "When, microseconds since 1970"))),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn delete_stream(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
) -> Result<Committed, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    Ok(Committed(edge.node.delete_stream(&stream).await?))
}

/// Which streams to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only names that begin with this.
    #[serde(default)]
    prefix: String,
    /// At most this many; 100 by default, 1,000 at most.
    limit: Option<usize>,
    /// The `next_page` of the previous page.
    page: Option<String>,
}

/// A page of streams by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamsJson {
    streams: Vec<StreamJson>,
    /// Pass it as `page` for the next page; null: this was the last.
    next_page: Option<String>,
}

/// Lists a tenant's streams by name, page by page.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/streams", tag = "streams",
    params(("tenant" = String, Path), ListQuery),
    responses(
        (status = 200, description = "A page", body = StreamsJson),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn list_streams(
    State(edge): State<Arc<Edge>>,
    Path(tenant): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<StreamsJson>, Failure> {
    let tenant = TenantName::parse(&tenant)?;
    let after = query.page.as_deref().map(StreamName::parse).transpose()?;
    let limit = match query.limit {
        Some(0) => return Err(Failure::invalid("limit is 0: ask for at least one stream")),
        limit => limit.unwrap_or(PAGE).min(LARGEST_PAGE),
    };
    let page = edge.node.list_streams(&tenant, &query.prefix, after.as_ref(), limit).await?;
    Ok(Json(StreamsJson {
        streams: page.streams.into_iter().map(Into::into).collect(),
        next_page: page.next.map(|name| name.to_string()),
    }))
}

/// Where a stream is to begin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrimJson {
    /// The first offset to keep, at most the tail.
    to: u64,
}

/// Where a stream begins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrimmedJson {
    first_readable: u64,
    /// When the trim was committed, microseconds since 1970.
    time: u64,
}

/// Makes an offset the first readable one.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/streams/{stream}/trim", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    request_body = TrimJson,
    responses(
        (status = 200, description = "Where the stream begins now", body = TrimmedJson),
        (status = 416, description = "`out_of_range`: beyond the tail, which is `tail`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn trim_stream(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    JsonBody(trim): JsonBody<TrimJson>,
) -> Result<Json<TrimmedJson>, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    let (first, time) = edge.node.trim_stream(&stream, Offset::new(trim.to)).await?;
    Ok(Json(TrimmedJson { first_readable: first.get(), time: time.as_micros() }))
}

/// A compare-and-set of a stream's fencing token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FenceJson {
    /// The token that the stream must have now; null or absent: it must have none.
    #[serde(default)]
    expected: Option<String>,
    /// The new token; null or absent: appends need none from now on.
    #[serde(default)]
    token: Option<String>,
}

/// Replaces a stream's fencing token if it is the expected one. Appends without the token are refused from then on.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/streams/{stream}/fencing-token", tag = "streams",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    request_body = FenceJson,
    responses(
        (status = 204, description = "The token is set", headers(("duramen-committed" = u64, description = "When, microseconds since 1970"))),
        (status = 412, description = "`fenced`: it is not the expected one", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn set_fencing_token(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
    JsonBody(fence): JsonBody<FenceJson>,
) -> Result<Committed, Failure> {
    let stream = stream_ref(&tenant, &stream)?;
    let expected = fence.expected.as_deref().map(FencingToken::parse).transpose()?;
    let token = fence.token.as_deref().map(FencingToken::parse).transpose()?;
    Ok(Committed(edge.node.set_fencing_token(&stream, expected, token).await?))
}
