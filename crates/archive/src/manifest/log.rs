//! Opening, following and committing to the manifest log of one shard of one branch.

use std::fmt;
use std::sync::Arc;

use duramen_failpoint::Point;
use duramen_types::{BranchName, DecodeError, Index, ManifestNumber, ShardId};
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Mutex as AsyncMutex;

use super::checkpoint::PageCache;
use super::format::{Committer, MAX_MANIFEST_BYTES, MAX_ROWS_PER_MANIFEST, MAX_ROWS_PER_PAGE, Manifest};
use super::row::{SegmentRow, SnapshotRow};
use super::rows::Rows;
use super::state::{HistoryPoint, State};
use crate::{Error, ObjectKey, Result, Store};

/// How many manifests are fetched at once when opening.
const MAX_WINDOW: u64 = 32;

/// How a manifest log is kept; the defaults are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// A checkpoint is written after this many manifests. Default: 256.
    pub checkpoint_every: u64,
    /// How many rows a page holds, at most 4,096. Default: 4,096.
    pub rows_per_page: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        if duramen_failpoint::wants_small_pages() {
            return Self { checkpoint_every: 3, rows_per_page: 2 };
        }
        Self { checkpoint_every: 256, rows_per_page: MAX_ROWS_PER_PAGE }
    }
}

/// What one manifest adds; not nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Segments that are in the store already, in order, the first at the history's end.
    pub rows: Vec<SegmentRow>,
    /// Snapshots that are in the store already.
    pub snapshots: Vec<SnapshotRow>,
}

/// The manifest log of one shard of one branch. Cheap to clone; all clones see the same state.
///
/// Dropping any of its futures leaves it usable; a commit that was dropped may have had its effect, which
/// [`ManifestLog::refresh`] shows.
#[derive(Clone)]
pub struct ManifestLog {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub store: Store,
    pub branch: BranchName,
    pub shard: ShardId,
    pub start: HistoryPoint,
    pub options: LogOptions,
    pub pages: Mutex<PageCache>,
    state: RwLock<Arc<State>>,
    /// Held while the state is being advanced, by a commit or a refresh.
    advancing: AsyncMutex<()>,
}

impl ManifestLog {
    /// Reads the newest checkpoint and every manifest after it. `start` is where the branch begins.
    ///
    /// A manifest that is missing while a later one is there is [`Error::Gap`].
    pub async fn open(
        store: &Store,
        branch: &BranchName,
        shard: ShardId,
        start: HistoryPoint,
        options: LogOptions,
    ) -> Result<Self> {
        let rows_per_page = options.rows_per_page.clamp(1, MAX_ROWS_PER_PAGE);
        let options = LogOptions { checkpoint_every: options.checkpoint_every.max(1), rows_per_page };
        let shared = Shared {
            store: store.clone(),
            branch: branch.clone(),
            shard,
            start,
            options,
            pages: Mutex::default(),
            state: RwLock::new(Arc::new(State::new(start))),
            advancing: AsyncMutex::new(()),
        };
        let log = Self { shared: Arc::new(shared) };
        let mut state = match log.latest_checkpoint(None).await? {
            Some(number) => log.load_checkpoint(number).await?,
            None => State::new(start),
        };
        log.catch_up(&mut state, 4).await?;
        log.publish(state);
        Ok(log)
    }

    pub fn branch(&self) -> &BranchName {
        &self.shared.branch
    }

