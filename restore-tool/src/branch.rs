//! A new branch at a cut of another one: a few requests for each shard, one PUT, no data copied.

use std::time::Duration;

use duramen_archive::{Branch, BranchView, Cut, Hold, Store};
use duramen_client::when;
use duramen_failpoint::Point;
use duramen_types::{BranchName, HybridTime};
use serde::Serialize;

use crate::{Error, Plan, Result, Target, plan};

/// A hold outlives the longest plan; should its release fail, it lapses by itself.
const HOLD: Duration = Duration::from_secs(6 * 3600);
/// The longest branch name.
const LONGEST_NAME: usize = 63;

/// How a branch is made.
#[derive(Debug, Clone)]
pub struct BranchOptions {
    /// Who makes it, for people.
    pub creator: String,
    /// Plan only, and write nothing.
    pub dry_run: bool,
}

impl Default for BranchOptions {
    fn default() -> Self {
        Self { creator: "duramen-restore".to_owned(), dry_run: false }
    }
}

/// What [`branch()`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BranchReport {
    pub branch: BranchName,
    pub plan: Plan,
    /// `false` where this very branch was there already, made by an earlier run, and for a dry run.
    pub created: bool,
    /// Something worth knowing that keeps nobody from using the branch.
    pub note: Option<String>,
}

/// Creates the branch `name` at the `target` of `parent`; without a name, one is made of the parent and the instant.
///
/// Writes a hold, then chooses the cut, then writes the branch with one PUT, then drops the hold. The parent is untouched
/// and may be in use. On `Ok` the branch is durable. Running it again after an interruption with the same name and a
/// fixed target finds the branch and succeeds; a branch of that name with another cut is refused.
pub async fn branch(
    store: &Store,
    parent: &BranchName,
    name: Option<&BranchName>,
    target: &Target,
    options: &BranchOptions,
) -> Result<BranchReport> {
    if options.dry_run {
        let view = BranchView::open(store, parent).await?;
        let plan = plan::cut(&view, target).await?;
        let branch = name.cloned().unwrap_or_else(|| default_name(parent, plan.time));
        return Ok(BranchReport { branch, plan, created: false, note: None });
    }
    let guard = Guard::place(store, parent, "a branch is being created").await?;
    let made = async {
        let view = BranchView::open(store, parent).await?;
        let plan = plan::cut(&view, target).await?;
        let (branch, created) = create(store, &view, name, &plan, &options.creator).await?;
        Ok::<_, Error>(BranchReport { branch: branch.name, plan, created, note: None })
    };
    let made = made.await;
    let note = guard.release().await;
    made.map(|report| BranchReport { note, ..report })
}

/// Writes the branch of a plan, or finds that it is there; whether it was written.
pub(crate) async fn create(
    store: &Store,
    view: &BranchView,
    name: Option<&BranchName>,
    plan: &Plan,
    creator: &str,
) -> Result<(Branch, bool)> {
    let name = name.cloned().unwrap_or_else(|| default_name(&view.branch().name, plan.time));
    let branch = Branch::child(store, view.branch(), name.clone(), plan.cut(), creator)?;
    duramen_failpoint::reached(Point::BranchPlanned);
    match branch.create(store).await {
        Ok(()) => {
            duramen_failpoint::reached(Point::BranchCreated);
            Ok((branch, true))
        }
        Err(error @ duramen_archive::Error::BranchExists { .. }) => {
            let found = Branch::open(store, &name).await?;
            if is_same(&found, view.branch(), &plan.cut()) { Ok((found, false)) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether `found` is what branching `parent` at `cut` makes.
pub(crate) fn is_same(found: &Branch, parent: &Branch, cut: &Cut) -> bool {
    found.cut.as_ref() == Some(cut) && found.ancestry.last().is_some_and(|last| last.branch == parent.name)
}

/// The name of a branch of `parent` at `time` where none is given: `main-20261121t142959-000123`.
pub fn default_name(parent: &BranchName, time: HybridTime) -> BranchName {
    let time = when::format(time).to_ascii_lowercase();
    let time: String = time
        .trim_end_matches('z')
        .chars()
        .filter_map(|c| match c {
            '.' => Some('-'),
            '0'..='9' | 't' => Some(c),
            _ => None,
        })
        .collect();
    let room = LONGEST_NAME.saturating_sub(time.len()).saturating_sub(1);
    let parent: String = parent.as_str().chars().take(room).collect();
    BranchName::parse(&format!("{parent}-{time}"))
        .expect("a branch name, digits and hyphens make a branch name")
}

/// A hold on a branch for as long as its history is being chosen. Once a branch reaches it, that protects it for good.
pub(crate) struct Guard {
    store: Store,
    hold: Hold,
}

impl Guard {
    pub(crate) async fn place(store: &Store, branch: &BranchName, reason: &str) -> Result<Self> {
        // A branch that does not exist gets no hold.
        Branch::open(store, branch).await?;
        let hold = Hold::place(store, branch, reason, HOLD).await?;
        duramen_failpoint::reached(Point::BranchHeld);
        Ok(Self { store: store.clone(), hold })
    }

    /// Drops the hold; where that fails, what to know about it.
    pub(crate) async fn release(self) -> Option<String> {
        let Err(error) = Hold::release(&self.store, self.hold.id).await else { return None };
        let (id, deadline) = (self.hold.id, when::format(self.hold.deadline));
        Some(format!("hold {id} could not be removed ({error}); it lapses by itself at {deadline}"))
    }
}
