//! The service: each call with its span, its deadline, hybrid times both ways, and its errors in the details.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use duramen_proto::v1::log_server::Log;
use duramen_proto::{SEEN_HEADER, TIME_HEADER, v1};
use duramen_types::{CursorName, HybridTime, Offset, RestorePointName, StreamName};
use futures::Stream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span, field};

use super::{convert, page, read, refuse, session};
use crate::Node;
use crate::api::{Result, StreamRef};
use crate::edge::{Edge, changing, looking};
use crate::telemetry::continue_trace;

type Answer<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// `duramen.v1.Log` over a node.
pub(super) struct LogService {
    edge: Arc<Edge>,
}

/// Whether a call changes something: beyond its deadline the outcome of one that does is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Changes,
    Looks,
}

/// Writes the node's latest hybrid time into an answer's headers or an error's trailers.
pub(super) fn stamp(edge: &Edge, metadata: &mut MetadataMap) {
    metadata.insert(TIME_HEADER, MetadataValue::from(edge.node.latest_time().as_micros()));
}

/// The client's deadline as gRPC sends it: up to eight digits and a unit. One that isn't understood is none.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The highest hybrid time that the client has seen.
fn seen(metadata: &MetadataMap) -> Result<HybridTime> {
    let Some(value) = metadata.get(SEEN_HEADER) else { return Ok(HybridTime::ZERO) };
    let micros = value.to_str().ok().and_then(|text| text.parse().ok());
    micros.map(HybridTime::from_micros).ok_or_else(|| {
        convert::invalid(format!("{SEEN_HEADER} is not a hybrid time: send back what {TIME_HEADER} gave"))
    })
}

impl LogService {
    pub(super) const fn new(edge: Arc<Edge>) -> Self {
        Self { edge }
    }

    fn span(&self, call: &'static str, metadata: &MetadataMap) -> Span {
        let id = metadata.get("x-request-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let request_id = id.unwrap_or_else(|| self.edge.request_id());
        let span = tracing::info_span!(
            "request",
            request_id,
            method = call,
            tenant = field::Empty,
            stream = field::Empty
        );
        continue_trace(&span, metadata.as_ref());
        span
    }

    /// Runs a call that has one answer.
    async fn unary<M, T, F>(
        &self,
        call: &'static str,
        effect: Effect,
        request: Request<M>,
        operation: impl FnOnce(Node, M) -> F + Send,
    ) -> Answer<T>
    where
        M: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let span = self.span(call, request.metadata());
        let (metadata, _, message) = request.into_parts();
        let limit = deadline(&metadata);
        let run = async {
            self.edge.node.observe_time(seen(&metadata)?)?;
            operation(self.edge.node.clone(), message).await
        };
        async {
            let result = match effect {
                Effect::Changes => changing(limit, run).await,
                Effect::Looks => looking(limit, run).await,
            };
            let mut response = Response::new(result.map_err(|error| refuse(&self.edge, &error))?);
            stamp(&self.edge, response.metadata_mut());
            Ok(response)
        }
        .instrument(span)
        .await
    }
}

/// The stream of a call, noted in its span.
fn on(tenant: &str, stream: &str) -> Result<StreamRef> {
    let named = convert::stream_ref(tenant, stream)?;
    let span = Span::current();
    span.record("tenant", named.tenant.as_str()).record("stream", named.name.as_str());
    Ok(named)
}

#[tonic::async_trait]
impl Log for LogService {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Answer<v1::AppendAck> {
        self.unary("Append", Effect::Changes, request, |node, message| async move {
            on(&message.tenant, &message.stream)?;
            let pending = node.append(convert::append(message)?, false).await?;
            Ok(convert::ack(&pending.acknowledged().await?))
        })
        .await
    }

    type AppendSessionStream = Answers<v1::AppendSessionResponse>;