    pub fn shard(&self) -> ShardId {
        self.shared.shard
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Where this branch's part of the history begins.
    pub fn start(&self) -> HistoryPoint {
        self.shared.start
    }

    /// What the log says now; later commits do not change it.
    pub fn rows(&self) -> Rows {
        Rows::new(self.clone(), self.state())
    }

    /// The point up to which the history is archived.
    pub fn tip(&self) -> HistoryPoint {
        self.state().tip
    }

    /// The number that the next manifest gets.
    pub fn next_number(&self) -> ManifestNumber {
        self.state().next
    }

    /// Picks up what others committed since; returns how many manifests that were.
    pub async fn refresh(&self) -> Result<u64> {
        let _advancing = self.shared.advancing.lock().await;
        let mut state = (*self.state()).clone();
        let before = state.next;
        // A reader that follows for long takes over the pages of the writer's checkpoints, to stay small.
        if state.tail.len() > self.shared.options.rows_per_page.saturating_mul(2)
            && let Some(newer) = self.latest_checkpoint(state.uncovered.previous()).await?
        {
            state = self.load_checkpoint(newer).await?;
        }
        self.catch_up(&mut state, 1).await?;
        let found = state.next.since(before);
        self.publish(state);
        Ok(found)
    }

    /// Commits `edit` as the next manifest; on `Ok` it is durable and part of the history for ever.
    ///
    /// [`Error::Discontinuous`]: it does not join what is there, nothing was written. [`Error::Lost`]: another
    /// manifest has the number; refresh, and begin again from the new end. After a retryable error the outcome is
    /// unknown: refresh tells.
    pub async fn commit(&self, committer: Committer, edit: Edit) -> Result<ManifestNumber> {
        let _advancing = self.shared.advancing.lock().await;
        let mut state = (*self.state()).clone();
        let number = state.next;
        let manifest = Manifest {
            number,
            nonce: uuid::Uuid::from_bytes(self.shared.store.random().bytes16()),
            committer,
            created: self.shared.store.clock().now(),
            previous_end: state.tip.end,
            previous_chain: state.tip.chain,
            rows: edit.rows.into_iter().map(Arc::new).collect(),
            snapshots: edit.snapshots,
            checkpoint: state.uncovered.previous(),
        };
        self.check(&manifest)?;
        let end = state.tip.end;
        state.apply(&manifest).map_err(|reason| self.discontinuous(end, reason))?;
        let key = self.manifest_key(number);
        match self.shared.store.create(&key, manifest.encode()).await {
            Ok(()) => {}
            Err(Error::Exists(at)) => return Err(Error::Lost { key: at.key, url: at.url }),
            Err(error) => return Err(error),
        }
        duramen_failpoint::reached(Point::ManifestCreated);
        self.publish(state);
        self.checkpoint_if_due().await;
        Ok(number)
    }

    /// Reads a committed manifest back from the store and compares it with this log: the history before the returned
    /// index is then safe to be purged elsewhere, as far as this manifest's rows go.
    pub async fn confirm(&self, number: ManifestNumber) -> Result<Index> {
        let key = self.manifest_key(number);
        let state = self.state();
        let Some(manifest) = self.read(number).await? else {
            return Err(self.gap(format!("manifest {number} was committed, and is not there")));
        };
        let rows = Rows::new(self.clone(), Arc::clone(&state));
        for row in &manifest.rows {
            if rows.containing(row.first).await?.as_ref() != Some(row) {
                let reason =
                    format!("its segment {}..{} is not the one that was committed", row.first, row.end);
                return Err(self.shared.store.unreadable(&key, DecodeError::invalid("manifest", reason)));
            }
        }
        if number.next() == state.next {
            // One without rows says where the history ended before.
            self.check_last(&state, &manifest)?;
        }
        Ok(manifest.end().0)
    }

    /// Makes sure that the store still ends this log where it ended when it was read last: [`Error::Gap`] where its newest
    /// manifest is gone or is another's. Without a manifest there is nothing to look at.
    pub async fn check_end(&self) -> Result<()> {
        let state = self.state();
        let Some(last) = state.next.previous() else { return Ok(()) };
        match self.read(last).await? {
            Some(manifest) => self.check_last(&state, &manifest),
            None => Err(self.gap(format!(
                "manifest {last} was there and is gone: the store was emptied, or is another one"
            ))),
        }
    }

    fn check_last(&self, state: &State, manifest: &Manifest) -> Result<()> {
        if manifest.end() == (state.tip.end, state.tip.chain) {
            return Ok(());
        }
        let number = manifest.number;
        Err(self
            .gap(format!("manifest {number} is of another history: another archive took this one's place")))
    }

    fn check(&self, manifest: &Manifest) -> Result<()> {
        let (rows, snapshots) = (manifest.rows.len(), manifest.snapshots.len());
        if rows == 0 && snapshots == 0 {
            return Err(
                self.discontinuous(manifest.previous_end, "an empty manifest says nothing".to_owned())
            );
        }
        if rows > MAX_ROWS_PER_MANIFEST || snapshots > MAX_ROWS_PER_MANIFEST {
            let reason =
                format!("a manifest takes at most {MAX_ROWS_PER_MANIFEST} rows, not {}", rows.max(snapshots));
            return Err(self.discontinuous(manifest.previous_end, reason));
        }
        Ok(())
    }

    fn discontinuous(&self, end: Index, reason: String) -> Error {
        Error::Discontinuous { branch: self.shared.branch.clone(), shard: self.shared.shard, end, reason }
    }

    fn gap(&self, reason: String) -> Error {
        Error::Gap { branch: self.shared.branch.clone(), shard: self.shared.shard, reason }
    }

    fn manifest_key(&self, number: ManifestNumber) -> ObjectKey {
        ObjectKey::Manifest { branch: self.shared.branch.clone(), shard: self.shared.shard, number }
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.shared.state.read())
    }

    pub(super) fn publish(&self, state: State) {
        *self.shared.state.write() = Arc::new(state);
    }

    /// One manifest, or `None` if there is none of this number.
    pub async fn read(&self, number: ManifestNumber) -> Result<Option<Manifest>> {
        let key = self.manifest_key(number);
        match self.shared.store.get_if_present(&key, MAX_MANIFEST_BYTES).await? {
            Some(bytes) => {
                Manifest::decode(&bytes).map(Some).map_err(|error| self.shared.store.unreadable(&key, error))
            }
            None => Ok(None),
        }
    }

    /// Applies manifests until one is absent, looking `window` of them ahead at first.
    async fn catch_up(&self, state: &mut State, mut window: u64) -> Result<()> {
        loop {
            let first = state.next;
            let reads = (0..window).map(|ahead| self.read(first.plus(ahead)));
            let found: Vec<_> = stream::iter(reads).buffered(8).try_collect().await?;
            let present = found.iter().take_while(|manifest| manifest.is_some()).count();
            let later = found.iter().skip(present).any(Option::is_some);
            for manifest in found.into_iter().take(present).flatten() {
                // What the manifest calls itself may be what is wrong with it.
                let number = state.next;
                state.apply(&manifest).map_err(|reason| {
                    self.shared
                        .store
                        .unreadable(&self.manifest_key(number), DecodeError::invalid("manifest", reason))
                })?;
            }
            if later {
                // Written while we read, or lost: manifests appear in the order of their numbers.
                if self.read(state.next).await?.is_none() {
                    return Err(
                        self.gap(format!("manifest {} is missing, and later ones are there", state.next))
                    );
                }
            } else if state.next.since(first) < window {
                return Ok(());
            }
            window = window.saturating_mul(2).min(MAX_WINDOW);
        }
    }
}

impl fmt::Debug for ManifestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { branch, shard, .. } = &*self.shared;
        f.debug_struct("ManifestLog")
            .field("branch", branch)
            .field("shard", shard)
            .field("tip", &self.tip())
            .finish()
    }
}
