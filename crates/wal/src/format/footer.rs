//! The footer of a sealed segment: row pages, summary, trailer.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use duramen_types::{DecodeError, EntryId, Index, SegmentId, ShardId, Term};

use super::frame::placed_crc;
use super::input::{Input, len_u32, put_entry_id, put_varint};
use super::{RECORD_HEAD_BYTES, TRAILER_BYTES};

const TRAILER: &str = "WAL segment trailer";
const SUMMARY: &str = "WAL segment summary";
const PAGE: &str = "WAL row page";
const MAGIC: &[u8; 4] = b"DEND";
const VERSION: u16 = 1;
const RUN_BYTES: usize = 44;
const DISPLACED_BYTES: usize = 28;
const RELEASED_BYTES: usize = 16;

/// The most entries that one run, and so one row page, describes.
pub(crate) const RUN_ROWS: usize = 4096;

/// Where one entry's record lies in its segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The byte at which the record starts.
    pub(crate) position: u64,
    /// The payload's length in bytes.
    pub(crate) length: u32,
}

impl Row {
    /// The byte behind the record.
    pub(crate) fn end(&self) -> u64 {
        self.position.saturating_add(RECORD_HEAD_BYTES as u64).saturating_add(self.length.into())
    }
}

/// Entries with dense indexes and one term, described by one row page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Index,
    pub(crate) term: Term,
    /// The sum of the payloads' lengths.
    pub(crate) bytes: u64,
    pub(crate) page_at: u64,
    pub(crate) page_len: u32,
    pub(crate) page_crc: u32,
    pub(crate) count: u32,
}

impl Run {
    pub(crate) fn end(&self) -> Index {
        self.first.plus(self.count.into())
    }
}

/// A displaced entry, and where its record lies if it is in this segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DisplacedRow {
    pub(crate) id: EntryId,
    pub(crate) row: Option<Row>,
}

/// What a segment does to one shard's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShardSummary {
    pub(crate) truncated_from: Option<Index>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) runs: Vec<Run>,
    pub(crate) displaced: Vec<DisplacedRow>,
    pub(crate) released: BTreeSet<EntryId>,
}

/// What a segment does to the log, per shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary(pub(crate) BTreeMap<ShardId, ShardSummary>);

impl Summary {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let shards = u16::try_from(self.0.len()).expect("a log has at most 256 shards");
        out.extend_from_slice(&shards.to_le_bytes());
        for (shard, summary) in &self.0 {
            summary.encode(*shard, &mut out);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Input::new(SUMMARY, bytes);
        let mut shards = BTreeMap::new();
        for _ in 0..input.u16()? {
            let shard = ShardId::new(input.u16()?);
            if shards.insert(shard, ShardSummary::decode(&mut input)?).is_some() {
                return Err(DecodeError::invalid(SUMMARY, format!("shard {shard} occurs twice")));
            }
        }
        input.finish()?;
        Ok(Self(shards))
    }
}

impl ShardSummary {
    fn encode(&self, shard: ShardId, out: &mut Vec<u8>) {
        let flags = u8::from(self.truncated_from.is_some())
            | u8::from(self.committed.is_some()) << 1
            | u8::from(self.purged.is_some()) << 2
            | u8::from(self.vote.is_some()) << 3;
        out.extend_from_slice(&shard.get().to_le_bytes());
        out.push(flags);
        if let Some(from) = self.truncated_from {
            out.extend_from_slice(&from.get().to_le_bytes());
        }
        for id in [self.committed, self.purged].into_iter().flatten() {
            put_entry_id(out, id);
        }
        if let Some(vote) = &self.vote {
            out.extend_from_slice(&len_u32(vote.len()).to_le_bytes());
            out.extend_from_slice(vote);
        }
        out.extend_from_slice(&len_u32(self.runs.len()).to_le_bytes());
        for run in &self.runs {
            out.extend_from_slice(&run.first.get().to_le_bytes());
            out.extend_from_slice(&run.term.get().to_le_bytes());
            out.extend_from_slice(&run.bytes.to_le_bytes());
            out.extend_from_slice(&run.page_at.to_le_bytes());
            out.extend_from_slice(&run.page_len.to_le_bytes());
            out.extend_from_slice(&run.page_crc.to_le_bytes());
            out.extend_from_slice(&run.count.to_le_bytes());
        }
        out.extend_from_slice(&len_u32(self.displaced.len()).to_le_bytes());
        for displaced in &self.displaced {
            put_entry_id(out, displaced.id);
            let row = displaced.row.unwrap_or(Row { position: 0, length: 0 });
            out.extend_from_slice(&row.position.to_le_bytes());
            out.extend_from_slice(&row.length.to_le_bytes());
        }
        out.extend_from_slice(&len_u32(self.released.len()).to_le_bytes());
        for id in &self.released {
            put_entry_id(out, *id);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let flags = input.u8()?;
        if flags > 15 {
            return Err(DecodeError::invalid(SUMMARY, format!("flags {flags:#x} are unknown")));
        }
        let flag = |bit: u8| flags & bit != 0;
        let truncated_from = flag(1).then(|| input.u64().map(Index::new)).transpose()?;
        let committed = flag(2).then(|| input.entry_id()).transpose()?;
        let purged = flag(4).then(|| input.entry_id()).transpose()?;
        let vote = if flag(8) {
            let len = input.count(1)?;
            Some(Bytes::copy_from_slice(input.take(len)?))
        } else {
            None
        };
        let mut runs = Vec::new();
        for _ in 0..input.count(RUN_BYTES)? {
            runs.push(decode_run(input)?);
        }
        let mut displaced = Vec::new();
        for _ in 0..input.count(DISPLACED_BYTES)? {
            let id = input.entry_id()?;
            let row = Row { position: input.u64()?, length: input.u32()? };
            displaced.push(DisplacedRow { id, row: (row.position != 0).then_some(row) });
        }
        let mut released = BTreeSet::new();
        for _ in 0..input.count(RELEASED_BYTES)? {
            released.insert(input.entry_id()?);
        }
        Ok(Self { truncated_from, committed, purged, vote, runs, displaced, released })
    }
}

fn decode_run(input: &mut Input<'_>) -> Result<Run, DecodeError> {
    let run = Run {
        first: Index::new(input.u64()?),
        term: Term::new(input.u64()?),
        bytes: input.u64()?,
        page_at: input.u64()?,
        page_len: input.u32()?,
        page_crc: input.u32()?,
        count: input.u32()?,
    };
    // Every row takes two bytes or more: a count that the page can't hold never sizes an allocation.
    if usize::try_from(run.count).unwrap_or(usize::MAX) > RUN_ROWS
        || run.count == 0
        || u64::from(run.page_len) < u64::from(run.count).saturating_mul(2)
        || u64::from(run.page_len) > (RUN_ROWS as u64).saturating_mul(20)
    {
        return Err(DecodeError::invalid(SUMMARY, format!("a run of {} entries is impossible", run.count)));
    }
    Ok(run)
}

/// The row page of entries in index order.
pub(crate) fn encode_page(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len().saturating_mul(4));
    let mut end = 0_u64;
    for row in rows {
        put_varint(&mut out, row.position.wrapping_sub(end));
        put_varint(&mut out, row.length.into());
        end = row.end();
    }
    out
}

