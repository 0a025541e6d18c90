//! Proves an archive: everything that a branch's history consists of, its ancestors' parts included.
//!
//! The manifests themselves drive it, number by number from the first, so that one damaged object does not hide what
//! is wrong with the others. What was found is written into the archive as a verdict.
//!
//! What nothing else speaks of (the newest manifests, checkpoints and closed objects, and verdicts themselves) a verdict names, so
//! that the next verification misses it (`newest`). A hold that is gone was released, as far as an archive can tell.

mod beside;
mod closed;
mod newest;
mod part;
mod replay;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use duramen_archive::{
    Branch, BranchView, Depth, FormatError, Identity, ObjectKey, Owner, SegmentError, Store, Verdict,
    VerifiedShard,
};
use duramen_failpoint::Point;
use duramen_types::{BranchName, Index, ShardId};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use serde::Serialize;
use uuid::Uuid;

use newest::Newest;

use crate::{Error, MAX_PARALLELISM, Observer, Result, Step};

/// How an archive is verified.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// [`Depth::Quick`]: manifests, checkpoints, pages, closed objects, and the entry tables of all segments, which
    /// prove the history chain. Anything deeper: every byte of every object, and the state that it adds up to.
    pub depth: Depth,
    /// Skip segments and snapshots that the newest clean verdict of at least this depth covers. Nothing is skipped after one
    /// that found damage.
    pub since: bool,
    /// How many shards are verified at once, 1 to [`MAX_PARALLELISM`]; each holds up to about 70 MiB.
    pub parallelism: usize,
    /// Whether the verdict is written into the archive.
    pub record: bool,
    pub observer: Observer,
}

impl VerifyOptions {
    /// The defaults at a depth.
    pub fn new(depth: Depth) -> Self {
        Self { depth, since: false, parallelism: 2, record: true, observer: Observer::default() }
    }
}

/// How a verification came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub verdict: Verdict,
    /// The earlier verdict that it went on from.
    pub since: Option<Uuid>,
    /// Where the verdict was written.
    pub recorded: Option<String>,
}

impl VerifyReport {
    /// Whether nothing was found wrong.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }
}

