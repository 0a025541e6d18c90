//! A branch with its ancestors, as one history for each shard.
//!
//! A shard's history consists of parts, oldest first: each ancestor's rows up to where the next part begins, then the
//! branch's own. Ancestors' manifest logs are read as they are now, clipped at the cut, so that what was merged there
//! since is used here too.

mod rows;

use std::fmt;
use std::sync::Arc;

use duramen_types::{BranchName, DecodeError, Index, ShardId};
use tokio::sync::OnceCell;

use crate::{Branch, HistoryPoint, Identity, LogOptions, ManifestLog, ObjectKey, Result, Store};

pub use rows::{ShardView, ViewCursor, ViewRow, ViewSnapshot};

/// A branch, opened for reading, or by its owner for writing. Cheap to clone; all clones are the same view.
///
/// Manifest logs are opened when first asked for, so that opening a view costs a request for each ancestor only.
#[derive(Clone)]
pub struct BranchView {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    identity: Identity,
    /// The ancestors, oldest first, then the branch itself.
    line: Vec<Arc<Branch>>,
    options: LogOptions,
    /// For each member of the line, for each shard.
    logs: Vec<Vec<OnceCell<ManifestLog>>>,
}

impl BranchView {
    /// Opens `branch` and reads the branch files of its ancestors.
    pub async fn open(store: &Store, branch: &BranchName) -> Result<Self> {
        Self::open_with(store, branch, LogOptions::default()).await
    }

    /// Like [`BranchView::open`], for logs that are kept otherwise.
    pub async fn open_with(store: &Store, branch: &BranchName, options: LogOptions) -> Result<Self> {
        let identity = Identity::open(store).await?;
        let own = Branch::open(store, branch).await?;
        let mut line = Vec::with_capacity(own.ancestry.len().saturating_add(1));
        for ancestor in &own.ancestry {
            line.push(Arc::new(Branch::open(store, &ancestor.branch).await?));
        }
        line.push(Arc::new(own));
        let shards = usize::from(identity.shards).saturating_add(1);
        for branch in &line {
            if branch.cut.as_ref().is_some_and(|cut| cut.shards.len() != shards) {
                let reason = format!("its cut does not have the archive's {shards} shards");
                let key = ObjectKey::Branch(branch.name.clone());
                return Err(store.unreadable(&key, DecodeError::invalid("duramen-branch", reason)));
            }
        }
        let logs = line.iter().map(|_| (0..shards).map(|_| OnceCell::new()).collect()).collect();
        Ok(Self { inner: Arc::new(Inner { store: store.clone(), identity, line, options, logs }) })
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub fn branch(&self) -> &Branch {
        self.inner.line.last().expect("the line ends with the branch itself")
    }

    /// The ancestors, oldest first, then the branch itself.
    pub fn line(&self) -> impl ExactSizeIterator<Item = &Branch> {
        self.inner.line.iter().map(|branch| &**branch)
    }

    /// The shards of the archive, the meta shard first.
    pub fn shard_ids(&self) -> impl DoubleEndedIterator<Item = ShardId> + use<> {
        self.inner.identity.shard_ids()
    }

    /// The branch's own manifest log of a shard of the archive: what its owner commits to.
    pub async fn log(&self, shard: ShardId) -> Result<&ManifestLog> {
        self.member_log(self.inner.line.len().saturating_sub(1), shard).await
    }

    /// The whole history of a shard as it is known now; later commits do not change it. Opens what it needs.
    pub async fn shard(&self, shard: ShardId) -> Result<ShardView> {
        let mut parts = Vec::new();
        let mut from = Index::ZERO;
        for (member, end) in self.ends(shard).enumerate() {
            if end.is_none_or(|end| end > from) {
                parts.push((self.member_log(member, shard).await?.rows(), from, end));
                from = end.unwrap_or(from);
            }
        }
        ShardView::new(shard, parts)
    }

    /// Where the archived history of a shard ends.
    pub async fn end(&self, shard: ShardId) -> Result<HistoryPoint> {
        Ok(self.log(shard).await?.tip())
    }

    /// Picks up what the branch's owner committed since; returns how many manifests that were.
    pub async fn refresh(&self) -> Result<u64> {
        let mut found = 0_u64;
        for shard in self.shard_ids() {
            found = found.saturating_add(self.log(shard).await?.refresh().await?);
        }
        Ok(found)
    }

    /// For each member of the line where its part ends; `None` for the branch itself, which goes on.
    fn ends(&self, shard: ShardId) -> impl Iterator<Item = Option<Index>> {
        let at = usize::from(shard.get());
        let ancestry = self.branch().ancestry.iter();
        ancestry.map(move |ancestor| ancestor.ends.get(at).copied().or(Some(Index::ZERO))).chain([None])
    }

    async fn member_log(&self, member: usize, shard: ShardId) -> Result<&ManifestLog> {
        let inner = &self.inner;
        let unknown = || crate::Error::Config {
            url: Arc::clone(inner.store.url()),
            problems: vec![format!("it has no shard {shard}: its shards are 0 to {}", inner.identity.shards)],
        };
        let log =
            inner.logs.get(member).and_then(|logs| logs.get(usize::from(shard.get()))).ok_or_else(unknown)?;
        let branch = inner.line.get(member).ok_or_else(unknown)?;
        let start = branch.start(shard).ok_or_else(unknown)?;
        log.get_or_try_init(|| ManifestLog::open(&inner.store, &branch.name, shard, start, inner.options))
            .await
    }
}

impl fmt::Debug for BranchView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BranchView").field("branch", &self.branch().name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
