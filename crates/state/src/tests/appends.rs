use std::time::Duration;

use duramen_types::{
    BatchHeader, ControlOp, EntryBody, FencingToken, HybridTime, Offset, ProducerId, StreamId,
};

use super::{Feed, header, produced};
use crate::{
    BatchOutcome, ControlResult, MAX_CURSORS_PER_STREAM, MAX_PRODUCERS_PER_STREAM, PRODUCER_EXPIRY,
    PRODUCERS_FORGOTTEN_AT_ONCE, Rejection,
};

fn appended(base: u64) -> BatchOutcome {
    BatchOutcome::Appended { base: Offset::new(base) }
}

fn duplicate(base: u64, time: HybridTime) -> BatchOutcome {
    BatchOutcome::Duplicate { base: Offset::new(base), time }
}

fn out_of_order(found: u32, expected: u32) -> BatchOutcome {
    BatchOutcome::Rejected(Rejection::OutOfOrderSequence { found, expected })
}

fn token(text: &str) -> Option<FencingToken> {
    Some(FencingToken::parse(text).unwrap())
}

fn set_token(feed: &mut Feed, stream: StreamId, from: Option<FencingToken>, to: Option<FencingToken>) {
    let op = ControlOp::SetFencingToken { stream, expected: from, token: to };
    assert_eq!(feed.control(op), Ok(ControlResult::Done));
}

#[test]
fn a_stream_is_known_by_the_index_of_its_create_entry() {
    let mut feed = Feed::new();
    let first = feed.create("a");
    assert_eq!(first.get(), 1);
    feed.append(header(first, 3));
    assert_eq!(feed.control(ControlOp::DeleteStream { stream: first }), Ok(ControlResult::Done));
    let second = feed.create("a");
    assert_eq!(second.get(), 4);
    assert_eq!(feed.tail(second), Offset::ZERO);
    assert_eq!(feed.append(header(first, 1)), BatchOutcome::Rejected(Rejection::UnknownStream(first)));
    assert_eq!(feed.append(header(second, 1)), appended(0));
}

#[test]
fn conditions_are_evaluated_in_log_order_within_an_entry() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let at = |offset| BatchHeader { match_offset: Some(Offset::new(offset)), ..header(stream, 2) };
    let batches = feed.apply(EntryBody::Append(vec![at(0), at(0), at(2), header(stream, 1), at(5)])).batches;
    let mismatch = Rejection::OffsetMismatch { expected: Offset::ZERO, tail: Offset::new(2) };
    let expected = vec![appended(0), BatchOutcome::Rejected(mismatch), appended(2), appended(4), appended(5)];
    assert_eq!(batches, expected);
}

#[test]
fn a_repeated_conditional_append_gets_its_first_answer() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let batch = BatchHeader { match_offset: Some(Offset::ZERO), ..produced(stream, 2, 9, 0, 0) };
    assert_eq!(feed.append(batch.clone()), appended(0));
    let first = feed.state.time();
    assert_eq!(feed.append(batch), duplicate(0, first));
}

#[test]
fn a_repeated_append_gets_its_first_answer_from_behind_a_new_fencing_token() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    set_token(&mut feed, stream, None, token("old"));
    let by_old =
        |sequence| BatchHeader { fencing_token: token("old"), ..produced(stream, 2, 9, 0, sequence) };
    assert_eq!(feed.append(by_old(0)), appended(0));
    let first = feed.state.time();
    set_token(&mut feed, stream, token("old"), token("new"));
    assert_eq!(feed.append(by_old(0)), duplicate(0, first), "its records are in the stream");
    let fenced = BatchOutcome::Rejected(Rejection::Fenced { current: token("new") });
    assert_eq!(feed.append(by_old(2)), fenced);
    assert_eq!(feed.append(header(stream, 1)), fenced);
    assert_eq!(feed.tail(stream).get(), 2);
}

#[test]
fn a_token_where_the_stream_has_none_is_not_looked_at() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let batch = BatchHeader { fencing_token: token("mine"), ..header(stream, 1) };
    assert_eq!(feed.append(batch), appended(0));
}

#[test]
fn a_refused_batch_uses_up_no_sequence_number() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    assert_eq!(feed.append(produced(stream, 2, 9, 0, 0)), appended(0));
    let wrong = BatchHeader { match_offset: Some(Offset::new(7)), ..produced(stream, 2, 9, 0, 2) };
    assert!(matches!(feed.append(wrong), BatchOutcome::Rejected(Rejection::OffsetMismatch { .. })));
    assert_eq!(feed.append(produced(stream, 2, 9, 0, 4)), out_of_order(4, 2));
    assert_eq!(feed.append(produced(stream, 2, 9, 0, 2)), appended(2));
}

#[test]
fn the_last_five_batches_of_a_producer_are_remembered() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let mut times = Vec::new();
    for sequence in 0..6 {
        assert_eq!(feed.append(produced(stream, 1, 9, 0, sequence)), appended(sequence.into()));
        times.push(feed.state.time());
    }
    assert_eq!(feed.append(produced(stream, 1, 9, 0, 0)), out_of_order(0, 6));
    for (sequence, time) in (0..6).zip(times).skip(1) {
        assert_eq!(feed.append(produced(stream, 1, 9, 0, sequence)), duplicate(sequence.into(), time));
    }
    assert_eq!(
        feed.append(produced(stream, 2, 9, 0, 5)),
        out_of_order(5, 6),
        "another length is another batch"
    );
}

