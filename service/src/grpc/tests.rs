use duramen_proto::{ErrorCode, error_of, status_of, v1};
use duramen_types::Offset;

use super::page::page;
use super::*;
use crate::api::{Code, More};

#[test]
fn an_error_travels_with_its_positions_and_its_codes_flags() {
    let mut error = Error::new(Code::OutOfRange, "below the trim point").with_first_readable(Offset::new(10));
    error.tail = Some(Offset::new(20));
    let status = status_of(&wire_error(&error));
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    let found = error_of(&status).unwrap();
    assert_eq!(found.known_code(), Some(ErrorCode::OutOfRange));
    assert_eq!((found.first_readable, found.tail, found.retryable), (Some(10), Some(20), false));
    let more = More { limit: Some(1024), record: Some(3), ..More::default() };
    let large = wire_error(&Error::new(Code::RecordTooLarge, "?").with_more(more));
    assert_eq!((large.limit, large.record, large.retry_after_ms), (Some(1024), Some(3), None));
    let full = wire_error(&Error::new(Code::LimitReached, "?"));
    assert_eq!((full.known_code(), full.retryable), (Some(ErrorCode::LimitReached), false));
    assert!(wire_error(&Error::new(Code::ResourceExhausted, "?")).retry_after_ms > Some(0));
    let unknown = wire_error(&Error::new(Code::UnknownOutcome, "?"));
    assert!(unknown.may_have_had_effect && unknown.retryable);
}

#[test]
fn pages_cover_a_list_once_and_in_order() {
    let names: Vec<String> = (0..7).rev().map(|n| format!("n{n}")).collect();
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let (found, next) = page(names.clone(), String::as_str, 3, &token).unwrap();
        assert!(found.len() <= 3);
        seen.extend(found);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(seen, ["n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
}

#[test]
fn a_request_with_a_bad_part_is_refused_with_its_rule() {
    let append = |change: fn(&mut v1::AppendRequest)| {
        let mut request = v1::AppendRequest {
            stream: "s".to_owned(),
            payload: Some(v1::append_request::Payload::Records(v1::Records::default())),
            ..v1::AppendRequest::default()
        };
        change(&mut request);
        convert::append(request).map(|_| ()).map_err(|error| error.message)
    };
    assert_eq!(append(|_| ()), Ok(()));
    for (change, part) in [
        ((|request| request.stream = "a/b".to_owned()) as fn(&mut v1::AppendRequest), "contains '/'"),
        (|request| request.tenant = "Upper".to_owned(), "tenant name"),
        (|request| request.payload = None, "needs records"),
        (|request| request.acknowledgement = 9, "level 9 is not known"),
        (|request| request.producer = Some(v1::Producer { id: 1, epoch: 40_000, sequence: 0 }), "32767"),
        (|request| request.fencing_token = Some(String::new()), "fencing token"),
    ] {
        let message = append(change).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
}
