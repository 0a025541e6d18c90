//! A branch whose history is brought to a data directory as well.
//!
//! The steps, each safe to repeat after a crash at any point:
//!
//! 1. `restore.json` is written: from then on the directory does not start ([`duramen_wal::datadir`]).
//! 2. The branch is created with one PUT; it protects what it reaches.
//! 3. Every archived segment of the branch, and the snapshots it begins with, are downloaded, verified and renamed into
//!    `hydrated/<key>`, where the archive reader finds them under the keys that they have in the archive.
//! 4. `node.json` binds the directory to the branch, with a cluster id of its own.
//! 5. The activation marker makes it startable.

mod dry_run;
mod fetch;

use std::path::Path;
use std::sync::Arc;

use duramen_archive::{Branch, BranchView, Identity, Owner, Store};
use duramen_client::when;
use duramen_failpoint::Point;
use duramen_types::{ArchiveId, BranchName, ClusterId, HybridTime, NodeId};
use duramen_wal::datadir::{self, DataDir, FORMAT_VERSION, NodeDescription, RestoreDescription};
use duramen_wal::{Disk, RealDisk};
use serde::{Deserialize, Serialize};

use crate::branch::{self, Guard};
use crate::{Error, Observer, Plan, Position, Reach, Result, Target, default_name, plan};

/// The most downloads that run at once, each of which holds up to about 12 MiB; and the most shards that are verified at once.
pub const MAX_PARALLELISM: usize = 16;

/// How a directory is hydrated.
#[derive(Debug, Clone)]
pub struct HydrateOptions {
    /// The node that the directory will be of.
    pub node: NodeId,
    /// The branch to create; made of the parent's name and the instant where it is `None`. A branch of that name that
    /// begins at this very cut and that nobody writes yet is taken.
    pub branch: Option<BranchName>,
    /// How many objects are downloaded at once, 1 to [`MAX_PARALLELISM`].
    pub parallelism: usize,
    /// Who creates the branch, for people.
    pub creator: String,
    /// Say what would be done, and write nothing: whatever the restore refuses is refused.
    pub dry_run: bool,
    pub observer: Observer,
    /// The disk that the directory is on.
    pub disk: Arc<dyn Disk>,
}

impl HydrateOptions {
    /// The defaults, for one node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            branch: None,
            parallelism: 4,
            creator: "duramen-restore".to_owned(),
            dry_run: false,
            observer: Observer::default(),
            disk: Arc::new(RealDisk),
        }
    }
}

/// What was brought into a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HydrateReport {
    pub branch: BranchName,
    pub plan: Plan,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Objects that this run downloaded, and those that an earlier run had. Of a dry run: that it would download.
    pub fetched: Reach,
    pub present: Reach,
    /// Whether an earlier run had begun.
    pub resumed: bool,
    pub note: Option<String>,
}

/// What `restore.json` keeps of a restore, to go on where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Details {
    pub archive: ArchiveId,
    pub parent: BranchName,
    pub branch: BranchName,
    pub node: NodeId,
    /// Chosen once: the owner of the new branch.
    pub cluster: ClusterId,
    pub started: HybridTime,
    pub plan: Plan,
}

/// Restores `parent` at `target` into the directory `to`, as a new branch that a node can be started on.
///
/// `to` is new, empty, or holds the beginning of this very restore, which is then finished. On `Ok` everything is durable
/// and verified, and a node starts there. Until then the directory does not start and says why. Dropping the future, or
/// killing the process, is safe at any moment: calling again goes on, and fetches nothing twice that had arrived.
/// Memory: about 12 MiB for each download at once.
pub async fn hydrate(
    store: &Store,
    parent: &BranchName,
    target: &Target,
    to: &Path,
    options: &HydrateOptions,
) -> Result<HydrateReport> {
    if !check_empty(&options.disk, to)? {
        if options.dry_run {
            return dry_run::of_new(store, parent, target, to, options).await;
        }
        // Nothing is made there before it can say that a restore has begun: until then it is as empty as it was.
        let guard = Guard::place(store, parent, &format!("being restored to {}", to.display())).await?;
        let begun = begin(store, parent, target, to, options).await;
        let note = guard.release().await;
        let (dir, details) = begun?;
        let report = finish(store, &dir, details, false, options).await?;
        return Ok(HydrateReport { note, ..report });
    }
    let dir = open(&options.disk, to)?;
    if let Some(restore) = dir.restore()? {
        let details = details_of(&dir, &restore)?;
        let other_name = options.branch.as_ref().is_some_and(|name| *name != details.branch);
        if details.parent != *parent || details.plan.target != *target || other_name {
            let started = format!("branch {} at {}", details.parent, when::format(details.plan.time));
            return Err(Error::OtherRestore { dir: to.to_owned(), started });
        }
        return go_on(store, &dir, details, options).await;
    }
    let found = match dir.node()? {
        Some(node) => format!("node.json of node {}", node.node),
        None => "restore.json was there a moment ago".to_owned(),
    };
    Err(Error::NotEmpty { dir: to.to_owned(), found })
}

