//! Opening the archive, for as long as it takes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use duramen_archive::{
    Blocking, BranchView, Closed, ClosedTimes, Committer, History, HistoryOptions, Identity, Owner,
    SegmentCache, Store, StoreOptions,
};
use duramen_archiver::{ShardArchiver, check_own};
use duramen_types::{ArchiveId, BranchName, ClusterId, Compression, HybridTime};
use tokio::sync::Semaphore;

use super::trouble::Part;
use super::{Opened, Shared};
use crate::config;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The zstd level of archived blocks: a log is written once and read seldom, but it is written all the time.
const LEVEL: i32 = 1;

/// How the store is reached, as the configuration says.
pub fn store_options(config: &config::Archive) -> StoreOptions {
    StoreOptions {
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        path_style: config.path_style,
        allow_http: config.allow_http,
        ..StoreOptions::default()
    }
}

/// The history that a view holds; segments that were restored to `hydrated` are read from there.
pub fn open_history(
    view: &BranchView,
    hydrated: PathBuf,
    config: &config::Archive,
    blocking: Blocking,
) -> History {
    let cache = SegmentCache::new(usize::try_from(config.cache.as_u64()).unwrap_or(usize::MAX));
    let options = HistoryOptions { mirror: Some(hydrated), blocking, ..HistoryOptions::default() };
    History::new(view.store().clone(), view.identity().archive, cache, options)
}

/// Why a node may not write where its configuration points.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the archive: {0}")]
    Archive(#[from] duramen_archive::Error),
    #[error(
        "{url} holds archive {found}, this node's data belongs to archive {expected}: set archive.url to that one. If it \
         is lost, move the data directory away and restore from another copy, or start a new log in an empty one"
    )]
    Foreign { url: String, found: ArchiveId, expected: ArchiveId },
}

/// Makes sure that the store holds the archive that the node belongs to, and that its branch is the node's.
///
/// A store that was emptied is refused: starting it anew would leave a history that begins in the middle.
pub async fn claim(
    store: &Store,
    expected: ArchiveId,
    branch: &BranchName,
    cluster: ClusterId,
) -> Result<(), ClaimError> {
    identify(store, expected).await?;
    Owner::claim(store, branch, cluster).await?;
    Ok(())
}

/// Makes sure that the store holds the archive that the node belongs to.
pub(super) async fn identify(store: &Store, expected: ArchiveId) -> Result<(), ClaimError> {
    let found = Identity::open(store).await?.archive;
    if found == expected {
        return Ok(());
    }
    Err(ClaimError::Foreign { url: store.url().to_string(), found, expected })
}

impl Shared {
    /// Opens the archive; tries until it succeeds, because local appends go on without it.
    pub(super) async fn open(&self) -> Arc<Opened> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_open().await {
                Ok(opened) => {
                    self.troubles.clear(Part::Opening);
                    let opened = Arc::new(opened);
                    self.opened.send_replace(Some(Arc::clone(&opened)));
                    self.attempted.send_replace(true);
                    return opened;
                }
                Err(error) => {
                    self.attempted.send_replace(true);
                    tracing::error!(%error, "the archive can't be opened; trying again in {pause:?}");
                    self.troubles.set(Part::Opening, error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn try_open(&self) -> Result<Opened, String> {
        let text = |error: duramen_archive::Error| error.to_string();
        let settings = &self.settings;
        let archive = settings.id.ok_or("the data directory is bound to no archive")?;
        claim(&self.store, archive, &settings.branch, settings.cluster)
            .await
            .map_err(|error| error.to_string())?;
        let view = BranchView::open(&self.store, &settings.branch).await.map_err(text)?;
        let last_closed = Closed::last_of(&view, settings.node).await.map_err(text)?;
        // What was closed stays closed, whatever the clock says.
        self.clock.recover(last_closed.unwrap_or_default());
        *self.last_closed.lock() = last_closed;
        // Of an idle node no round would say it.
        let closed = ClosedTimes::of(&view).await.map_err(text)?.latest();
        *self.closed_through.lock() = Some(closed).filter(|closed| *closed > HybridTime::ZERO);
        let history = open_history(&view, settings.hydrated.clone(), &settings.archive, settings.blocking);
        let archiver = duramen_archiver::Settings {
            archive,
            committer: Committer { cluster: settings.cluster, node: settings.node },
            segment_bytes: settings.archive.segment_size.as_u64(),
            compression: Compression::Zstd,
            level: LEVEL,
            threads: NonZeroUsize::MIN,
            blocking: settings.blocking,
            uploads: Arc::new(Semaphore::new(settings.archive.uploads)),
        };
        let mut archivers = Vec::with_capacity(self.shards.len());
        let mut boundaries = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let log = view.log(shard.id).await.map_err(text)?.clone();
            let end = log.tip().end;
            if end > shard.recovered_end {
                let error = format!(
                    "shard {}: the archive holds entries to index {end} that this node's log, which ended at {}, does not \
                     continue: the data directory is older than its archive. Start from the archive instead: \
                     `duramen-restore hydrate`",
                    shard.id, shard.recovered_end
                );
                *self.outdated.lock() = Some(error.clone());
                return Err(error);
            }
            if let Err(error) = check_own(&self.wal, &settings.branch, shard.id, log.tip()) {
                // A start that is refused has lengthened the log by an entry of its own: the next one shows so.
                if matches!(error, duramen_archiver::Error::Rival { .. }) {
                    *self.outdated.lock() = Some(error.to_string());
                }
                return Err(error.to_string());
            }
            let shard_view = view.shard(shard.id).await.map_err(text)?;
            let boundary = history.state_at(&shard_view, end).await.map_err(|error| error.to_string())?;
            let archiver = ShardArchiver::new(log, boundary, archiver.clone()).await;
            let archiver = archiver.map_err(|error| error.to_string())?;
            boundaries.push(ArcSwap::new(Arc::clone(archiver.boundary())));
            archivers.push(tokio::sync::Mutex::new(archiver));
            shard.archived.send_replace(end);
        }
        Ok(Opened { view, history, archivers, boundaries })
    }
}
