//! `holds/{id}-{deadline}.json`: what expiry must leave alone for a while.
//!
//! A hold protects whatever the branch it names reaches. It lapses by itself at its deadline, so that a process that
//! dies leaves nothing behind for ever; it is renewed by another object with the same id and a later deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use duramen_types::{BranchName, DecodeError, HybridTime};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::{Document, MAX_DOCUMENT};
use crate::{Error, FormatError, ObjectKey, Result, Store, paths};

const DOCUMENT: Document = Document { format: "duramen-hold", oldest: 1, version: 1 };

/// A hold, as its latest object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub id: Uuid,
    /// The branch whose history, ancestors included, stays as it is.
    pub branch: BranchName,
    /// What it is for, for people.
    pub reason: String,
    /// When this object was written, and when it lapses; wall clock, microseconds since 1970.
    pub written: HybridTime,
    pub deadline: HybridTime,
}

impl Hold {
    /// Writes a hold on `branch` that lapses after `lasting`; on `Ok` it protects.
    pub async fn place(store: &Store, branch: &BranchName, reason: &str, lasting: Duration) -> Result<Self> {
        let written = store.clock().now();
        let hold = Self {
            id: Uuid::from_bytes(store.random().bytes16()),
            branch: branch.clone(),
            reason: reason.to_owned(),
            written,
            deadline: written.after(lasting),
        };
        hold.write(store).await?;
        Ok(hold)
    }

    /// Moves the deadline to `lasting` from now by writing a new object; the older ones lapse, or go on release.
    pub async fn renew(&self, store: &Store, lasting: Duration) -> Result<Self> {
        let written = store.clock().now();
        // Two renewals within a microsecond must not share a key.
        let deadline = written.after(lasting).max(self.deadline.next());
        let renewed = Self { written, deadline, ..self.clone() };
        renewed.write(store).await?;
        Ok(renewed)
    }

    /// Every hold with its latest deadline, lapsed ones included, by id.
    pub async fn list(store: &Store) -> Result<Vec<Self>> {
        let mut latest = BTreeMap::new();
        for (id, deadline) in keys(store).await? {
            let known = latest.entry(id).or_insert(deadline);
            *known = deadline.max(*known);
        }
        let mut holds = Vec::with_capacity(latest.len());
        for (id, deadline) in latest {
            // Released while we read: then it holds nothing.
            holds.extend(Self::read(store, &ObjectKey::Hold { id, deadline }).await?);
        }
        Ok(holds)
    }

    /// Every object of every hold with its key; where one can't be read, why.
    pub async fn each(store: &Store) -> Result<Vec<(ObjectKey, Result<Self>)>> {
        let mut holds = Vec::new();
        for (id, deadline) in keys(store).await? {
            let key = ObjectKey::Hold { id, deadline };
            if let Some(read) = Self::read(store, &key).await.transpose() {
                holds.push((key, read));
            }
        }
        Ok(holds)
    }

    async fn read(store: &Store, key: &ObjectKey) -> Result<Option<Self>> {
        let Some(bytes) = store.get_if_present(key, MAX_DOCUMENT).await? else { return Ok(None) };
        let hold = Self::decode(&bytes).map_err(|error| store.unreadable(key, error))?;
        if (ObjectKey::Hold { id: hold.id, deadline: hold.deadline }) != *key {
            let reason = "it says another id or deadline than its key";
            return Err(store.unreadable(key, DecodeError::invalid(DOCUMENT.format, reason)));
        }
        Ok(Some(hold))
    }

    /// Removes every object of the hold `id`; returns how many there were.
    ///
    /// Credentials that may not delete get [`Error::Denied`]: the hold then lapses at its deadline.
    pub async fn release(store: &Store, id: Uuid) -> Result<usize> {
        let mut objects: Vec<_> = keys(store).await?.into_iter().filter(|(found, _)| *found == id).collect();
        // The latest deadline goes last: until then the hold is whole.
        objects.sort_by_key(|(_, deadline)| *deadline);
        let count = objects.len();
        for (id, deadline) in objects {
            store.delete(&ObjectKey::Hold { id, deadline }).await?;
        }
        Ok(count)
    }

    /// Whether the hold protects nothing any more at `now`.
    pub fn has_lapsed(&self, now: HybridTime) -> bool {
        self.deadline <= now
    }

    async fn write(&self, store: &Store) -> Result<(), Error> {
        let key = ObjectKey::Hold { id: self.id, deadline: self.deadline };
        store.create(&key, self.encode()).await
    }

    pub(crate) fn encode(&self) -> Bytes {
        DOCUMENT.encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(DOCUMENT.decode(bytes)?)
    }
}

async fn keys(store: &Store) -> Result<Vec<(Uuid, HybridTime)>> {
    let keys = store.list(paths::HOLDS, None).try_filter_map(async |object| {
        Ok(match object.key {
            Some(ObjectKey::Hold { id, deadline }) => Some((id, deadline)),
            _ => None,
        })
    });
    keys.try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::memory;

    #[tokio::test]
    async fn a_hold_is_renewed_by_another_object_and_released_as_a_whole() {
        let store = memory();
        let branch = BranchName::parse("main").unwrap();
        let hold = Hold::place(&store, &branch, "a restore", Duration::from_secs(60)).await.unwrap();
        let other = Hold::place(&store, &branch, "another", Duration::from_secs(5)).await.unwrap();
        let renewed = hold.renew(&store, Duration::from_secs(600)).await.unwrap();
        assert!(renewed.deadline > hold.deadline && renewed.id == hold.id);
        let again = renewed.renew(&store, Duration::ZERO).await.unwrap();
        assert!(again.deadline > renewed.deadline, "a deadline never moves back");
        let mut listed = Hold::list(&store).await.unwrap();
        listed.sort_by_key(|hold| hold.deadline);
        assert_eq!(listed, [other.clone(), again.clone()]);
        assert!(!again.has_lapsed(store.clock().now()) && again.has_lapsed(again.deadline));
        assert_eq!(Hold::release(&store, hold.id).await.unwrap(), 3);
        assert_eq!(Hold::list(&store).await.unwrap(), [other]);
        assert_eq!(Hold::release(&store, hold.id).await.unwrap(), 0);
    }
}
