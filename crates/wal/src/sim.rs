//! A simulated disk that forgets what was not synced, and fails on command.
//!
//! Seeded: the same calls with the same seed give the same disk. What a power cut does:
//!
//! - writes and length changes since a file's last [`DiskFile::sync_data`](crate::DiskFile::sync_data) are each kept, dropped, or torn at
//!   512-byte sectors, and where they overlap any of them may have come last;
//! - creates, renames and removes since a directory's last [`Disk::sync_dir`] are each kept or dropped.

mod handle;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::handle::{SimFile, SimLock};
use self::state::{Inner, Inode, NameChange, SplitMix, position};
use crate::disk::{Disk, File, LockGuard};

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
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
                unreadable: BTreeSet::new(),
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
            unreadable: inner.unreadable.clone(),
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

    /// Lets every read of a file fail, as where its sectors have gone bad, or lets them succeed again.
    pub fn set_unreadable(&self, path: &Path, unreadable: bool) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let inode = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if unreadable {
            inner.unreadable.insert(inode);
        } else {
            inner.unreadable.remove(&inode);
        }
        Ok(())
    }

    /// Every file, as the running system sees them.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inner.lock().names.keys().cloned().collect()
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
        if inner.dirs.contains(from) {
            if inner.names.keys().any(|path| path.starts_with(to)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let (from, to) = (from.to_owned(), to.to_owned());
            return inner.change_name(NameChange::RenameDir { from, to });
        }
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
