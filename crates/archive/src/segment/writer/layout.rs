//! Lays collected entries out: sorts batches into blocks, compresses, and assembles the object.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use duramen_types::batch::Batch;
use duramen_types::{Compression, DecodeError, Hash, HybridTime, Offset, StreamId, Term, Writer};

use super::super::block::{self, Block, BlockBatch};
use super::super::directory::{BlockEntry, BlockKind, DirectoryRow, StreamPageEntry, encode_directory};
use super::super::entries::{self, Location, TableBatch};
use super::super::format::{LEAD, TARGET_BLOCK, TARGET_STREAM_PAGE};
use super::super::part::Part;
use super::super::streams::{self, StreamRow};
use super::super::trailer::{Extent, Trailer};
use super::{PendingBatch, PendingEntry, SegmentFacts, SegmentObject, SegmentWriter, WriteError};

/// Blocks in the order of the object, each a range of `order`, which numbers the batches.
struct Plan {
    order: Vec<usize>,
    blocks: Vec<(BlockKind, Compression, Range<usize>)>,
}

pub(super) fn lay_out(
    mut writer: SegmentWriter,
    compression: &(dyn Fn(StreamId) -> Compression + Sync),
) -> Result<SegmentObject, WriteError> {
    let plan = plan_blocks(&writer.batches, compression);
    let blocks = writer.in_parallel(plan.blocks.len(), |number, compressor| {
        let (kind, compression, range) = &plan.blocks[number];
        let batches = writer.block(&plan.order[range.clone()])?;
        let compressor = Some(compressor).filter(|_| *compression == Compression::Zstd);
        let (part, stored) = Part::seal("data block", Block::encode(&batches), compressor)?;
        let count = u32::try_from(batches.len()).expect("a part is too small for 2^32 batches");
        Ok((BlockEntry { part, kind: *kind, batches: count }, stored))
    })?;
    let mut locations = vec![Location { block: 0, slot: 0 }; writer.batches.len()];
    for (block, (_, _, range)) in (0_u32..).zip(&plan.blocks) {
        for (slot, number) in (0_u32..).zip(&plan.order[range.clone()]) {
            locations[*number] = Location { block, slot };
        }
    }
    let stream_rows = writer.stream_rows(&plan);
    // The batches are in their blocks now: what remains is read from the table's fields.
    for batch in &mut writer.batches {
        batch.batch = Bytes::new();
    }
    let entry_pages = writer.in_parallel(writer.pages.len(), |number, compressor| {
        let page = &writer.pages[number];
        let end = writer.pages.get(number + 1).map_or(writer.entries.len(), |next| next.entry);
        let raw = writer.entry_page(&writer.entries[page.entry..end], page.batch, &locations);
        let (part, stored) = Part::seal("entry page", raw, Some(compressor))?;
        Ok((writer.page_row(page, end - page.entry, part), stored))
    })?;
    let stream_chunks: Vec<&[StreamRow]> = stream_rows.chunks(TARGET_STREAM_PAGE / streams::ROW).collect();
    let stream_pages = writer.in_parallel(stream_chunks.len(), |number, compressor| {
        let rows = stream_chunks[number];
        let mut out = Writer::with_capacity(rows.len() * streams::ROW);
        rows.iter().for_each(|row| row.encode(&mut out));
        let (part, stored) = Part::seal("stream page", out.into_bytes(), Some(compressor))?;
        let row =
            StreamPageEntry { part, stream: rows[0].stream, first: rows[0].first, rows: rows.len() as u32 };
        Ok((row, stored))
    })?;

    let mut object = ObjectBytes { chunks: vec![Bytes::from_static(LEAD)], length: LEAD.len() as u64 };
    let blocks = object.parts(blocks);
    let entry_rows = object.parts(entry_pages);
    let stream_page_rows = object.parts(stream_pages);
    let blocks = object.extent(encode_directory(&blocks));
    let entries = object.extent(encode_directory(&entry_rows));
    let streams = object.extent(encode_directory(&stream_page_rows));
    Ok(writer.close(object, blocks, entries, streams))
}