    async fn append_session(
        &self,
        request: Request<Streaming<v1::AppendSessionRequest>>,
    ) -> Answer<Self::AppendSessionStream> {
        let span = self.span("AppendSession", request.metadata());
        seen(request.metadata())
            .and_then(|seen| self.edge.node.observe_time(seen))
            .map_err(|error| refuse(&self.edge, &error))?;
        let answers = span.in_scope(|| session::answers(Arc::clone(&self.edge), request.into_inner()));
        let mut response: Response<Self::AppendSessionStream> = Response::new(Box::pin(answers));
        stamp(&self.edge, response.metadata_mut());
        Ok(response)
    }

    type ReadStream = Answers<v1::ReadResponse>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Answer<Self::ReadStream> {
        let edge = Arc::clone(&self.edge);
        let follow = request.get_ref().follow;
        let seen = seen(request.metadata()).map_err(|error| refuse(&self.edge, &error))?;
        self.unary("Read", Effect::Looks, request, |node, message| async move {
            on(&message.tenant, &message.stream)?;
            let (read, format) = convert::read(message, seen)?;
            let session = node.read(read).await?;
            let messages: Self::ReadStream = Box::pin(read::messages(edge, session, format, follow));
            Ok(messages)
        })
        .await
    }

    async fn create_stream(&self, request: Request<v1::CreateStreamRequest>) -> Answer<v1::StreamInfo> {
        self.unary("CreateStream", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let config = convert::stream_config(message.config.unwrap_or_default())?;
            Ok(convert::stream_info(&node.create_stream(&stream, config).await?))
        })
        .await
    }

    async fn describe_stream(&self, request: Request<v1::DescribeStreamRequest>) -> Answer<v1::StreamInfo> {
        self.unary("DescribeStream", Effect::Looks, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            Ok(convert::stream_info(&node.describe_stream(&stream).await?))
        })
        .await
    }

    async fn list_streams(
        &self,
        request: Request<v1::ListStreamsRequest>,
    ) -> Answer<v1::ListStreamsResponse> {
        self.unary("ListStreams", Effect::Looks, request, |node, message| async move {
            let tenant = convert::tenant(&message.tenant)?;
            let after = match message.page_token.as_str() {
                "" => None,
                token => Some(convert::name(StreamName::parse(token))?),
            };
            let limit = page::size(message.page_size);
            let found = node.list_streams(&tenant, &message.prefix, after.as_ref(), limit).await?;
            Ok(v1::ListStreamsResponse {
                streams: found.streams.iter().map(convert::stream_info).collect(),
                next_page_token: found.next.map(|name| name.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn configure_stream(&self, request: Request<v1::ConfigureStreamRequest>) -> Answer<v1::StreamInfo> {
        self.unary("ConfigureStream", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let patch = message.patch.ok_or_else(|| convert::invalid("a change needs its patch"))?;
            let patch = convert::config_patch(&patch)?;
            Ok(convert::stream_info(&node.configure_stream(&stream, patch).await?))
        })
        .await
    }

    async fn trim_stream(&self, request: Request<v1::TrimStreamRequest>) -> Answer<v1::TrimStreamResponse> {
        self.unary("TrimStream", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let (first, time) = node.trim_stream(&stream, Offset::new(message.to)).await?;
            Ok(v1::TrimStreamResponse { first_readable: first.get(), time: time.as_micros() })
        })
        .await
    }

    async fn delete_stream(
        &self,
        request: Request<v1::DeleteStreamRequest>,
    ) -> Answer<v1::DeleteStreamResponse> {
        self.unary("DeleteStream", Effect::Changes, request, |node, message| async move {
            let time = node.delete_stream(&on(&message.tenant, &message.stream)?).await?;
            Ok(v1::DeleteStreamResponse { time: time.as_micros() })
        })
        .await
    }

    async fn commit_cursor(&self, request: Request<v1::CommitCursorRequest>) -> Answer<v1::CursorInfo> {
        self.unary("CommitCursor", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let cursor = convert::name(CursorName::parse(&message.cursor))?;
            let committed = node.commit_cursor(&stream, &cursor, Offset::new(message.offset)).await?;
            Ok(convert::cursor_info(&committed))
        })
        .await
    }

    async fn get_cursor(&self, request: Request<v1::GetCursorRequest>) -> Answer<v1::CursorInfo> {
        self.unary("GetCursor", Effect::Looks, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let cursor = convert::name(CursorName::parse(&message.cursor))?;
            Ok(convert::cursor_info(&node.cursor(&stream, &cursor).await?))
        })
        .await
    }

    async fn list_cursors(
        &self,
        request: Request<v1::ListCursorsRequest>,
    ) -> Answer<v1::ListCursorsResponse> {
        self.unary("ListCursors", Effect::Looks, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let all = node.cursors(&stream).await?;
            let (cursors, next_page_token) =
                page::page(all, |info| info.cursor.as_str(), message.page_size, &message.page_token)?;
            let cursors = cursors.iter().map(convert::cursor_info).collect();
            Ok(v1::ListCursorsResponse { cursors, next_page_token })
        })
        .await
    }

    async fn delete_cursor(
        &self,
        request: Request<v1::DeleteCursorRequest>,
    ) -> Answer<v1::DeleteCursorResponse> {
        self.unary("DeleteCursor", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let cursor = convert::name(CursorName::parse(&message.cursor))?;
            let time = node.delete_cursor(&stream, &cursor).await?;
            Ok(v1::DeleteCursorResponse { time: time.as_micros() })
        })
        .await
    }

    async fn set_fencing_token(
        &self,
        request: Request<v1::SetFencingTokenRequest>,
    ) -> Answer<v1::SetFencingTokenResponse> {
        self.unary("SetFencingToken", Effect::Changes, request, |node, message| async move {
            let stream = on(&message.tenant, &message.stream)?;
            let expected = convert::token(message.expected.as_ref())?;
            let token = convert::token(message.token.as_ref())?;
            let time = node.set_fencing_token(&stream, expected, token).await?;
            Ok(v1::SetFencingTokenResponse { time: time.as_micros() })
        })
        .await
    }

    async fn allocate_producer(
        &self,
        request: Request<v1::AllocateProducerRequest>,
    ) -> Answer<v1::AllocateProducerResponse> {
        self.unary("AllocateProducer", Effect::Changes, request, |node, _| async move {
            Ok(v1::AllocateProducerResponse { producer_id: node.allocate_producer().await?.get() })
        })
        .await
    }

    async fn create_tenant(&self, request: Request<v1::CreateTenantRequest>) -> Answer<v1::TenantInfo> {
        self.unary("CreateTenant", Effect::Changes, request, |node, message| async move {
            let tenant = convert::name(duramen_types::TenantName::parse(&message.tenant))?;
            Ok(convert::tenant_info(&node.create_tenant(tenant).await?))
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Answer<v1::ListTenantsResponse> {
        self.unary("ListTenants", Effect::Looks, request, |node, message| async move {
            let all = node.tenants().await?;
            let (tenants, next_page_token) =
                page::page(all, |info| info.tenant.as_str(), message.page_size, &message.page_token)?;
            let tenants = tenants.iter().map(convert::tenant_info).collect();
            Ok(v1::ListTenantsResponse { tenants, next_page_token })
        })
        .await
    }

    async fn create_restore_point(
        &self,
        request: Request<v1::CreateRestorePointRequest>,
    ) -> Answer<v1::RestorePoint> {
        self.unary("CreateRestorePoint", Effect::Changes, request, |node, message| async move {
            let name = convert::name(RestorePointName::parse(&message.name))?;
            Ok(convert::restore_point(&node.create_restore_point(name).await?))
        })
        .await
    }

    async fn list_restore_points(
        &self,
        request: Request<v1::ListRestorePointsRequest>,
    ) -> Answer<v1::ListRestorePointsResponse> {
        self.unary("ListRestorePoints", Effect::Looks, request, |node, message| async move {
            let all = node.restore_points().await?;
            let (points, next_page_token) =
                page::page(all, |info| info.name.as_str(), message.page_size, &message.page_token)?;
            let restore_points = points.iter().map(convert::restore_point).collect();
            Ok(v1::ListRestorePointsResponse { restore_points, next_page_token })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        for none in ["", "S", "5", "5s", "123456789m", "-1S", "+5S"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(deadline(&MetadataMap::new()), None);
    }
}
