use super::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Debug, PartialEq)]
struct Wrong;

/// A length, that many bytes, and their sum: `checked` says whether it is looked at.
fn decode(bytes: &[u8], checked: bool) -> Result<Vec<u8>, Wrong> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Wrong)?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length).ok_or(Wrong)?;
    let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let stored = rest.get(length..).ok_or(Wrong)?;
    if (checked && *stored != [sum]) || stored.len() != 1 { Err(Wrong) } else { Ok(body.to_vec()) }
}

const SOUND: &[u8] = &[3, 0, 0, 0, 10, 20, 30, 60];

fn caught(run: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(run).expect_err("it must fail");
    panic.downcast_ref::<String>().expect("its message was formatted").clone()
}

#[test]
fn a_sound_decoder_passes() {
    assert_eq!(assert_resists_damage(SOUND, |bytes| decode(bytes, true)), [10, 20, 30]);
    assert_total_behind_checksums(SOUND, |_| {}, |bytes| decode(bytes, false));
}

#[test]
fn a_bit_that_changes_the_value_is_named() {
    let message = caught(|| drop(assert_resists_damage(SOUND, |bytes| decode(bytes, false))));
    assert!(message.contains("bit 0 of byte 4 flipped gives another value"), "{message}");
}

#[test]
fn memory_sized_by_a_stated_length_is_noticed() {
    let greedy = |bytes: &[u8]| {
        let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
        let buffer = vec![0_u8; length as usize];
        decode(bytes, true).map(|found| (found, drop(buffer)))
    };
    let message = caught(move || drop(assert_resists_damage(SOUND, greedy)));
    assert!(message.contains("of byte 2 flipped: decoding 8 bytes took"), "{message}");
}

#[test]
fn the_first_byte_that_differs_is_named() {
    assert_eq!(first_difference(b"abc", b"abc"), None);
    assert_eq!(first_difference(b"abc", b"abd"), Some(2));
    assert_eq!(first_difference(b"abc", b"ab"), Some(2));
    assert_eq!(around(b"abc", 1), "62 63 ");
}
