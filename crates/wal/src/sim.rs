//! A simulated disk that forgets what was not synced, and fails on command.
//!
//! Seeded: the same calls with the same seed give the same disk. What a power cut does:
//!
//! - writes and length changes since a file's last [`DiskFile::sync_data`] are each kept, dropped, or torn at
//!   512-byte sectors, and where they overlap any of them may have come last;
//! - creates, renames and removes since a directory's last [`Disk::sync_dir`] are each kept or dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, File, LockGuard};

const SECTOR: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    rng: SplitMix,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// The names as the running system sees them, and as they would be after a power cut.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity: u64,
    operations: u64,
    power_until: Option<u64>,
    fail_syncs_from: Option<u64>,
    /// Handles of an earlier life are dead.
    life: u64,
    powered: bool,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
}

#[derive(Debug, Clone)]
enum DataChange {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
    Remove { path: PathBuf },
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Create { path, .. } | Self::Rename { to: path, .. } | Self::Remove { path }) = self;
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
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
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

impl DataChange {
    fn apply(&self, data: &mut Vec<u8>) {
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

impl SimDisk {
    /// An empty disk of unlimited size.
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                rng: SplitMix(seed),
                inodes: BTreeMap::new(),
                next_inode: 0,
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                dirs: BTreeSet::new(),
                locks: BTreeSet::new(),
                capacity: u64::MAX,
                operations: 0,
                power_until: None,
                fail_syncs_from: None,
                life: 0,
                powered: true,
            })),
        }
    }

    /// A disk of its own that holds what this one does, unsynced changes included; nobody has files of it open or locked.
    ///
    /// What the next power cut keeps of unsynced changes is decided by `seed`.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let inner = self.inner.lock();
        let inner = Inner {
            rng: SplitMix(seed),
            inodes: inner.inodes.clone(),
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            pending_names: inner.pending_names.clone(),
            dirs: inner.dirs.clone(),
            locks: BTreeSet::new(),
            ..*inner
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// How many operations changed, or tried to change, the disk: writes, length changes, syncs of files and
    /// directories, creates, renames, removes.
    pub fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// Lets the power fail during the operation with this number (see [`SimDisk::operations`]): it and all later
    /// ones fail until [`SimDisk::power_cut`]. A write or rename that it hits may yet have happened.
    pub fn fail_power_at(&self, operation: u64) {
        self.inner.lock().power_until = Some(operation);
    }

    /// Whether the power failed and [`SimDisk::power_cut`] was not called since.
    pub fn is_off(&self) -> bool {
        !self.inner.lock().powered
    }

    /// Cuts the power, if it is still on, and switches it on again. Open handles are dead from then on.
    pub fn power_cut(&self) {
        let mut inner = self.inner.lock();
        let Inner { rng, inodes, durable_names, pending_names, .. } = &mut *inner;
        for inode in inodes.values_mut() {
            inode.lose_power(rng);
        }
        for change in std::mem::take(pending_names) {
            if rng.chance(2) {
                change.apply(durable_names);
            }
        }
        inner.names = inner.durable_names.clone();
        let named: BTreeSet<u64> = inner.names.values().copied().collect();
        inner.inodes.retain(|inode, _| named.contains(inode));
        inner.locks.clear();
        inner.power_until = None;
        inner.fail_syncs_from = None;
        inner.powered = true;
        inner.life += 1;
    }

    /// Kills the process but not the machine: handles and locks are gone, everything written is still there.
    pub fn kill(&self) {
        let mut inner = self.inner.lock();
        inner.locks.clear();
        inner.life += 1;
    }

    /// Lets every sync of a file from that operation on fail, and with it lose what it should have made durable.
    pub fn fail_syncs_from(&self, operation: u64) {
        self.inner.lock().fail_syncs_from = Some(operation);
    }

    /// Limits the bytes that all files may have together.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.lock().capacity = bytes;
    }

    /// The bytes that all files have together.
    pub fn used(&self) -> u64 {
        self.inner.lock().used()
    }

    /// Flips one bit of a file, durably; [`io::ErrorKind::NotFound`] if it isn't there.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let inode = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = inner.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let at = position(byte)?;
        for data in [&mut inode.live, &mut inode.durable] {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Ok(())
    }

    /// The content of a file as the running system sees it.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.inner.lock();
        let inode = inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(inner.inodes.get(inode).map(|inode| inode.live.clone()).unwrap_or_default())
    }

    fn handle(&self, inode: u64, life: u64, writable: bool) -> File {
        Arc::new(SimFile { inner: self.inner.clone(), inode, life, writable })
    }

    fn open_as(&self, path: &Path, writable: bool) -> io::Result<File> {
        let inner = self.inner.lock();
        inner.check_power()?;
        let inode = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode, inner.life, writable))
    }
}

