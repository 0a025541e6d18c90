//! The golden files of an archive's objects (`tests/golden`), but for segments and snapshots.

use std::sync::Arc;

use bytes::Bytes;
use duramen_golden::{Counting, Golden, assert_total_behind_checksums};
use duramen_types::{
    ArchiveId, BranchName, ClusterId, Hash, HybridTime, Index, ManifestNumber, NodeId, SegmentId, ShardId,
    StreamId, Term,
};
use serde_json::Value;
use uuid::Uuid;

use crate::manifest::{Checkpoint, Page, PageRef};
use crate::{
    Ancestor, Branch, Closed, ClosedShard, Committer, Cut, Depth, Finding, FormatError, HistoryPoint, Hold,
    Identity, Manifest, Owner, SegmentRow, SnapshotRow, StreamFilter, Verdict, VerifiedShard,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub(crate) const GOLDEN: Golden = duramen_golden::golden!();

const CREATED: HybridTime = HybridTime::from_micros(1_700_000_000_000_000);

/// Every truncation and every single-bit flip of `bytes` is an error or the same value, in bounded memory.
pub(crate) fn resists_damage<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&Bytes) -> Result<T, E>,
) -> T {
    duramen_golden::assert_resists_damage(bytes, |bytes| decode(&Bytes::copy_from_slice(bytes)))
}

/// The encoder gives the golden bytes, the decoder gives the value back, and damage is noticed, with checksums made to
/// fit as well as without.
fn frozen<T: PartialEq + std::fmt::Debug>(
    name: &str,
    value: &T,
    encoded: &Bytes,
    mend: impl Fn(&mut Vec<u8>),
    decode: impl Fn(&Bytes) -> Result<T, FormatError>,
) {
    let bytes = GOLDEN.assert_golden(name, encoded);
    assert_eq!(&resists_damage(&bytes, &decode), value, "{name}");
    assert_total_behind_checksums(&bytes, mend, |bytes| decode(&Bytes::copy_from_slice(bytes)));
}

/// Makes the checksum at the end of a framed object true again.
fn mend_frame(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len().saturating_sub(4));
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Makes the checksum in a JSON object's envelope true again, where there still is one.
fn mend_document(bytes: &mut [u8]) {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|found| found == what);
    let (Some(crc), Some(body)) = (find(b"\"crc32\":\""), find(b"\"body\":")) else { return };
    let body = body + b"\"body\":".len()..bytes.len().saturating_sub(2);
    let Some(text) = bytes.get(body) else { return };
    let crc32 = format!("{:08x}", crc32fast::hash(text));
    let at = crc + b"\"crc32\":\"".len();
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(crc32.as_bytes());
    }
}

fn name(text: &str) -> BranchName {
    BranchName::parse(text).unwrap()
}

fn hash(byte: u8) -> Hash {
    Hash::from_bytes([byte; 32])
}

#[test]
fn archive_and_owner_are_the_golden_ones() {
    let identity = Identity { archive: ArchiveId::from_bytes([7; 16]), shards: 8, created: CREATED };
    frozen(
        "archive.json",
        &identity,
        &identity.encode(),
        |bytes| mend_document(bytes),
        |bytes| Identity::decode(bytes),
    );
    let owner = Owner { cluster: ClusterId::from_bytes([1; 16]), claimed: CREATED };
    frozen("owner.json", &owner, &owner.encode(), |bytes| mend_document(bytes), |bytes| Owner::decode(bytes));
}

#[test]
fn branches_are_the_golden_ones() {
    let root = Branch {
        name: name("main"),
        ancestry: vec![],
        cut: None,
        creator: "node 1".to_owned(),
        created: CREATED,
        nonce: Uuid::from_u128(9),
    };
    frozen(
        "branch-root.json",
        &root,
        &root.encode(),
        |bytes| mend_document(bytes),
        |bytes| Branch::decode(bytes),
    );
    let point = |end, chain| HistoryPoint { end: Index::new(end), chain, term: Term::new(3), time: CREATED };
    let child = Branch {
        name: name("before"),
        ancestry: vec![
            Ancestor {
                branch: name("main"),
                ends: vec![Index::new(5), Index::new(u64::MAX)],
                time: HybridTime::from_micros(40),
            },
            Ancestor {
                branch: name("other"),
                ends: vec![Index::ZERO, Index::new(u64::MAX)],
                time: HybridTime::from_micros(50),
            },
        ],
        cut: Some(Cut {
            time: HybridTime::from_micros(50),
            shards: vec![HistoryPoint::genesis(ShardId::META), point(u64::MAX, hash(0xab))],
        }),
        ..root
    };
    frozen(
        "branch-child.json",
        &child,
        &child.encode(),
        |bytes| mend_document(bytes),
        |bytes| Branch::decode(bytes),
    );
}

#[test]
fn a_hold_is_the_golden_one() {
    let hold = Hold {
        id: Uuid::from_u128(10),
        branch: name("main"),
        reason: "hydrate to \"/data\"".to_owned(),
        written: CREATED,
        deadline: CREATED.next(),
    };
    frozen("hold.json", &hold, &hold.encode(), |bytes| mend_document(bytes), |bytes| Hold::decode(bytes));
}

