use duramen_types::Entry;

use super::directory::{BlockEntry, EntryPageEntry, decode_directory, encode_directory};
use super::format::LEAD;
use super::part::Part;
use super::trailer::Extent;
use super::*;

/// Reads everything there is to read.
fn read_all(bytes: Bytes) -> Result<(Vec<Entry>, Trailer), SegmentError> {
    let reader = open(bytes)?;
    block_on(reader.verify_full())?;
    let trailer = reader.index().trailer().clone();
    let mut entries = Vec::new();
    let mut index = trailer.first;
    while index < trailer.end {
        entries.push(block_on(reader.read_entry(index))?);
        index = index.next();
    }
    Ok((entries, trailer))
}

fn small() -> Bytes {
    write(&RandomLog::new(5).take(12)).chunks.concat().into()
}

#[test]
fn every_bit_flip_of_a_segment_is_an_error() {
    let good = small();
    read_all(good.clone()).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(read_all(bad.into()).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// Alters one byte of what the first read gives.
#[derive(Debug)]
struct DamagedOnce {
    object: BytesSource,
    at: u64,
    done: std::sync::atomic::AtomicBool,
}

impl RangeSource for DamagedOnce {
    fn name(&self) -> &str {
        self.object.name()
    }

    fn read(
        &self,
        range: std::ops::Range<u64>,
    ) -> futures::future::BoxFuture<'_, Result<Bytes, SegmentError>> {
        Box::pin(async move {
            let read = self.object.read(range.clone()).await?;
            if !range.contains(&self.at) || self.done.swap(true, std::sync::atomic::Ordering::Relaxed) {
                return Ok(read);
            }
            let mut altered = read.to_vec();
            altered[usize::try_from(self.at - range.start).unwrap()] ^= 1;
            Ok(altered.into())
        })
    }
}

#[test]
fn damage_on_the_way_from_the_store_is_not_kept() {
    let good = small();
    for at in 0..good.len() as u64 {
        let object = BytesSource::new("main/shard-0003/x", good.clone());
        let source = Arc::new(DamagedOnce { object, at, done: false.into() });
        let opened = || block_on(SegmentReader::open(source.clone(), good.len() as u64, &identity(1)));
        // Damage to the trailer and the directories is an error at once, and nothing is kept of it.
        let reader = opened().or_else(|_| opened()).unwrap();
        block_on(reader.verify_full()).unwrap_or_else(|error| panic!("byte {at}: {error}"));
    }
}

#[test]
fn every_truncation_of_a_segment_is_an_error() {
    let good = small();
    for len in 0..good.len() {
        assert!(open(good.slice(..len)).is_err(), "{len} bytes");
        assert!(
            open(good.slice(len + 1..)).and_then(|reader| block_on(reader.verify_full())).is_err(),
            "from {len}"
        );
    }
}

#[test]
fn another_segment_under_the_key_is_named() {
    let bytes = small();
    let length = bytes.len() as u64;
    let source = || Arc::new(BytesSource::new("main/shard-0003/x", bytes.clone()));
    let other = ArchiveId::from_bytes([8; 16]);
    let cases = [
        (SegmentIdentity { archive: other, ..identity(1) }, "archive"),
        (SegmentIdentity { branch: BranchName::parse("other").unwrap(), ..identity(1) }, "branch"),
        (SegmentIdentity { shard: ShardId::new(4), ..identity(1) }, "shard"),
        (identity(2), "segment id"),
    ];
    for (expected, field) in cases {
        let error = block_on(SegmentReader::open(source(), length, &expected)).unwrap_err();
        assert!(matches!(&error, SegmentError::Swapped { field: found, .. } if *found == field), "{error}");
        assert!(error.to_string().contains("main/shard-0003/x"), "{error}");
    }
}

/// A copy of the object with some of its parts changed and every checksum made to fit again.
struct Forger {
    bytes: Vec<u8>,
    trailer: Trailer,
    blocks: Vec<BlockEntry>,
    entries: Vec<EntryPageEntry>,
}

impl Forger {
    fn new(bytes: &Bytes) -> Self {
        let trailer = open(bytes.clone()).unwrap().index().trailer().clone();
        let directory = |extent: &Extent| bytes.slice(extent.position as usize..extent.end() as usize);
        let mut at = LEAD.len() as u64;
        let blocks = decode_directory(&directory(&trailer.blocks), &mut at).unwrap();
        let entries = decode_directory(&directory(&trailer.entries), &mut at).unwrap();
        Self { bytes: bytes.to_vec(), trailer, blocks, entries }
    }

    fn raw(&self, part: &Part) -> Vec<u8> {
        let stored = self.bytes[part.position as usize..part.end() as usize].to_vec();
        part.open("part", stored.into()).unwrap().to_vec()
    }

    /// Puts `raw` in place of a part of a segment that was written without compression.
    fn replace(&mut self, part: &mut Part, raw: &[u8]) {
        assert_eq!(part.stored as usize, raw.len());
        self.bytes[part.position as usize..part.end() as usize].copy_from_slice(raw);
        part.crc = crc32fast::hash(raw);
    }

    fn finish(mut self) -> Bytes {
        for (extent, directory) in [
            (&mut self.trailer.blocks, encode_directory(&self.blocks)),
            (&mut self.trailer.entries, encode_directory(&self.entries)),
        ] {
            self.bytes[extent.position as usize..extent.end() as usize].copy_from_slice(&directory);
            extent.crc = crc32fast::hash(&directory);
        }
        let at = self.bytes.len() - Trailer::LEN;
        self.bytes[at..].copy_from_slice(&self.trailer.encode());
        self.bytes.into()
    }
}

/// A segment with one incompressible batch in each of many streams, so that its parts are stored as they are.
fn stored() -> Bytes {
    let log = RandomLog::new(5).take(80);
    let mut writer = SegmentWriter::new(options(Index::ZERO, genesis(ShardId::new(3))));
    for logged in &log {
        writer.push(logged.id, logged.time, &logged.entry, &logged.outcomes).unwrap();
    }
    writer.finish(&|_| Compression::None).unwrap().chunks.concat().into()
}

#[test]
fn a_batch_altered_with_all_checksums_made_to_fit_is_named() {
    let good = stored();
    let mut forger = Forger::new(&good);
    let mut entry = forger.blocks[0];
    let mut raw = forger.raw(&entry.part);
    *raw.last_mut().unwrap() ^= 1;
    forger.replace(&mut entry.part, &raw);
    forger.blocks[0] = entry;
    let reader = open(forger.finish()).unwrap();
    block_on(reader.verify_structure()).unwrap();
    let error = block_on(reader.verify_full()).unwrap_err();
    assert!(matches!(&error, SegmentError::Altered { part, .. } if part == "block 0"), "{error}");
    assert!(error.to_string().contains("is not the one that was written"), "{error}");
}

#[test]
fn a_block_row_altered_with_all_checksums_made_to_fit_is_named() {
    // Fields of the first row: stream, index, time, base offset, records.
    for (at, len) in [(4, 8), (12, 8), (20, 8), (28, 8), (36, 4)] {
        let good = stored();
        let mut forger = Forger::new(&good);
        let mut entry = forger.blocks[0];
        let mut raw = forger.raw(&entry.part);
        raw[at + len - 1] ^= 1;
        forger.replace(&mut entry.part, &raw);
        forger.blocks[0] = entry;
        let error = block_on(open(forger.finish()).unwrap().verify_full()).unwrap_err();
        assert!(matches!(&error, SegmentError::Altered { part, .. } if part == "block 0"), "{error}");
    }
}

#[test]
fn an_altered_chain_value_is_named() {
    let good = small();
    let mut forger = Forger::new(&good);
    forger.trailer.chain_after = genesis(ShardId::new(9));
    let error = block_on(open(forger.finish()).unwrap().verify_structure()).unwrap_err();
    assert!(error.to_string().contains("history chain"), "{error}");

    let mut forger = Forger::new(&good);
    forger.trailer.records += 1;
    let error = block_on(open(forger.finish()).unwrap().verify_structure()).unwrap_err();
    assert!(error.to_string().contains("sums up"), "{error}");
}

#[test]
fn encryption_is_refused_and_so_is_a_newer_format() {
    let good = small();
    let mut forger = Forger::new(&good);
    forger.trailer.encryption = 1;
    let error = open(forger.finish()).unwrap_err();
    assert!(matches!(error, SegmentError::Encrypted { .. }), "{error}");

    let mut bytes = good.to_vec();
    let at = bytes.len() - Trailer::LEN;
    bytes[at + 8] = 2;
    let crc = crc32fast::hash(&bytes[at..good.len() - 12]);
    bytes[good.len() - 12..good.len() - 8].copy_from_slice(&crc.to_le_bytes());
    let error = open(bytes.into()).unwrap_err();
    assert!(error.to_string().contains("use a newer release"), "{error}");
}

#[test]
fn a_block_that_decompresses_to_more_than_stated_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 32 << 20], 1).unwrap();
    let stated = |raw: u32| Part {
        position: 0,
        stored: bomb.len() as u32,
        raw,
        codec: part::PartCodec::Zstd,
        crc: crc32fast::hash(&bomb),
    };
    assert!(stated(1 << 20).open("block", bomb.clone().into()).is_err());
    assert!(stated((32 << 20) - 1).open("block", bomb.clone().into()).is_err());
    assert!(stated((32 << 20) + 1).open("block", bomb.clone().into()).is_err());
    assert_eq!(stated(32 << 20).open("block", bomb.clone().into()).unwrap().len(), 32 << 20);

    let mut too_large = duramen_types::Writer::new();
    stated(u32::MAX).encode(&mut too_large);
    let bytes = too_large.into_bytes();
    assert!(Part::decode(&mut duramen_types::Reader::new("part", &bytes)).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(open(bytes.into()).is_err());
    }
}
