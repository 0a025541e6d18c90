//! Any object of an archive as JSON, for people.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::manifest::{Checkpoint, Page};
use crate::{
    Branch, Closed, FormatError, Hold, Identity, Manifest, ObjectKey, Owner, Snapshot, Trailer, Verdict,
};

/// What an object says, as JSON. Hashes and ids are text, times are microseconds since 1970.
pub fn describe(key: &ObjectKey, bytes: &Bytes) -> Result<Value, FormatError> {
    let value = match key {
        ObjectKey::Archive => to_json(&Identity::decode(bytes)?),
        ObjectKey::Branch(_) => to_json(&Branch::decode(bytes)?),
        ObjectKey::Owner(_) => to_json(&Owner::decode(bytes)?),
        ObjectKey::Manifest { .. } => to_json(&Manifest::decode(bytes)?),
        ObjectKey::Checkpoint { .. } => to_json(&Checkpoint::decode(bytes)?),
        ObjectKey::Page { .. } => to_json(&Page::decode(bytes)?),
        ObjectKey::Closed { .. } => to_json(&Closed::decode(bytes)?),
        ObjectKey::Hold { .. } => to_json(&Hold::decode(bytes)?),
        ObjectKey::Verdict { .. } => to_json(&Verdict::decode(bytes)?),
        ObjectKey::Check { .. } => json!({ "text": String::from_utf8_lossy(bytes) }),
        ObjectKey::Segment { .. } => segment(bytes)?,
        ObjectKey::Snapshot { .. } => snapshot(&Snapshot::decode(bytes)?),
    };
    Ok(value)
}

/// A segment's trailer; its entries are not decoded.
fn segment(bytes: &Bytes) -> Result<Value, FormatError> {
    let tail = bytes.len().saturating_sub(Trailer::LEN);
    let trailer = Trailer::decode(&bytes.slice(tail..))?;
    Ok(json!({
        "archive": trailer.identity.archive,
        "branch": trailer.identity.branch,
        "shard": trailer.identity.shard,
        "segment": trailer.identity.segment,
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
        "bytes": bytes.len(),
    }))
}

/// A snapshot's position and what is in its catalogue.
fn snapshot(snapshot: &Snapshot) -> Value {
    let state = &snapshot.state;
    let streams = state.streams().map(|(id, stream)| {
        json!({
            "id": id,
            "tenant": stream.tenant,
            "name": stream.name,
            "next": stream.next,
            "trimmed": stream.trimmed,
            "bytes": stream.appended_bytes,
            "created": stream.created,
            "last_append": stream.last_append,
            "cursors": stream.cursors.len(),
            "producers": stream.producers.len(),
        })
    });
    json!({
        "archive": snapshot.archive,
        "branch": snapshot.branch,
        "shard": state.shard(),
        "end": state.end(),
        "time": state.time(),
        "chain": state.chain(),
        "tenants": state.tenants().map(|(name, _)| name).collect::<Vec<_>>(),
        "restore_points": state.restore_points().collect::<Vec<_>>(),
        "streams": streams.collect::<Vec<_>>(),
    })
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("the types of an archive serialise to JSON without fail")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use duramen_types::{BranchName, ClusterId, HybridTime, Index, NodeId, ShardId};
    use futures::TryStreamExt;
    use uuid::Uuid;

    use super::*;
    use crate::golden::resists_damage;
    use crate::manifest::tests::{committer, row_after, rows};
    use crate::store::tests::memory;
    use crate::{BranchView, ClosedShard, Cut, Depth, HistoryPoint, LogOptions, Store};

    /// An archive with an object of every kind that this module knows.
    async fn archive() -> Store {
        let store = memory();
        Identity::open_or_create(&store, 1).await.unwrap();
        let main = BranchName::parse("main").unwrap();
        let root = Branch::open_or_create_root(&store, &main, "test").await.unwrap();
        Owner::claim(&store, &main, ClusterId::from_random([3; 16])).await.unwrap();
        let options = LogOptions { checkpoint_every: 1, rows_per_page: 1 };
        let view = BranchView::open_with(&store, &main, options).await.unwrap();
        let log = view.log(ShardId::ZERO).await.unwrap();
        log.commit(committer(), rows(vec![row_after(log.tip(), 5, &[1, 2], 50)])).await.unwrap();
        let points = vec![log.tip(), HistoryPoint::genesis(ShardId::new(1))];
        let cut = Cut { time: HybridTime::from_micros(50), shards: points };
        let child = Branch::child(&store, &root, BranchName::parse("child").unwrap(), cut, "test").unwrap();
        child.create(&store).await.unwrap();
        let item =
            ClosedShard { shard: ShardId::ZERO, end: Index::new(5), closed: HybridTime::from_micros(60) };
        Closed::new(NodeId::new(1), vec![item], None).write(&store, &main).await.unwrap();
        Hold::place(&store, &main, "a restore", Duration::from_secs(9)).await.unwrap();
        let verdict = Verdict {
            id: Uuid::from_u128(1),
            time: HybridTime::from_micros(70),
            depth: Depth::Full,
            branch: main,
            shards: vec![],
            objects: 1,
            bytes: 2,
            took_ms: 3,
            findings: vec![crate::Finding { key: "k".to_owned(), problem: "p".to_owned() }],
            newest: vec![],
        };
        verdict.write(&store).await.unwrap();
        store
    }

    #[tokio::test]
    async fn every_object_is_shown_and_resists_damage() {
        let store = archive().await;
        let listed: Vec<_> = store.list("", None).try_collect().await.unwrap();
        let mut kinds = BTreeSet::new();
        for object in listed {
            let key = object.key.unwrap();
            kinds.insert(object.path.split('/').nth_back(1).unwrap_or("").to_owned());
            let bytes = store.get(&key, 1 << 20).await.unwrap();
            assert!(describe(&key, &bytes).unwrap().is_object(), "{key}");
            resists_damage(&bytes, |bytes| describe(&key, bytes));
        }
        let expected =
            ["", "branches", "checkpoint", "closed", "holds", "main", "manifest", "pages", "verdicts"];
        assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_manifest_is_shown_with_its_rows() {
        let store = archive().await;
        let key = ObjectKey::parse("main/shard-0000/manifest/00000000000000000000").unwrap();
        let value = describe(&key, &store.get(&key, 1 << 20).await.unwrap()).unwrap();
        assert_eq!(value["rows"][0]["end"], 5);
        assert_eq!(value["rows"][0]["streams"], json!([1, 2]));
        assert_eq!(value["previous_chain"].as_str().unwrap().len(), 64);
    }
}
