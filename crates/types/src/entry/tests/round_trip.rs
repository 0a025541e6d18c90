use proptest::prelude::*;

use super::strategies::{control_op, parts};
use super::*;

proptest! {
    #[test]
    fn an_entry_comes_back_from_its_payload((head, batches) in parts()) {
        let entry = Entry::with_batches(head.clone(), &batches);
        prop_assert_eq!(entry.head(), &head);
        prop_assert_eq!(EntryHead::decode(&entry.head_bytes()).unwrap(), head.clone());
        prop_assert_eq!(&entry.head_bytes()[..], &head.encode()[..]);

        let decoded = Entry::decode(entry.payload().clone()).unwrap();
        prop_assert_eq!(&decoded, &entry);
        prop_assert_eq!(decoded.body(), &head.body);
        let headers: Vec<_> = decoded.batches().map(|(header, _)| header.clone()).collect();
        prop_assert_eq!(&headers[..], head.body.batches());
        prop_assert_eq!(decoded.batches().map(|(_, batch)| batch).collect::<Vec<_>>(), batches.clone());

        let rebuilt = Entry::from_parts(&head.encode(), &batches.concat()).unwrap();
        prop_assert_eq!(&rebuilt, &entry);
        let id = EntryId { index: Index::new(4), term: Term::new(2) };
        prop_assert_eq!(rebuilt.leaf(id, head.time), leaf(id, head.time, &head.encode()));
    }

    #[test]
    fn a_control_operation_comes_back_from_its_bytes(op in control_op()) {
        let mut out = Writer::new();
        op.encode(&mut out);
        let bytes = out.into_bytes();
        let mut reader = Reader::new("control operation", &bytes);
        prop_assert_eq!(ControlOp::decode(&mut reader).unwrap(), op);
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn any_bytes_that_decode_encode_to_themselves(
        kind in 0_u8..8,
        rest in proptest::collection::vec(any::<u8>(), 8..200),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok(head) = EntryHead::decode(&bytes) {
            prop_assert_eq!(head.encode(), bytes);
        }
    }
}

#[test]
fn the_encoding_is_the_documented_one() {
    let append = samples().remove(4);
    let head_len: u32 = 1 + 8 + 4 + 3 * 65 + 14 + 8 + 2 + 9;
    let mut expected = head_len.to_le_bytes().to_vec();
    expected.push(2);
    expected.extend(1_700_000_000_000_000_u64.to_le_bytes());
    expected.extend(3_u32.to_le_bytes());
    for (stream, bytes, flags) in [(5_u64, 5_u32, 7), (6, 1, 0), (5, 6, 0)] {
        expected.extend(stream.to_le_bytes());
        expected.extend(3_u32.to_le_bytes());
        expected.extend(bytes.to_le_bytes());
        expected.extend((-1_i64).to_le_bytes());
        expected.extend(i64::MAX.to_le_bytes());
        expected.extend(0..32);
        expected.push(flags);
        if flags == 7 {
            expected.extend(77_u64.to_le_bytes());
            expected.extend(3_u16.to_le_bytes());
            expected.extend(1000_u32.to_le_bytes());
            expected.extend(42_u64.to_le_bytes());
            expected.extend(9_u16.to_le_bytes());
            expected.extend("writer ä".bytes());
        }
    }
    expected.extend(b"first2third!");
    assert_eq!(append.payload()[..], expected[..]);
}

#[test]
fn batches_are_slices_of_the_payload_and_not_copies() {
    for entry in samples() {
        let whole = entry.payload().as_ptr_range();
        for (header, batch) in entry.batches() {
            assert_eq!(batch.len(), usize::try_from(header.bytes).unwrap());
            assert!(whole.contains(&batch.as_ptr()));
        }
    }
}

#[test]
fn only_entries_of_users_and_ticks_have_a_time_of_their_own() {
    let predecessor = HybridTime::from_micros(9);
    for entry in samples() {
        let head = entry.head();
        let inherits =
            matches!(head.body, EntryBody::Blank | EntryBody::Membership(_) | EntryBody::Archived { .. });
        let expected = if inherits { predecessor } else { head.time };
        assert_eq!(head.effective_time(predecessor), expected);
        assert_eq!(head.body.is_timed(), !inherits);
        assert_eq!(head.body.is_user(), !inherits && head.body != EntryBody::Tick);
    }
}
