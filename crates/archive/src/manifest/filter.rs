//! Which streams a segment has records of: exactly while that is short, else as a Bloom filter.
//!
//! ```text
//! exact = LEB128 of the smallest stream id, then of each difference to the next larger one
//! bloom = bits, bit b in byte b / 8 at 1 << (b % 8); a stream sets bits (h1 + i · h2) mod m for i in 0..probes,
//!         where m = 8 · bytes, and h1, h2 | 1 are the first two u64 of BLAKE3(stream id u64)
//! ```
//!
//! Little-endian; sums wrap at 2^64.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use duramen_types::{DecodeError, StreamId};
use serde::{Serialize, Serializer};

/// Exact lists are at most this long; longer ones become a Bloom filter.
const MAX_EXACT_BYTES: usize = 512;
/// Bloom filters are at most this long, however many streams there are.
const MAX_BLOOM_BYTES: usize = 2048;
const BITS_PER_STREAM: usize = 10;
const MAX_PROBES: u8 = 16;

/// A set of stream ids that may answer "perhaps", never a false "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFilter {
    /// The set itself, encoded.
    Exact(Box<[u8]>),
    Bloom {
        probes: u8,
        bits: Box<[u8]>,
    },
    /// Every stream: a summary that could not be made.
    Any,
}

/// A stream to look for in many filters: hashed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamQuery {
    id: u64,
    first: u64,
    step: u64,
}

impl From<StreamId> for StreamQuery {
    fn from(stream: StreamId) -> Self {
        let mut words = [[0; 8]; 2];
        blake3::Hasher::new()
            .update(&stream.get().to_le_bytes())
            .finalize_xof()
            .fill(words.as_flattened_mut());
        let [first, second] = words.map(u64::from_le_bytes);
        Self { id: stream.get(), first, step: second | 1 }
    }
}

impl StreamQuery {
    fn bits(self, bits: usize, probes: u8) -> impl Iterator<Item = (usize, u8)> {
        let modulus = u64::try_from(bits).unwrap_or(u64::MAX).max(1);
        (0..u64::from(probes)).map(move |probe| {
            let hash = self.first.wrapping_add(probe.wrapping_mul(self.step));
            let bit = hash.checked_rem(modulus).unwrap_or_default();
            let byte = usize::try_from(bit / 8).unwrap_or(usize::MAX);
            (byte, 1_u8.rotate_left(u32::try_from(bit % 8).unwrap_or_default()))
        })
    }
}

impl StreamFilter {
    /// The filter of these streams, in any order, repeated or not.
    pub fn of(streams: impl IntoIterator<Item = StreamId>) -> Self {
        let mut ids: Vec<u64> = streams.into_iter().map(StreamId::get).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut exact = Vec::with_capacity(ids.len().min(MAX_EXACT_BYTES));
        let mut previous = 0;
        for id in &ids {
            prost::encoding::encode_varint(id.wrapping_sub(previous), &mut exact);
            previous = *id;
            if exact.len() > MAX_EXACT_BYTES {
                return Self::bloom(&ids);
            }
        }
        Self::Exact(exact.into())
    }

    fn bloom(ids: &[u64]) -> Self {
        let bytes = ids.len().saturating_mul(BITS_PER_STREAM).div_ceil(8).min(MAX_BLOOM_BYTES);
        let mut bits = vec![0; bytes];
        // The best number of probes is ln 2 · bits per stream.
        let ideal = bytes.saturating_mul(8 * 69).checked_div(ids.len().saturating_mul(100)).unwrap_or(1);
        let probes = ideal.clamp(1, 7);
        let probes = u8::try_from(probes).expect("clamped to 7");
        for id in ids {
            for (byte, mask) in StreamQuery::from(StreamId::new(*id)).bits(bytes.saturating_mul(8), probes) {
                if let Some(byte) = bits.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
        Self::Bloom { probes, bits: bits.into() }
    }

    /// Whether the stream may be in the set; `false` is certain.
    pub fn may_contain(&self, query: StreamQuery) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(_) => self.exact_ids().any(|id| id == query.id),
            Self::Bloom { probes, bits } => query
                .bits(bits.len().saturating_mul(8), *probes)
                .all(|(byte, mask)| bits.get(byte).is_some_and(|found| found & mask != 0)),
        }
    }

