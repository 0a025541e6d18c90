//! `archive.json`: which archive this is, written once.

use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{ArchiveId, DecodeError, HybridTime, ShardId};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::document::{Document, MAX_DOCUMENT};
use crate::{Error, FormatError, ObjectKey, Result, Store, paths};

const DOCUMENT: Document = Document { format: "duramen-archive", oldest: 1, version: 1 };

/// The most data shards that a cluster may have.
pub const MAX_SHARDS: u16 = 256;

/// What never changes about an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub archive: ArchiveId,
    /// How many data shards there are, beside the meta shard 0.
    pub shards: u16,
    /// Microseconds since 1970.
    pub created: HybridTime,
}

impl Identity {
    /// The identity of the archive at `store`; [`Error::NoArchive`] where there is none.
    pub async fn open(store: &Store) -> Result<Self> {
        match Self::read(store).await? {
            Some(identity) => Ok(identity),
            None => Err(Error::NoArchive { url: Arc::clone(store.url()) }),
        }
    }

    /// The identity of the archive at `store`, which is created with `shards` data shards where nothing is.
    ///
    /// Refuses an archive with another number of shards, and a prefix that holds anything but an archive. Of several
    /// that create it at once, one wins, and all get its identity.
    pub async fn open_or_create(store: &Store, shards: u16) -> Result<Self> {
        if !(1..=MAX_SHARDS).contains(&shards) {
            let problems = vec![format!("{shards} shards: there are 1 to {MAX_SHARDS}")];
            return Err(Error::Config { url: Arc::clone(store.url()), problems });
        }
        let identity = match Self::read(store).await? {
            Some(identity) => identity,
            None => Self::create(store, shards).await?,
        };
        if identity.shards == shards {
            Ok(identity)
        } else {
            Err(Error::ShardCount { url: Arc::clone(store.url()), expected: shards, found: identity.shards })
        }
    }

    /// The shards of the archive, the meta shard first.
    pub fn shard_ids(&self) -> impl DoubleEndedIterator<Item = ShardId> + use<> {
        (0..=self.shards).map(ShardId::new)
    }

    async fn create(store: &Store, shards: u16) -> Result<Self> {
        let mut listed = store.list("", None);
        while let Some(object) = listed.try_next().await? {
            // Checks leave their object where deleting is not allowed.
            let ours = object.path.starts_with(paths::CHECKS) || object.key == Some(ObjectKey::Archive);
            if !ours {
                return Err(Error::NotEmpty { url: Arc::clone(store.url()), found: object.path });
            }
        }
        let archive = ArchiveId::from_random(store.random().bytes16());
        let identity = Self { archive, shards, created: store.clock().now() };
        match store.create(&ObjectKey::Archive, identity.encode()).await {
            Ok(()) => Ok(identity),
            Err(Error::Exists(_)) => Self::open(store).await,
            Err(error) => Err(error),
        }
    }

    async fn read(store: &Store) -> Result<Option<Self>> {
        match store.get_if_present(&ObjectKey::Archive, MAX_DOCUMENT).await? {
            Some(bytes) => {
                Self::decode(&bytes).map(Some).map_err(|error| store.unreadable(&ObjectKey::Archive, error))
            }
            None => Ok(None),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        DOCUMENT.encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let identity: Self = DOCUMENT.decode(bytes)?;
        if (1..=MAX_SHARDS).contains(&identity.shards) {
            Ok(identity)
        } else {
            Err(DecodeError::invalid(DOCUMENT.format, format!("it has {} shards", identity.shards)).into())
        }
    }
}
