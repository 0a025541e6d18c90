//! Whose a data directory is, and which archive and branch it is bound to.

use std::sync::Arc;

use duramen_archive::{Branch, BranchView, Identity, Owner, ProbeOutcome, Random, Store};
use duramen_failpoint::Point;
use duramen_types::{BranchName, Clock, ClusterId, NodeId, ShardId};
use duramen_wal::datadir::{DataDir, FORMAT_VERSION, NodeDescription};
use tokio::sync::oneshot;

use super::start::StartError;
use crate::archive;
use crate::config::{self, Config};
use crate::shard::{Checkpoint, Surroundings, seed};

/// The archive that a starting node is bound to.
pub(super) struct Binding {
    pub(super) store: Store,
    pub(super) description: NodeDescription,
    pub(super) branch: BranchName,
}

/// Makes sure whose the data directory is, and that its archive and branch are ours to write.
pub(super) async fn bind(
    config: &Config,
    directory: &DataDir,
    store: Option<Store>,
    clock: &Arc<dyn Clock>,
    random: &Random,
) -> Result<(NodeDescription, Option<Binding>), StartError> {
    let known = directory.node()?;
    let node = NodeId::new(config.node.id);
    let fresh = || NodeDescription {
        format_version: FORMAT_VERSION,
        node,
        cluster: ClusterId::from_random(random.bytes16()),
        archive: None,
        branch: None,
        shards: config.cluster.shards.unwrap_or(config::DEFAULT_SHARDS),
        created: clock.now(),
        cut: None,
    };
    let mut wanted = known.clone().unwrap_or_else(fresh);
    wanted.node = node;
    wanted.shards = config.cluster.shards.unwrap_or(wanted.shards);
    if known.as_ref().is_some_and(|known| known.shards != wanted.shards) {
        // Refused before an archive is made with the wrong number.
        directory.bind(&wanted)?;
    }
    let Some(url) = &config.archive.url else {
        return match wanted.archive {
            Some(archive) => Err(StartError::NeedsArchive(archive)),
            None => {
                tracing::warn!(
                    "no archive is configured: what is appended is on this machine's disk only. Set archive.url, \
                     --archive or DURAMEN_ARCHIVE to keep a copy"
                );
                Ok((directory.bind(&wanted)?, None))
            }
        };
    };
    let store = match store {
        Some(store) => store,
        None => {
            let options = archive::store_options(&config.archive);
            Store::open(url, &options, Arc::clone(clock), random.clone()).await?
        }
    };
    let branch = branch_of(&wanted, &config.archive)?;
    if let Some(archive) =
        known.as_ref().filter(|known| known.branch.is_some()).and_then(|known| known.archive)
    {
        let description = directory.bind(&wanted)?;
        match archive::claim(&store, archive, &branch, description.cluster).await {
            Ok(()) => {}
            Err(archive::ClaimError::Archive(error)) if error.is_retryable() => {
                tracing::warn!(%error, "the archive can't be reached: starting without it, archiving goes on later");
            }
            Err(error) => return Err(error.into()),
        }
        return Ok((description.clone(), Some(Binding { store, description, branch })));
    }
    let report = store.check().await;
    for probe in report.probes {
        if let ProbeOutcome::Failed(reason) = probe.outcome {
            let message =
                format!("the archive at {} can't be used: to {} failed: {reason}", store.url(), probe.name);
            return Err(StartError::Other(message));
        }
    }
    if known.is_none() && config.cluster.shards.is_none() {
        match Identity::open(&store).await {
            Ok(identity) => wanted.shards = identity.shards,
            Err(duramen_archive::Error::NoArchive { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let identity = Identity::open_or_create(&store, wanted.shards).await?;
    duramen_failpoint::reached(Point::ClaimCreated);
    if branch == BranchName::default() {
        Branch::open_or_create_root(&store, &branch, &format!("node {node}")).await?;
    } else {
        // Kept here, because a later start may have to do without the store.
        wanted.cut = Branch::open(&store, &branch).await?.cut.map(|cut| cut.time);
    }
    wanted.archive = Some(identity.archive);
    wanted.branch = Some(branch.to_string());
    if Owner::read(&store, &branch).await?.is_some() {
        // Refused before anything is written here: an empty directory stays free for what the refusal advises.
        Owner::claim(&store, &branch, wanted.cluster).await?;
    }
    // Kept here durably before the branch is claimed: after a crash the same cluster comes again.
    let description = directory.bind(&wanted)?;
    duramen_failpoint::reached(Point::ClaimKept);
    Owner::claim(&store, &branch, description.cluster).await?;
    duramen_failpoint::reached(Point::ClaimOwned);
    Ok((description.clone(), Some(Binding { store, description, branch })))
}

/// The branch that the directory is bound to, which the configuration need not name; the configuration's where it is
/// bound to none.
fn branch_of(description: &NodeDescription, configured: &config::Archive) -> Result<BranchName, StartError> {
    let Some(bound) = &description.branch else { return Ok(configured.branch.clone().unwrap_or_default()) };
    let bound = BranchName::parse(bound).map_err(|error| StartError::Other(format!("node.json: {error}")))?;
    match &configured.branch {
        Some(wanted) if *wanted != bound => Err(StartError::OtherBranch { bound, wanted: wanted.clone() }),
        _ => Ok(bound),
    }
}

/// Gives every shard whose log does not begin at its first entry the state that it begins with, from the archive: where
/// the branch continues another one, and where a repair left no checkpoint.
///
/// Safe to repeat after a crash: a shard counts as entered once its log says so, and its checkpoint was durable then.
pub(super) async fn enter_history(
    binding: &Binding,
    around: &Surroundings,
    hydrated: std::path::PathBuf,
    config: &Config,
) -> Result<(), StartError> {
    let lacking: Vec<ShardId> = (0..=binding.description.shards)
        .map(ShardId::new)
        .filter(|shard| lacks_state(around, *shard))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let view = BranchView::open(&binding.store, &binding.branch).await?;
    let history = archive::open_history(&view, hydrated, &config.archive, around.blocking);
    for shard in lacking {
        let shard_view = view.shard(shard).await?;
        let (start, tip) = (view.log(shard).await?.start(), shard_view.tip());
        let log = around.wal.log_state(shard);
        let end = match log.purged {
            Some(purged) => purged.index.next(),
            None if tip.end == start.end => start.end,
            None => {
                return Err(StartError::Other(format!(
                    "shard {shard}: the archive holds entries to index {} that this node wrote, and its local log holds \
                     none: it was lost. Rebuild the node in an empty directory with `duramen-restore hydrate`",
                    tip.end
                )));
            }
        };
        let state = history.state_at(&shard_view, end).await?;
        let records = seed(around, state, &log)?;
        if records.is_empty() {
            continue;
        }
        let (done, written) = oneshot::channel();
        around.wal.submit(
            records,
            Box::new(move |result| {
                // Nobody waits any more when the start was given up.
                let _ = done.send(result);
            }),
        );
        written.await.map_err(|_| StartError::Other(format!("shard {shard}: the log stopped")))??;
    }
    Ok(())
}

/// Whether the shard's log begins later than what its checkpoint, if any, reaches.
fn lacks_state(around: &Surroundings, shard: ShardId) -> bool {
    let log = around.wal.log_state(shard);
    let Some(purged) = log.purged else { return log.last.is_none() };
    let checkpoint = Checkpoint::load(&*around.disk, &around.checkpoints, shard);
    if let Err(error) = &checkpoint {
        // As good as none: the archive has what it held.
        tracing::warn!(%shard, %error, "the checkpoint is not used: the archive has what it held");
    }
    !matches!(checkpoint, Ok(Some(checkpoint)) if checkpoint.state.end() > purged.index)
}
