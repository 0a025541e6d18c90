//! Proves a segment: its structure and chain from the entry table, then every byte of its batches.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::ops::Range;

use duramen_types::batch::Batch;
use duramen_types::{BatchHeader, Hash, leaf};

use super::block::BlockBatch;
use super::directory::BlockKind;
use super::entries::{EntryRow, TableBatch};
use super::error::SegmentError;
use super::format::LEAD;
use super::reader::SegmentReader;
use super::streams::StreamRow;

/// How many batches are compared in one pass over the entry table: bounds the memory to 56 bytes for each.
const BATCHES_A_PASS: u64 = 1 << 18;

/// Sums over the entry table, to be compared with the trailer's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    batches: u64,
    records: u64,
    timestamps: Option<(i64, i64)>,
}

impl SegmentReader {
    /// Proves everything but the blocks: each entry's place, time and leaf, the chain from the trailer's
    /// `chain_before` to its `chain_after`, the totals, and that the stream index is in order.
    ///
    /// Memory: one page. The trailer's chain values are the caller's to compare with the manifest.
    pub async fn verify_structure(&self) -> Result<(), SegmentError> {
        let index = self.index();
        let lead = self.source().read(0..u64::try_from(LEAD.len()).unwrap_or(u64::MAX)).await?;
        if *lead != *LEAD {
            return Err(index.altered("beginning", "it is not that of a segment"));
        }
        let trailer = index.trailer();
        let mut chain = trailer.chain_before;
        let mut last = None;
        let mut totals = Totals::default();
        for (number, page) in index.entry_page_entries().iter().enumerate() {
            let part = || format!("entry page {number}");
            if page.chain_before != chain {
                return Err(index.altered(part(), "it does not continue the history chain"));
            }
            let rows = self.entry_page(number).await?;
            if rows.first().map(|row| row.time) != Some(page.first_time) {
                return Err(index.altered(part(), "its first entry's time is not the directory's"));
            }
            for row in &rows {
                if last.is_some_and(|(term, time)| row.id.term < term || row.time < time) {
                    return Err(
                        index.altered(part(), format!("term or time of entry {} runs backwards", row.id))
                    );
                }
                last = Some((row.id.term, row.time));
                chain = chain.extend(&leaf(row.id, row.time, &row.head_bytes));
                self.add(row, &mut totals)?;
            }
        }
        if chain != trailer.chain_after {
            return Err(index.altered("entry table", "its history chain does not end in the trailer's value"));
        }
        let times =
            (index.entry_page_entries().first().map(|page| page.first_time), last.map(|(_, time)| time));
        if times != (Some(trailer.first_time), Some(trailer.last_time)) {
            return Err(index.altered("entry table", "its first or last time is not the trailer's"));
        }
        let stated =
            Totals { batches: trailer.batches, records: trailer.records, timestamps: trailer.timestamps };
        if totals != stated {
            return Err(
                index.altered("entry table", format!("it sums up to {totals:?}, the trailer to {stated:?}"))
            );
        }
        let mut last: Option<StreamRow> = None;
        for number in 0..index.stream_pages() {
            for row in self.stream_page(number).await? {
                if last.is_some_and(|last| !last.precedes(&row)) {
                    return Err(index.altered(format!("stream page {number}"), "it is out of order"));
                }
                last = Some(row);
            }
        }
        Ok(())
    }

    fn add(&self, row: &EntryRow, totals: &mut Totals) -> Result<(), SegmentError> {
        for (header, batch) in row.head.body.batches().iter().zip(&row.batches) {
            totals.batches = totals.batches.saturating_add(1);
            if batch.fate.place(header.stream).is_some() {
                totals.records = totals.records.saturating_add(header.records.into());
                let (low, high) = timestamps(header);
                totals.timestamps =
                    Some(totals.timestamps.map_or((low, high), |(min, max)| (min.min(low), max.max(high))));
            }
            if let Some(location) = batch.location {
                let index = self.index();
                let block = usize::try_from(location.block).ok().and_then(|at| index.block_entries().get(at));
                let fits = block.is_some_and(|block| {
                    location.slot < block.batches
                        && (block.kind == BlockKind::Streams) == batch.fate.place(header.stream).is_some()
                });
                if !fits {
                    let reason = format!("a batch of entry {} is said to be at {location:?}", row.id);
                    return Err(index.altered("entry table", reason));
                }
            }
        }
        Ok(())
    }

