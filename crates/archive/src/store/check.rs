//! Proof that a store does what an archive depends on, before the first byte depends on it.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use uuid::Uuid;

use super::Store;
use crate::{Error, ObjectKey, Result, paths};

/// What a check of a store found, probe by probe, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    pub url: String,
    pub probes: Vec<Probe>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What was tried, as a short sentence.
    pub name: &'static str,
    pub outcome: ProbeOutcome,
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeOutcome {
    Passed,
    /// Not needed, and worth knowing: such as whether these credentials may delete.
    Noted(String),
    Failed(String),
    /// An earlier probe failed, so that this one could prove nothing.
    Skipped,
}

impl CheckReport {
    /// Whether an archive can be kept here.
    pub fn passed(&self) -> bool {
        self.probes.iter().all(|probe| matches!(probe.outcome, ProbeOutcome::Passed | ProbeOutcome::Noted(_)))
    }
}

const REMOVE: &str = "remove it";
const CONTENT: &[u8] = b"duramen writes, reads and removes this object to check the store; it may be deleted";

pub(super) async fn check(store: &Store) -> CheckReport {
    let id = || Uuid::from_bytes(store.inner.random.bytes16());
    let key = ObjectKey::Check { id: id() };
    let content = Bytes::from([CONTENT, format!(" ({})\n", id()).as_bytes()].concat());
    let mut run = Run { store, probes: Vec::new(), failed: false };
    run.probe("create an object", store.create(&key, content.clone())).await;
    let is_there = !run.failed;
    let other = Bytes::from_static(b"another writer's object");
    run.probe("refuse to create it a second time (If-None-Match: *)", refuses(store, &key, other)).await;
    run.probe("read it", same(store.get(&key, 4096), &content)).await;
    run.probe("read a range of it", same(store.get_range(&key, 8..14), &content.slice(8..14))).await;
    run.probe("list it", listed(store, &key)).await;
    if is_there {
        run.may_delete(&key).await;
    } else {
        run.skip(REMOVE);
    }
    CheckReport { url: store.url().to_string(), probes: run.probes }
}

struct Run<'a> {
    store: &'a Store,
    probes: Vec<Probe>,
    failed: bool,
}

impl Run<'_> {
    async fn probe<E: ToString>(&mut self, name: &'static str, probe: impl Future<Output = Result<(), E>>) {
        if self.failed {
            return self.skip(name);
        }
        let start = self.store.inner.clock.monotonic();
        let outcome = match probe.await {
            Ok(()) => ProbeOutcome::Passed,
            Err(reason) => {
                self.failed = true;
                ProbeOutcome::Failed(reason.to_string())
            }
        };
        let duration = self.store.inner.clock.monotonic().saturating_sub(start);
        self.probes.push(Probe { name, outcome, duration });
    }

    fn skip(&mut self, name: &'static str) {
        self.probes.push(Probe { name, outcome: ProbeOutcome::Skipped, duration: Duration::ZERO });
    }

    /// Removes the object that was written; not being allowed to is as it should be for a node.
    async fn may_delete(&mut self, key: &ObjectKey) {
        let start = self.store.inner.clock.monotonic();
        let outcome = match self.store.delete(key).await {
            Ok(()) => "these credentials may delete; a node needs no such permission".to_owned(),
            Err(Error::Denied { .. }) => {
                format!("these credentials may not delete, as it should be for a node; {key} stays")
            }
            Err(error) => format!("{key} could not be removed: {error}"),
        };
        let duration = self.store.inner.clock.monotonic().saturating_sub(start);
        self.probes.push(Probe { name: REMOVE, outcome: ProbeOutcome::Noted(outcome), duration });
    }
}

async fn refuses(store: &Store, key: &ObjectKey, other: Bytes) -> Result<(), String> {
    match store.create(key, other).await {
        Err(Error::Exists(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(()) => Err(
            "the second create replaced the first: the store ignores If-None-Match, and two writers could \
                       destroy each other's history; use a store with conditional PUT"
                .to_owned(),
        ),
    }
}

async fn same(read: impl Future<Output = Result<Bytes>>, expected: &Bytes) -> Result<(), String> {
    match read.await {
        Ok(found) if found == *expected => Ok(()),
        Ok(found) => Err(format!("{} bytes came back, and not the ones that were written", found.len())),
        Err(error) => Err(error.to_string()),
    }
}

async fn listed(store: &Store, key: &ObjectKey) -> Result<(), String> {
    let mut found = store.list(paths::CHECKS, None);
    while let Some(object) = found.try_next().await.map_err(|error| error.to_string())? {
        if object.key.as_ref() == Some(key) {
            return Ok(());
        }
    }
    Err("the object is there, and the listing does not have it: listings must be consistent".to_owned())
}