    /// The filter of everything that is in one of these; [`StreamFilter::Any`] where one of them is not exact.
    pub fn union<'a>(filters: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut ids = Vec::new();
        for filter in filters {
            match filter {
                Self::Exact(_) => ids.extend(filter.exact_ids()),
                Self::Bloom { .. } | Self::Any => return Self::Any,
            }
            if ids.len() > 65_536 {
                ids.sort_unstable();
                ids.dedup();
                if ids.len() > 32_768 {
                    return Self::Any;
                }
            }
        }
        Self::of(ids.into_iter().map(StreamId::new))
    }

    /// The ids of an exact filter, ascending; none of the others.
    fn exact_ids(&self) -> impl Iterator<Item = u64> {
        let mut rest: &[u8] = match self {
            Self::Exact(bytes) => bytes,
            Self::Bloom { .. } | Self::Any => &[],
        };
        let mut previous = 0_u64;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // Checked when decoded; a damaged list would simply end.
            let difference = prost::encoding::decode_varint(&mut rest).ok()?;
            previous = previous.checked_add(difference)?;
            Some(previous)
        })
    }

    pub(crate) fn decode(
        what: &'static str,
        exact: Option<&[u8]>,
        probes: u32,
        bloom: Option<&[u8]>,
    ) -> Result<Self, DecodeError> {
        match (exact, bloom) {
            (None, None) => Ok(Self::Any),
            (Some(_), Some(_)) => Err(DecodeError::invalid(what, "a row has two stream filters")),
            (Some(exact), None) => Self::decode_exact(what, exact),
            (None, Some(bits)) => match u8::try_from(probes) {
                Ok(probes @ 1..=MAX_PROBES) if (1..=MAX_BLOOM_BYTES).contains(&bits.len()) => {
                    Ok(Self::Bloom { probes, bits: bits.into() })
                }
                _ => {
                    let reason = format!("a stream filter has {probes} probes and {} bytes", bits.len());
                    Err(DecodeError::invalid(what, reason))
                }
            },
        }
    }

    fn decode_exact(what: &'static str, exact: &[u8]) -> Result<Self, DecodeError> {
        let limit = MAX_EXACT_BYTES;
        if exact.len() > limit {
            let size = u64::try_from(exact.len()).unwrap_or(u64::MAX);
            return Err(DecodeError::TooLarge {
                what,
                size,
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
            });
        }
        let mut rest = exact;
        let mut previous: Option<u64> = None;
        while !rest.is_empty() {
            let next = prost::encoding::decode_varint(&mut rest).ok().and_then(|difference| match previous {
                None => Some(difference),
                Some(_) if difference == 0 => None,
                Some(previous) => previous.checked_add(difference),
            });
            if next.is_none() {
                return Err(DecodeError::invalid(what, "a list of stream ids does not ascend"));
            }
            previous = next;
        }
        Ok(Self::Exact(exact.into()))
    }
}

impl Serialize for StreamFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(_) => serializer.collect_seq(self.exact_ids()),
            Self::Bloom { probes, bits } => {
                serializer.collect_str(&format_args!("Bloom filter, {} bytes, {probes} probes", bits.len()))
            }
            Self::Any => serializer.serialize_str("any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn streams(ids: &[u64]) -> impl Iterator<Item = StreamId> {
        ids.iter().copied().map(StreamId::new)
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found(ids in prop::collection::vec(any::<u64>(), 0..2000)) {
            let filter = StreamFilter::of(streams(&ids));
            for id in streams(&ids) {
                prop_assert!(filter.may_contain(id.into()));
            }
        }

        #[test]
        fn an_exact_filter_has_nothing_else(ids in prop::collection::btree_set(0..200_u64, 0..40)) {
            let ids: Vec<_> = ids.into_iter().collect();
            let filter = StreamFilter::of(streams(&ids));
            prop_assert!(matches!(filter, StreamFilter::Exact(_)));
            for id in 0..200 {
                prop_assert_eq!(filter.may_contain(StreamId::new(id).into()), ids.contains(&id));
            }
        }
    }

    #[test]
    fn a_bloom_filter_is_bounded_and_mostly_right() {
        let many: Vec<u64> = (0..1500).map(|n| n * 1_000_003).collect();
        let filter = StreamFilter::of(streams(&many));
        let StreamFilter::Bloom { bits, .. } = &filter else {
            panic!("1,500 scattered ids fit an exact list")
        };
        assert!(bits.len() <= MAX_BLOOM_BYTES);
        let wrong = (0..10_000).filter(|n| filter.may_contain(StreamId::new(n * 7 + 1).into())).count();
        assert!(wrong < 300, "{wrong} of 10,000 absent streams are reported");
        let huge: Vec<u64> = (0..100_000).map(|n| n * 1_003).collect();
        let StreamFilter::Bloom { bits, .. } = StreamFilter::of(streams(&huge)) else {
            panic!("not a Bloom filter")
        };
        assert_eq!(bits.len(), MAX_BLOOM_BYTES);
    }

    #[test]
    fn hashing_is_fixed_for_ever() {
        // These values are in archives: a change would make streams invisible.
        let query = StreamQuery::from(StreamId::new(42));
        let bits: Vec<_> = query.bits(1000 * 8, 3).collect();
        let hash = blake3::hash(&42_u64.to_le_bytes());
        let h1 = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        let h2 = u64::from_le_bytes(hash.as_bytes()[8..16].try_into().unwrap()) | 1;
        let expected: Vec<_> = (0..3_u64)
            .map(|i| h1.wrapping_add(i.wrapping_mul(h2)) % 8000)
            .map(|bit| (usize::try_from(bit / 8).unwrap(), 1_u8 << (bit % 8)))
            .collect();
        assert_eq!(bits, expected);
    }
}
