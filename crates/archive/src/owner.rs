//! `{branch}/owner.json`: the one cluster that may write a branch.

use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{BranchName, ClusterId, HybridTime};
use serde::{Deserialize, Serialize};

use crate::document::{Document, MAX_DOCUMENT};
use crate::{Error, FormatError, ObjectKey, Result, Store};

const DOCUMENT: Document = Document { format: "duramen-owner", oldest: 1, version: 1 };

/// Who writes a branch, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    pub cluster: ClusterId,
    /// When the branch was taken, by the owner's wall clock.
    pub claimed: HybridTime,
}

impl Owner {
    /// Takes a branch for `cluster`, or finds that `cluster` has it already; [`Error::Owned`] if another one has.
    ///
    /// The caller keeps `cluster` durably before it calls: after a crash it must come with the same one again.
    pub async fn claim(store: &Store, branch: &BranchName, cluster: ClusterId) -> Result<Self> {
        if let Some(owner) = Self::read(store, branch).await? {
            return owner.check(store, branch, cluster);
        }
        let owner = Self { cluster, claimed: store.clock().now() };
        match store.create(&ObjectKey::Owner(branch.clone()), owner.encode()).await {
            Ok(()) => Ok(owner),
            Err(Error::Exists(at)) => match Self::read(store, branch).await? {
                Some(owner) => owner.check(store, branch, cluster),
                None => Err(Error::Missing(at)),
            },
            Err(error) => Err(error),
        }
    }

    /// Who writes the branch; `None` while nobody does.
    pub async fn read(store: &Store, branch: &BranchName) -> Result<Option<Self>> {
        let key = ObjectKey::Owner(branch.clone());
        match store.get_if_present(&key, MAX_DOCUMENT).await? {
            Some(bytes) => Self::decode(&bytes).map(Some).map_err(|error| store.unreadable(&key, error)),
            None => Ok(None),
        }
    }

    fn check(self, store: &Store, branch: &BranchName, us: ClusterId) -> Result<Self> {
        if self.cluster == us {
            return Ok(self);
        }
        Err(Error::Owned { url: Arc::clone(store.url()), branch: branch.clone(), owner: self.cluster, us })
    }

    pub(crate) fn encode(&self) -> Bytes {
        DOCUMENT.encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(DOCUMENT.decode(bytes)?)
    }
}
