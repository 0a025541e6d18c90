//! Every key of an archive: the only place that knows the layout.
//!
//! ```text
//! archive.json
//! branches/{branch}.json
//! {branch}/owner.json
//! {branch}/closed/{time:020}-{node}
//! {branch}/shard-{shard:04}/manifest/{number:020}
//! {branch}/shard-{shard:04}/checkpoint/{number:020}
//! {branch}/shard-{shard:04}/pages/{id}
//! {branch}/shard-{shard:04}/segments/{first:020}-{end:020}-{id}
//! {branch}/shard-{shard:04}/snapshots/{index:020}
//! holds/{id}-{deadline:020}.json
//! verdicts/{time:020}-{id}.json
//! checks/{id}
//! ```
//!
//! Keys are relative to the archive's prefix. Numbers have leading zeros, so that the order of keys is the order of
//! numbers. A key has exactly one spelling: [`ObjectKey::parse`] refuses every other.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use std::fmt;

use duramen_types::{BranchName, HybridTime, Index, ManifestNumber, NodeId, SegmentId, ShardId};
use uuid::Uuid;

/// The key of one object of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    Archive,
    Branch(BranchName),
    Owner(BranchName),
    Closed { branch: BranchName, time: HybridTime, node: NodeId },
    Manifest { branch: BranchName, shard: ShardId, number: ManifestNumber },
    Checkpoint { branch: BranchName, shard: ShardId, number: ManifestNumber },
    Page { branch: BranchName, shard: ShardId, id: SegmentId },
    Segment { branch: BranchName, shard: ShardId, first: Index, end: Index, id: SegmentId },
    Snapshot { branch: BranchName, shard: ShardId, index: Index },
    Hold { id: Uuid, deadline: HybridTime },
    Verdict { time: HybridTime, id: Uuid },
    Check { id: Uuid },
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive => f.write_str("archive.json"),
            Self::Branch(branch) => write!(f, "branches/{branch}.json"),
            Self::Owner(branch) => write!(f, "{branch}/owner.json"),
            Self::Closed { branch, time, node } => write!(f, "{}{time:020}-{node}", closed_prefix(branch)),
            Self::Manifest { branch, shard, number } => {
                write!(f, "{}{number:020}", ShardFolder::Manifest.prefix(branch, *shard))
            }
            Self::Checkpoint { branch, shard, number } => {
                write!(f, "{}{number:020}", ShardFolder::Checkpoint.prefix(branch, *shard))
            }
            Self::Page { branch, shard, id } => {
                write!(f, "{}{id}", ShardFolder::Pages.prefix(branch, *shard))
            }
            Self::Segment { branch, shard, first, end, id } => {
                write!(f, "{}{first:020}-{end:020}-{id}", ShardFolder::Segments.prefix(branch, *shard))
            }
            Self::Snapshot { branch, shard, index } => {
                write!(f, "{}{index:020}", ShardFolder::Snapshots.prefix(branch, *shard))
            }
            Self::Hold { id, deadline } => write!(f, "{HOLDS}{id}-{deadline:020}.json"),
            Self::Verdict { time, id } => write!(f, "{VERDICTS}{time:020}-{id}.json"),
            Self::Check { id } => write!(f, "{CHECKS}{id}"),
        }
    }
}

/// The prefix of all branch files.
pub const BRANCHES: &str = "branches/";
/// The prefix of all holds.
pub const HOLDS: &str = "holds/";
/// The prefix of all verdicts.
pub const VERDICTS: &str = "verdicts/";
/// The prefix of what [`crate::Store::check`] writes and removes.
pub const CHECKS: &str = "checks/";

/// The prefix of a branch's own objects; its description and what is said of it are elsewhere.
pub fn branch_prefix(branch: &BranchName) -> String {
    format!("{branch}/")
}

/// The prefix of a branch's closed objects.
pub fn closed_prefix(branch: &BranchName) -> String {
    format!("{branch}/closed/")
}

/// A folder of one shard of one branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShardFolder {
    Manifest,
    Checkpoint,
    Pages,
    Segments,
    Snapshots,
}

impl ShardFolder {
    const ALL: [Self; 5] = [Self::Manifest, Self::Checkpoint, Self::Pages, Self::Segments, Self::Snapshots];

    const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Checkpoint => "checkpoint",
            Self::Pages => "pages",
            Self::Segments => "segments",
            Self::Snapshots => "snapshots",
        }
    }

    /// The prefix of the folder's keys, with its trailing slash.
    pub fn prefix(self, branch: &BranchName, shard: ShardId) -> String {
        format!("{branch}/shard-{shard:04}/{}/", self.name())
    }
}

impl ObjectKey {
    /// The key with this spelling, or `None` if an archive has no such key.
    pub fn parse(key: &str) -> Option<Self> {
        let parsed = Self::parse_loosely(key)?;
        // Numbers without their zeros or ids in another notation would be second names of the same object.
        (parsed.to_string() == key).then_some(parsed)
    }

