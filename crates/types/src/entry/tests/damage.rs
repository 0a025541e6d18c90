use super::*;

/// An error, or a value whose encoding is exactly these bytes.
fn assert_canonical(payload: Vec<u8>) {
    let Ok(entry) = Entry::decode(payload.clone().into()) else { return };
    let batches: Vec<Bytes> = entry.batches().map(|(_, batch)| batch).collect();
    let again = Entry::with_batches(entry.head().clone(), &batches);
    assert_eq!(again.payload()[..], payload[..], "{:?} has two encodings", entry.head());
    assert_eq!(again, entry);
}

#[test]
fn every_truncation_is_an_error() {
    for entry in samples() {
        let payload = entry.payload();
        for len in 0..payload.len() {
            assert!(Entry::decode(payload.slice(..len)).is_err(), "{len} bytes of {:?}", entry.head());
        }
        let head = entry.head_bytes();
        for len in 0..head.len() {
            assert!(EntryHead::decode(&head[..len]).is_err(), "{len} bytes of the head {:?}", entry.head());
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for entry in samples() {
        let longer = [&entry.payload()[..], &[0]].concat();
        assert!(Entry::decode(longer.into()).is_err());
        let longer = [&entry.head_bytes()[..], &[0]].concat();
        assert!(matches!(EntryHead::decode(&longer), Err(DecodeError::Trailing { extra: 1, .. })));
    }
}

#[test]
fn every_bit_flip_is_an_error_or_the_encoding_of_what_it_decodes_to() {
    for entry in samples() {
        for bit in 0..entry.payload().len() * 8 {
            let mut flipped = entry.payload().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_canonical(flipped);
        }
    }
}

#[test]
fn every_byte_set_to_any_value_is_an_error_or_the_encoding_of_what_it_decodes_to() {
    for entry in samples() {
        for at in 0..entry.payload().len().min(120) {
            for value in 0..=u8::MAX {
                let mut changed = entry.payload().to_vec();
                changed[at] = value;
                assert_canonical(changed);
            }
        }
    }
}

#[test]
fn huge_counts_and_lengths_are_refused_before_anything_is_allocated_for_them() {
    let time = 1_u64.to_le_bytes();
    let huge = u32::MAX.to_le_bytes();
    let timed = |kind: u8, rest: &[&[u8]]| [&[kind][..], &time, &rest.concat()].concat();
    let heads = [
        timed(2, &[&huge, &[0; 200]]),
        timed(4, &[&[0; 16], &huge, &[0; 200]]),
        [&[1][..], &[0; 8], &huge, &[0; 200]].concat(),
        timed(3, &[&[9], &u16::MAX.to_le_bytes(), &[b'a'; 200]]),
    ];
    for head in heads {
        assert!(matches!(EntryHead::decode(&head), Err(DecodeError::Truncated { .. })), "{head:?}");
    }
    let payload = [&huge[..], &[0; 200]].concat();
    assert!(matches!(Entry::decode(payload.into()), Err(DecodeError::Truncated { .. })));
}

#[test]
fn headers_that_state_other_lengths_than_their_batches_have_are_refused() {
    let entry = samples().remove(4);
    let (head, data) = (entry.head_bytes(), &b"first2third!"[..]);
    assert_eq!(Entry::from_parts(&head, data).unwrap(), entry);
    for data in [&data[1..], &data[..11], &[], b"first2third!!"] {
        let error = Entry::from_parts(&head, data).unwrap_err().to_string();
        assert!(error.contains("12 bytes of batches"), "{error}");
    }
    assert!(Entry::from_parts(&head[1..], data).is_err());
}

#[test]
fn heads_that_break_a_rule_are_refused_with_the_rule() {
    let origin = RescueOrigin { term: Term::new(1), index: Index::new(1) };
    let mixed = EntryBody::Rescue { origin, batches: vec![header(5, 1), header(5, 1), header(6, 1)] };
    let no_records = EntryBody::Append(vec![BatchHeader { records: 0, ..header(5, 1) }]);
    for (head, part) in [
        (timed(mixed), "more than one stream"),
        (timed(no_records), "0 records in 1 bytes"),
        (timed(EntryBody::Append(vec![header(5, 0)])), "3 records in 0 bytes"),
        (timed(EntryBody::Append(Vec::new())), "has none"),
        (timed(EntryBody::Blank), "does not fit"),
        (untimed(EntryBody::Tick), "does not fit"),
        (untimed(EntryBody::Append(vec![header(5, 1)])), "does not fit"),
    ] {
        let error = EntryHead::decode(&head.encode()).unwrap_err().to_string();
        assert!(error.contains(part), "{head:?} gave {error}");
    }
    let unknown = EntryHead::decode(&[9; 9]).unwrap_err().to_string();
    assert!(unknown.contains("kind 9 is unknown"), "{unknown}");
}
