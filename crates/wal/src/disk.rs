//! The disk seam: everything the log does to files goes through [`Disk`].

mod real;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;

/// An open file; shared by the writer and by readers, and valid until the last holder drops it even if the file
/// was removed meanwhile.
pub type File = Arc<dyn DiskFile>;

/// A held lock on a file; dropping it releases the lock.
pub type LockGuard = Box<dyn Debug + Send + Sync>;

/// A file system, real ([`RealDisk`]) or simulated ([`crate::sim::SimDisk`]).
///
/// A create, rename or remove survives a power cut only after [`Disk::sync_dir`] of its directory; what was
/// written to a file only after [`DiskFile::sync_data`].
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates an empty file for reading and writing; fails if one exists.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<File>;

    /// Renames a file atomically, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; open handles stay valid.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of the files (not directories) in a directory, sorted; names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and its missing parents; fine if it exists. Durable when it returns.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the directory's creates, renames and removes durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How many bytes can still be written to the file system that holds `dir`.
    fn available(&self, dir: &Path) -> io::Result<u64>;

    /// Takes an exclusive lock on a file, which is created if need be, without waiting.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] when another process holds it. The lock goes with the guard or
    /// with the process, whatever ends first.
    fn lock(&self, path: &Path) -> io::Result<LockGuard>;
}

/// A file of a [`Disk`]; positions are in bytes, all calls may run concurrently.
pub trait DiskFile: Debug + Send + Sync {
    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, extending the file if need be. On an error any part may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written, and the length, durable. After an error nothing is known of what the disk holds.
    fn sync_data(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Cuts or extends (with zeros) the file; durable after [`DiskFile::sync_data`].
    fn set_len(&self, len: u64) -> io::Result<()>;
}

#[cfg(test)]
mod conformance;