    fn parse_loosely(key: &str) -> Option<Self> {
        if key == "archive.json" {
            return Some(Self::Archive);
        }
        let (folder, rest) = key.split_once('/')?;
        match folder {
            "branches" => BranchName::parse(rest.strip_suffix(".json")?).ok().map(Self::Branch),
            "holds" => {
                let (id, deadline) = rest.strip_suffix(".json")?.rsplit_once('-')?;
                Some(Self::Hold { id: id.parse().ok()?, deadline: time(deadline)? })
            }
            "verdicts" => {
                let (at, id) = rest.strip_suffix(".json")?.split_once('-')?;
                Some(Self::Verdict { time: time(at)?, id: id.parse().ok()? })
            }
            "checks" => Some(Self::Check { id: rest.parse().ok()? }),
            branch => Self::parse_in_branch(BranchName::parse(branch).ok()?, rest),
        }
    }

    fn parse_in_branch(branch: BranchName, rest: &str) -> Option<Self> {
        if rest == "owner.json" {
            return Some(Self::Owner(branch));
        }
        let (folder, rest) = rest.split_once('/')?;
        if folder == "closed" {
            let (at, node) = rest.split_once('-')?;
            return Some(Self::Closed { branch, time: time(at)?, node: node.parse().ok()? });
        }
        let shard = folder.strip_prefix("shard-")?.parse().ok()?;
        let (folder, name) = rest.split_once('/')?;
        let folder = ShardFolder::ALL.into_iter().find(|candidate| candidate.name() == folder)?;
        Some(match folder {
            ShardFolder::Manifest => Self::Manifest { branch, shard, number: name.parse().ok()? },
            ShardFolder::Checkpoint => Self::Checkpoint { branch, shard, number: name.parse().ok()? },
            ShardFolder::Pages => Self::Page { branch, shard, id: name.parse().ok()? },
            ShardFolder::Snapshots => Self::Snapshot { branch, shard, index: name.parse().ok()? },
            ShardFolder::Segments => {
                let (first, rest) = name.split_once('-')?;
                let (end, id) = rest.split_once('-')?;
                let (first, end, id) = (first.parse().ok()?, end.parse().ok()?, id.parse().ok()?);
                Self::Segment { branch, shard, first, end, id }
            }
        })
    }

    /// The branch that the object belongs to, if it belongs to one.
    pub const fn branch(&self) -> Option<&BranchName> {
        match self {
            Self::Branch(branch)
            | Self::Owner(branch)
            | Self::Closed { branch, .. }
            | Self::Manifest { branch, .. }
            | Self::Checkpoint { branch, .. }
            | Self::Page { branch, .. }
            | Self::Segment { branch, .. }
            | Self::Snapshot { branch, .. } => Some(branch),
            Self::Archive | Self::Hold { .. } | Self::Verdict { .. } | Self::Check { .. } => None,
        }
    }
}

fn time(text: &str) -> Option<HybridTime> {
    text.parse().ok().map(HybridTime::from_micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = ObjectKey> {
        let id = || any::<[u8; 16]>().prop_map(SegmentId::from_random);
        let uuid = || any::<[u8; 16]>().prop_map(Uuid::from_bytes);
        let number = || any::<u64>();
        let branch = "[a-z0-9-]{1,63}"
            .prop_filter_map("a folder of the archive", |name| BranchName::parse(&name).ok());
        (branch, any::<u16>().prop_map(ShardId::new), number(), number(), id(), uuid(), 0..12).prop_map(
            |(branch, shard, a, b, id, uuid, kind)| match kind {
                0 => ObjectKey::Archive,
                1 => ObjectKey::Branch(branch),
                2 => ObjectKey::Owner(branch),
                3 => ObjectKey::Closed { branch, time: HybridTime::from_micros(a), node: NodeId::new(b) },
                4 => ObjectKey::Manifest { branch, shard, number: ManifestNumber::new(a) },
                5 => ObjectKey::Checkpoint { branch, shard, number: ManifestNumber::new(a) },
                6 => ObjectKey::Page { branch, shard, id },
                7 => ObjectKey::Segment { branch, shard, first: Index::new(a), end: Index::new(b), id },
                8 => ObjectKey::Snapshot { branch, shard, index: Index::new(a) },
                9 => ObjectKey::Hold { id: uuid, deadline: HybridTime::from_micros(a) },
                10 => ObjectKey::Verdict { time: HybridTime::from_micros(a), id: uuid },
                _ => ObjectKey::Check { id: uuid },
            },
        )
    }

    proptest! {
        #[test]
        fn every_key_round_trips(key in keys()) {
            prop_assert_eq!(ObjectKey::parse(&key.to_string()), Some(key));
        }

        #[test]
        fn what_parses_is_spelled_the_one_way(text in "[a-z0-9/.-]{0,80}") {
            if let Some(key) = ObjectKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn the_order_of_keys_is_the_order_of_numbers(a: u64, b: u64) {
            let key = |number| ObjectKey::Manifest {
                branch: BranchName::parse("main").unwrap(),
                shard: ShardId::new(3),
                number: ManifestNumber::new(number),
            };
            prop_assert_eq!(key(a).to_string().cmp(&key(b).to_string()), a.cmp(&b));
        }
    }

    #[test]
    fn other_spellings_and_other_objects_are_refused() {
        for key in [
            "",
            "archive.json ",
            "branches/Main.json",
            "main/shard-3/manifest/00000000000000000001",
            "main/shard-0003/manifest/1",
            "main/shard-0003/manifest/",
            "main/shard-0003/other/00000000000000000001",
            "main/closed/00000000000000000001",
            "holds/x-00000000000000000001.json",
            "checks/../archive.json",
        ] {
            assert_eq!(ObjectKey::parse(key), None, "{key}");
        }
    }
}
