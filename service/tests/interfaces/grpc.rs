//! gRPC for clients.

use std::time::Duration;

use bytes::Bytes;
use duramen_proto::v1::append_request::Payload;
use duramen_proto::v1::append_session_response::Outcome;
use duramen_proto::v1::{self, read_request};
use duramen_proto::{ErrorCode, SEEN_HEADER, TIME_HEADER, error_of};
use duramen_types::Offset;
use duramen_types::batch::{self, Batch};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

use super::{SOON, TestNode};

fn append(stream: &str, values: &[&str]) -> v1::AppendRequest {
    let record =
        |value: &&str| v1::Record { value: Some(Bytes::from(value.to_string())), ..v1::Record::default() };
    let records = v1::Records { records: values.iter().map(record).collect() };
    v1::AppendRequest {
        stream: stream.to_owned(),
        payload: Some(Payload::Records(records)),
        ..v1::AppendRequest::default()
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Option<Result<T, tonic::Status>> {
    tokio::time::timeout(SOON, stream.next()).await.expect("a message in time")
}

#[tokio::test]
async fn a_session_answers_in_order_and_survives_a_failed_append() {
    let mut node = TestNode::start().await;
    let (sender, requests) = mpsc::channel(16);
    let mut answers = node.log.append_session(ReceiverStream::new(requests)).await.unwrap().into_inner();
    for number in 0..50_u64 {
        let mut request = append("s", &["a", "b"]);
        if number == 20 {
            request.match_offset = Some(7);
        }
        let message = v1::AppendSessionRequest { request: number, append: Some(request) };
        sender.send(message).await.unwrap();
    }
    drop(sender);
    let mut offset = 0;
    for number in 0..50_u64 {
        let answer = next(&mut answers).await.unwrap().unwrap();
        assert_eq!(answer.request, number);
        match answer.outcome.unwrap() {
            Outcome::Ack(ack) => {
                assert_eq!((ack.first_offset, ack.next_offset), (offset, offset + 2));
                assert!(answer.time >= ack.time);
                offset += 2;
            }
            Outcome::Error(error) => {
                assert_eq!((number, error.known_code()), (20, Some(ErrorCode::OffsetMismatch)));
                assert_eq!(error.tail, Some(40));
            }
        }
    }
    assert_eq!(offset, 98);
    assert!(next(&mut answers).await.is_none(), "a half-closed session ends");
    node.stop().await;
}

#[tokio::test]
async fn a_session_holds_a_client_back_that_is_far_ahead_and_answers_all() {
    let mut node = TestNode::start_with(|config| config.listen.session_appends = 2).await;
    let requests = tokio_stream::iter(
        (0..300_u64).map(|request| v1::AppendSessionRequest { request, append: Some(append("s", &["x"])) }),
    );
    let mut answers = node.log.append_session(requests).await.unwrap().into_inner();
    for number in 0..300_u64 {
        assert_eq!(next(&mut answers).await.unwrap().unwrap().request, number);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stopping_node_ends_sessions_and_followers_with_a_status() {
    let mut node = TestNode::start().await;
    node.log.append(append("s", &["a"])).await.unwrap();
    let (sender, requests) = mpsc::channel(1);
    let mut answers = node.log.append_session(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let read = v1::ReadRequest { stream: "s".to_owned(), follow: true, ..v1::ReadRequest::default() };
    let mut follower = node.log.read(read).await.unwrap().into_inner();
    next(&mut follower).await.unwrap().unwrap();
    assert!(node.serving.drain(SOON).await, "neither holds the end up");
    let status = next(&mut answers).await.unwrap().unwrap_err();
    assert_eq!(error_of(&status).unwrap().known_code(), Some(ErrorCode::Unavailable));
    let status = loop {
        match next(&mut follower).await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    drop(sender);
    node.node.shutdown(SOON).await.unwrap();
}

#[tokio::test]
async fn a_read_says_where_it_starts_and_gives_records_or_batches() {
    let mut node = TestNode::start().await;
    node.log.append(append("s", &["a", "b", "c"])).await.unwrap();
    let request = |format: v1::ReadFormat| v1::ReadRequest {
        stream: "s".to_owned(),
        from: Some(read_request::From::Offset(1)),
        limit_records: Some(1),
        format: format.into(),
        ..v1::ReadRequest::default()
    };
    let mut records = node.log.read(request(v1::ReadFormat::Records)).await.unwrap().into_inner();
    let first = next(&mut records).await.unwrap().unwrap();
    assert_eq!((first.next_offset, first.tail, first.records.len()), (1, 3, 0));
    let second = next(&mut records).await.unwrap().unwrap();
    assert_eq!(second.records.len(), 1);
    assert_eq!((second.records[0].offset, second.records[0].value.as_deref()), (1, Some(&b"b"[..])));
    assert_eq!(second.next_offset, 2);
    assert!(next(&mut records).await.is_none());

    let mut batches = node.log.read(request(v1::ReadFormat::Batches)).await.unwrap().into_inner();
    next(&mut batches).await.unwrap().unwrap();
    let message = next(&mut batches).await.unwrap().unwrap();
    assert_eq!(message.next_offset, 2);
    let (base, bytes) = batch::normalise(message.batches[0].data.clone()).unwrap();
    assert_eq!(base, Offset::ZERO);
    assert_eq!(Batch::from_trusted(bytes).unwrap().count(), 3, "whole batches, as stored");
    node.stop().await;
}

#[tokio::test]
async fn small_batches_come_together_in_order_and_within_the_limits_of_the_read() {
    const BATCHES: u64 = 40;
    let mut node = TestNode::start().await;
    for _ in 0..BATCHES {
        node.log.append(append("s", &["a"])).await.unwrap();
    }
    // The number of messages with batches, and the bytes of each batch.
    let read = async |limit_records, limit_bytes| {
        let request = v1::ReadRequest {
            stream: "s".to_owned(),
            limit_records,
            limit_bytes,
            format: v1::ReadFormat::Batches.into(),
            ..v1::ReadRequest::default()
        };
        let mut answers = node.log.clone().read(request).await.unwrap().into_inner();
        let (mut messages, mut bytes) = (0, Vec::new());
        next(&mut answers).await.unwrap().unwrap();
        while let Some(message) = next(&mut answers).await {
            let message = message.unwrap();
            messages += 1;
            for stored in &message.batches {
                let (base, _) = batch::normalise(stored.data.clone()).unwrap();
                assert_eq!(base.get(), bytes.len() as u64);
                bytes.push(stored.data.len() as u64);
            }
            assert_eq!(message.next_offset, bytes.len() as u64);
        }
        (messages, bytes)
    };
    let (messages, bytes) = read(None, None).await;
    assert_eq!(bytes.len() as u64, BATCHES);
    assert!(messages <= BATCHES / 4, "{BATCHES} batches came in {messages} messages");
    assert_eq!(read(Some(7), None).await.1.len(), 7);
    assert_eq!(read(None, Some(bytes[0] * 7 / 2)).await.1.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn a_follower_gets_what_is_appended_later() {
    let mut node = TestNode::start().await;
    node.log.append(append("s", &["a"])).await.unwrap();
    let request = v1::ReadRequest {
        stream: "s".to_owned(),
        from: Some(read_request::From::Tail(v1::Tail {})),
        follow: true,
        format: v1::ReadFormat::Records.into(),
        ..v1::ReadRequest::default()
    };
    let mut follower = node.log.read(request).await.unwrap().into_inner();
    assert_eq!(next(&mut follower).await.unwrap().unwrap().next_offset, 1);
    node.log.append(append("s", &["b"])).await.unwrap();
    let message = next(&mut follower).await.unwrap().unwrap();
    assert_eq!(message.records[0].value.as_deref(), Some(&b"b"[..]));
    drop(follower);
    node.stop().await;
}

#[tokio::test]
async fn a_failed_call_carries_its_error_and_the_hybrid_time() {
    let mut node = TestNode::start().await;
    let describe =
        v1::DescribeStreamRequest { stream: "none".to_owned(), ..v1::DescribeStreamRequest::default() };
    let status = node.log.describe_stream(describe).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(error_of(&status).unwrap().known_code(), Some(ErrorCode::UnknownStream));
    assert!(status.metadata().contains_key(TIME_HEADER));

    let mut ahead = Request::new(append("s", &["a"]));
    ahead.metadata_mut().insert(SEEN_HEADER, "9000000000000000".parse().unwrap());
    let status = node.log.append(ahead).await.unwrap_err();
    assert_eq!(error_of(&status).unwrap().known_code(), Some(ErrorCode::FutureTime));

    let response = node.log.append(append("s", &["a"])).await.unwrap();
    let time: u64 = response.metadata().get(TIME_HEADER).unwrap().to_str().unwrap().parse().unwrap();
    assert!(time >= response.get_ref().time);
    node.stop().await;
}

#[tokio::test]
async fn management_calls_do_what_they_say() {
    let mut node = TestNode::start().await;
    let named = |name: &str| v1::CreateStreamRequest {
        stream: name.to_owned(),
        ..v1::CreateStreamRequest::default()
    };
    for name in ["a", "b", "c"] {
        node.log.create_stream(named(name)).await.unwrap();
    }
    let status = node.log.create_stream(named("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let list = v1::ListStreamsRequest { page_size: 2, ..v1::ListStreamsRequest::default() };
    let page = node.log.list_streams(list.clone()).await.unwrap().into_inner();
    assert_eq!((page.streams.len(), page.next_page_token.is_empty()), (2, false));
    let rest = v1::ListStreamsRequest { page_token: page.next_page_token, ..list };
    let page = node.log.list_streams(rest).await.unwrap().into_inner();
    assert_eq!((page.streams[0].name.as_str(), page.next_page_token.as_str()), ("c", ""));

    node.log.append(append("a", &["x", "y"])).await.unwrap();
    let commit = v1::CommitCursorRequest {
        stream: "a".to_owned(),
        cursor: "me".to_owned(),
        offset: 1,
        ..v1::CommitCursorRequest::default()
    };
    assert_eq!(node.log.commit_cursor(commit).await.unwrap().into_inner().lag_records, 1);
    let list = v1::ListCursorsRequest { stream: "a".to_owned(), ..v1::ListCursorsRequest::default() };
    assert_eq!(node.log.list_cursors(list).await.unwrap().into_inner().cursors[0].cursor, "me");
    let trim = v1::TrimStreamRequest { stream: "a".to_owned(), to: 1, ..v1::TrimStreamRequest::default() };
    assert_eq!(node.log.trim_stream(trim).await.unwrap().into_inner().first_readable, 1);
    let patch = v1::StreamConfigPatch { retention_bytes: Some(5), ..v1::StreamConfigPatch::default() };
    let change = v1::ConfigureStreamRequest {
        stream: "a".to_owned(),
        patch: Some(patch),
        ..v1::ConfigureStreamRequest::default()
    };
    let changed = node.log.configure_stream(change).await.unwrap().into_inner();
    assert_eq!(changed.config.unwrap().retention_bytes, Some(5));
    let first = node.log.allocate_producer(v1::AllocateProducerRequest {}).await.unwrap().into_inner();
    let second = node.log.allocate_producer(v1::AllocateProducerRequest {}).await.unwrap().into_inner();
    assert_ne!(first, second);
    let tenants = node.log.list_tenants(v1::ListTenantsRequest::default()).await.unwrap().into_inner();
    assert_eq!(tenants.tenants[0].name, "default");
    node.stop().await;
}

#[tokio::test]
async fn users_neither_create_nor_append_to_the_systems_streams() {
    let mut node = TestNode::start().await;
    for name in ["a~rescued", "a~7"] {
        let create =
            v1::CreateStreamRequest { stream: name.to_owned(), ..v1::CreateStreamRequest::default() };
        let created = node.log.create_stream(create).await.unwrap_err();
        let appended = node.log.append(append(name, &["x"])).await.unwrap_err();
        for status in [created, appended] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(name) && status.message().contains("belongs to the system"));
        }
        // Its name is a name: such a stream may be there.
        let describe =
            v1::DescribeStreamRequest { stream: name.to_owned(), ..v1::DescribeStreamRequest::default() };
        let status = node.log.describe_stream(describe).await.unwrap_err();
        assert_eq!(error_of(&status).unwrap().known_code(), Some(ErrorCode::UnknownStream));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_streams_rescue_policy_is_set_and_shown() {
    let mut node = TestNode::start().await;
    let append = v1::RescuePolicy::Append;
    let config = v1::StreamConfig { rescue: append.into(), ..v1::StreamConfig::default() };
    let create = v1::CreateStreamRequest {
        stream: "a".to_owned(),
        config: Some(config),
        ..v1::CreateStreamRequest::default()
    };
    let created = node.log.create_stream(create).await.unwrap().into_inner();
    let policies = |info: v1::StreamInfo| [info.config, info.effective_config].map(|it| it.unwrap().rescue());
    assert_eq!(policies(created), [append, append]);
    let to_default = v1::StreamConfigPatch {
        rescue: Some(v1::RescuePolicy::Unspecified.into()),
        ..v1::StreamConfigPatch::default()
    };
    let change = v1::ConfigureStreamRequest {
        stream: "a".to_owned(),
        patch: Some(to_default),
        ..v1::ConfigureStreamRequest::default()
    };
    let changed = node.log.configure_stream(change).await.unwrap().into_inner();
    assert_eq!(policies(changed), [v1::RescuePolicy::Unspecified, v1::RescuePolicy::Separate]);
    node.stop().await;
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let node = TestNode::start().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.serving.clients()))
        .unwrap()
        .connect_timeout(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    for service in ["", "duramen.v1.Log"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        next(&mut answers).await.unwrap().unwrap().message_response
    else {
        panic!("reflection lists services");
    };
    assert!(list.service.iter().any(|service| service.name == "duramen.v1.Log"), "{list:?}");

    use tonic_reflection::pb::v1alpha;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "duramen.v1.Log".to_owned(),
        )),
    };
    let mut answers = v1alpha::server_reflection_client::ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = next(&mut answers).await.unwrap().unwrap().message_response;
    use v1alpha::server_reflection_response::MessageResponse as Older;
    assert!(matches!(answer, Some(Older::FileDescriptorResponse(_))), "{answer:?}");
    node.stop().await;
}
