use proptest::prelude::*;

use super::*;

const WHAT: &str = "a test";

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        numbers in any::<(u8, u16, u32, u64, i64, bool)>(),
        short in proptest::collection::vec(any::<u8>(), 0..300),
        text in "\\PC{0,40}",
        option in any::<Option<u64>>(),
    ) {
        let mut out = Writer::new();
        out.u8(numbers.0).u16(numbers.1).u32(numbers.2).u64(numbers.3).i64(numbers.4).bool(numbers.5);
        out.short_bytes(&short).long_bytes(&short).short_bytes(text.as_bytes()).count(0);
        out.option(option.as_ref(), |out, value| { out.u64(*value); });
        let len = out.len();
        let bytes = out.into_bytes();
        prop_assert_eq!(bytes.len(), len);

        let mut reader = Reader::new(WHAT, &bytes);
        let read = (
            reader.u8().unwrap(), reader.u16().unwrap(), reader.u32().unwrap(), reader.u64().unwrap(),
            reader.i64().unwrap(), reader.bool().unwrap(),
        );
        prop_assert_eq!(read, numbers);
        prop_assert_eq!(reader.short_bytes().unwrap(), &short[..]);
        prop_assert_eq!(reader.long_bytes().unwrap(), &short[..]);
        prop_assert_eq!(reader.short_text().unwrap(), text);
        prop_assert_eq!(reader.count(8).unwrap(), 0);
        prop_assert_eq!(reader.option(Reader::u64).unwrap(), option);
        prop_assert_eq!((reader.position(), reader.remaining()), (len, 0));
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_count_never_exceeds_what_is_there(bytes in proptest::collection::vec(any::<u8>(), 0..40), min_size in 0_usize..20) {
        let mut reader = Reader::new(WHAT, &bytes);
        if let Ok(count) = reader.count(min_size) {
            prop_assert!(count * min_size.max(1) <= bytes.len() - 4);
        }
    }
}

#[test]
fn numbers_are_little_endian() {
    let mut out = Writer::with_capacity(32);
    out.u16(0x0102).u32(0x0304_0506).i64(-2).short_bytes(b"x").long_bytes(b"y").option(
        Some(&7_u8),
        |out, value| {
            out.u8(*value);
        },
    );
    let expected = [&[2, 1, 6, 5, 4, 3, 254][..], &[255; 7], &[1, 0, b'x', 1, 0, 0, 0, b'y', 1, 7]].concat();
    assert_eq!(out.into_bytes(), expected);
}

#[test]
fn an_error_says_where_how_much_is_missing_and_moves_nothing() {
    let mut reader = Reader::new(WHAT, &[5, 0, 1, 2]);
    assert_eq!(reader.u8(), Ok(5));
    assert_eq!(reader.u64(), Err(DecodeError::Truncated { what: WHAT, at: 1, needed: 5 }));
    assert_eq!(
        reader.take(usize::MAX).unwrap_err(),
        DecodeError::Truncated { what: WHAT, at: 1, needed: usize::MAX - 3 }
    );
    assert_eq!(reader.position(), 1);
    assert_eq!(reader.take(3), Ok(&[0, 1, 2][..]));
    assert_eq!(Reader::new(WHAT, &[1, 2]).finish(), Err(DecodeError::Trailing { what: WHAT, extra: 2 }));
}

#[test]
fn a_flag_is_zero_or_one_and_text_is_utf_8() {
    assert!(matches!(Reader::new(WHAT, &[2]).bool(), Err(DecodeError::Invalid { .. })));
    assert!(matches!(Reader::new(WHAT, &[255, 1]).option(Reader::u8), Err(DecodeError::Invalid { .. })));
    assert!(matches!(Reader::new(WHAT, &[1, 0, 255]).short_text(), Err(DecodeError::Invalid { .. })));
}

#[test]
fn a_huge_count_is_truncated_whatever_the_size_of_its_items() {
    let bytes = [u32::MAX.to_le_bytes(), [0; 4]].concat();
    for min_size in [0, 1, 65, usize::MAX] {
        assert!(matches!(Reader::new(WHAT, &bytes).count(min_size), Err(DecodeError::Truncated { .. })));
    }
}
