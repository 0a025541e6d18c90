//! Places at which a test ends a process, as `kill -9` at that very moment does.
//!
//! Without the feature `enabled`, nothing of this is in a program: [`reached`] is empty. With it, the environment variable
//! `FAILPOINTS` says what happens, in the words of the crate `fail`, of which `return` ends the process here:
//! `upload.created=2*off->return` ends it where an uploaded segment's PUT succeeds for the third time.

/// The points, each with the name that it has in `FAILPOINTS` and in `docs/TESTING.md`.
macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A place that a program reaches.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point { $($(#[$doc])* $point,)* }

        impl Point {
            /// Every point there is.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// A fresh node has created the archive's identity.
    ClaimCreated = "claim.created",
    /// Its directory says which cluster, archive and branch it is, and the branch has no owner yet.
    ClaimKept = "claim.kept",
    /// The branch has an owner.
    ClaimOwned = "claim.owned",
    /// A segment is built, in memory only.
    CutBuilt = "cut.built",
    /// The store has taken a segment, which was not read back yet.
    UploadCreated = "upload.created",
    /// The segment was read back, and no manifest names it.
    UploadVerified = "upload.verified",
    /// The store has a manifest, and its writer has not noted it.
    ManifestCreated = "manifest.created",
    /// The store has a page of rows that no checkpoint names.
    CheckpointPage = "checkpoint.page",
    /// The store has a checkpoint of the manifests, and its writer has not noted it.
    CheckpointCreated = "checkpoint.created",
    /// The store has a snapshot that no manifest names.
    SnapshotCreated = "snapshot.created",
    /// A manifest names the snapshot.
    SnapshotCommitted = "snapshot.committed",
    /// Shards are about to be closed through an instant.
    CloseDue = "close.due",
    /// The store says that they are.
    CloseCreated = "close.created",
    /// The manifest of what is to be purged locally was read back.
    PurgeConfirmed = "purge.confirmed",
    /// The log says what is purged, and its files are still there.
    PurgeNoted = "purge.noted",
    /// A segment of the log is about to go.
    ReclaimDue = "reclaim.due",
    /// It is gone, or has the name of a spare.
    ReclaimDone = "reclaim.done",
    /// Some orphan was deleted, and others are left.
    OrphanDeleted = "orphan.deleted",
    /// A hold was placed for a restore.
    BranchHeld = "branch.held",
    /// The cut of a branch is chosen, and the branch is not created.
    BranchPlanned = "branch.planned",
    /// The store has the branch.
    BranchCreated = "branch.created",
    /// `restore.json` says what will be restored here.
    HydrateNoted = "hydrate.noted",
    /// An object is downloaded and verified, under its temporary name.
    HydrateVerified = "hydrate.verified",
    /// It has its own name.
    HydrateStored = "hydrate.stored",
    /// `node.json` binds the directory to its branch.
    HydrateBound = "hydrate.bound",
    /// The directory is activated.
    HydrateActivated = "hydrate.activated",
    /// Some shard is verified, and others are not.
    VerifyShard = "verify.shard",
    /// The verdict is about to be written.
    VerifyDue = "verify.due",
    /// The store has the verdict.
    VerifyCreated = "verify.created",
    /// `restore.json` says that a repair was begun, whose new log is written.
    RepairNoted = "repair.noted",
    /// The damaged log was moved aside, and no other is in its place.
    RepairAside = "repair.aside",
    /// The new log is in its place.
    RepairReplaced = "repair.replaced",
    /// Checkpoints and index files are gone.
    RepairCleared = "repair.cleared",
}

/// The program is at `point`: nothing, unless a test says otherwise.
#[cfg(not(feature = "enabled"))]
#[inline(always)]
pub const fn reached(_point: Point) {}

/// Whether a test asks for manifests' checkpoints and pages so small that few manifests fill them.
#[cfg(not(feature = "enabled"))]
#[inline(always)]
pub const fn wants_small_pages() -> bool {
    false
}

#[cfg(feature = "enabled")]
pub use enabled::{reached, wants_small_pages};

#[cfg(feature = "enabled")]
mod enabled {
    use std::sync::Once;

    use super::Point;

    /// The program is at `point`: nothing, unless `FAILPOINTS` says otherwise.
    pub fn reached(point: Point) {
        if is_set(point.name()) {
            eprintln!("failpoint {}: this process ends here", point.name());
            // Without a destructor, a buffer or a task having its turn.
            let killed =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            killed.expect("a process may kill itself");
        }
    }

    /// Whether a test asks for manifests' checkpoints and pages so small that few manifests fill them.
    pub fn wants_small_pages() -> bool {
        is_set("checkpoint.small")
    }

    fn is_set(name: &str) -> bool {
        static CONFIGURED: Once = Once::new();
        // For the life of the process: its drop would take every point back.
        CONFIGURED.call_once(|| std::mem::forget(fail::FailScenario::setup()));
        fail::fail_point!(name, |_| true);
        false
    }
}