/// The rows of a page that `run` describes.
pub(crate) fn decode_page(bytes: &[u8], run: &Run) -> Result<Vec<Row>, DecodeError> {
    let computed = crc32fast::hash(bytes);
    if computed != run.page_crc {
        return Err(DecodeError::Checksum { what: PAGE, stored: run.page_crc, computed });
    }
    let mut input = Input::new(PAGE, bytes);
    let mut rows = Vec::new();
    let mut end = 0_u64;
    for _ in 0..run.count {
        let position = end.wrapping_add(input.varint()?);
        let length = u32::try_from(input.varint()?)
            .map_err(|_| DecodeError::invalid(PAGE, "an entry's length exceeds 32 bits"))?;
        let row = Row { position, length };
        end = row.end();
        rows.push(row);
    }
    input.finish()?;
    Ok(rows)
}

/// Where the parts of a sealed segment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The end of the frames.
    pub(crate) footer_at: u64,
    pub(crate) summary_at: u64,
    pub(crate) first_frame: u64,
    /// The sequence number behind the last frame.
    pub(crate) end_frame: u64,
    pub(crate) summary_len: u32,
    pub(crate) summary_crc: u32,
}

impl Trailer {
    pub(crate) fn encode(&self, segment: SegmentId, position: u64) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.footer_at.to_le_bytes());
        out.extend_from_slice(&self.summary_at.to_le_bytes());
        out.extend_from_slice(&self.first_frame.to_le_bytes());
        out.extend_from_slice(&self.end_frame.to_le_bytes());
        out.extend_from_slice(&self.summary_len.to_le_bytes());
        out.extend_from_slice(&self.summary_crc.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
        let crc = placed_crc(segment, position, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields add up to 64 bytes")
    }

    /// The trailer at `position` of the segment; an error if none was written there.
    pub(crate) fn decode(
        bytes: &[u8; TRAILER_BYTES],
        segment: SegmentId,
        position: u64,
    ) -> Result<Self, DecodeError> {
        let mut input = Input::new(TRAILER, bytes);
        input.expect(MAGIC, "the magic number")?;
        let version = input.u16()?;
        input.take(2)?;
        let trailer = Self {
            footer_at: input.u64()?,
            summary_at: input.u64()?,
            first_frame: input.u64()?,
            end_frame: input.u64()?,
            summary_len: input.u32()?,
            summary_crc: input.u32()?,
        };
        input.take(12)?;
        let (covered, _) = bytes.split_at(input.at());
        let (stored, computed) = (input.u32()?, placed_crc(segment, position, covered));
        if stored != computed {
            return Err(DecodeError::Checksum { what: TRAILER, stored, computed });
        }
        if version != VERSION {
            return Err(DecodeError::Version {
                what: TRAILER,
                found: version.into(),
                supported: VERSION.into(),
            });
        }
        let summary_end = trailer.summary_at.checked_add(trailer.summary_len.into());
        if trailer.footer_at > trailer.summary_at
            || summary_end.is_none_or(|end| end > position)
            || trailer.first_frame > trailer.end_frame
        {
            return Err(DecodeError::invalid(TRAILER, "its positions contradict each other"));
        }
        Ok(trailer)
    }
}
