use duramen_types::{
    ControlOp, CursorName, DecodeError, EntryBody, EntryHead, EntryId, FencingToken, HybridTime, Offset,
    RescueOrigin, RestorePointName, ShardId, Term,
};
use proptest::prelude::*;

use super::{Feed, at, header, produced, tenant};
use crate::{ControlResult, ShardState};

/// Something in every list.
fn data_shard() -> ShardState {
    let mut feed = Feed::new();
    let (one, other) = (feed.create("one"), feed.create("other"));
    feed.append(header(one, 5));
    feed.term = Term::new(3);
    feed.append(produced(other, 2, 7, 1, 0));
    feed.append(produced(other, 3, 7, 1, 2));
    feed.append(produced(other, 1, 8, 0, 0));
    let origin = RescueOrigin { term: Term::new(2), index: at(4) };
    feed.apply(EntryBody::Rescue { origin, batches: vec![header(one, 1)] });
    let token = Some(FencingToken::parse("t").unwrap());
    for op in [
        ControlOp::TrimStream { stream: one, to: Offset::new(2) },
        ControlOp::CommitCursor {
            stream: one,
            cursor: CursorName::parse("c").unwrap(),
            offset: Offset::new(4),
        },
        ControlOp::CommitCursor {
            stream: one,
            cursor: CursorName::parse("d").unwrap(),
            offset: Offset::new(1),
        },
        ControlOp::SetFencingToken { stream: other, expected: None, token },
    ] {
        feed.control(op).unwrap();
    }
    feed.apply(EntryBody::Tick);
    feed.state
}

fn meta_shard() -> ShardState {
    let mut feed = Feed { state: ShardState::new(ShardId::META), term: Term::new(1) };
    for op in [
        ControlOp::CreateTenant { tenant: tenant("default") },
        ControlOp::CreateTenant { tenant: tenant("a") },
        ControlOp::CreateRestorePoint {
            name: RestorePointName::parse("before").unwrap(),
            time: HybridTime::from_micros(1),
        },
    ] {
        assert_eq!(feed.control(op), Ok(ControlResult::Done));
    }
    feed.state
}

fn samples() -> [ShardState; 3] {
    [ShardState::new(ShardId::new(9)), data_shard(), meta_shard()]
}

/// Makes the checksum true again after a change.
fn reseal(bytes: &mut [u8]) {
    let (body, crc) = bytes.split_at_mut(bytes.len() - 4);
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

#[test]
fn a_state_comes_back_from_its_bytes() {
    for state in samples() {
        assert_eq!(ShardState::decode(&state.encode()).unwrap(), state);
    }
}

#[test]
fn every_truncation_and_every_bit_flip_is_an_error() {
    for state in samples() {
        let bytes = state.encode();
        for len in 0..bytes.len() {
            assert!(ShardState::decode(&bytes[..len]).is_err(), "the first {len} bytes were taken");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ShardState::decode(&flipped).is_err(), "bit {bit} makes no difference");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(ShardState::decode(&longer).is_err());
    }
}

/// A state with a true checksum and a changed body: an error, or another state, which then takes entries without a
/// panic.
fn assert_total(bytes: &[u8]) {
    let Ok(mut state) = ShardState::decode(bytes) else { return };
    if bytes[8] == 1 {
        // The version before: what it says is kept in this one.
        assert_eq!(ShardState::decode(&state.encode()).as_ref(), Ok(&state));
    } else {
        assert_eq!(state.encode(), bytes, "it has two encodings");
    }
    let next = EntryId { index: state.end(), term: state.applied().map_or(Term::ZERO, |id| id.term) };
    for (id, _) in state.clone().streams() {
        let batches = vec![produced(id, u32::MAX, 7, 1, 5), produced(id, 1, 7, 1, 0), header(id, u32::MAX)];
        let origin = RescueOrigin { term: Term::new(2), index: at(3) };
        for body in [
            EntryBody::Append(batches.clone()),
            EntryBody::Rescue { origin, batches },
            EntryBody::Control(ControlOp::DeleteStream { stream: id }),
        ] {
            let head = EntryHead { time: state.time().next(), body };
            let mut copy = state.clone();
            drop(copy.apply(next, &head, &head.encode()));
            assert!(ShardState::decode(&copy.encode()).is_ok());
        }
    }
    let head = EntryHead { time: HybridTime::ZERO, body: EntryBody::Blank };
    drop(state.apply(next, &head, &head.encode()));
}

#[test]
fn a_damaged_state_with_a_true_checksum_is_an_error_or_another_state() {
    for state in samples() {
        let bytes = state.encode();
        for bit in 12 * 8..(bytes.len() - 4) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            reseal(&mut flipped);
            assert_total(&flipped);
        }
        for cut in 12..bytes.len() - 4 {
            let mut cut_out = bytes.clone();
            cut_out.remove(cut);
            reseal(&mut cut_out);
            assert_total(&cut_out);
        }
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = data_shard().encode();
    bytes[8] = 3;
    reseal(&mut bytes);
    let expected = DecodeError::Version { what: "shard state", found: 3, supported: 2 };
    assert_eq!(ShardState::decode(&bytes), Err(expected));
}

#[test]
fn a_huge_count_is_refused_before_anything_is_allocated_for_it() {
    // An empty state ends with five counts and the checksum.
    let bytes = ShardState::new(ShardId::new(1)).encode();
    for count in 0..5 {
        let mut huge = bytes.clone();
        let at = huge.len() - 4 - 4 * (5 - count);
        huge[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        reseal(&mut huge);
        assert!(matches!(ShardState::decode(&huge), Err(DecodeError::Truncated { .. })), "count {count}");
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_a_true_header_and_checksum_are_handled(version in 1u32..3, body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = [b"DURSTATE".as_slice(), &version.to_le_bytes()].concat();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&[0; 4]);
        reseal(&mut bytes);
        assert_total(&bytes);
    }
}