/// Sorts the batches and cuts the sequence where a block is full, or the kind or the compression changes.
fn plan_blocks(batches: &[PendingBatch], compression: &(dyn Fn(StreamId) -> Compression + Sync)) -> Plan {
    let key = |number: &usize| {
        let batch = &batches[*number];
        match batch.fate.place(batch.stream) {
            Some((stream, base)) => (BlockKind::Streams, stream, base, *number),
            None => (BlockKind::Aside, StreamId::ZERO, Offset::ZERO, *number),
        }
    };
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_unstable_by_key(key);
    let mut blocks: Vec<(BlockKind, Compression, Range<usize>)> = Vec::new();
    let mut size = 0;
    let mut stream = None;
    let mut wanted = Compression::Zstd;
    for (at, number) in order.iter().enumerate() {
        let batch = &batches[*number];
        let kind = key(number).0;
        if stream != Some(batch.stream) {
            stream = Some(batch.stream);
            wanted = compression(batch.stream);
        }
        let len = batch.batch.len() + block::ROW;
        match blocks.last_mut() {
            Some((last, same, range)) if *last == kind && *same == wanted && size + len <= TARGET_BLOCK => {
                range.end = at + 1;
                size += len;
            }
            Some(_) | None => {
                blocks.push((kind, wanted, at..at + 1));
                size = len;
            }
        }
    }
    Plan { order, blocks }
}

impl SegmentWriter {
    fn block(&self, numbers: &[usize]) -> Result<Vec<BlockBatch>, WriteError> {
        numbers.iter().map(|number| self.checked_batch(*number)).collect()
    }

    /// A batch for its block, after comparing its bytes with the hash that the chain covers.
    fn checked_batch(&self, number: usize) -> Result<BlockBatch, WriteError> {
        let pending = &self.batches[number];
        let index = self.entries[pending.entry].id.index;
        let hash = Batch::from_trusted(pending.batch.clone()).map(|batch| batch.hash());
        if hash.ok() != Some(pending.hash) {
            let batch =
                self.batches[..number].iter().rev().take_while(|other| other.entry == pending.entry).count();
            return Err(WriteError::Hash { index, batch });
        }
        Ok(self.block_batch(number))
    }

    fn block_batch(&self, number: usize) -> BlockBatch {
        let pending = &self.batches[number];
        let entry = &self.entries[pending.entry];
        let (stream, base) = pending.fate.block_place(pending.stream);
        BlockBatch {
            stream,
            index: entry.id.index,
            time: entry.time,
            base,
            records: pending.records,
            batch: pending.batch.clone(),
        }
    }

    fn stream_rows(&self, plan: &Plan) -> Vec<StreamRow> {
        let mut rows: Vec<StreamRow> = Vec::new();
        for (number, (kind, _, range)) in (0_u32..).zip(&plan.blocks) {
            if *kind == BlockKind::Aside {
                break;
            }
            for (slot, at) in (0_u32..).zip(&plan.order[range.clone()]) {
                let (batch, timestamps) = (self.block_batch(*at), self.batches[*at].timestamps);
                match rows.last_mut() {
                    Some(row) if row.stream == batch.stream && row.block == number => {
                        row.extend(&batch, timestamps);
                    }
                    Some(_) | None => rows.push(StreamRow::new(&batch, number, slot, timestamps)),
                }
            }
        }
        rows
    }

    fn entry_page(&self, entries: &[PendingEntry], first_batch: usize, locations: &[Location]) -> Vec<u8> {
        let mut out = Writer::new();
        let mut at = first_batch;
        for entry in entries {
            let range = at..at + entry.batches;
            at = range.end;
            let batches = range.map(|number| TableBatch {
                fate: self.batches[number].fate,
                location: Some(locations[number]),
            });
            entries::encode(entry.id, entry.time, &entry.head, batches, &mut out);
        }
        out.into_bytes()
    }

