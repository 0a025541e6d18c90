//! What a restore would do: read, and not written, neither into the directory nor into the archive.

use std::path::Path;
use std::sync::Arc;

use duramen_archive::{Branch, BranchView, Store};
use duramen_types::BranchName;
use duramen_wal::datadir::{self, DataDir};
use duramen_wal::{Disk, durable};

use super::{Details, HydrateOptions, HydrateReport, check_same, choose, fetch, identity, report};
use crate::{Position, Result, Target, plan};

/// Of a restore into a directory that is new or empty.
pub(super) async fn of_new(
    store: &Store,
    parent: &BranchName,
    target: &Target,
    to: &Path,
    options: &HydrateOptions,
) -> Result<HydrateReport> {
    check_unused(&options.disk, to)?;
    let (view, details) = choose(store, parent, target, options).await?;
    let counted = fetch::count(&view, &options.disk, &to.join("hydrated"), &details.plan).await?;
    Ok(report(details, counted, false, true, None))
}

/// Of a restore that was begun.
pub(super) async fn of_begun(
    store: &Store,
    dir: &DataDir,
    details: Details,
    options: &HydrateOptions,
) -> Result<HydrateReport> {
    identity(store, dir, &details).await?;
    let parent = BranchView::open(store, &details.parent).await?;
    let view = match Branch::open_if_present(store, &details.branch).await? {
        Some(found) => {
            check_same(store, &found, parent.branch(), &details).await?;
            BranchView::open(store, &details.branch).await?
        }
        // The restore was interrupted just before it was made: up to the cut it will be what its parent is.
        None => {
            plan(&parent, &Target::Position(Position::from(&details.plan))).await?;
            parent
        }
    };
    let counted = fetch::count(&view, &options.disk, &dir.hydrated(), &details.plan).await?;
    Ok(report(details, counted, true, true, None))
}

/// Refuses a directory that another process has opened and not described yet; makes nothing there.
fn check_unused(disk: &Arc<dyn Disk>, to: &Path) -> Result<()> {
    let lock = to.join("LOCK");
    let held = match disk.open_read(&lock) {
        Ok(_) => disk.lock(&lock).map(drop),
        Err(error) => Err(error),
    };
    match held {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let holder = durable::read_file(&**disk, &lock, 64).ok();
            let holder = holder.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
            Err(datadir::Error::InUse { dir: to.to_owned(), holder }.into())
        }
        // Whatever else is wrong there, the restore will say.
        _ => Ok(()),
    }
}
