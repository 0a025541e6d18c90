//! Writing and loading checkpoints and their pages.

use std::collections::VecDeque;
use std::sync::Arc;

use duramen_failpoint::Point;
use duramen_types::{DecodeError, Hash, ManifestNumber, SegmentId};
use futures::TryStreamExt;

use super::format::{Checkpoint, MAX_CHECKPOINT_BYTES, MAX_PAGE_BYTES, Page, PageRef};
use super::log::ManifestLog;
use super::state::State;
use crate::paths::ShardFolder;
use crate::{Error, ObjectKey, Result};

/// A page is about 1 MiB; readers go through them in order, so a few suffice.
const CACHED_PAGES: usize = 4;

/// The pages that were used last.
#[derive(Debug, Default)]
pub(super) struct PageCache(VecDeque<(SegmentId, Arc<Page>)>);

impl PageCache {
    fn get(&mut self, id: SegmentId) -> Option<Arc<Page>> {
        let at = self.0.iter().position(|(cached, _)| *cached == id)?;
        let found = self.0.remove(at)?;
        let page = Arc::clone(&found.1);
        self.0.push_back(found);
        Some(page)
    }

    fn put(&mut self, id: SegmentId, page: Arc<Page>) {
        while self.0.len() >= CACHED_PAGES {
            self.0.pop_front();
        }
        self.0.push_back((id, page));
    }
}

impl ManifestLog {
    /// The number of the newest checkpoint after `after`.
    pub(super) async fn latest_checkpoint(
        &self,
        after: Option<ManifestNumber>,
    ) -> Result<Option<ManifestNumber>> {
        let shared = &self.shared;
        let folder = ShardFolder::Checkpoint.prefix(&shared.branch, shared.shard);
        let after = after.map(|number| self.checkpoint_key(number).to_string());
        let mut listed = shared.store.list(&folder, after.as_deref());
        let mut latest = None;
        while let Some(object) = listed.try_next().await? {
            if let Some(ObjectKey::Checkpoint { number, .. }) = object.key {
                latest = Some(number);
            }
        }
        Ok(latest)
    }

    pub(super) async fn load_checkpoint(&self, number: ManifestNumber) -> Result<State> {
        let key = self.checkpoint_key(number);
        let store = &self.shared.store;
        let bytes = store.get(&key, MAX_CHECKPOINT_BYTES).await?;
        let checkpoint = Checkpoint::decode(&bytes).map_err(|error| store.unreadable(&key, error))?;
        let damaged =
            |reason: String| store.unreadable(&key, DecodeError::invalid("manifest checkpoint", reason));
        if checkpoint.number != number {
            return Err(damaged(format!("it says that it is checkpoint {}", checkpoint.number)));
        }
        State::from_checkpoint(self.shared.start, checkpoint).map_err(damaged)
    }

    /// Writes a checkpoint when enough manifests have gathered. A failure is reported and costs nothing but a longer
    /// opening: the next commit tries again.
    pub(super) async fn checkpoint_if_due(&self) {
        let state = self.state();
        if state.next.since(state.uncovered) < self.shared.options.checkpoint_every {
            return;
        }
        match self.write_checkpoint((*state).clone()).await {
            Ok(state) => self.publish(state),
            Err(error) => {
                let (branch, shard) = (&self.shared.branch, self.shared.shard);
                tracing::warn!(%branch, %shard, %error, "a manifest checkpoint could not be written");
            }
        }
    }

    /// Moves full pages out of the tail, and writes the checkpoint of all manifests so far.
    async fn write_checkpoint(&self, mut state: State) -> Result<State> {
        let Some(number) = state.next.previous() else { return Ok(state) };
        let rows_per_page = self.shared.options.rows_per_page;
        while state.tail.len() >= rows_per_page {
            let rows: Vec<_> = state.tail.drain(..rows_per_page).collect();
            let end = rows.last().map_or(state.tip.end, |row| row.end);
            let (within, after) =
                std::mem::take(&mut state.snapshots).into_iter().partition(|s| s.index <= end);
            state.snapshots = after;
            let page = self.write_page(Page { rows, snapshots: within }).await?;
            state.pages.push(page);
        }
        let key = self.checkpoint_key(number);
        match self.shared.store.create(&key, state.to_checkpoint(number).encode()).await {
            Ok(()) => {
                duramen_failpoint::reached(Point::CheckpointCreated);
                state.uncovered = number.next();
                Ok(state)
            }
            // Another node led meanwhile: what it wrote covers the same manifests, with pages of its own.
            Err(Error::Exists(_)) => self.load_checkpoint(number).await,
            Err(error) => Err(error),
        }
    }

    async fn write_page(&self, page: Page) -> Result<Arc<PageRef>> {
        let bytes = page.encode();
        let hash = Hash::from_bytes(blake3::hash(&bytes).into());
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let found = PageRef::of(&page, hash, size).expect("a page is made of at least one row");
        self.shared.store.create(&self.page_key(found.id), bytes).await?;
        duramen_failpoint::reached(Point::CheckpointPage);
        self.shared.pages.lock().put(found.id, Arc::new(page));
        Ok(Arc::new(found))
    }

    /// The page that `found` refers to, from the cache or from the store.
    pub(super) async fn load_page(&self, found: &PageRef) -> Result<Arc<Page>> {
        if let Some(page) = self.shared.pages.lock().get(found.id) {
            return Ok(page);
        }
        let key = self.page_key(found.id);
        let store = &self.shared.store;
        let bytes = store.get(&key, MAX_PAGE_BYTES).await?;
        let damaged = |reason: String| store.unreadable(&key, DecodeError::invalid("row page", reason));
        let hash = Hash::from_bytes(blake3::hash(&bytes).into());
        if hash != found.hash {
            return Err(damaged(format!("its hash is {hash}, its checkpoint says {}", found.hash)));
        }
        let page = Page::decode(&bytes).map_err(|error| store.unreadable(&key, error))?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // How a page's filter is summed up from its rows' is the writer's affair.
        let summary =
            PageRef::of(&page, hash, size).map(|of| PageRef { streams: found.streams.clone(), ..of });
        if summary.as_ref() != Some(found) {
            return Err(damaged("its rows are not what its checkpoint says".to_owned()));
        }
        let contiguous = page
            .rows
            .iter()
            .zip(page.rows.iter().skip(1))
            .try_for_each(|(row, next)| super::HistoryPoint::after(row).join(next).map(|_| ()));
        contiguous.map_err(damaged)?;
        let page = Arc::new(page);
        self.shared.pages.lock().put(found.id, Arc::clone(&page));
        Ok(page)
    }

    fn checkpoint_key(&self, number: ManifestNumber) -> ObjectKey {
        ObjectKey::Checkpoint { branch: self.shared.branch.clone(), shard: self.shared.shard, number }
    }

    fn page_key(&self, id: SegmentId) -> ObjectKey {
        ObjectKey::Page { branch: self.shared.branch.clone(), shard: self.shared.shard, id }
    }
}
