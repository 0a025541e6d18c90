//! What isn't inside a stream: tenants, producers, restore points.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use duramen_types::{RestorePointName, TenantName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ErrorBody, Failure, JsonBody};
use crate::api::{RestorePointInfo, TenantInfo};
use crate::edge::Edge;

/// A tenant to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenantJson {
    /// 1 to 63 of `a-z 0-9 -`.
    name: String,
}

/// A tenant: a namespace with its own streams.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantJson {
    name: String,
    /// Hybrid time of the creation, microseconds since 1970; 0 for `default`, which always exists.
    created: u64,
}

impl From<TenantInfo> for TenantJson {
    fn from(info: TenantInfo) -> Self {
        Self { name: info.tenant.to_string(), created: info.created.as_micros() }
    }
}

/// All tenants, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantsJson {
    tenants: Vec<TenantJson>,
}

/// Creates a tenant.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants",
    request_body = NewTenantJson,
    responses(
        (status = 201, description = "The tenant is there", body = TenantJson),
        (status = 409, description = "`tenant_exists`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn create_tenant(
    State(edge): State<Arc<Edge>>,
    JsonBody(tenant): JsonBody<NewTenantJson>,
) -> Result<impl IntoResponse, Failure> {
    let info = edge.node.create_tenant(TenantName::parse(&tenant.name)?).await?;
    Ok((StatusCode::CREATED, Json(TenantJson::from(info))))
}

/// Lists the tenants.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants",
    responses(
        (status = 200, description = "The tenants", body = TenantsJson),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn list_tenants(State(edge): State<Arc<Edge>>) -> Result<Json<TenantsJson>, Failure> {
    let tenants = edge.node.tenants().await?;
    Ok(Json(TenantsJson { tenants: tenants.into_iter().map(Into::into).collect() }))
}

/// A new idempotent producer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProducerJson {
    /// Its epoch starts at 0, its sequence in each stream too.
    producer_id: u64,
}

/// Allocates an idempotent producer's id, which no other has or will have.
#[utoipa::path(
    post, path = "/v1/producers", tag = "producers",
    responses(
        (status = 201, description = "The producer", body = ProducerJson),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn allocate_producer(State(edge): State<Arc<Edge>>) -> Result<impl IntoResponse, Failure> {
    let producer = edge.node.allocate_producer().await?;
    Ok((StatusCode::CREATED, Json(ProducerJson { producer_id: producer.get() })))
}

/// A restore point to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRestorePointJson {
    /// By the rule of stream names.
    name: String,
}

/// A named instant that a restore can go back to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestorePointJson {
    name: String,
    /// The hybrid time that it stands for, microseconds since 1970.
    time: u64,
}

impl From<RestorePointInfo> for RestorePointJson {
    fn from(info: RestorePointInfo) -> Self {
        Self { name: info.name.to_string(), time: info.time.as_micros() }
    }
}

/// All named restore points, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestorePointsJson {
    restore_points: Vec<RestorePointJson>,
}

/// Names the present instant, once every shard is closed through it.
#[utoipa::path(
    post, path = "/v1/restore-points", tag = "restore points",
    request_body = NewRestorePointJson,
    responses(
        (status = 201, description = "The restore point", body = RestorePointJson),
        (status = 409, description = "`restore_point_exists`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn create_restore_point(
    State(edge): State<Arc<Edge>>,
    JsonBody(point): JsonBody<NewRestorePointJson>,
) -> Result<impl IntoResponse, Failure> {
    let info = edge.node.create_restore_point(RestorePointName::parse(&point.name)?).await?;
    Ok((StatusCode::CREATED, Json(RestorePointJson::from(info))))
}

/// Lists the named restore points.
#[utoipa::path(
    get, path = "/v1/restore-points", tag = "restore points",
    responses(
        (status = 200, description = "The restore points", body = RestorePointsJson),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn list_restore_points(
    State(edge): State<Arc<Edge>>,
) -> Result<Json<RestorePointsJson>, Failure> {
    let points = edge.node.restore_points().await?;
    Ok(Json(RestorePointsJson { restore_points: points.into_iter().map(Into::into).collect() }))
}
