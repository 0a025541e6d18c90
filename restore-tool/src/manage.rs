//! Looking at single objects, proving a store, and holds.

use std::sync::Arc;

use duramen_archive::{
    CheckReport, Hold, Identity, ObjectKey, SegmentIdentity, SegmentReader, Store, describe,
};
use duramen_types::SegmentId;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::object::StoreSource;
use crate::{Error, Result};

/// The largest object that is read whole to be shown.
const MAX_SHOWN: u64 = 256 << 20;

/// What the object under `key` says, as JSON; of a segment, its trailer.
pub async fn show(store: &Store, key: &str) -> Result<Value> {
    let Some(parsed) = ObjectKey::parse(key) else {
        return Err(Error::NotAKey { text: key.chars().take(200).collect() });
    };
    if let ObjectKey::Segment { branch, shard, id, .. } = &parsed {
        let identity = Identity::open(store).await?;
        let length = store.size(&parsed).await?;
        let segment = SegmentIdentity {
            archive: identity.archive,
            branch: branch.clone(),
            shard: *shard,
            segment: *id,
        };
        return show_segment(store, &parsed, length, &segment).await;
    }
    let bytes = store.get(&parsed, MAX_SHOWN).await?;
    Ok(describe(&parsed, &bytes).map_err(|error| store.unreadable(&parsed, error))?)
}

async fn show_segment(
    store: &Store,
    key: &ObjectKey,
    length: u64,
    identity: &SegmentIdentity,
) -> Result<Value> {
    let source = Arc::new(StoreSource::new(store, key.clone()));
    let reader = SegmentReader::open(source, length, identity).await?;
    let trailer = reader.index().trailer();
    let id: SegmentId = trailer.identity.segment;
    Ok(json!({
        "archive": trailer.identity.archive,
        "branch": trailer.identity.branch,
        "shard": trailer.identity.shard,
        "id": id,
        "level": trailer.level,
        "first": trailer.first,
        "end": trailer.end,
        "first_time": trailer.first_time,
        "last_time": trailer.last_time,
        "chain_before": trailer.chain_before,
        "chain_after": trailer.chain_after,
        "batches": trailer.batches,
        "records": trailer.records,
        "record_times": trailer.timestamps,
        "bytes": length,
        "blocks": reader.index().blocks(),
        "entry_pages": reader.index().entry_pages(),
        "stream_pages": reader.index().stream_pages(),
    }))
}

/// What a store can do, and which archive is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedStore {
    pub report: CheckReport,
    /// `None` where there is no archive yet.
    pub archive: Option<Identity>,
}

impl CheckedStore {
    /// Whether an archive can be kept there.
    pub fn passed(&self) -> bool {
        self.report.passed()
    }
}

/// Proves what the store can do: create-only PUT, reads, ranges, listing. Writes one small object and removes it.
pub async fn check(store: &Store) -> Result<CheckedStore> {
    let archive = match Identity::open(store).await {
        Ok(identity) => Some(identity),
        Err(duramen_archive::Error::NoArchive { .. }) => None,
        // What is wrong with the store is the report's to say.
        Err(error) if error.is_retryable() => return Err(error.into()),
        Err(_) => None,
    };
    Ok(CheckedStore { report: store.check().await, archive })
}

/// Every hold with its latest deadline, lapsed ones included.
pub async fn holds(store: &Store) -> Result<Vec<Hold>> {
    Ok(Hold::list(store).await?)
}

/// Removes the hold that `id` names; what it alone protected may expire from then on.
pub async fn release_hold(store: &Store, id: &str) -> Result<()> {
    let removed = match Uuid::parse_str(id) {
        Ok(id) => Hold::release(store, id).await?,
        Err(_) => 0,
    };
    if removed > 0 {
        return Ok(());
    }
    let known = Hold::list(store).await?.into_iter().map(|hold| hold.id).collect();
    Err(Error::UnknownHold { id: id.chars().take(80).collect(), known })
}