/// What all shards share.
pub(crate) struct Context {
    pub store: Store,
    pub identity: Identity,
    pub branch: BranchName,
    pub owner: Option<Owner>,
    pub options: VerifyOptions,
    /// Where an earlier clean verdict ended.
    pub since: BTreeMap<ShardId, VerifiedShard>,
    /// The furthest end that an earlier verdict saw, and its key.
    pub verdict_claims: BTreeMap<ShardId, (Index, String)>,
    /// The furthest end that a closed object speaks of, and its key; it may be ahead of the archive for a while.
    pub closed_claims: BTreeMap<ShardId, (Index, String)>,
    /// What earlier verdicts know to be there, and what this one will.
    pub newest: Newest,
    found: Mutex<BTreeSet<(String, String)>>,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Context {
    pub(crate) fn is_full(&self) -> bool {
        self.options.depth > Depth::Quick
    }

    pub(crate) fn find(&self, key: impl ToString, problem: impl Into<String>) {
        self.found.lock().insert((key.to_string(), problem.into()));
    }

    fn keys_found(&self) -> BTreeSet<String> {
        self.found.lock().iter().map(|(key, _)| key.clone()).collect()
    }

    /// Finds what earlier verdicts saw and is gone; comes last.
    async fn find_missing(&self) -> Result<()> {
        let found = self.keys_found();
        for (name, verdict) in self.newest.missing() {
            let Some(key) = ObjectKey::parse(&name).filter(|_| !found.contains(&name)) else { continue };
            // A listing may be behind.
            match self.store.size(&key).await {
                Ok(_) => {}
                Err(duramen_archive::Error::Missing(_)) => {
                    self.find(name, format!("it is missing: {verdict} saw it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn looked_at(&self, bytes: u64) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.options.observer.tell(Step::Done { objects: 1, bytes });
    }

    /// Takes an error for a finding if it speaks of damage; any other ends the verification.
    pub(crate) fn absorb<T>(&self, key: &ObjectKey, result: duramen_archive::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if error.is_damage()
                    || matches!(
                        error,
                        duramen_archive::Error::NotSupported { .. } | duramen_archive::Error::Newer { .. }
                    ) =>
            {
                self.find(named(&error).unwrap_or_else(|| key.to_string()), plain(&error));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn absorb_segment<T>(
        &self,
        key: &ObjectKey,
        result: Result<T, SegmentError>,
    ) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(SegmentError::Store(error)) => self.absorb(key, Err(error)),
            Err(error @ SegmentError::Interrupted { .. }) => Err(error.into()),
            Err(error) => {
                self.find(key, error.to_string());
                Ok(None)
            }
        }
    }

    /// Decodes an object by its kind; what is wrong with it is found.
    pub(crate) fn decoded<T>(&self, key: &ObjectKey, result: Result<T, FormatError>) -> Option<T> {
        result.map_err(|error| self.find(key, plain(&self.store.unreadable(key, error)))).ok()
    }
}

/// The object that an error names, other than the one that was asked for.
fn named(error: &duramen_archive::Error) -> Option<String> {
    use duramen_archive::Error as E;
    match error {
        E::Missing(at) | E::AlteredInStore(at) | E::WrongSize { at, .. } | E::TooLarge { at, .. } => {
            Some(at.key.to_string())
        }
        E::Damaged { key, .. } | E::NotSupported { key, .. } | E::Newer { key, .. } => Some(key.to_string()),
        _ => None,
    }
}

/// An error's own reason, without the key and the archive that a finding names anyway.
fn plain(error: &duramen_archive::Error) -> String {
    use duramen_archive::Error as E;
    match error {
        E::Missing(_) => "it is missing".to_owned(),
        E::WrongSize { expected, found, .. } => {
            format!("it has {found} bytes where {expected} were expected: it was truncated or replaced")
        }
        E::Damaged { source, .. } => format!("it is damaged: {source}"),
        other => other.to_string(),
    }
}

/// Verifies `branch` with its ancestors, and records a verdict in the archive.
///
/// Damage is no error: it is in the report, each finding with the object that it concerns. An error means that the
/// archive could not be looked at, or has no such branch, and no trace of one. Reads only, but for the verdict; safe while nodes write. What is found is looked at once
/// more: a finding is what two looks have in common, so that what was altered on the way here is not called damage there.
pub async fn verify(store: &Store, branch: &BranchName, options: &VerifyOptions) -> Result<VerifyReport> {
    let start = store.clock().monotonic();
    let (context, shards, since) = look(store, branch, options).await?;
    if context.found.lock().is_empty() {
        return report(&context, shards, since, start).await;
    }
    let first = context.keys_found();
    let (context, shards, since) = look(store, branch, options).await?;
    context.found.lock().retain(|(key, _)| first.contains(key));
    report(&context, shards, since, start).await
}

/// Looks at everything once; gives what was found, and the verdict that it went on from.
async fn look(
    store: &Store,
    branch: &BranchName,
    options: &VerifyOptions,
) -> Result<(Arc<Context>, Vec<VerifiedShard>, Option<Uuid>)> {
    let identity = Identity::open(store).await?;
    let mut context = Context {
        store: store.clone(),
        identity,
        branch: branch.clone(),
        owner: None,
        options: options.clone(),
        since: BTreeMap::new(),
        verdict_claims: BTreeMap::new(),
        closed_claims: BTreeMap::new(),
        newest: Newest::default(),
        found: Mutex::default(),
        objects: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    beside::holds(&context).await?;
    beside::branches(&context).await?;
    let (earlier, all) = beside::verdicts(&context).await?;
    // What a later one found must be looked at again until it is mended: then nothing is skipped. One that can't be read may
    // have found anything.
    let since = earlier
        .iter()
        .rev()
        .take_while(|verdict| all && verdict.is_clean())
        .find(|verdict| options.since && verdict.depth >= options.depth.min(Depth::Full))
        .cloned();
    context.since =
        since.iter().flat_map(|verdict| &verdict.shards).map(|shard| (shard.shard, *shard)).collect();
    context.verdict_claims = claims(&earlier);
    let view = open(&context).await?;
    if view.is_some() {
        let key = ObjectKey::Owner(branch.clone());
        context.owner = context.absorb(&key, Owner::read(store, branch).await)?.flatten();
        closed::verify(&mut context).await?;
    }
    let context = Arc::new(context);
    let shards = match view {
        Some(view) => {
            let shards = verify_shards(&context, &view).await?;
            context.find_missing().await?;
            shards
        }
        None => Vec::new(),
    };
    Ok((context, shards, since.map(|verdict| verdict.id)))
}

/// The line of branches; `None` where it can't be opened, which is found then.
async fn open(context: &Context) -> Result<Option<BranchView>> {
    let key = ObjectKey::Branch(context.branch.clone());
    let own = match Branch::open(&context.store, &context.branch).await {
        Err(error @ duramen_archive::Error::UnknownBranch { .. }) => {
            let Some(trace) = trace::of(context).await? else { return Err(error.into()) };
            context.find(&key, format!("it is missing: {trace}; put it back from a copy"));
            return Ok(None);
        }
        opened => opened,
    };
    let Some(own) = context.absorb(&key, own)? else { return Ok(None) };
    for ancestor in &own.ancestry {
        let key = ObjectKey::Branch(ancestor.branch.clone());
        let found = context.absorb(&key, Branch::open_if_present(&context.store, &ancestor.branch).await)?;
        match found {
            Some(Some(_)) => context.looked_at(0),
            Some(None) => {
                context.find(&key, format!("it is missing, and branch {} descends from it", own.name));
                return Ok(None);
            }
            None => return Ok(None),
        }
    }
    context.looked_at(0);
    context.absorb(&key, BranchView::open(&context.store, &context.branch).await)
}

async fn verify_shards(context: &Arc<Context>, view: &BranchView) -> Result<Vec<VerifiedShard>> {
    let tasks = view.shard_ids().map(|shard| {
        let (context, view) = (Arc::clone(context), view.clone());
        async move {
            // A task of its own: hashing and decompressing use every core that there is.
            let task = tokio::spawn(async move { part::verify_shard(&context, &view, shard).await });
            task.await.map_err(|error| Error::Interrupted(error.to_string()))?
        }
    });
    let mut done = stream::iter(tasks).buffered(context.options.parallelism.clamp(1, MAX_PARALLELISM));
    let mut shards = Vec::new();
    while let Some(shard) = done.next().await {
        shards.push(shard?);
        duramen_failpoint::reached(Point::VerifyShard);
    }
    Ok(shards)
}

/// What verdicts saw of each shard: what was there once must be there still.
fn claims(verdicts: &[Verdict]) -> BTreeMap<ShardId, (Index, String)> {
    let mut claims: BTreeMap<ShardId, (Index, String)> = BTreeMap::new();
    for verdict in verdicts {
        for shard in &verdict.shards {
            let claim = claims.entry(shard.shard).or_insert((Index::ZERO, String::new()));
            if shard.end > claim.0 {
                *claim = (shard.end, verdict.key().to_string());
            }
        }
    }
    claims
}

async fn report(
    context: &Context,
    shards: Vec<VerifiedShard>,
    since: Option<Uuid>,
    start: std::time::Duration,
) -> Result<VerifyReport> {
    let store = &context.store;
    let found = context.found.lock().clone();
    let took = store.clock().monotonic().saturating_sub(start);
    let verdict = Verdict {
        id: Uuid::from_bytes(store.random().bytes16()),
        time: store.clock().now(),
        depth: context.options.depth.min(Depth::Full),
        branch: context.branch.clone(),
        shards,
        objects: context.objects.load(Ordering::Relaxed),
        bytes: context.bytes.load(Ordering::Relaxed),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        findings: found.into_iter().map(|(key, problem)| duramen_archive::Finding { key, problem }).collect(),
        newest: context.newest.keys(),
    };
    let mut recorded = None;
    if context.options.record {
        duramen_failpoint::reached(Point::VerifyDue);
        verdict.write(store).await?;
        duramen_failpoint::reached(Point::VerifyCreated);
        recorded = Some(verdict.key().to_string());
    }
    Ok(VerifyReport { verdict, since, recorded })
}