#[test]
fn a_verdict_is_the_golden_one() {
    let shard =
        VerifiedShard { shard: ShardId::new(1), first: Index::ZERO, end: Index::new(18), chain: hash(0xcd) };
    let finding = Finding { key: "main/shard-0001/x".to_owned(), problem: "it is missing".to_owned() };
    let verdict = Verdict {
        id: Uuid::from_u128(11),
        time: CREATED,
        depth: Depth::Full,
        branch: name("main"),
        shards: vec![shard],
        objects: 12,
        bytes: 3456,
        took_ms: 78,
        findings: vec![finding],
        newest: vec!["main/shard-0001/manifest/00000000000000000003".to_owned()],
    };
    frozen(
        "verdict.json",
        &verdict,
        &verdict.encode(),
        |bytes| mend_document(bytes),
        |bytes| Verdict::decode(bytes),
    );
    let older = Verdict { newest: vec![], ..verdict };
    // No release writes it any more: it is never made anew.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/verdict-v1.json");
    let first = std::fs::read(file).unwrap();
    let read = resists_damage(&first, |bytes| Verdict::decode(bytes));
    assert_eq!(read, older, "version 1 is read");
}

#[test]
fn closed_times_are_the_golden_ones() {
    let shard = |shard, end, closed| ClosedShard {
        shard: ShardId::new(shard),
        end: Index::new(end),
        closed: HybridTime::from_micros(closed),
    };
    let shards = vec![shard(0, 3, 1_700_000_000_000_100), shard(8, 0, 7)];
    let closed = Closed::new(NodeId::new(1), shards, Some(CREATED));
    frozen("closed.bin", &closed, &closed.encode(), mend_frame, Closed::decode);
}

/// A row with an exact filter, and one with a Bloom filter and without records.
fn rows() -> Vec<Arc<SegmentRow>> {
    let exact = SegmentRow {
        id: SegmentId::from_bytes([1; 16]),
        first: Index::ZERO,
        end: Index::new(18),
        first_time: HybridTime::ZERO,
        last_time: CREATED,
        last_term: Term::new(4),
        bytes: 2345,
        records: 12,
        record_times: Some((-5, 1_700_000_000_900)),
        has_user_entries: true,
        chain_before: hash(1),
        chain_after: hash(2),
        streams: StreamFilter::of([1, 300, 70_000].map(StreamId::new)),
        hash: hash(3),
        level: 0,
    };
    let many = StreamFilter::of((0..600).map(|n| StreamId::new(n * 1_000_000)));
    assert!(matches!(many, StreamFilter::Bloom { .. }));
    let bloom = SegmentRow {
        id: SegmentId::from_bytes([2; 16]),
        first: Index::new(18),
        end: Index::new(19),
        first_time: CREATED,
        last_time: CREATED.next(),
        records: 0,
        record_times: None,
        has_user_entries: false,
        chain_before: hash(2),
        chain_after: hash(4),
        streams: many,
        hash: hash(5),
        level: 1,
        ..exact.clone()
    };
    vec![Arc::new(exact), Arc::new(bloom)]
}

fn snapshots() -> Vec<SnapshotRow> {
    vec![SnapshotRow { index: Index::new(18), time: CREATED, chain: hash(2), bytes: 456, hash: hash(6) }]
}

#[test]
fn a_manifest_is_the_golden_one() {
    let manifest = Manifest {
        number: ManifestNumber::new(7),
        nonce: Uuid::from_u128(12),
        committer: Committer { cluster: ClusterId::from_bytes([1; 16]), node: NodeId::new(1) },
        created: CREATED,
        previous_end: Index::ZERO,
        previous_chain: hash(1),
        rows: rows(),
        snapshots: snapshots(),
        checkpoint: Some(ManifestNumber::new(5)),
    };
    frozen("manifest.bin", &manifest, &manifest.encode(), mend_frame, Manifest::decode);
}

#[test]
fn a_page_and_the_checkpoint_that_names_it_are_the_golden_ones() {
    let page = Page { rows: rows(), snapshots: snapshots() };
    let bytes = page.encode();
    frozen("page.bin", &page, &bytes, mend_frame, Page::decode);
    let digest = Hash::from_bytes(blake3::hash(&bytes).into());
    let reference = PageRef::of(&page, digest, u64::try_from(bytes.len()).unwrap()).unwrap();
    let first = rows().swap_remove(0);
    let tail = SegmentRow { first: Index::new(19), end: Index::new(20), ..(*first).clone() };
    let checkpoint = Checkpoint {
        number: ManifestNumber::new(255),
        pages: vec![Arc::new(reference)],
        tail: vec![Arc::new(tail)],
        snapshots: snapshots(),
    };
    frozen("checkpoint.bin", &checkpoint, &checkpoint.encode(), mend_frame, Checkpoint::decode);
}

#[test]
fn the_checksum_in_an_envelope_is_mended() {
    let identity = Identity { archive: ArchiveId::from_bytes([7; 16]), shards: 8, created: CREATED };
    let mut bytes = identity.encode().to_vec();
    let at = bytes.windows(10).position(|found| found == b"\"shards\":8").unwrap();
    bytes[at + 9] = b'9';
    assert!(Identity::decode(&bytes).is_err());
    mend_document(&mut bytes);
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["body"]["shards"], 9);
    assert_eq!(Identity::decode(&bytes).unwrap().shards, 9);
}
