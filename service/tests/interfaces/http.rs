//! HTTP/JSON for clients.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{SOON, TestNode, expect, refused};

fn values(page: &Value) -> Vec<&str> {
    page["records"].as_array().unwrap().iter().map(|record| record["value"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn records_come_back_as_they_were_appended() {
    let node = TestNode::start().await;
    let url = node.stream("s/records");
    let body = json!({"records": [
        {"key": "k", "value": "text", "headers": {"h": "1"}, "timestamp": 1_700_000_000_000_i64},
        {"value": {"base64": "AP8="}},
        {},
    ]});
    let ack = expect(node.client.post(&url).json(&body), StatusCode::OK).await;
    assert_eq!((&ack["first_offset"], &ack["next_offset"]), (&json!(0), &json!(3)));
    let raw =
        node.client.post(format!("{url}?key=r")).header("content-type", "text/plain").body("raw\nbytes");
    expect(raw, StatusCode::OK).await;

    let page = node.get(url.clone()).await;
    assert_eq!(page["encoding"], "text");
    assert_eq!(
        (&page["next_offset"], &page["tail"], &page["first_readable"]),
        (&json!(4), &json!(4), &json!(0))
    );
    let records = page["records"].as_array().unwrap();
    assert_eq!(records[0]["key"], "k");
    assert_eq!(records[0]["timestamp"], 1_700_000_000_000_i64);
    assert_eq!(records[0]["headers"], json!([{"name": "h", "value": "1"}]));
    assert_eq!(records[1]["value"], json!({"base64": "AP8="}));
    assert_eq!((&records[2]["key"], &records[2]["value"]), (&Value::Null, &Value::Null));
    assert_eq!((&records[3]["key"], &records[3]["value"]), (&json!("r"), &json!("raw\nbytes")));

    let page = node.get(format!("{url}?encoding=base64&limit=1")).await;
    assert_eq!(page["records"][0]["value"], json!({"base64": "dGV4dA=="}));
    assert_eq!(page["next_offset"], 1);
    node.stop().await;
}

#[tokio::test]
async fn a_read_starts_where_it_is_told() {
    let node = TestNode::start().await;
    node.append("s", &["a", "b", "c"]).await;
    let from = async |from: &str| node.get(node.stream(&format!("s/records?from={from}"))).await;
    assert_eq!(values(&from("1").await), ["b", "c"]);
    assert_eq!(values(&from("earliest").await), ["a", "b", "c"]);
    assert_eq!(values(&from("tail").await), Vec::<&str>::new());
    assert_eq!(values(&from("timestamp:0").await), ["a", "b", "c"]);
    assert_eq!(values(&from("2100-01-01T00:00:00Z").await), Vec::<&str>::new());
    let cursor = node.client.put(node.stream("s/cursors/mine")).json(&json!({"offset": 2}));
    assert_eq!(expect(cursor, StatusCode::OK).await["lag_records"], 1);
    assert_eq!(values(&from("cursor:mine").await), ["c"]);
    node.stop().await;
}

#[tokio::test]
async fn failures_have_one_shape_and_the_position_that_helps() {
    let node = TestNode::start().await;
    let client = &node.client;
    node.append("s", &["a", "b"]).await;
    let records = node.stream("s/records");

    let error =
        refused(client.post(format!("{records}?match_offset=0")).body("x"), 412, "offset_mismatch").await;
    assert_eq!(error["tail"], 2);
    let error = refused(client.get(format!("{records}?from=9")), 416, "out_of_range").await;
    assert_eq!(error["tail"], 2);
    let trim = client.post(node.stream("s/trim")).json(&json!({"to": 1}));
    assert_eq!(expect(trim, StatusCode::OK).await["first_readable"], 1);
    let error = refused(client.get(format!("{records}?from=0")), 416, "out_of_range").await;
    assert_eq!(error["first_readable"], 1);

    refused(client.get(node.stream("none")), 404, "unknown_stream").await;
    refused(client.get(node.url("/v1/tenants/nobody/streams/s")), 404, "unknown_tenant").await;
    refused(client.get(node.stream("s/cursors/none")), 404, "unknown_cursor").await;
    refused(client.get(node.stream("a~b")), 400, "invalid_argument").await;
    refused(client.put(node.stream("s")), 409, "stream_exists").await;
    refused(client.get(format!("{records}?form=0")), 400, "invalid_argument").await;
    refused(client.get(format!("{records}?limit=0")), 400, "invalid_argument").await;
    refused(client.get(format!("{records}?as_of=2100-01-01T00:00:00Z")), 400, "future_time").await;
    refused(client.patch(node.stream("s")).body("{"), 400, "invalid_argument").await;
    refused(client.get(node.url("/v2")), 404, "unimplemented").await;
    refused(client.put(records.clone()), 405, "unimplemented").await;
    let empty = client.post(&records).header("content-type", "application/json").body("{\"records\":[]}");
    refused(empty, 400, "empty_batch").await;
    refused(client.post(&records).body(vec![b'x'; 2 << 20]), 413, "record_too_large").await;
    refused(client.post(&records).body(vec![b'x'; 21 << 20]), 413, "batch_too_large").await;
    refused(client.get(&records).header("duramen-seen", "soon"), 400, "invalid_argument").await;
    refused(client.get(&records).header("duramen-seen", "9000000000000000"), 400, "future_time").await;
    node.stop().await;
}

#[tokio::test]
async fn streams_are_created_changed_listed_and_deleted() {
    let node = TestNode::start().await;
    let client = &node.client;
    let config = json!({"acknowledgement": "quorum", "retention_bytes": 1000});
    let made = expect(client.put(node.stream("a")).json(&config), StatusCode::CREATED).await;
    assert_eq!(made["config"]["retention_bytes"], 1000);
    assert_eq!(made["effective_config"]["acknowledgement"], "quorum");
    let patch = client.patch(node.stream("a")).json(&json!({"retention_bytes": null, "compression": "none"}));
    let changed = expect(patch, StatusCode::OK).await;
    assert_eq!(
        (&changed["config"]["retention_bytes"], &changed["config"]["compression"]),
        (&Value::Null, &json!("none"))
    );
    assert_eq!(changed["config"]["acknowledgement"], "quorum", "absent fields stay");
    for name in ["ab", "ac", "b"] {
        expect(client.put(node.stream(name)), StatusCode::CREATED).await;
    }

    let list = node.url("/v1/tenants/default/streams?prefix=a&limit=2");
    let page = node.get(list.clone()).await;
    let names = |page: &Value| -> Vec<String> {
        page["streams"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page), ["a", "ab"]);
    let page = node.get(format!("{list}&page={}", page["next_page"].as_str().unwrap())).await;
    assert_eq!((names(&page), &page["next_page"]), (vec!["ac".to_owned()], &Value::Null));

    expect(client.delete(node.stream("a")), StatusCode::NO_CONTENT).await;
    refused(client.get(node.stream("a")), 404, "unknown_stream").await;
    node.stop().await;
}

#[tokio::test]
async fn the_past_of_a_deleted_stream_can_be_read() {
    let node = TestNode::start().await;
    let ack = node.append("s", &["a", "b"]).await;
    let time = jiff::Timestamp::from_microsecond(ack["time"].as_i64().unwrap()).unwrap();
    expect(node.client.delete(node.stream("s")), StatusCode::NO_CONTENT).await;
    let page = node.get(node.stream(&format!("s/records?as_of={time}"))).await;
    assert_eq!(values(&page), ["a", "b"]);
    node.stop().await;
}

#[tokio::test]
async fn tenants_producers_and_restore_points_have_their_places() {
    let node = TestNode::start().await;
    let client = &node.client;
    let tenants = node.url("/v1/tenants");
    expect(client.post(&tenants).json(&json!({"name": "acme"})), StatusCode::CREATED).await;
    refused(client.post(&tenants).json(&json!({"name": "acme"})), 409, "tenant_exists").await;
    let names: Vec<_> =
        node.get(tenants).await["tenants"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["acme", "default"]);

    let producer = expect(client.post(node.url("/v1/producers")), StatusCode::CREATED).await;
    let append = || {
        let stamp = format!("{}:0:0", producer["producer_id"]);
        client.post(node.stream("s/records")).header("duramen-producer", stamp).body("once")
    };
    let first = expect(append(), StatusCode::OK).await;
    assert_eq!(first["duplicate"], false);
    let again = expect(append(), StatusCode::OK).await;
    assert_eq!((&again["duplicate"], &again["next_offset"]), (&json!(true), &json!(1)));
    assert!(first["time"].is_number());
    assert_eq!(again["time"], first["time"], "a repetition gets the first answer");

    let points = node.url("/v1/restore-points");
    let point = expect(client.post(&points).json(&json!({"name": "before"})), StatusCode::CREATED).await;
    assert_eq!(node.get(points).await["restore_points"], json!([point]));
    node.stop().await;
}

#[tokio::test]
async fn a_fenced_stream_takes_appends_with_its_token_only() {
    let node = TestNode::start().await;
    node.append("s", &["a"]).await;
    let set = node.client.put(node.stream("s/fencing-token")).json(&json!({"token": "mine"}));
    expect(set, StatusCode::NO_CONTENT).await;
    let append = || node.client.post(node.stream("s/records")).body("x");
    refused(append(), 412, "fenced").await;
    expect(append().header("duramen-fencing-token", "mine"), StatusCode::OK).await;
    let set =
        node.client.put(node.stream("s/fencing-token")).json(&json!({"expected": "other", "token": "new"}));
    refused(set, 412, "fenced").await;
    node.stop().await;
}

/// Reads events until there are `count` records; gives (event, id, data) of everything.
async fn events(mut response: reqwest::Response, count: usize) -> Vec<(String, String, Value)> {
    let (mut text, mut found) = (String::new(), Vec::new());
    let mut records = 0;
    while records < count {
        let chunk = tokio::time::timeout(SOON, response.chunk()).await.expect("an event in time").unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("the stream of events goes on")).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            let data = serde_json::from_str(&field("data:")).unwrap_or(Value::Null);
            records += usize::from(field("event:") == "record");
            found.push((field("event:"), field("id:"), data));
            text = rest.to_owned();
        }
    }
    found
}

#[tokio::test]
async fn a_followed_stream_sends_events_and_goes_on_after_the_last_one() {
    let node = TestNode::start().await;
    node.append("s", &["a", "b"]).await;
    let follow = node.stream("s/records?follow=true&from=1");
    let response = node.client.get(&follow).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    node.append("s", &["c"]).await;
    let seen = events(response, 2).await;
    let short: Vec<_> =
        seen.iter().map(|(kind, id, data)| (kind.as_str(), id.as_str(), &data["value"])).collect();
    assert_eq!(
        short,
        [("position", "1", &Value::Null), ("record", "2", &json!("b")), ("record", "3", &json!("c"))]
    );

    let response = node.client.get(&follow).header("last-event-id", "2").send().await.unwrap();
    let seen = events(response, 1).await;
    assert_eq!(seen.last().unwrap().2["value"], "c");
    node.stop().await;
}

#[tokio::test]
async fn answers_carry_the_request_id_and_the_hybrid_time() {
    let node = TestNode::start().await;
    let ack = node.append("s", &["a"]).await;
    let response = node.client.get(node.stream("s")).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let time: u64 = response.headers()["duramen-time"].to_str().unwrap().parse().unwrap();
    assert!(time >= ack["time"].as_u64().unwrap());
    let response = node.client.get(node.stream("s")).send().await.unwrap();
    assert!(!response.headers()["x-request-id"].is_empty());
    node.stop().await;
}

#[tokio::test]
async fn the_openapi_document_is_served() {
    let node = TestNode::start().await;
    let document = node.get(node.url("/v1/openapi.json")).await;
    assert!(document["paths"]["/v1/tenants/{tenant}/streams/{stream}/records"]["post"].is_object());
    node.stop().await;
}
