//! What each target does with its bytes: `cargo fuzz run TARGET`.
//!
//! A checksum would turn nearly every input away at the door. Where a format has one, the first byte of the input says
//! whether it is made true before the decoder sees the rest. What decodes must encode to the same bytes, and whatever is
//! refused must be refused without a panic and within the memory limit that the fuzzer is run with.

mod edge;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use duramen::config::{Layers, Loaded};
use duramen_archive::{BytesSource, ObjectKey, SegmentIdentity, SegmentReader, describe};
use duramen_state::ShardState;
use duramen_types::batch::{Limits, normalise, validate};
use duramen_types::{
    BranchName, Clock, CursorName, Entry, EntryHead, HybridTime, NodeId, Offset, SegmentId, StreamName,
    SystemClock, TenantName,
};
use duramen_wal::sim::SimDisk;
use duramen_wal::{Disk, Wal, WalOptions, inspect};

pub use edge::{grpc, http};

/// The bytes behind the first, and whether their checksum is to be made true.
fn split(data: &[u8]) -> Option<(bool, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((first & 1 == 1, rest))
}

/// Makes the CRC-32 at the end true.
fn seal(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len().saturating_sub(4));
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Makes the CRC-32 in a JSON object's envelope true, if there is one.
fn seal_document(bytes: &mut [u8]) {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|found| found == what);
    let (Some(crc), Some(body)) = (find(b"\"crc32\":\""), find(b"\"body\":")) else { return };
    let Some(text) = bytes.get(body + 7..bytes.len().saturating_sub(2)) else { return };
    let text = format!("{:08x}", crc32fast::hash(text));
    if let Some(place) = bytes.get_mut(crc + 9..crc + 17) {
        place.copy_from_slice(text.as_bytes());
    }
}

/// A record batch, as a producer sends it and as a reader gets it.
pub fn batch(data: &[u8]) {
    let Some((mend, rest)) = split(data) else { return };
    let mut bytes = rest.to_vec();
    if mend && bytes.len() > 61 {
        let length = u32::try_from(bytes.len() - 12).expect("the fuzzer's inputs are small");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let Ok((_, bytes)) = normalise(bytes.into()) else { return };
    // Little, so that a bomb shows as memory.
    let limits = Limits { max_uncompressed_bytes: 1 << 20, ..Limits::default() };
    let Ok(batch) = validate(bytes.clone(), &limits) else { return };
    let records = batch.records(Offset::new(7)).expect("it was valid");
    let read = records.iter().inspect(|record| assert!(record.is_ok(), "it was valid")).count();
    assert_eq!(read, usize::try_from(batch.count()).expect("a count"));
    assert_eq!(batch.into_bytes(), bytes);
}

/// An entry of the log, whole and its head alone.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = Entry::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(&entry.payload()[..], data);
        let head = EntryHead::decode(&entry.head_bytes()).expect("the head of an entry");
        assert_eq!(&head, entry.head());
    }
    if let Ok(head) = EntryHead::decode(data) {
        assert_eq!(head.encode(), data);
    }
}

/// A shard's state: of a snapshot or a checkpoint.
pub fn state(data: &[u8]) {
    let Some((mend, rest)) = split(data) else { return };
    let mut bytes = rest.to_vec();
    if mend {
        seal(&mut bytes);
    }
    let Ok(state) = ShardState::decode(&bytes) else { return };
    // What an older version says is written in this one.
    let encoded = state.encode();
    assert_eq!(ShardState::decode(&encoded).as_ref(), Ok(&state));
    if bytes[8] == 2 {
        assert_eq!(encoded, bytes);
    }
}

const SEGMENT: &str =
    "main/shard-0001/segments/00000000000000000000-00000000000000000014-07070707-0707-0707-0707-070707070707";

