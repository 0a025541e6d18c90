//! Open files and locks of a simulated disk: dead after a crash.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::state::{DataChange, Inner, position};
use crate::disk::DiskFile;

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) path: PathBuf,
    pub(super) life: u64,
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
pub(super) struct SimFile {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) inode: u64,
    pub(super) life: u64,
    pub(super) writable: bool,
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
        if inner.unreadable.contains(&self.inode) {
            return Err(io::Error::other("the disk failed to read"));
        }
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
