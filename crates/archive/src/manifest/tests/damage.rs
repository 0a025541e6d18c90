//! Every truncation and every flipped bit of a manifest log's objects; swapped objects; hostile ones.

use bytes::Bytes;
use duramen_types::DecodeError;

use super::*;
use crate::FormatError;
use crate::frame::Frame;
use crate::manifest::format::Manifest;
use crate::manifest::row::WireRow;

fn manifest() -> Manifest {
    let start = HistoryPoint::genesis(SHARD);
    let first = row_after(start, 3, &[1, 300, 70_000], 50);
    let many: Vec<u64> = (0..600).map(|n| n * 1_000_000).collect();
    let second = SegmentRow { record_times: None, ..row_after(HistoryPoint::after(&first), 1, &many, 60) };
    let snapshot = snapshot_at(HistoryPoint::after(&second));
    Manifest {
        number: ManifestNumber::new(7),
        nonce: uuid::Uuid::from_u128(9),
        committer: committer(),
        created: HybridTime::from_micros(1_700_000_000_000_000),
        previous_end: start.end,
        previous_chain: start.chain,
        rows: vec![Arc::new(first), Arc::new(second)],
        snapshots: vec![snapshot],
        checkpoint: Some(ManifestNumber::new(5)),
    }
}

const MANIFEST: Frame = Frame { what: "manifest", magic: b"DURMANIF", version: 1 };

#[derive(Clone, PartialEq, prost::Message)]
struct Foreign {
    #[prost(message, repeated, tag = "8")]
    rows: Vec<WireRow>,
    #[prost(bytes = "bytes", repeated, tag = "9")]
    removed: Vec<Bytes>,
    #[prost(uint64, repeated, tag = "11")]
    removed_snapshots: Vec<u64>,
}

#[test]
fn a_million_empty_rows_are_refused_before_they_are_made() {
    let foreign = Foreign { rows: vec![WireRow::default(); 1_000_000], ..Foreign::default() };
    let error = Manifest::decode(&MANIFEST.seal(&foreign)).unwrap_err();
    assert!(error.to_string().contains("repeated too often"), "{error}");
}

#[test]
fn a_length_beyond_the_object_is_an_error() {
    let mut bytes = MANIFEST.seal(&Foreign::default()).to_vec();
    bytes.truncate(16);
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let error = Manifest::decode(&bytes.into()).unwrap_err();
    assert!(matches!(error, FormatError::Damaged(DecodeError::Truncated { .. })), "{error}");
}

#[test]
fn features_of_later_releases_are_refused_by_name() {
    let row = WireRow::from(&*manifest().rows[0]);
    let encrypted = WireRow { wrapped_key: Some(Bytes::from_static(b"key")), ..row.clone() };
    let dropped = WireRow { batches_dropped: true, ..row };
    assert_eq!(encrypted.into_row("row").unwrap_err(), FormatError::NotSupported("encryption"));
    assert!(matches!(dropped.into_row("row").unwrap_err(), FormatError::NotSupported(_)));
    let merged = Foreign { removed: vec![Bytes::from_static(&[1; 16])], ..Foreign::default() };
    let expired = Foreign { removed_snapshots: vec![0], ..Foreign::default() };
    for foreign in [merged, expired] {
        let error = Manifest::decode(&MANIFEST.seal(&foreign)).unwrap_err();
        assert_eq!(error, FormatError::NotSupported("merging or expiry"));
    }
    let newer = Frame { version: 2, ..MANIFEST }.seal(&Foreign::default());
    assert!(Manifest::decode(&newer).unwrap_err().to_string().contains("newer release"));
}

async fn swap(store: &Store, a: &ObjectKey, b: &ObjectKey) {
    let (left, right) = (store.get(a, 1 << 20).await.unwrap(), store.get(b, 1 << 20).await.unwrap());
    for (key, bytes) in [(a, right), (b, left)] {
        store.delete(key).await.unwrap();
        store.create(key, bytes).await.unwrap();
    }
}

#[tokio::test]
async fn swapped_and_altered_objects_are_named() {
    let store = memory();
    let log = open(&store, SMALL).await;
    for _ in 0..14 {
        extend(&log).await.unwrap();
    }
    let key = |number| ObjectKey::Manifest {
        branch: main_branch(),
        shard: SHARD,
        number: ManifestNumber::new(number),
    };
    let reopen = || async {
        ManifestLog::open(&store, &main_branch(), SHARD, HistoryPoint::genesis(SHARD), SMALL).await
    };
    swap(&store, &key(12), &key(13)).await;
    let error = reopen().await.unwrap_err().to_string();
    assert!(error.contains(&key(12).to_string()) && error.contains("manifest 13"), "{error}");
    swap(&store, &key(12), &key(13)).await;
    let pages: Vec<_> = log.state().pages.iter().map(|page| page.id).collect();
    let page = |id| ObjectKey::Page { branch: main_branch(), shard: SHARD, id };
    swap(&store, &page(pages[0]), &page(pages[1])).await;
    let log = reopen().await.expect("pages are read when needed");
    let error = log.rows().containing(Index::ZERO).await.unwrap_err().to_string();
    assert!(error.contains(&page(pages[0]).to_string()) && error.contains("hash"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_was_replaced_is_not_confirmed() {
    let store = memory();
    let log = open(&store, LogOptions::default()).await;
    let number = extend(&log).await.unwrap();
    assert_eq!(log.confirm(number).await.unwrap(), log.tip().end);
    let key = ObjectKey::Manifest { branch: main_branch(), shard: SHARD, number };
    store.delete(&key).await.unwrap();
    assert!(matches!(log.confirm(number).await, Err(Error::Gap { .. })));
    let rival = open(&store, LogOptions::default()).await;
    let other = row_after(rival.tip(), 3, &[], 77);
    rival.commit(committer(), rows(vec![other])).await.unwrap();
    assert!(matches!(log.confirm(number).await, Err(Error::Damaged { .. })));
}