impl Inner {
    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|inode| self.inodes.get(inode));
        named.map(|inode| inode.live.len() as u64).sum()
    }

    fn check_power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("the power is off")) }
    }

    /// Counts an operation; true if the power fails during it.
    fn begin(&mut self) -> io::Result<bool> {
        self.check_power()?;
        self.operations += 1;
        if self.power_until.is_some_and(|until| self.operations >= until) {
            self.powered = false;
        }
        Ok(!self.powered)
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let failed = self.begin()?;
        if !failed {
            change.apply(&mut self.names);
        }
        self.pending_names.push(change);
        self.check_power()
    }

    fn change_data(&mut self, inode: u64, change: DataChange) -> io::Result<()> {
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
    fn lose_power(&mut self, rng: &mut SplitMix) {
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

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut inner = self.inner.lock();
        if inner.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| inner.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = inner.next_inode;
        inner.next_inode += 1;
        inner.inodes.insert(inode, Inode::default());
        inner.change_name(NameChange::Create { path: path.to_owned(), inode })?;
        Ok(self.handle(inode, inner.life, true))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.open_as(path, true)
    }

    fn open_read(&self, path: &Path) -> io::Result<File> {
        self.open_as(path, false)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let inode = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_name(NameChange::Remove { path: path.to_owned() })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner.lock();
        inner.check_power()?;
        if !inner.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check_power()?;
        inner.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.begin()? {
            return inner.check_power();
        }
        let Inner { durable_names, pending_names, .. } = &mut *inner;
        pending_names.retain(|change| {
            let done = change.is_in(dir);
            if done {
                change.apply(durable_names);
            }
            !done
        });
        Ok(())
    }

    fn available(&self, _dir: &Path) -> io::Result<u64> {
        let inner = self.inner.lock();
        inner.check_power()?;
        Ok(inner.capacity.saturating_sub(inner.used()))
    }

    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        match self.create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut inner = self.inner.lock();
        if !inner.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { inner: self.inner.clone(), path: path.to_owned(), life: inner.life }))
    }
}

#[derive(Debug)]
struct SimLock {
    inner: Arc<Mutex<Inner>>,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        if inner.life == self.life {
            inner.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    inner: Arc<Mutex<Inner>>,
    inode: u64,
    life: u64,
    writable: bool,
}

impl SimFile {
    fn alive<'a>(&'a self, to_write: bool) -> io::Result<parking_lot::MutexGuard<'a, Inner>> {
        let inner = self.inner.lock();
        inner.check_power()?;
        if inner.life != self.life {
            return Err(io::Error::other("the handle is from before a crash"));
        }
        if to_write && !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(inner)
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.alive(false)?;
        let inode = inner.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let start = position(offset)?;
        let bytes = inode.live.get(start..start.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        self.alive(true)?.change_data(self.inode, DataChange::Write { offset, bytes: bytes.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.alive(true)?;
        if inner.begin()? {
            return inner.check_power();
        }
        let fails = inner.fail_syncs_from.is_some_and(|from| inner.operations >= from);
        let inode = inner.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        // As on Linux: the pages of a failed fsync count as clean, a second one reports success.
        let pending = std::mem::take(&mut inode.pending);
        if fails {
            return Err(io::Error::other("the disk failed to sync"));
        }
        for change in pending {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.alive(false)?;
        Ok(inner.inodes.get(&self.inode).map_or(0, |inode| inode.live.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = position(len)?;
        self.alive(true)?.change_data(self.inode, DataChange::Length(len))
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
#[derive(Debug)]
struct SplitMix(u64);

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
    fn chance(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
