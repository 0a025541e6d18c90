use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Index, Term};

type Step = (EntryId, HybridTime, Vec<u8>);

fn chain(shard: u16, steps: &[Step]) -> ChainValue {
    let start = genesis(ShardId::new(shard));
    steps.iter().fold(start, |value, (id, time, head)| value.extend(&leaf(*id, *time, head)))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((0_u64..4, 0_u64..9, vec(any::<u8>(), 0..12)), 1..12).prop_map(|steps| {
        let with_index = steps.into_iter().zip(0..).map(|((term, time, head), index)| {
            let id = EntryId { index: Index::new(index), term: Term::new(term) };
            (id, HybridTime::from_micros(time), head)
        });
        with_index.collect()
    })
}

#[test]
fn the_chain_is_the_documented_one() {
    let derive = |context, parts: &[&[u8]]| blake3::derive_key(context, &parts.concat());
    let start = derive("duramen 2026 genesis", &[&[3, 0]]);
    assert_eq!(genesis(ShardId::new(3)).as_bytes(), &start);
    let id = EntryId { index: Index::new(1), term: Term::new(2) };
    let leaf = leaf(id, HybridTime::from_micros(9), b"head");
    let numbers = [1_u64.to_le_bytes(), 2_u64.to_le_bytes(), 9_u64.to_le_bytes()].concat();
    let expected = derive("duramen 2026 leaf", &[&numbers, &[4, 0, 0, 0], b"head"]);
    assert_eq!(leaf.as_bytes(), &expected);
    let expected = derive("duramen 2026 chain", &[&start, &expected]);
    assert_eq!(genesis(ShardId::new(3)).extend(&leaf).as_bytes(), &expected);
}

#[test]
fn the_values_stay_what_they_are() {
    // Fixed for ever: with other values no existing archive would verify.
    let id = EntryId { index: Index::new(1), term: Term::new(2) };
    let value = genesis(ShardId::new(1)).extend(&leaf(id, HybridTime::from_micros(3), b"head"));
    assert_eq!(
        genesis(ShardId::new(1)).to_string(),
        "1bb9fe72ff236b2df92285160b7626de78ab8aec88aa06d63e920be13f12b538"
    );
    assert_eq!(value.to_string(), "264dcdef1662c46569512bd5493be126c5d2b2bb038722ce1c41c89756bbfd32");
}

#[test]
fn every_shard_has_its_own_beginning() {
    let all: std::collections::HashSet<_> =
        (0..=u16::MAX).map(|shard| genesis(ShardId::new(shard))).collect();
    assert_eq!(all.len(), 1 << 16);
}

#[test]
fn a_hash_is_written_and_read_as_64_digits() {
    let hash = genesis(ShardId::new(1));
    assert_eq!(hash.to_string().len(), 64);
    assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
    let text = hash.to_string();
    for bad in ["", &text[1..], &format!("{text}0"), &text.replace(&text[..1], "g"), &"ä".repeat(32)] {
        assert!(bad.parse::<Hash>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_history_that_differs_anywhere_has_another_value(
        steps in steps(),
        at in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let value = chain(1, &steps);
        prop_assert_eq!(chain(1, &steps), value);
        prop_assert_ne!(chain(2, &steps), value);
        let (at, other) = (at.index(steps.len()), other.index(steps.len()));
        let changed = |change: &dyn Fn(&mut Vec<Step>)| {
            let mut copy = steps.clone();
            change(&mut copy);
            chain(1, &copy)
        };
        prop_assert_ne!(changed(&|steps| { steps.remove(at); }), value, "an entry dropped");
        prop_assert_ne!(changed(&|steps| { let again = steps[at].clone(); steps.insert(at, again); }), value, "twice");
        prop_assert_ne!(changed(&|steps| steps.truncate(at)), value, "cut short");
        if at != other {
            prop_assert_ne!(changed(&|steps| steps.swap(at, other)), value, "reordered");
        }
        prop_assert_ne!(changed(&|steps| steps[at].0.index = Index::new(99)), value, "another index");
        prop_assert_ne!(changed(&|steps| steps[at].0.term = Term::new(99)), value, "another term");
        prop_assert_ne!(changed(&|steps| steps[at].1 = HybridTime::MAX), value, "another time");
        prop_assert_ne!(changed(&|steps| steps[at].2.push(0)), value, "a longer head");
        if !steps[at].2.is_empty() {
            let bit = bit.index(steps[at].2.len() * 8);
            prop_assert_ne!(changed(&|steps| steps[at].2[bit / 8] ^= 1 << (bit % 8)), value, "a bit flipped");
        }
    }
}
