//! Cursors: named consumer positions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use duramen_types::{CursorName, Offset};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Committed;
use super::error::{ErrorBody, Failure, JsonBody, Path};
use super::streams::stream_ref;
use crate::api::CursorInfo;
use crate::edge::Edge;

/// A named consumer position with its lag.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CursorJson {
    cursor: String,
    /// The next offset to read.
    offset: u64,
    /// Hybrid time of the commit, microseconds since 1970.
    committed: u64,
    /// Records between the cursor and the tail.
    lag_records: u64,
    /// Age of the oldest record that is still to be read; 0 without lag.
    lag_seconds: f64,
}

impl From<CursorInfo> for CursorJson {
    fn from(info: CursorInfo) -> Self {
        Self {
            cursor: info.cursor.to_string(),
            offset: info.offset.get(),
            committed: info.committed.as_micros(),
            lag_records: info.lag_records,
            lag_seconds: info.lag.as_secs_f64(),
        }
    }
}

/// All cursors of a stream, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CursorsJson {
    cursors: Vec<CursorJson>,
}

/// A position to commit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PositionJson {
    /// The next offset to read, from 0 through the tail.
    offset: u64,
}

/// Lists a stream's cursors.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/streams/{stream}/cursors", tag = "cursors",
    params(("tenant" = String, Path), ("stream" = String, Path)),
    responses(
        (status = 200, description = "The cursors", body = CursorsJson),
        (status = "default", description = "Any error", body = ErrorBody),
    )
)]
pub(super) async fn list_cursors(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream)): Path<(String, String)>,
) -> Result<Json<CursorsJson>, Failure> {
    let cursors = edge.node.cursors(&stream_ref(&tenant, &stream)?).await?;
    Ok(Json(CursorsJson { cursors: cursors.into_iter().map(Into::into).collect() }))
}

/// Reads a cursor.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/streams/{stream}/cursors/{cursor}", tag = "cursors",
    params(("tenant" = String, Path), ("stream" = String, Path), ("cursor" = String, Path)),
    responses(
        (status = 200, description = "The cursor", body = CursorJson),
        (status = 404, description = "`unknown_cursor`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn get_cursor(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream, cursor)): Path<(String, String, String)>,
) -> Result<Json<CursorJson>, Failure> {
    let (stream, cursor) = (stream_ref(&tenant, &stream)?, CursorName::parse(&cursor)?);
    Ok(Json(edge.node.cursor(&stream, &cursor).await?.into()))
}

/// Sets a cursor, creating it where needed; backwards too.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/streams/{stream}/cursors/{cursor}", tag = "cursors",
    params(("tenant" = String, Path), ("stream" = String, Path), ("cursor" = String, Path)),
    request_body = PositionJson,
    responses(
        (status = 200, description = "The cursor as it is then", body = CursorJson),
        (status = 416, description = "`out_of_range`: beyond the tail, which is `tail`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn commit_cursor(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream, cursor)): Path<(String, String, String)>,
    JsonBody(position): JsonBody<PositionJson>,
) -> Result<Json<CursorJson>, Failure> {
    let (stream, cursor) = (stream_ref(&tenant, &stream)?, CursorName::parse(&cursor)?);
    Ok(Json(edge.node.commit_cursor(&stream, &cursor, Offset::new(position.offset)).await?.into()))
}

/// Deletes a cursor.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/streams/{stream}/cursors/{cursor}", tag = "cursors",
    params(("tenant" = String, Path), ("stream" = String, Path), ("cursor" = String, Path)),
    responses(
        (status = 204, description = "The cursor is gone", headers(("duramen-committed" = u64, description = "When, microseconds since 1970"))),
        (status = 404, description = "`unknown_cursor`", body = ErrorBody),
        (status = "default", description = "Any other error", body = ErrorBody),
    )
)]
pub(super) async fn delete_cursor(
    State(edge): State<Arc<Edge>>,
    Path((tenant, stream, cursor)): Path<(String, String, String)>,
) -> Result<Committed, Failure> {
    let (stream, cursor) = (stream_ref(&tenant, &stream)?, CursorName::parse(&cursor)?);
    Ok(Committed(edge.node.delete_cursor(&stream, &cursor).await?))
}
