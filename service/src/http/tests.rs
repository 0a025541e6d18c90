use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use duramen_types::Offset;

use super::error::{ErrorBody, status_of};
use super::*;

#[test]
fn the_openapi_document_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == openapi(),
        "docs/openapi.json is out of date; run: cargo run -p duramen -- openapi > docs/openapi.json"
    );
}

#[test]
fn every_operation_documents_its_errors_in_the_one_shape() {
    let document: serde_json::Value = serde_json::from_str(&openapi()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let default = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(default, "#/components/schemas/ErrorBody", "{method} {path}");
            operations.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(operations.len(), 18, "operation ids are unique: {operations:?}");
}

#[test]
fn an_error_has_a_stable_shape() {
    let error = Error::new(Code::OffsetMismatch, "the tail is elsewhere").with_tail(Offset::new(7));
    assert_eq!(
        serde_json::to_value(ErrorBody::of(&error)).unwrap(),
        serde_json::json!({"error": {
            "code": "offset_mismatch",
            "message": "the tail is elsewhere",
            "retryable": false,
            "may_have_had_effect": false,
            "tail": 7,
        }})
    );
}

#[test]
fn codes_have_the_status_that_http_clients_act_on() {
    for (code, status) in [
        (Code::InvalidArgument, 400),
        (Code::UnknownStream, 404),
        (Code::StreamExists, 409),
        (Code::LimitReached, 409),
        (Code::OffsetMismatch, 412),
        (Code::Fenced, 412),
        (Code::BatchTooLarge, 413),
        (Code::OutOfRange, 416),
        (Code::ResourceExhausted, 429),
        (Code::Unavailable, 503),
        (Code::UnknownOutcome, 504),
        (Code::DiskFull, 507),
    ] {
        assert_eq!(status_of(code).as_u16(), status, "{code:?}");
    }
}

#[test]
fn a_client_that_should_wait_is_told_how_long() {
    let response = Failure::from(Error::new(Code::ResourceExhausted, "busy")).into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["content-type"], "application/json");
}
