//! Damaged bytes are an error or the same value, and never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn every_truncation_is_an_error() {
    for codec in CODECS {
        let bytes = sample(codec).into_bytes();
        for len in 0..bytes.len() {
            assert!(check(bytes.slice(..len)).is_err(), "{codec} cut at {len}");
            assert!(Batch::from_trusted(bytes.slice(..len)).is_err(), "{codec} cut at {len}");
        }
    }
}

#[test]
fn every_appended_byte_is_an_error() {
    for codec in CODECS {
        for extra in 0..=u8::MAX {
            let longer = [sample(codec).bytes(), &[extra][..]].concat();
            assert!(matches!(check(longer.clone()), Err(Error::Length { .. })));
            assert!(check(reseal(longer)).is_err(), "{codec} and {extra}");
        }
        let twice = [&sample(codec).bytes()[..], &sample(codec).bytes()[..]].concat();
        assert!(matches!(check(twice), Err(Error::Length { .. })));
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    for codec in CODECS {
        let bytes = sample(codec).into_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check(flipped).is_err(), "{codec}, bit {bit}");
        }
    }
}

/// Past the checksum a flip may give another valid batch; then it must read as one.
#[test]
fn every_flipped_bit_under_a_true_checksum_is_an_error_or_a_sound_batch() {
    for codec in CODECS {
        let bytes = sample(codec).into_bytes();
        for bit in 21 * 8..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = reseal(flipped);
            match check(flipped.clone()) {
                Ok(batch) => assert_eq!(read_all(&batch).unwrap().len(), 3, "{codec}, bit {bit}"),
                Err(_) => drop(Batch::from_trusted(flipped.into()).map(|batch| read_all(&batch))),
            }
        }
    }
}

#[test]
fn every_truncation_of_the_records_under_a_true_checksum_is_an_error() {
    for codec in CODECS {
        let bytes = sample(codec).into_bytes();
        for len in header::LEN..bytes.len() {
            let shorter = reseal(bytes[..len].to_vec());
            assert!(check(shorter.clone()).is_err(), "{codec} cut at {len}");
            let trusted = Batch::from_trusted(shorter.into()).unwrap();
            assert!(read_all(&trusted).is_err(), "{codec} cut at {len}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_records_are_an_error_or_a_sound_batch(
        codec in proptest::sample::select(&CODECS[..]),
        count in prop_oneof![1..5_i32, Just(i32::MAX), any::<i32>()],
        records in vec(any::<u8>(), 0..80),
        compressed in any::<bool>(),
    ) {
        let mut data = Vec::new();
        if compressed {
            compression::compress(codec, &records, &mut data).unwrap();
        } else {
            data = records;
        }
        let bytes = assemble(codec, count, &data);
        if let Ok(batch) = check(bytes.clone()) {
            prop_assert_eq!(read_all(&batch).unwrap().len(), usize::try_from(count).unwrap());
        }
        if let Ok(batch) = Batch::from_trusted(bytes.into())
            && let Ok(records) = batch.records(Offset::ZERO)
        {
            let items: Vec<_> = records.iter().collect();
            prop_assert!(items.iter().rev().skip(1).all(Result::is_ok), "the first error is the last item");
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_batch(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(check(bytes.clone()).is_err());
        prop_assert!(Batch::from_trusted(bytes.into()).is_err());
    }
}
