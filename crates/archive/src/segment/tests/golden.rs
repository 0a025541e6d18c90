//! The golden files of a segment and of a snapshot (`tests/golden`), made from the golden log of `duramen-types`.
//!
//! Another version of zstd may compress otherwise. So there are two files of each: one as it is written, of which what
//! is decoded is compared, and one with everything stored uncompressed, which is compared byte for byte and can be read
//! without zstd.

use std::path::Path;

use duramen_state::ShardState;
use duramen_types::{Entry, EntryId, Term};

use super::super::directory::{
    BlockEntry, DirectoryRow, EntryPageEntry, StreamPageEntry, decode_directory, encode_directory,
};
use super::super::format::LEAD;
use super::super::part::PartCodec;
use super::super::trailer::Extent;
use super::*;
use crate::Snapshot;
use crate::golden::{GOLDEN, resists_damage};

const SHARD: ShardId = ShardId::new(1);

fn identity() -> SegmentIdentity {
    SegmentIdentity { shard: SHARD, ..super::identity(1) }
}

/// The golden log, applied, and the state after its first 14 entries, when the stream was still there.
fn golden_log() -> (Vec<Logged>, ShardState) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../types/tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("entry-"));
    files.sort();
    let mut state = ShardState::new(SHARD);
    let mut then = state.clone();
    let log = files.into_iter().map(|path| {
        let entry = Entry::decode(std::fs::read(path).unwrap().into()).unwrap();
        let term = Term::new(if state.end().get() < 12 { 1 } else { 4 });
        let id = EntryId { index: state.end(), term };
        let applied = state.apply(id, entry.head(), &entry.head_bytes()).unwrap();
        if id.index.get() == 13 {
            then = state.clone();
        }
        Logged { id, time: applied.time, entry, outcomes: applied.batches }
    });
    (log.collect(), then)
}

fn segment(log: &[Logged]) -> Bytes {
    let options = SegmentOptions { identity: identity(), ..options(Index::ZERO, genesis(SHARD)) };
    let mut writer = SegmentWriter::new(options);
    for logged in log {
        writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
    }
    writer.finish(&|_| Compression::Zstd).unwrap().into_bytes()
}

fn open(bytes: &Bytes) -> Result<SegmentReader, SegmentError> {
    let source = Arc::new(BytesSource::new("segment", bytes.clone()));
    block_on(SegmentReader::open(source, bytes.len() as u64, &identity()))
}

/// The same segment with every part stored as it is.
fn stored(bytes: &Bytes) -> Bytes {
    fn rows<R: DirectoryRow>(bytes: &Bytes, extent: &Extent, at: &mut u64, out: &mut Vec<u8>) -> Vec<R> {
        let directory = bytes.slice(extent.position as usize..extent.end() as usize);
        let mut rows: Vec<R> = decode_directory(&directory, at).unwrap();
        for row in &mut rows {
            let part = row.part_mut();
            let raw = bytes.slice(part.position as usize..part.end() as usize);
            let raw = part.open("part", raw).unwrap();
            part.position = out.len() as u64;
            (part.stored, part.codec, part.crc) = (part.raw, PartCodec::Stored, crc32fast::hash(&raw));
            out.extend_from_slice(&raw);
        }
        rows
    }
    fn place(directory: Vec<u8>, out: &mut Vec<u8>) -> Extent {
        let position = out.len() as u64;
        let (length, crc) = (directory.len() as u32, crc32fast::hash(&directory));
        out.extend_from_slice(&directory);
        Extent { position, length, crc }
    }
    let mut trailer = open(bytes).unwrap().index().trailer().clone();
    let (mut at, mut out) = (LEAD.len() as u64, LEAD.to_vec());
    let blocks: Vec<BlockEntry> = rows(bytes, &trailer.blocks, &mut at, &mut out);
    let entries: Vec<EntryPageEntry> = rows(bytes, &trailer.entries, &mut at, &mut out);
    let streams: Vec<StreamPageEntry> = rows(bytes, &trailer.streams, &mut at, &mut out);
    trailer.blocks = place(encode_directory(&blocks), &mut out);
    trailer.entries = place(encode_directory(&entries), &mut out);
    trailer.streams = place(encode_directory(&streams), &mut out);
    trailer.object = (out.len() + Trailer::LEN) as u64;
    out.extend_from_slice(&trailer.encode());
    out.into()
}

