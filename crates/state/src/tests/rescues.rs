use duramen_types::{
    Compression, ControlOp, CursorName, EntryBody, FencingToken, Offset, RescueOrigin, RescuePolicy,
    RetentionPolicy, StreamConfig, StreamId, Term,
};

use super::{Feed, at, header, produced, stream_name, tenant};
use crate::{BatchOutcome, ControlResult, Rejection, ShardState, Stream};

fn rescue(feed: &mut Feed, stream: StreamId, term: u64, index: u64, records: &[u32]) -> Vec<BatchOutcome> {
    let origin = RescueOrigin { term: Term::new(term), index: at(index) };
    let batches = records.iter().map(|records| header(stream, *records)).collect();
    feed.apply(EntryBody::Rescue { origin, batches }).batches
}

fn appended(base: u64) -> BatchOutcome {
    BatchOutcome::Appended { base: Offset::new(base) }
}

fn rescued(stream: StreamId, base: u64) -> BatchOutcome {
    BatchOutcome::Rescued { stream, base: Offset::new(base) }
}

fn nothing_taken(feed: &Feed, tail: u64) -> BatchOutcome {
    BatchOutcome::Duplicate { base: Offset::new(tail), time: feed.state.time() }
}

fn unknown(stream: StreamId) -> BatchOutcome {
    BatchOutcome::Rejected(Rejection::UnknownStream(stream))
}

fn configure(feed: &mut Feed, stream: StreamId, config: StreamConfig) {
    let expected = feed.state.stream(stream).unwrap().config.clone();
    let op = ControlOp::ConfigureStream { stream, expected, config };
    assert_eq!(feed.control(op), Ok(ControlResult::Done));
}

fn delete(feed: &mut Feed, stream: StreamId) {
    assert_eq!(feed.control(ControlOp::DeleteStream { stream }), Ok(ControlResult::Done));
}

fn named<'a>(state: &'a ShardState, name: &str) -> Option<(StreamId, &'a Stream)> {
    let id = state.stream_id(&tenant("default"), &stream_name(name))?;
    Some((id, state.stream(id).unwrap()))
}

/// The id that a stream gets which the next entry creates.
fn next(feed: &Feed) -> StreamId {
    StreamId::new(feed.state.end().get())
}

#[test]
fn what_is_rescued_goes_to_a_stream_of_its_own_which_the_rescue_creates() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(header(stream, 3));
    feed.term = Term::new(4);
    let created = next(&feed);
    assert_eq!(rescue(&mut feed, stream, 1, 100, &[2, 3]), [rescued(created, 0), rescued(created, 2)]);
    assert_eq!(feed.tail(stream).get(), 3);
    let (id, found) = named(&feed.state, "a~rescued").unwrap();
    assert_eq!((id, found.next.get(), found.appended_bytes), (created, 5, 50));
    assert_eq!((found.created, found.last_append), (feed.state.time(), feed.state.time()));
    assert_eq!(rescue(&mut feed, stream, 1, 101, &[1]), [rescued(created, 5)], "the next one finds it");
    assert_eq!(feed.state.streams().len(), 2);
}

#[test]
fn a_stream_with_the_policy_append_takes_it_at_its_own_tail() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let append = StreamConfig { rescue: Some(RescuePolicy::Append), ..StreamConfig::default() };
    configure(&mut feed, stream, append);
    feed.append(header(stream, 3));
    feed.term = Term::new(4);
    assert_eq!(rescue(&mut feed, stream, 1, 100, &[2, 3]), [appended(3), appended(5)]);
    assert_eq!(
        rescue(&mut feed, stream, 1, 100, &[2, 3]),
        [nothing_taken(&feed, 8), nothing_taken(&feed, 8)]
    );
    assert!(named(&feed.state, "a~rescued").is_none());
    configure(&mut feed, stream, StreamConfig::default());
    let created = next(&feed);
    assert_eq!(
        rescue(&mut feed, stream, 1, 101, &[1]),
        [rescued(created, 0)],
        "the policy now in force counts"
    );
}

