//! `branches/{branch}.json`: where a branch's history begins, written once.

use std::sync::Arc;

use bytes::Bytes;
use duramen_types::{BranchName, DecodeError, HybridTime, Index, ShardId};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::{Document, MAX_DOCUMENT};
use crate::{Error, FormatError, HistoryPoint, ObjectKey, Result, Store, paths};

const DOCUMENT: Document = Document { format: "duramen-branch", oldest: 1, version: 1 };

/// The longest line of ancestors; every one of them costs a request when a branch is opened.
const MAX_ANCESTORS: usize = 256;

/// One history in an archive: a root, or what follows a cut of its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    pub name: BranchName,
    /// Oldest first, the parent last; empty for a root.
    pub ancestry: Vec<Ancestor>,
    /// Where the parent was cut; `None` for a root.
    pub cut: Option<Cut>,
    /// Who created it, for people.
    pub creator: String,
    /// Microseconds since 1970.
    pub created: HybridTime,
    /// Random: tells two creations of the same branch apart.
    pub nonce: Uuid,
}

/// What a branch has of one of its ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    pub branch: BranchName,
    /// For each shard, from 0, the end of the ancestor's part: the branch has nothing of it from there on.
    pub ends: Vec<Index>,
    /// Every shard of the ancestor is closed through this time at these ends.
    pub time: HybridTime,
}

/// Where a branch begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The cut holds every entry of the parent with a time at or before this one, and none after it.
    pub time: HybridTime,
    /// For each shard, from 0, the point where it was cut.
    pub shards: Vec<HistoryPoint>,
}

impl Branch {
    /// A branch that begins with nothing.
    pub fn root(store: &Store, name: BranchName, creator: &str) -> Self {
        Self {
            name,
            ancestry: vec![],
            cut: None,
            creator: creator.to_owned(),
            created: store.clock().now(),
            nonce: Uuid::from_bytes(store.random().bytes16()),
        }
    }

    /// A branch that begins at a cut of `parent`, wherever in the parent's ancestry that lies.
    pub fn child(store: &Store, parent: &Self, name: BranchName, cut: Cut, creator: &str) -> Result<Self> {
        let ends: Vec<_> = cut.shards.iter().map(|point| point.end).collect();
        let bad = |reason: String| Err(Error::BadCut { branch: name.clone(), reason });
        if parent.cut.as_ref().is_some_and(|parent| parent.shards.len() != ends.len()) {
            return bad(format!(
                "the cut names {} shards, the parent {} has another number",
                ends.len(),
                parent.name
            ));
        }
        if parent.ancestry.len() >= MAX_ANCESTORS {
            return bad(format!("its parent has {MAX_ANCESTORS} ancestors already"));
        }
        // A cut may lie before the parent's own beginning: then the parent has no part in the new branch.
        let clipped = |ancestor: &Ancestor| Ancestor {
            branch: ancestor.branch.clone(),
            ends: ancestor.ends.iter().zip(&ends).map(|(end, cut)| *end.min(cut)).collect(),
            time: ancestor.time.min(cut.time),
        };
        let mut ancestry: Vec<_> = parent.ancestry.iter().map(clipped).collect();
        ancestry.push(Ancestor { branch: parent.name.clone(), ends: ends.clone(), time: cut.time });
        Ok(Self { ancestry, cut: Some(cut), ..Self::root(store, name, creator) })
    }

    /// Where this branch's own part of a shard begins.
    pub fn start(&self, shard: ShardId) -> Option<HistoryPoint> {
        match &self.cut {
            None => Some(HistoryPoint::genesis(shard)),
            Some(cut) => cut.shards.get(usize::from(shard.get())).copied(),
        }
    }

    /// Writes the branch; from then on it exists. [`Error::BranchExists`] if its name is taken.
    ///
    /// After a retryable error, calling again with the same value settles the outcome.
    pub async fn create(&self, store: &Store) -> Result<()> {
        match store.create(&ObjectKey::Branch(self.name.clone()), self.encode()).await {
            Err(Error::Exists(_)) => {
                Err(Error::BranchExists { url: Arc::clone(store.url()), branch: self.name.clone() })
            }
            other => other,
        }
    }

    /// The branch of this name; [`Error::UnknownBranch`] says which ones there are.
    pub async fn open(store: &Store, name: &BranchName) -> Result<Self> {
        match Self::open_if_present(store, name).await? {
            Some(branch) => Ok(branch),
            None => {
                let known = Self::list(store).await?;
                Err(Error::UnknownBranch { url: Arc::clone(store.url()), branch: name.clone(), known })
            }
        }
    }

    /// Like [`Branch::open`], with `None` for a branch that does not exist.
    pub async fn open_if_present(store: &Store, name: &BranchName) -> Result<Option<Self>> {
        let key = ObjectKey::Branch(name.clone());
        let Some(bytes) = store.get_if_present(&key, MAX_DOCUMENT).await? else { return Ok(None) };
        let branch = Self::decode(&bytes).map_err(|error| store.unreadable(&key, error))?;
        if branch.name != *name {
            let reason = format!("it says that it is branch {}", branch.name);
            return Err(store.unreadable(&key, DecodeError::invalid(DOCUMENT.format, reason)));
        }
        Ok(Some(branch))
    }

    /// The branch of this name, created as a root where there is none. Of several that do so at once, one wins.
    pub async fn open_or_create_root(store: &Store, name: &BranchName, creator: &str) -> Result<Self> {
        if let Some(branch) = Self::open_if_present(store, name).await? {
            return Ok(branch);
        }
        let root = Self::root(store, name.clone(), creator);
        match root.create(store).await {
            Ok(()) => Ok(root),
            Err(Error::BranchExists { .. }) => Self::open(store, name).await,
            Err(error) => Err(error),
        }
    }

    /// The names of all branches, in their order.
    pub async fn list(store: &Store) -> Result<Vec<BranchName>> {
        let listed = store.list(paths::BRANCHES, None);
        let names = listed.try_filter_map(async |object| {
            Ok(match object.key {
                Some(ObjectKey::Branch(name)) => Some(name),
                _ => None,
            })
        });
        names.try_collect().await
    }

    pub(crate) fn encode(&self) -> Bytes {
        DOCUMENT.encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let branch: Self = DOCUMENT.decode(bytes)?;
        let consistent = match (&branch.cut, branch.ancestry.last()) {
            (None, None) => true,
            (Some(cut), Some(parent)) => {
                let same = |ends: &[Index]| ends.len() == cut.shards.len();
                branch.ancestry.iter().all(|ancestor| same(&ancestor.ends))
                    && branch.ancestry.len() <= MAX_ANCESTORS
                    && cut.shards.iter().zip(&parent.ends).all(|(point, end)| point.end == *end)
            }
            _ => false,
        };
        if consistent {
            Ok(branch)
        } else {
            Err(DecodeError::invalid(DOCUMENT.format, "its ancestry and its cut contradict each other")
                .into())
        }
    }
}