/// The keys of one object of each kind.
const KEYS: [&str; 11] = [
    "archive.json",
    "branches/main.json",
    "main/owner",
    "main/shard-0001/manifest/00000000000000000003",
    "main/shard-0001/checkpoint/00000000000000000003",
    "main/shard-0001/pages/07070707-0707-0707-0707-070707070707",
    "main/closed/00000000000000000003-1",
    "holds/07070707-0707-0707-0707-070707070707-00000000000000000003.json",
    "verdicts/00000000000000000003-07070707-0707-0707-0707-070707070707.json",
    SEGMENT,
    "main/shard-0001/snapshots/00000000000000000014",
];

/// An object of an archive, of the kind that the second byte says.
pub fn object(data: &[u8]) {
    let Some((mend, rest)) = split(data) else { return };
    let Some((kind, rest)) = rest.split_first() else { return };
    let Some(key) = ObjectKey::parse(KEYS[usize::from(*kind) % KEYS.len()]) else { return };
    let mut bytes = rest.to_vec();
    if mend {
        if bytes.starts_with(b"{") { seal_document(&mut bytes) } else { seal(&mut bytes) }
    }
    let bytes = Bytes::from(bytes);
    let _ = describe(&key, &bytes);
}

/// Every page and block of an archived segment that its trailer names.
pub fn segment(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Some(key) = ObjectKey::parse(SEGMENT) else { return };
    let Ok(trailer) = describe(&key, &bytes) else { return };
    let identity = || {
        Some(SegmentIdentity {
            archive: serde_json::from_value(trailer["archive"].clone()).ok()?,
            branch: serde_json::from_value(trailer["branch"].clone()).ok()?,
            shard: serde_json::from_value(trailer["shard"].clone()).ok()?,
            segment: serde_json::from_value(trailer["segment"].clone()).ok()?,
        })
    };
    let identity = identity().expect("what is described is an identity");
    let source = Arc::new(BytesSource::new("fuzzed", bytes));
    let length = u64::try_from(data.len()).expect("the fuzzer's inputs are small");
    wait(async {
        let Ok(reader) = SegmentReader::open(source, length, &identity).await else { return };
        for number in 0..8 {
            let _ = reader.entry_page(number).await;
            let _ = reader.stream_page(number).await;
        }
        for number in 0..8 {
            let _ = reader.block(number).await;
        }
    });
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

/// A segment of the write-ahead log: looked at, and recovered from.
pub fn wal(data: &[u8]) {
    let disk = Arc::new(SimDisk::new(1));
    let directory = Path::new("/wal");
    let name = "00000000000000000001.wal";
    disk.create_dir(directory).expect("a directory");
    let file = disk.create(&directory.join(name)).expect("a file");
    file.write_all_at(data, 0).expect("room");
    drop(file);
    let _ = inspect(&*disk, directory);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options =
        WalOptions { segment_bytes: 1 << 20, max_frame_bytes: 1 << 18, ..WalOptions::new(NodeId::new(1)) };
    if let Ok((wal, _)) =
        Wal::open(disk, directory, options, clock, Box::new(|| SegmentId::from_random([9; 16])))
    {
        let _ = wal.shutdown();
    }
}

/// What people type: keys, names, instants, lines of records, configuration files.
pub fn text(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 4 == 0 {
        let _ = duramen_client::jsonl::parse(rest);
        return;
    }
    let Ok(text) = str::from_utf8(rest) else { return };
    match kind % 4 {
        1 => {
            if let Some(key) = ObjectKey::parse(text) {
                assert_eq!(key.to_string(), text);
            }
            let _ = (
                StreamName::parse(text),
                TenantName::parse(text),
                CursorName::parse(text),
                BranchName::parse(text),
            );
        }
        2 => {
            let _ = duramen_client::when::parse(text, HybridTime::from_micros(1_700_000_000_000_000));
        }
        _ => {
            let file = Some(("duramen.toml".into(), text.to_owned()));
            if let Ok(loaded) = Loaded::from_layers(&Layers { file, ..Layers::default() }) {
                let again = Some(("shown.toml".into(), loaded.show()));
                let again =
                    Loaded::from_layers(&Layers { file: again, ..Layers::default() }).expect("what is shown");
                assert_eq!(again.config, loaded.config);
            }
        }
    }
}
