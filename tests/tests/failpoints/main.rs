//! Every program, killed at every step that it takes with an archive: run again it completes, nothing that was acknowledged is
//! lost, doubled or out of order, and the archive verifies.
//!
//! The points are in `crates/failpoint`; each has its place in [`scenes`], and its line in docs/TESTING.md.

mod node;
mod tools;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use duramen_failpoint::Point;
use parking_lot::Mutex;

/// What is killed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A node at its first start.
    FirstStart,
    /// A node under load that was there so often before; with records so large that local segments go.
    Load { before: u32, large: bool },
    /// `duramen-archiver run`.
    Run,
    /// `duramen-archiver orphans --delete`.
    Orphans,
    /// `duramen-restore branch`.
    Branch,
    /// `duramen-restore hydrate`.
    Hydrate,
    /// `duramen-restore verify --full`.
    Verify,
    /// `duramen-restore repair`.
    Repair,
}

/// Where each point is passed.
fn scenes(point: Point) -> Vec<Scene> {
    let load = |before| Scene::Load { before, large: false };
    let large = |before| Scene::Load { before, large: true };
    match point {
        Point::ClaimCreated | Point::ClaimKept | Point::ClaimOwned => vec![Scene::FirstStart],
        Point::CutBuilt | Point::UploadCreated | Point::UploadVerified | Point::ManifestCreated => {
            vec![load(2), Scene::Run]
        }
        Point::CheckpointPage | Point::CheckpointCreated => vec![load(1)],
        Point::SnapshotCreated | Point::SnapshotCommitted => vec![load(1), Scene::Run],
        Point::CloseDue | Point::CloseCreated => vec![load(1), Scene::Run],
        Point::PurgeConfirmed | Point::PurgeNoted | Point::ReclaimDue | Point::ReclaimDone => vec![large(0)],
        Point::OrphanDeleted => vec![Scene::Orphans],
        Point::BranchHeld | Point::BranchPlanned | Point::BranchCreated => {
            vec![Scene::Branch, Scene::Hydrate]
        }
        Point::HydrateNoted
        | Point::HydrateVerified
        | Point::HydrateStored
        | Point::HydrateBound
        | Point::HydrateActivated => vec![Scene::Hydrate],
        Point::VerifyShard | Point::VerifyDue | Point::VerifyCreated => vec![Scene::Verify],
        Point::RepairNoted | Point::RepairAside | Point::RepairReplaced | Point::RepairCleared => {
            vec![Scene::Repair]
        }
    }
}

/// Every point that is passed in a scene that is `wanted`.
fn cases(wanted: impl Fn(Scene) -> bool) -> Vec<(Point, Scene)> {
    let all = Point::ALL.iter().flat_map(|point| scenes(*point).into_iter().map(|scene| (*point, scene)));
    all.filter(|(_, scene)| wanted(*scene)).collect()
}

/// Plays each case, a few at a time: most of what they do is wait.
fn play(cases: &[(Point, Scene)], case: impl Fn(Point, Scene) -> Result<()> + Sync) {
    const AT_ONCE: usize = 4;
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(cases.len()) {
            scope.spawn(|| {
                while let Some((point, scene)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = case(*point, *scene) {
                        failed.lock().push(format!("killed at {} in {scene:?}: {error:?}", point.name()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

/// The value of `FAILPOINTS` that ends a process where it comes to `point` after `before` times.
fn killed_at(point: Point, before: u32) -> String {
    format!("{};{}={before}*off->return", WITHOUT, point.name())
}

/// Its value for a process that goes on, with checkpoints of manifests that come as early as in the one that was killed.
const WITHOUT: &str = "checkpoint.small=return";

/// What a process that ended at `point` must have said.
fn check_said(point: Point, said: &str) -> Result<()> {
    ensure!(said.contains(&format!("failpoint {}: this process ends here", point.name())), "it said: {said}");
    Ok(())
}

/// A copy of a directory and all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("making {}", to.display()))?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        let there = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &there)?;
        } else {
            std::fs::copy(file.path(), there)?;
        }
    }
    Ok(())
}

#[test]
fn every_point_has_a_line_in_the_documentation() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/TESTING.md");
    let document = std::fs::read_to_string(document).unwrap_or_else(|error| panic!("{error}"));
    for point in Point::ALL {
        assert!(document.contains(&format!("| `{}` |", point.name())), "{} is not described", point.name());
    }
}