type Content = (Vec<EntryRow>, Vec<StreamRow>, Vec<Entry>);

/// Everything that is in a segment, after proving all of it.
fn read(bytes: &Bytes) -> Result<Content, SegmentError> {
    let reader = open(bytes)?;
    block_on(async {
        reader.verify_full().await?;
        let (mut rows, mut streams, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for page in 0..reader.index().entry_pages() {
            rows.extend(reader.entry_page(page).await?);
        }
        for page in 0..reader.index().stream_pages() {
            streams.extend(reader.stream_page(page).await?);
        }
        for row in &rows {
            entries.push(reader.read_entry(row.id.index).await?);
        }
        Ok((rows, streams, entries))
    })
}

#[test]
fn a_segment_is_the_golden_one() {
    let (log, _) = golden_log();
    let written = segment(&log);
    let uncompressed = Bytes::from(GOLDEN.assert_golden("segment-stored.bin", &stored(&written)));
    let compressed = Bytes::from(GOLDEN.committed("segment.bin", &written));
    assert_eq!(stored(&compressed), uncompressed, "the parts' contents are the same");
    for bytes in [compressed, uncompressed] {
        let (rows, streams, entries) = resists_damage(&bytes, read);
        for ((row, entry), logged) in rows.iter().zip(&entries).zip(&log) {
            assert_eq!((row.id, row.time, entry), (logged.id, logged.time, &logged.entry));
            let fates: Vec<Fate> = logged.outcomes.iter().map(Fate::from).collect();
            assert_eq!(row.batches.iter().map(|batch| batch.fate).collect::<Vec<_>>(), fates);
        }
        assert_eq!(entries.len(), log.len());
        // The stream, and the one that its rescue created.
        assert_eq!(streams.iter().map(|row| row.stream.get()).collect::<Vec<_>>(), [2, 13]);
        let fates = rows.iter().flat_map(|row| &row.batches).map(|batch| match batch.fate {
            Fate::Appended { .. } => 0,
            Fate::Duplicate { .. } => 1,
            Fate::Rejected(_) => 2,
            Fate::Rescued { .. } => 3,
        });
        assert_eq!(fates.collect::<Vec<_>>(), [0, 0, 2, 1, 3, 3], "every fate occurs");
    }
}

/// A zstd frame of one block that is stored as it is (RFC 8878).
fn raw_frame(raw: &[u8]) -> Vec<u8> {
    let size = u32::try_from(raw.len()).unwrap();
    let block = 1 | size << 3;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &size.to_le_bytes(), &block.to_le_bytes()[..3], raw].concat()
}

/// The snapshot with its state in a frame that is not compressed.
fn uncompressed(snapshot: &Snapshot) -> Vec<u8> {
    let frame = raw_frame(&snapshot.state.encode());
    // Magic, version, encryption, shard, archive, the branch's name, end, chain, raw length.
    let head = 8 + 4 + 1 + 2 + 16 + 1 + snapshot.branch.as_str().len() + 8 + 32 + 8;
    let mut bytes = snapshot.encode()[..head].to_vec();
    bytes.extend_from_slice(&(frame.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&frame);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

#[test]
fn a_snapshot_is_the_golden_one() {
    let (_, state) = golden_log();
    let snapshot = Snapshot { archive: identity().archive, branch: identity().branch, state };
    let stored = GOLDEN.assert_golden("snapshot-stored.bin", &uncompressed(&snapshot));
    let compressed = GOLDEN.committed("snapshot.bin", &snapshot.encode());
    for bytes in [compressed, stored] {
        assert_eq!(resists_damage(&bytes, |bytes| Snapshot::decode(bytes)), snapshot);
    }
}