#[test]
fn sequence_numbers_wrap_at_31_bits() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let last = (1 << 31) - 1;
    assert_eq!(feed.append(produced(stream, last, 9, 0, 0)), appended(0));
    assert_eq!(feed.append(produced(stream, 1, 9, 0, 1 << 31)), out_of_order(1 << 31, last));
    // From 2^31 - 1 through 2: Kafka counts ..., 2147483647, 0, 1.
    assert_eq!(feed.append(produced(stream, 3, 9, 0, last)), appended(last.into()));
    let first = feed.state.time();
    assert_eq!(feed.append(produced(stream, 1, 9, 0, 2)), appended(u64::from(last) + 3));
    assert_eq!(feed.append(produced(stream, 3, 9, 0, last)), duplicate(last.into(), first));
}

#[test]
fn an_epoch_begins_with_sequence_zero_and_fences_the_lower_ones() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(produced(stream, 1, 9, 4, 0));
    feed.append(produced(stream, 1, 9, 4, 1));
    assert_eq!(feed.append(produced(stream, 1, 9, 6, 2)), out_of_order(2, 0));
    assert_eq!(feed.append(produced(stream, 1, 9, 6, 0)), appended(2));
    let fenced = BatchOutcome::Rejected(Rejection::ProducerFenced { found: 4, current: 6 });
    assert_eq!(feed.append(produced(stream, 1, 9, 4, 1)), fenced, "even a repetition");
    assert_eq!(feed.append(produced(stream, 1, 9, 6, 1)), appended(3));
}

#[test]
fn an_unknown_producer_begins_with_sequence_zero() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let unknown = BatchOutcome::Rejected(Rejection::UnknownProducer(ProducerId::new(9)));
    assert_eq!(feed.append(produced(stream, 1, 9, 3, 1)), unknown);
    assert!(feed.state.stream(stream).unwrap().producers.is_empty());
    assert_eq!(feed.append(produced(stream, 1, 9, 3, 0)), appended(0));
}

#[test]
fn a_producer_expires_by_entry_time_and_not_by_any_clock() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(produced(stream, 1, 9, 2, 0));
    let seen = feed.state.time();
    let append_at =
        |feed: &mut Feed, time, batch| feed.apply_at(time, EntryBody::Append(vec![batch])).batches.remove(0);
    let almost = seen.after(PRODUCER_EXPIRY - Duration::from_micros(1));
    assert_eq!(append_at(&mut feed, almost, produced(stream, 1, 9, 2, 0)), duplicate(0, seen));
    // A repetition is no sign of life.
    let expired = seen.after(PRODUCER_EXPIRY);
    let unknown = BatchOutcome::Rejected(Rejection::UnknownProducer(ProducerId::new(9)));
    assert_eq!(append_at(&mut feed, expired, produced(stream, 1, 9, 2, 1)), unknown);
    assert_eq!(append_at(&mut feed, expired.next(), produced(stream, 1, 9, 1, 0)), appended(1));
    assert_eq!(feed.append(produced(stream, 1, 9, 1, 1)), appended(2));
}

#[test]
fn one_producer_too_many_makes_a_stream_forget_those_silent_longest() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let most = u64::try_from(MAX_PRODUCERS_PER_STREAM).unwrap();
    // In one entry, so that they were all seen at the same time; then the first two show a sign of life.
    let batches = (0..most).map(|id| produced(stream, 1, id, 0, 0)).collect();
    feed.apply(EntryBody::Append(batches));
    for id in 0..2 {
        assert_eq!(feed.append(produced(stream, 1, id, 0, 1)), appended(most + id));
    }
    let first = feed.state.time().before(Duration::from_micros(1));
    assert_eq!(feed.state.stream(stream).unwrap().producers.len(), MAX_PRODUCERS_PER_STREAM);
    assert_eq!(feed.append(produced(stream, 1, most, 0, 0)), appended(most + 2));

    let known = &feed.state.stream(stream).unwrap().producers;
    let forgotten: Vec<_> = (0..=most).filter(|id| !known.contains_key(&ProducerId::new(*id))).collect();
    let lowest = 2 + u64::try_from(PRODUCERS_FORGOTTEN_AT_ONCE).unwrap();
    assert_eq!(forgotten, (2..lowest).collect::<Vec<_>>(), "of those seen together, the lowest ids go");
    assert_eq!(feed.append(produced(stream, 1, 0, 0, 1)), duplicate(most, first));
}

#[test]
fn a_full_stream_still_moves_the_cursors_it_has() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(header(stream, 1));
    let commit = |name: String, offset| ControlOp::CommitCursor {
        stream,
        cursor: duramen_types::CursorName::parse(&name).unwrap(),
        offset: Offset::new(offset),
    };
    for number in 0..MAX_CURSORS_PER_STREAM {
        assert_eq!(feed.control(commit(number.to_string(), 0)), Ok(ControlResult::Done));
    }
    let refused = feed.control(commit("one more".to_owned(), 0));
    assert!(matches!(refused, Err(Rejection::TooMany { limit: MAX_CURSORS_PER_STREAM, .. })));
    assert_eq!(feed.control(commit("77".to_owned(), 1)), Ok(ControlResult::Done));
}
