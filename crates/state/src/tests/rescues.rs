use duramen_types::{ControlOp, EntryBody, FencingToken, Offset, RescueOrigin, StreamId, Term};

use super::{Feed, at, header, produced};
use crate::{BatchOutcome, ControlResult, Rejection};

fn rescue(feed: &mut Feed, stream: StreamId, term: u64, index: u64, records: &[u32]) -> Vec<BatchOutcome> {
    let origin = RescueOrigin { term: Term::new(term), index: at(index) };
    let batches = records.iter().map(|records| header(stream, *records)).collect();
    feed.apply(EntryBody::Rescue { origin, batches }).batches
}

fn appended(base: u64) -> BatchOutcome {
    BatchOutcome::Appended { base: Offset::new(base) }
}

fn nothing_taken(tail: u64) -> BatchOutcome {
    BatchOutcome::Duplicate { base: Offset::new(tail) }
}

#[test]
fn an_origin_with_batches_of_two_streams_is_rescued_into_both() {
    let mut feed = Feed::new();
    let (one, other) = (feed.create("one"), feed.create("other"));
    feed.term = Term::new(4);
    // A rescue is of one stream: a displaced entry with batches of two makes two of them.
    assert_eq!(rescue(&mut feed, one, 1, 100, &[2, 3]), [appended(0), appended(2)]);
    assert_eq!(rescue(&mut feed, other, 1, 100, &[4]), [appended(0)]);
    assert_eq!(rescue(&mut feed, one, 1, 100, &[2, 3]), [nothing_taken(5), nothing_taken(5)]);
    assert_eq!(rescue(&mut feed, other, 1, 100, &[4]), [nothing_taken(4)]);
    assert_eq!(rescue(&mut feed, one, 1, 101, &[1]), [appended(5)]);
}

#[test]
fn what_the_log_holds_is_not_rescued() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(header(stream, 1));
    feed.term = Term::new(2);
    feed.append(header(stream, 1));
    assert_eq!(rescue(&mut feed, stream, 1, 2, &[1]), [nothing_taken(2)]);
    assert_eq!(rescue(&mut feed, stream, 2, 3, &[1]), [nothing_taken(2)]);
    assert_eq!(rescue(&mut feed, stream, 1, 3, &[1]), [appended(2)], "term 1 lost index 3 to term 2");
}

#[test]
fn a_rescue_checks_no_condition_and_moves_no_producer() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(produced(stream, 1, 9, 0, 0));
    let token = Some(FencingToken::parse("mine").unwrap());
    let op = ControlOp::SetFencingToken { stream, expected: None, token: token.clone() };
    assert_eq!(feed.control(op), Ok(ControlResult::Done));
    let mut batch = produced(stream, 1, 9, 0, 1);
    batch.match_offset = Some(Offset::new(77));
    let origin = RescueOrigin { term: Term::ZERO, index: at(5) };
    let outcome = feed.apply(EntryBody::Rescue { origin, batches: vec![batch.clone()] }).batches;
    assert_eq!(outcome, [appended(1)]);
    batch.match_offset = None;
    batch.fencing_token = token;
    assert_eq!(feed.append(batch), appended(2), "the producer's next sequence is still 1");
}

#[test]
fn a_rescue_into_a_stream_that_is_gone_is_refused_and_leaves_nothing_behind() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let kept = feed.create("b");
    feed.term = Term::new(3);
    rescue(&mut feed, stream, 1, 9, &[1]);
    rescue(&mut feed, kept, 1, 9, &[1]);
    assert_eq!(feed.control(ControlOp::DeleteStream { stream }), Ok(ControlResult::Done));
    let gone = BatchOutcome::Rejected(Rejection::UnknownStream(stream));
    assert_eq!(rescue(&mut feed, stream, 1, 9, &[1]), std::slice::from_ref(&gone));
    assert_eq!(rescue(&mut feed, stream, 1, 10, &[1]), std::slice::from_ref(&gone));
    assert_eq!(feed.state.rescued.iter().collect::<Vec<_>>(), [&(kept, Term::new(1), at(9))]);
}