    /// Proves the whole object: its structure, then that each block holds exactly the batches that the entry table
    /// places there, byte for byte by their hashes, and that the stream index says where they are.
    ///
    /// Memory: a page, a block, and 56 bytes for each batch of up to 262,144; segments with more batches are gone
    /// through in several passes over their entry table.
    pub async fn verify_full(&self) -> Result<(), SegmentError> {
        self.verify_structure().await?;
        let mut stream_rows = StreamRows { page: 0, rows: Vec::new().into_iter() };
        let mut start = 0;
        while start < self.index().block_entries().len() {
            let end = self.pass_from(start);
            let mut expected = self.expected(start..end).await?;
            for number in start..end {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let expected = expected.next().unwrap_or_default();
                self.verify_block(number, &expected, &mut stream_rows).await?;
            }
            start = end;
        }
        match stream_rows.next(self).await? {
            None => Ok(()),
            Some(row) => {
                let reason = format!("it has a row for stream {} offset {} too many", row.stream, row.first);
                Err(self.index().altered("stream index", reason))
            }
        }
    }

    /// The end of a run of blocks with a bounded number of batches, at least one block.
    fn pass_from(&self, start: usize) -> usize {
        let mut batches = 0_u64;
        let rest = self.index().block_entries().iter().skip(start);
        let fitting = rest.take_while(|block| {
            batches = batches.saturating_add(block.batches.into());
            batches <= BATCHES_A_PASS
        });
        start.saturating_add(fitting.count().max(1))
    }

    /// For each block, what the entry table places in each of its rows.
    async fn expected(&self, blocks: Range<usize>) -> Result<impl Iterator<Item = Vec<Slot>>, SegmentError> {
        let index = self.index();
        let entries = index.block_entries().get(blocks.clone()).unwrap_or_default();
        let mut expected: Vec<Vec<Slot>> = Vec::with_capacity(entries.len());
        for entry in entries {
            // The directory's count is checked against the block's size before it sizes anything.
            let most = entry.part.raw.checked_div(40).unwrap_or_default();
            if entry.batches > most {
                return Err(
                    index.altered("block directory", format!("a block states {} batches", entry.batches))
                );
            }
            expected.push(vec![None; usize::try_from(entry.batches).unwrap_or_default()]);
        }
        for page in 0..index.entry_pages() {
            for row in self.entry_page(page).await? {
                for (header, batch) in row.head.body.batches().iter().zip(&row.batches) {
                    let Some(location) = batch.location else { continue };
                    let block =
                        usize::try_from(location.block).ok().and_then(|at| at.checked_sub(blocks.start));
                    let slots = block.and_then(|at| expected.get_mut(at));
                    let slot =
                        slots.zip(usize::try_from(location.slot).ok()).and_then(|(s, at)| s.get_mut(at));
                    let Some(slot) = slot else { continue };
                    let stated = (fingerprint_of_row(&row, header, batch), timestamps(header));
                    if slot.replace(stated).is_some() {
                        let reason = format!("two batches are said to be at {location:?}");
                        return Err(index.altered("entry table", reason));
                    }
                }
            }
        }
        Ok(expected.into_iter())
    }

