use duramen_types::{EntryBody, EntryHead, EntryId, HybridTime, Index, ShardId, Term};
use proptest::prelude::*;

use super::history::{NAMES, Step, TENANTS, What, cursor_name, steps};
use super::model::Model;
use super::{stream_name, tenant};
use crate::{Applied, ApplyError, ShardState};

/// Runs a step through the model; gives its entry and the outcome that the state machine must have.
pub(super) fn run(model: &mut Model, step: &Step) -> (EntryId, EntryHead, Applied) {
    let term = Term::new(model.term().get() + step.terms);
    let id = EntryId { index: Index::new(u64::try_from(model.log.len()).unwrap()), term };
    let next_time = model.time + step.gap;
    let mut batches = Vec::new();
    let mut control = None;
    let body = match &step.what {
        What::Append(wanted) => {
            let mut headers = Vec::new();
            for batch in wanted {
                let header = model.resolve_batch(next_time, batch);
                batches.push(model.append(next_time, &header));
                headers.push(header);
            }
            EntryBody::Append(headers)
        }
        what => model.resolve(term, what),
    };
    match &body {
        EntryBody::Rescue { origin, batches: headers } => {
            batches = model.rescue(id, next_time, *origin, headers);
        }
        EntryBody::Control(op) => control = Some(model.control(id, next_time, op)),
        _ => {}
    }
    let time = if body.is_timed() { next_time } else { 0 };
    let head = EntryHead { time: HybridTime::from_micros(time), body };
    model.push(id, model.time.max(time), head.clone());
    let outcome = Applied { time: HybridTime::from_micros(model.time), chain: model.chain, batches, control };
    (id, head, outcome)
}