    /// Runs `make` for every number below `count` on the threads that the options allow; results in order.
    fn in_parallel<T: Send>(
        &self,
        count: usize,
        make: impl Fn(usize, &mut zstd::bulk::Compressor<'_>) -> Result<T, WriteError> + Sync,
    ) -> Result<Vec<T>, WriteError> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(count));
        let work = || {
            let mut compressor = zstd::bulk::Compressor::new(self.options.compression_level)
                .map_err(|error| DecodeError::invalid("zstd compressor", error.to_string()))?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, WriteError>(());
                }
                let made = make(number, &mut compressor)?;
                done.lock().expect("no thread panics while it holds the lock").push((number, made));
            }
        };
        std::thread::scope(|scope| {
            let others = self.options.threads.get().min(count).saturating_sub(1);
            let handles: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let here = work();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(here, |all, one| all.and(one))
        })?;
        let mut done = done.into_inner().expect("no thread panics while it holds the lock");
        done.sort_unstable_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, made)| made).collect())
    }

    fn close(
        self,
        mut object: ObjectBytes,
        blocks: Extent,
        entries: Extent,
        streams: Extent,
    ) -> SegmentObject {
        let appended = || self.batches.iter().filter(|batch| batch.fate.place(batch.stream).is_some());
        let records = appended().map(|batch| u64::from(batch.records)).sum();
        let timestamps = appended()
            .map(|batch| batch.timestamps)
            .reduce(|(min, max), (low, high)| (min.min(low), max.max(high)));
        let time = |entry: Option<&PendingEntry>| entry.map_or(HybridTime::ZERO, |entry| entry.time);
        let trailer = Trailer {
            identity: self.options.identity.clone(),
            level: 0,
            first: self.options.first,
            end: self.end(),
            first_time: time(self.entries.first()),
            last_time: time(self.entries.last()),
            chain_before: self.options.chain_before,
            chain_after: self.chain,
            batches: self.batches.len() as u64,
            records,
            timestamps,
            object: object.length + Trailer::LEN as u64,
            blocks,
            entries,
            streams,
            encryption: 0,
        };
        object.push(trailer.encode().into());
        let facts = SegmentFacts {
            identity: trailer.identity,
            first: trailer.first,
            end: trailer.end,
            first_time: trailer.first_time,
            last_time: trailer.last_time,
            last_term: self.entries.last().map_or(Term::ZERO, |entry| entry.id.term),
            has_user_entries: self.has_user_entries,
            bytes: trailer.object,
            batches: trailer.batches,
            records: trailer.records,
            timestamps: trailer.timestamps,
            chain_before: trailer.chain_before,
            chain_after: trailer.chain_after,
            hash: object.hash(),
            streams: self.streams.into_iter().collect(),
        };
        SegmentObject { chunks: object.chunks, facts }
    }
}

/// The object as it grows.
struct ObjectBytes {
    chunks: Vec<Bytes>,
    length: u64,
}

impl ObjectBytes {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len() as u64;
        self.chunks.push(bytes);
    }

    /// Appends the parts and tells each row where its part is.
    fn parts<R: DirectoryRow>(&mut self, parts: Vec<(R, Bytes)>) -> Vec<R> {
        let place = |(mut row, bytes): (R, Bytes)| {
            row.part_mut().position = self.length;
            self.push(bytes);
            row
        };
        parts.into_iter().map(place).collect()
    }

    fn extent(&mut self, directory: Vec<u8>) -> Extent {
        let length = u32::try_from(directory.len()).expect("a directory is smaller than the parts it lists");
        let extent = Extent { position: self.length, length, crc: crc32fast::hash(&directory) };
        self.push(directory.into());
        extent
    }

    fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for chunk in &self.chunks {
            hasher.update(chunk);
        }
        Hash::from_bytes(hasher.finalize().into())
    }
}