#[test]
fn the_new_stream_inherits_retention_and_compression_and_nothing_else() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let retention = RetentionPolicy { age_seconds: Some(60), bytes: Some(1 << 30) };
    let config = StreamConfig {
        acknowledgement: Some(duramen_types::Acknowledgement::Archived),
        retention,
        compression: Some(Compression::None),
        timestamps: Some(duramen_types::TimestampPolicy::Arrival),
        rescue: Some(RescuePolicy::Separate),
    };
    configure(&mut feed, stream, config);
    let token = Some(FencingToken::parse("mine").unwrap());
    let op = ControlOp::SetFencingToken { stream, expected: None, token };
    assert_eq!(feed.control(op), Ok(ControlResult::Done));
    rescue(&mut feed, stream, 1, 100, &[1]);
    let (_, found) = named(&feed.state, "a~rescued").unwrap();
    let inherited =
        StreamConfig { retention, compression: Some(Compression::None), ..StreamConfig::default() };
    assert_eq!((&found.config, &found.fencing_token), (&inherited, &None));
}

#[test]
fn an_origin_with_batches_of_two_streams_is_rescued_of_both() {
    let mut feed = Feed::new();
    let (one, other) = (feed.create("one"), feed.create("other"));
    feed.term = Term::new(4);
    // A rescue is of one stream: a displaced entry with batches of two makes two of them.
    let of_one = next(&feed);
    assert_eq!(rescue(&mut feed, one, 1, 100, &[2, 3]), [rescued(of_one, 0), rescued(of_one, 2)]);
    let of_other = next(&feed);
    assert_eq!(rescue(&mut feed, other, 1, 100, &[4]), [rescued(of_other, 0)]);
    assert_eq!(rescue(&mut feed, one, 1, 100, &[2, 3]), [nothing_taken(&feed, 0), nothing_taken(&feed, 0)]);
    assert_eq!(rescue(&mut feed, other, 1, 100, &[4]), [nothing_taken(&feed, 0)]);
    assert_eq!(rescue(&mut feed, one, 1, 101, &[1]), [rescued(of_one, 5)]);
}

#[test]
fn what_the_log_holds_is_not_rescued() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.append(header(stream, 1));
    feed.term = Term::new(2);
    feed.append(header(stream, 1));
    assert_eq!(rescue(&mut feed, stream, 1, 2, &[1]), [nothing_taken(&feed, 2)]);
    assert_eq!(rescue(&mut feed, stream, 2, 3, &[1]), [nothing_taken(&feed, 2)]);
    assert!(named(&feed.state, "a~rescued").is_none(), "nothing was created for nothing");
    let created = next(&feed);
    let taken = rescue(&mut feed, stream, 1, 3, &[1]);
    assert_eq!(taken, [rescued(created, 0)], "term 1 lost index 3 to term 2");
}

#[test]
fn a_rescue_checks_no_condition_and_moves_no_producer() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let append = StreamConfig { rescue: Some(RescuePolicy::Append), ..StreamConfig::default() };
    configure(&mut feed, stream, append);
    feed.append(produced(stream, 1, 9, 0, 0));
    let token = Some(FencingToken::parse("mine").unwrap());
    let op = ControlOp::SetFencingToken { stream, expected: None, token: token.clone() };
    assert_eq!(feed.control(op), Ok(ControlResult::Done));
    let mut batch = produced(stream, 1, 9, 0, 1);
    batch.match_offset = Some(Offset::new(77));
    let origin = RescueOrigin { term: Term::new(1), index: at(50) };
    let outcome = feed.apply(EntryBody::Rescue { origin, batches: vec![batch.clone()] }).batches;
    assert_eq!(outcome, [appended(1)]);
    batch.match_offset = None;
    batch.fencing_token = token;
    assert_eq!(feed.append(batch), appended(2), "the producer's next sequence is still 1");
}