/// Finishes the restore that was begun in `to`, whatever its target was; see [`hydrate`].
pub async fn resume(store: &Store, to: &Path, options: &HydrateOptions) -> Result<HydrateReport> {
    let nothing = || Error::NothingToResume { dir: to.to_owned() };
    // Opening would create it.
    if !check_empty(&options.disk, to)? {
        return Err(nothing());
    }
    let dir = open(&options.disk, to)?;
    let restore = dir.restore()?.ok_or_else(nothing)?;
    let details = details_of(&dir, &restore)?;
    go_on(store, &dir, details, options).await
}

/// Finishes a restore that was begun, or says what that would be.
async fn go_on(
    store: &Store,
    dir: &DataDir,
    details: Details,
    options: &HydrateOptions,
) -> Result<HydrateReport> {
    match options.dry_run {
        true => dry_run::of_begun(store, dir, details, options).await,
        false => finish(store, dir, details, true, options).await,
    }
}

/// Refuses a directory with files that no data directory has, before anything is written there; gives whether it says of itself
/// what it is.
fn check_empty(disk: &Arc<dyn Disk>, to: &Path) -> Result<bool> {
    const OURS: [&str; 5] = ["LOCK", "node.json", "restore.json", "activated.json", "archived.json"];
    let names = |dir: &Path| match disk.list(dir) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => {
            Err(Error::NoDirectory { dir: to.to_owned(), action: "list", path: dir.to_owned(), source })
        }
    };
    let here = names(to)?;
    let is_ours = |name: &str| {
        OURS.iter().any(|ours| name.strip_prefix(ours).is_some_and(|rest| matches!(rest, "" | ".tmp")))
    };
    let foreign = here.iter().find(|name| !is_ours(name)).cloned();
    // Without a description these are the remains of something else.
    let described = here.iter().any(|name| name == "restore.json" || name == "node.json");
    let log = if described {
        None
    } else {
        names(&to.join("wal"))?.into_iter().next().map(|name| format!("wal/{name}"))
    };
    match foreign.or(log) {
        Some(found) => Err(Error::NotEmpty { dir: to.to_owned(), found }),
        None => Ok(described),
    }
}

/// Opens the directory whether or not a restore has finished there; makes it if it isn't there.
fn open(disk: &Arc<dyn Disk>, to: &Path) -> Result<DataDir> {
    DataDir::open_unfinished(Arc::clone(disk), to).map_err(|error| match error {
        datadir::Error::Io { action: action @ "create", path, source } => {
            Error::NoDirectory { dir: to.to_owned(), action, path, source }
        }
        other => other.into(),
    })
}

fn details_of(dir: &DataDir, restore: &RestoreDescription) -> Result<Details> {
    let details: Details = serde_json::from_value(restore.details.clone()).map_err(|error| {
        let started = format!("{}; its notes can't be read: {error}", restore.progress);
        Error::OtherRestore { dir: dir.root().to_owned(), started }
    })?;
    match dir.is_activated()? {
        true => Err(Error::AlreadyRestored { dir: dir.root().to_owned(), branch: details.branch }),
        false => Ok(details),
    }
}

/// Writes down what is chosen, and creates the branch: the beginning of a restore.
async fn begin(
    store: &Store,
    parent: &BranchName,
    target: &Target,
    to: &Path,
    options: &HydrateOptions,
) -> Result<(DataDir, Details)> {
    let (view, details) = choose(store, parent, target, options).await?;
    let dir = open(&options.disk, to)?;
    if dir.restore()?.is_some() || dir.node()?.is_some() {
        let found = "another restore or node began there meanwhile".to_owned();
        return Err(Error::NotEmpty { dir: to.to_owned(), found });
    }
    note(&dir, store, &details, "nothing is downloaded yet".to_owned())?;
    duramen_failpoint::reached(Point::HydrateNoted);
    create_branch(store, &view, &details, &options.creator).await?;
    Ok((dir, details))
}

/// Chooses the cut and the names, which may be taken by nobody else; writes nothing.
async fn choose(
    store: &Store,
    parent: &BranchName,
    target: &Target,
    options: &HydrateOptions,
) -> Result<(BranchView, Details)> {
    let view = BranchView::open(store, parent).await?;
    let plan = plan(&view, target).await?;
    let branch = match &options.branch {
        Some(name) => name.clone(),
        None => free_name(store, &default_name(parent, plan.time)).await?,
    };
    let details = Details {
        archive: plan.archive,
        parent: parent.clone(),
        branch,
        node: options.node,
        cluster: ClusterId::from_random(store.random().bytes16()),
        started: store.clock().now(),
        plan,
    };
    // A name that is taken is refused before anything is written.
    if let Some(found) = Branch::open_if_present(store, &details.branch).await? {
        check_same(store, &found, view.branch(), &details).await?;
    }
    Ok((view, details))
}