    async fn verify_block(
        &self,
        number: u32,
        expected: &[Slot],
        stream_rows: &mut StreamRows,
    ) -> Result<(), SegmentError> {
        let index = self.index();
        let part = || format!("block {number}");
        let block = self.block(number).await?;
        let kind =
            usize::try_from(number).ok().and_then(|at| index.block_entries().get(at)).map(|block| block.kind);
        for (at, batch) in block.batches().iter().enumerate() {
            let hash = Batch::from_trusted(batch.batch.clone()).map(|batch| batch.hash());
            let hash = hash.map_err(|error| {
                index.altered(part(), format!("the batch of entry {} is none: {error}", batch.index))
            })?;
            let stated = expected.get(at).copied().flatten().map(|(fingerprint, _)| fingerprint);
            if stated != Some(fingerprint(batch, &hash)) {
                let (stream, entry) = (batch.stream, batch.index);
                let reason =
                    format!("the batch of stream {stream} in entry {entry} is not the one that was written");
                return Err(index.altered(part(), reason));
            }
        }
        if kind == Some(BlockKind::Streams) {
            let timestamps: Vec<_> =
                expected.iter().map(|slot| slot.map_or((0, 0), |(_, timestamps)| timestamps)).collect();
            self.verify_stream_rows(number, block.batches(), &timestamps, stream_rows).await?;
        }
        Ok(())
    }

    /// The stream index must have, for this block, exactly one row for each run of a stream's batches.
    async fn verify_stream_rows(
        &self,
        number: u32,
        batches: &[BlockBatch],
        timestamps: &[(i64, i64)],
        stream_rows: &mut StreamRows,
    ) -> Result<(), SegmentError> {
        let mut slot = 0_u32;
        let mut timestamps = timestamps.iter().copied();
        for run in batches.chunk_by(|one, next| one.stream == next.stream) {
            let mut found: Option<StreamRow> = None;
            for (batch, timestamps) in run.iter().zip(timestamps.by_ref()) {
                match &mut found {
                    Some(row) => row.extend(batch, timestamps),
                    None => found = Some(StreamRow::new(batch, number, slot, timestamps)),
                }
            }
            let stated = stream_rows.next(self).await?;
            if found != stated {
                let stream = run.first().map(|batch| batch.stream).unwrap_or_default();
                let reason = format!("it does not say where stream {stream} is in block {number}");
                return Err(self.index().altered("stream index", reason));
            }
            slot = slot.saturating_add(u32::try_from(run.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

/// What must be in a block's row: a fingerprint, and the timestamps of the batch's header.
type Slot = Option<(Hash, (i64, i64))>;

/// The rows of the stream index, one page at a time.
struct StreamRows {
    page: usize,
    rows: std::vec::IntoIter<StreamRow>,
}

impl StreamRows {
    async fn next(&mut self, reader: &SegmentReader) -> Result<Option<StreamRow>, SegmentError> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            if self.page >= reader.index().stream_pages() {
                return Ok(None);
            }
            self.rows = reader.stream_page(self.page).await?.into_iter();
            self.page = self.page.saturating_add(1);
        }
    }
}

pub(super) fn timestamps(header: &BatchHeader) -> (i64, i64) {
    (header.base_timestamp.min(header.max_timestamp), header.max_timestamp)
}

fn fingerprint_of_row(row: &EntryRow, header: &BatchHeader, batch: &TableBatch) -> Hash {
    let (stream, base) = batch.fate.block_place(header.stream);
    let there = BlockBatch {
        stream,
        index: row.id.index,
        time: row.time,
        base,
        records: header.records,
        batch: Default::default(),
    };
    fingerprint(&there, &header.hash)
}

/// A hash of a block's row and of the batch's hash.
fn fingerprint(batch: &BlockBatch, hash: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for field in [batch.stream.get(), batch.index.get(), batch.time.as_micros(), batch.base.get()] {
        hasher.update(&field.to_le_bytes());
    }
    hasher.update(&batch.records.to_le_bytes()).update(hash.as_bytes());
    Hash::from_bytes(hasher.finalize().into())
}