#[test]
fn a_rescue_of_a_stream_that_is_gone_is_refused_and_leaves_nothing_behind() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let kept = feed.create("b");
    feed.term = Term::new(3);
    rescue(&mut feed, stream, 1, 9, &[1]);
    rescue(&mut feed, kept, 1, 9, &[1]);
    delete(&mut feed, stream);
    assert_eq!(rescue(&mut feed, stream, 1, 9, &[1]), [unknown(stream)]);
    assert_eq!(rescue(&mut feed, stream, 1, 10, &[1]), [unknown(stream)]);
    assert_eq!(feed.state.rescued.iter().collect::<Vec<_>>(), [&(kept, Term::new(1), at(9))]);
    assert!(
        named(&feed.state, "a~rescued").is_some(),
        "what was rescued of it stays until somebody deletes it"
    );
}

#[test]
fn a_stream_created_anew_shares_the_rescued_stream_of_its_predecessor() {
    let mut feed = Feed::new();
    let first = feed.create("a");
    let aside = next(&feed);
    assert_eq!(rescue(&mut feed, first, 1, 100, &[2]), [rescued(aside, 0)]);
    delete(&mut feed, first);
    let second = feed.create("a");
    assert_eq!(rescue(&mut feed, second, 1, 100, &[1]), [rescued(aside, 2)]);
}

#[test]
fn a_rescued_stream_that_was_deleted_is_created_again_when_it_is_needed() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let first = next(&feed);
    assert_eq!(rescue(&mut feed, stream, 1, 100, &[2]), [rescued(first, 0)]);
    delete(&mut feed, first);
    assert_eq!(
        rescue(&mut feed, stream, 1, 100, &[2]),
        [nothing_taken(&feed, 0)],
        "what was deleted stays deleted"
    );
    assert!(named(&feed.state, "a~rescued").is_none());
    let second = next(&feed);
    assert_eq!(rescue(&mut feed, stream, 1, 101, &[2]), [rescued(second, 0)]);
    assert_ne!(first, second);
}

#[test]
fn a_rescued_stream_is_read_to_an_end_like_any_other() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let aside = next(&feed);
    rescue(&mut feed, stream, 1, 100, &[5]);
    let cursor = CursorName::parse("c").unwrap();
    let commit = ControlOp::CommitCursor { stream: aside, cursor, offset: Offset::new(5) };
    assert_eq!(feed.control(commit), Ok(ControlResult::Done));
    let trim = ControlOp::TrimStream { stream: aside, to: Offset::new(5) };
    assert_eq!(feed.control(trim), Ok(ControlResult::Trimmed(Offset::new(5))));
    assert_eq!(ShardState::decode(&feed.state.encode()).as_ref(), Ok(&feed.state));
    delete(&mut feed, aside);
    assert!(feed.state.stream(aside).is_none());
}

#[test]
fn what_is_rescued_of_a_rescued_stream_stays_in_it() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    let aside = next(&feed);
    rescue(&mut feed, stream, 1, 100, &[5]);
    assert_eq!(rescue(&mut feed, aside, 1, 101, &[1]), [appended(5)]);
}

#[test]
fn an_origin_from_before_its_stream_is_of_another_stream_with_that_id() {
    let mut feed = Feed::new();
    feed.create("a");
    feed.term = Term::new(3);
    let stream = feed.create("b");
    assert_eq!(stream.get(), 2);
    // Term 2 had its own stream with the id 2, which never was committed.
    assert_eq!(rescue(&mut feed, stream, 2, 5, &[1]), [unknown(stream)]);
    assert_eq!(rescue(&mut feed, stream, 4, 2, &[1]), [unknown(stream)]);
    assert_eq!(rescue(&mut feed, stream, 4, 1, &[1]), [unknown(stream)]);
    let created = next(&feed);
    assert_eq!(rescue(&mut feed, stream, 4, 3, &[1]), [rescued(created, 0)]);
}

#[test]
fn a_rescue_in_the_meta_shard_finds_no_stream() {
    let mut feed = Feed { state: ShardState::new(duramen_types::ShardId::META), term: Term::new(1) };
    assert_eq!(rescue(&mut feed, StreamId::new(0), 1, 5, &[1]), [unknown(StreamId::new(0))]);
}