/// The name, or the name with a number, if it is taken: several directories may be restored from one instant.
async fn free_name(store: &Store, name: &BranchName) -> Result<BranchName> {
    if Branch::open_if_present(store, name).await?.is_none() {
        return Ok(name.clone());
    }
    for number in 2_u32.. {
        let shortened: String = name.as_str().chars().take(52).collect();
        let numbered =
            BranchName::parse(&format!("{shortened}-{number}")).expect("a name and a number make a name");
        if Branch::open_if_present(store, &numbered).await?.is_none() {
            return Ok(numbered);
        }
    }
    Ok(name.clone())
}

async fn create_branch(store: &Store, view: &BranchView, details: &Details, creator: &str) -> Result<()> {
    let (found, created) = branch::create(store, view, Some(&details.branch), &details.plan, creator).await?;
    if created { Ok(()) } else { check_same(store, &found, view.branch(), details).await }
}

/// An existing branch is taken if it begins at the same cut and belongs to nobody else.
async fn check_same(store: &Store, found: &Branch, parent: &Branch, details: &Details) -> Result<()> {
    let owner = Owner::read(store, &details.branch).await?;
    let ours = owner.is_none_or(|owner| owner.cluster == details.cluster);
    if ours && branch::is_same(found, parent, &details.plan.cut()) {
        return Ok(());
    }
    let (url, branch) = (Arc::clone(store.url()), details.branch.clone());
    Err(duramen_archive::Error::BranchExists { url, branch }.into())
}

/// Goes through all steps after the first; each finds what an earlier run did.
async fn finish(
    store: &Store,
    dir: &DataDir,
    details: Details,
    resumed: bool,
    options: &HydrateOptions,
) -> Result<HydrateReport> {
    let identity = identity(store, dir, &details).await?;
    let mut trouble = None;
    if resumed {
        trouble = ensure_branch(store, &details, options).await?;
    }
    let view = BranchView::open(store, &details.branch).await?;
    let fetched = fetch::fetch(&view, dir, &details, options).await?;
    note(dir, store, &details, "everything is downloaded and verified".to_owned())?;
    dir.bind(&NodeDescription {
        format_version: FORMAT_VERSION,
        node: details.node,
        cluster: details.cluster,
        archive: Some(details.archive),
        branch: Some(details.branch.to_string()),
        shards: identity.shards,
        created: details.started,
        cut: view.branch().cut.as_ref().map(|cut| cut.time),
    })?;
    duramen_failpoint::reached(Point::HydrateBound);
    dir.activate(store.clock().now())?;
    duramen_failpoint::reached(Point::HydrateActivated);
    Ok(report(details, fetched, resumed, false, trouble))
}

fn report(
    details: Details,
    fetched: fetch::Fetched,
    resumed: bool,
    dry_run: bool,
    note: Option<String>,
) -> HydrateReport {
    let (Details { branch, plan, .. }, fetch::Fetched { fetched, present }) = (details, fetched);
    HydrateReport { branch, plan, dry_run, fetched, present, resumed, note }
}

/// The archive's identity, which must be the one that the restore began with.
async fn identity(store: &Store, dir: &DataDir, details: &Details) -> Result<Identity> {
    let identity = Identity::open(store).await?;
    if identity.archive == details.archive {
        return Ok(identity);
    }
    let (url, dir) = (Arc::clone(store.url()), dir.root().to_owned());
    Err(Error::OtherArchive { dir, url, expected: details.archive, found: identity.archive })
}

/// The branch may be missing where the first run was interrupted just before its PUT: the plan is then checked again.
async fn ensure_branch(store: &Store, details: &Details, options: &HydrateOptions) -> Result<Option<String>> {
    let parent = Branch::open(store, &details.parent).await?;
    if let Some(found) = Branch::open_if_present(store, &details.branch).await? {
        check_same(store, &found, &parent, details).await?;
        return Ok(None);
    }
    let guard = Guard::place(store, &details.parent, "a restore goes on").await?;
    let made = async {
        let view = BranchView::open(store, &details.parent).await?;
        plan(&view, &Target::Position(Position::from(&details.plan))).await?;
        create_branch(store, &view, details, &options.creator).await
    };
    let made = made.await;
    let note = guard.release().await;
    made.map(|()| note)
}

/// Writes down how far the restore is.
pub(crate) fn note(dir: &DataDir, store: &Store, details: &Details, progress: String) -> Result<()> {
    let json = serde_json::to_value(details).expect("the details of a restore have only text keys");
    Ok(dir.note_restore(&RestoreDescription {
        format_version: FORMAT_VERSION,
        source: store.url().to_string(),
        branch: details.parent.to_string(),
        progress,
        details: json,
    })?)
}
