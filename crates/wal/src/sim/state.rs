//! What a simulated disk holds, and what of it outlives a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) rng: SplitMix,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    /// The names as the running system sees them, and as they would be after a power cut.
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Files whose reads fail.
    pub(super) unreadable: BTreeSet<u64>,
    pub(super) capacity: u64,
    pub(super) operations: u64,
    pub(super) power_until: Option<u64>,
    pub(super) fail_syncs_from: Option<u64>,
    /// Handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) powered: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<DataChange>,
}

#[derive(Debug, Clone)]
pub(super) enum DataChange {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
    RenameDir { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl NameChange {
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        let (Self::Create { path, .. }
        | Self::Rename { to: path, .. }
        | Self::RenameDir { to: path, .. }
        | Self::Remove { path }) = self;
        path.parent() == Some(dir)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::RenameDir { from, to } => {
                let below = |path: &Path| path.strip_prefix(from).ok().map(|below| to.join(below));
                *names = std::mem::take(names)
                    .into_iter()
                    .map(|(path, inode)| (below(&path).unwrap_or(path), inode))
                    .collect();
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

impl DataChange {
    pub(super) fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(data, *offset, bytes),
            Self::Length(len) => data.resize(*len, 0),
        }
    }
}

fn write(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[offset..end].copy_from_slice(bytes);
}

impl Inner {
    pub(super) fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|inode| self.inodes.get(inode));
        named.map(|inode| inode.live.len() as u64).sum()
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("the power is off")) }
    }

    /// Counts an operation; true if the power fails during it.
    pub(super) fn begin(&mut self) -> io::Result<bool> {
        self.check_power()?;
        self.operations += 1;
        if self.power_until.is_some_and(|until| self.operations >= until) {
            self.powered = false;
        }
        Ok(!self.powered)
    }

    pub(super) fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let failed = self.begin()?;
        if !failed {
            change.apply(&mut self.names);
            if let NameChange::RenameDir { from, to } = &change {
                // Directories themselves are there after a power cut in any case: an empty one is as good as none.
                let moved: Vec<_> =
                    self.dirs.iter().filter_map(|dir| Some(to.join(dir.strip_prefix(from).ok()?))).collect();
                self.dirs.retain(|dir| !dir.starts_with(from));
                self.dirs.extend(moved);
            }
        }
        self.pending_names.push(change);
        self.check_power()
    }

    pub(super) fn change_data(&mut self, inode: u64, change: DataChange) -> io::Result<()> {
        self.begin()?;
        let len = match &change {
            DataChange::Write { offset, bytes } => offset + bytes.len(),
            DataChange::Length(len) => *len,
        };
        let grows = {
            let inode = self.inodes.get(&inode).ok_or(io::ErrorKind::NotFound)?;
            (len as u64).saturating_sub(inode.live.len() as u64)
        };
        if grows > 0 && self.used().saturating_add(grows) > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(inode) = self.inodes.get_mut(&inode) {
            change.apply(&mut inode.live);
            inode.pending.push(change);
        }
        self.check_power()
    }
}

impl Inode {
    pub(super) fn lose_power(&mut self, rng: &mut SplitMix) {
        let mut pending = std::mem::take(&mut self.pending);
        // Any of several writes to one sector may be the one that reached the disk last.
        for i in (1..pending.len()).rev() {
            if rng.chance(3) {
                pending.swap(i, rng.below(i + 1));
            }
        }
        for change in pending {
            match (&change, rng.below(3)) {
                (_, 0) => {}
                (DataChange::Write { offset, bytes }, 1) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
                        if rng.chance(2) {
                            write(&mut self.durable, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
                _ => change.apply(&mut self.durable),
            }
        }
        self.live.clone_from(&self.durable);
    }
}

pub(super) fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
#[derive(Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// True once in `n`.
    pub(super) fn chance(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
