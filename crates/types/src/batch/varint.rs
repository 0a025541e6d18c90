//! Kafka's variable-length integers: base 128, least significant group first, zigzag.

/// Reads a varint of at most 32 bits and moves `input` past it; `None` if it is cut short or too large.
#[inline]
pub(super) fn read_i32(input: &mut &[u8]) -> Option<i32> {
    let zigzag = u32::try_from(read(input)?).ok()?;
    Some((zigzag >> 1).cast_signed() ^ (zigzag & 1).cast_signed().wrapping_neg())
}

/// Reads a varint of at most 64 bits and moves `input` past it; `None` if it is cut short or too large.
#[inline]
pub(super) fn read_i64(input: &mut &[u8]) -> Option<i64> {
    let zigzag = read(input)?;
    Some((zigzag >> 1).cast_signed() ^ (zigzag & 1).cast_signed().wrapping_neg())
}

/// Most varints in a batch are one byte.
#[inline]
fn read(input: &mut &[u8]) -> Option<u64> {
    match input.split_first()? {
        (&byte @ 0..0x80, rest) => {
            *input = rest;
            Some(byte.into())
        }
        _ => read_long(input),
    }
}

fn read_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let group = u64::from(byte & 0x7f);
        let placed = group.checked_shl(shift)?;
        if placed >> shift != group {
            return None;
        }
        value |= placed;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Appends `value`; a 32-bit value has the same encoding as a 64-bit one.
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    loop {
        let [byte, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// How many bytes [`write()`] appends.
pub(super) const fn len(value: i64) -> usize {
    match zigzag(value) {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        0x1000_0000..0x8_0000_0000 => 5,
        0x8_0000_0000..0x400_0000_0000 => 6,
        0x400_0000_0000..0x2_0000_0000_0000 => 7,
        0x2_0000_0000_0000..0x100_0000_0000_0000 => 8,
        0x100_0000_0000_0000..0x8000_0000_0000_0000 => 9,
        0x8000_0000_0000_0000.. => 10,
    }
}