fn assert_same(state: &ShardState, model: &Model) {
    assert_eq!(state.shard(), model.shard);
    assert_eq!(state.applied(), model.log.last().map(|(id, _)| *id));
    assert_eq!(state.end().get(), u64::try_from(model.log.len()).unwrap());
    assert_eq!(state.time().as_micros(), model.time);
    assert_eq!(state.chain(), model.chain);
    let last_user = model.log.iter().rposition(|(_, head)| head.body.is_user());
    assert_eq!(state.user_end().get(), last_user.map_or(0, |at| u64::try_from(at).unwrap() + 1));

    let mut alive: Vec<_> = model.alive().collect();
    alive.sort_by_key(|stream| stream.id);
    let ids: Vec<_> = alive.iter().map(|stream| stream.id).collect();
    assert_eq!(state.streams().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    for expected in alive {
        let found = state.stream(expected.id).unwrap();
        assert_eq!((&found.tenant, &found.name), (&expected.tenant, &expected.name));
        assert_eq!(state.stream_id(&expected.tenant, &expected.name), Some(expected.id));
        assert_eq!(found.config, expected.config);
        assert_eq!(found.created.as_micros(), expected.created);
        let last = expected.accepted.last();
        assert_eq!(found.last_append.as_micros(), last.map_or(expected.created, |batch| batch.time));
        assert_eq!((found.next.get(), found.trimmed.get()), (expected.tail(), expected.trimmed));
        let bytes: u64 = expected.accepted.iter().map(|batch| u64::from(batch.header.bytes)).sum();
        assert_eq!(found.appended_bytes, bytes);
        assert_eq!(found.fencing_token, expected.token);
        assert_eq!(found.cursors.len(), expected.cursors.len());
        for (name, cursor) in &found.cursors {
            assert_eq!(expected.cursors[name], (cursor.offset.get(), cursor.committed.as_micros()));
        }
        let mut dense = 0;
        for batch in &expected.accepted {
            assert_eq!(batch.base, dense, "offsets have a hole or an overlap");
            dense += u64::from(batch.header.records);
        }
    }

    let terms: Vec<_> = (0..state.end().get() + 2).map(|index| state.term_at(Index::new(index))).collect();
    let expected = model.log.iter().map(|(id, _)| Some(id.term)).chain([None, None]);
    assert_eq!(terms, expected.collect::<Vec<_>>());
    let tenants: Vec<_> = state.tenants().collect();
    assert!(tenants.is_sorted() && tenants.len() == model.tenants.len());
    assert!(tenants.iter().all(|(name, created)| model.tenants[*name] == created.as_micros()));
    let points: Vec<_> = state.restore_points().collect();
    assert!(points.is_sorted() && points.len() == model.restore_points.len());
    assert!(points.iter().all(|(name, time)| model.restore_points[*name] == *time));
}

fn assert_lists_like_a_filter(state: &ShardState, model: &Model) {
    for owner in TENANTS.map(tenant) {
        let mut all: Vec<_> = model.alive().filter(|stream| stream.tenant == owner).collect();
        all.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        for prefix in ["", "a", "a.", "a~", "ab", "b", "c", "~"] {
            for after in [None, Some("a"), Some("a.b"), Some("a~rescued"), Some("aa"), Some("b"), Some("zz")]
            {
                let after = after.map(stream_name);
                let listed: Vec<_> = state.list(&owner, prefix, after.as_ref()).map(|(id, _)| id).collect();
                let wanted = all.iter().filter(|stream| {
                    stream.name.as_str().starts_with(prefix)
                        && after.as_ref().is_none_or(|after| stream.name.as_str() > after.as_str())
                });
                assert_eq!(
                    listed,
                    wanted.map(|stream| stream.id).collect::<Vec<_>>(),
                    "{prefix:?} {after:?}"
                );
            }
        }
        for name in NAMES.map(stream_name) {
            let id = all.iter().find(|stream| stream.name == name).map(|stream| stream.id);
            assert_eq!(state.stream_id(&owner, &name), id);
        }
    }
}

fn assert_refuses_what_does_not_follow(state: &mut ShardState) {
    let before = state.clone();
    let tick = |micros| EntryHead { time: HybridTime::from_micros(micros), body: EntryBody::Tick };
    let mut refuse = |index: u64, term: u64, head: EntryHead| {
        let id = EntryId { index: Index::new(index), term: Term::new(term) };
        let error = state.apply(id, &head, &head.encode()).unwrap_err();
        assert_eq!(*state, before, "a refused entry changed the state");
        error
    };
    let (end, term, now) =
        (before.end().get(), before.applied().unwrap().term.get(), before.time().as_micros());
    assert!(matches!(refuse(end + 1, term, tick(now + 1)), ApplyError::NotNext { .. }));
    assert!(matches!(refuse(end - 1, term, tick(now + 1)), ApplyError::NotNext { .. }));
    assert!(matches!(refuse(end, term - 1, tick(now + 1)), ApplyError::TermRegressed { .. }));
    assert!(matches!(refuse(end, term, tick(now)), ApplyError::TimeRegressed { .. }));
    assert!(matches!(refuse(end, term, tick(now.saturating_sub(1))), ApplyError::TimeRegressed { .. }));
}

fn check(shard: ShardId, steps: &[Step]) {
    let mut model = Model::new(shard);
    let mut state = ShardState::new(shard);
    // Goes through bytes before each entry: a snapshot at any prefix continues like the original.
    let mut restored = ShardState::new(shard);
    for step in steps {
        let (id, head, expected) = run(&mut model, step);
        let bytes = head.encode();
        let decoded_head = EntryHead::decode(&bytes).unwrap();
        assert_eq!(state.apply(id, &head, &bytes).unwrap(), expected);
        restored = ShardState::decode(&restored.encode()).unwrap();
        assert_eq!(restored.apply(id, &decoded_head, &bytes).unwrap(), expected);
        assert_eq!(restored, state);
        assert_eq!(restored.encode(), state.encode());
        assert_same(&state, &model);
        assert_refuses_what_does_not_follow(&mut state);
    }
    assert_lists_like_a_filter(&state, &model);
    let cursors: Vec<_> =
        model.alive().filter(|stream| stream.cursors.contains_key(&cursor_name(0))).collect();
    for stream in cursors {
        assert!(state.stream(stream.id).unwrap().cursors.contains_key("reader 0"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn a_data_shard_does_what_the_model_does(steps in steps(80)) {
        check(ShardId::new(3), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_meta_shard_does_what_the_model_does(steps in steps(60)) {
        check(ShardId::META, &steps);
    }
}
