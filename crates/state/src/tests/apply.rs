use std::collections::BTreeSet;

use duramen_types::{EntryBody, EntryHead, EntryId, HybridTime, Index, Offset, ShardId, Term};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::history::steps;
use super::model::Model;
use super::properties::run;
use super::{Feed, at, header};
use crate::{ApplyError, ShardState};

#[test]
fn a_log_begins_at_index_zero() {
    let mut state = ShardState::new(ShardId::new(1));
    let head = EntryHead { time: HybridTime::ZERO, body: EntryBody::Blank };
    let id = EntryId { index: at(1), term: Term::new(1) };
    let expected = ApplyError::NotNext { expected: at(0), found: id };
    assert_eq!(state.apply(id, &head, &head.encode()), Err(expected));
    assert_eq!(state, ShardState::new(ShardId::new(1)));
}

#[test]
fn an_entry_without_a_time_inherits_its_predecessors() {
    let mut feed = Feed::new();
    assert_eq!(feed.state.time(), HybridTime::ZERO);
    feed.apply_at(HybridTime::from_micros(50), EntryBody::Tick);
    let blank = feed.apply(EntryBody::Blank);
    assert_eq!(blank.time, HybridTime::from_micros(50));
    assert_eq!(feed.state.user_end(), at(0), "no user caused any of these");
    feed.create("a");
    assert_eq!(feed.state.user_end(), at(4));
    feed.apply(EntryBody::Tick);
    assert_eq!(feed.state.user_end(), at(4));
}

#[test]
fn the_first_timed_entry_is_later_than_zero() {
    let mut state = ShardState::new(ShardId::new(1));
    let head = EntryHead { time: HybridTime::ZERO, body: EntryBody::Tick };
    let id = EntryId { index: at(0), term: Term::new(1) };
    assert!(matches!(state.apply(id, &head, &head.encode()), Err(ApplyError::TimeRegressed { .. })));
}

#[test]
fn nothing_follows_the_last_index_of_all() {
    let mut feed = Feed::new();
    feed.state.applied = Some(EntryId { index: Index::MAX, term: Term::new(1) });
    let head = EntryHead { time: HybridTime::ZERO, body: EntryBody::Blank };
    let id = EntryId { index: Index::MAX, term: Term::new(1) };
    assert!(matches!(feed.state.apply(id, &head, &head.encode()), Err(ApplyError::NotNext { .. })));
}

#[test]
fn numbers_at_their_end_saturate() {
    let mut feed = Feed::new();
    let stream = feed.create("a");
    feed.state.streams.get_mut(&stream).unwrap().next = Offset::MAX;
    feed.state.streams.get_mut(&stream).unwrap().appended_bytes = u64::MAX;
    feed.append(header(stream, u32::MAX));
    assert_eq!(feed.tail(stream), Offset::MAX);
    feed.apply_at(HybridTime::MAX, EntryBody::Tick);
    assert_eq!(feed.state.time(), HybridTime::MAX);
}

#[test]
fn random_histories_meet_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeSet::new();
    for number in 0..600 {
        let shard = ShardId::new(u16::from(number % 6 != 0));
        let mut model = Model::new(shard);
        let history = steps(80).new_tree(&mut runner).unwrap().current();
        for step in &history {
            let (_, _, outcome) = run(&mut model, step);
            let all = outcome.batches.iter().map(|batch| format!("{batch:?}"));
            met.extend(
                all.chain(outcome.control.map(|control| format!("{control:?}"))).map(|text| kind(&text)),
            );
        }
    }
    let expected = [
        "Appended",
        "BeyondTail",
        "ConfigChanged",
        "Created",
        "Done",
        "Duplicate",
        "Fenced",
        "OffsetMismatch",
        "OutOfOrderSequence",
        "Producer",
        "ProducerFenced",
        "Rescued",
        "RestorePointExists",
        "StreamExists",
        "TenantExists",
        "Trimmed",
        "UnknownCursor",
        "UnknownProducer",
        "UnknownRestorePoint",
        "UnknownStream",
        "WrongShard",
    ];
    assert_eq!(met.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// The innermost variant of what is printed as `Ok(Variant…` or `Rejected(Variant…`.
fn kind(text: &str) -> String {
    let inner =
        ["Ok(", "Err(", "Rejected("].iter().find_map(|outer| text.strip_prefix(outer)).unwrap_or(text);
    inner.chars().take_while(char::is_ascii_alphanumeric).collect()
}
