//! Whole files that a power cut leaves either as they were or as they were meant to be.
//!
//! The only module that writes whole files and renames them into place: write a temporary file, fsync it, rename
//! it, fsync the directory.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, File};

/// What ends the name of a file that is still being written; such a file may be removed at start.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Replaces (or creates) the file at `path` with `bytes`.
///
/// When it returns, the new content survives a power cut; when the power goes before, the old content does.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    let file = create_over(disk, &temporary)?;
    file.write_all_at(bytes, 0)?;
    // Before the rename: a name that points to unwritten data is what a reader must never see.
    file.sync_data()?;
    publish(disk, &temporary, path)
}

/// Reads a whole file of at most `limit` bytes; [`io::ErrorKind::InvalidData`] if it is longer.
pub fn read_file(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {len} bytes where at most {limit} are expected"),
        ));
    }
    let len = usize::try_from(len).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A file that is written piece by piece and appears under its name only when it is whole.
///
/// Dropped before [`Staged::publish`] it leaves a temporary file behind, which the next one for the same name replaces.
#[derive(Debug)]
pub struct Staged {
    disk: Arc<dyn Disk>,
    file: File,
    path: PathBuf,
}

impl Staged {
    /// Begins the file that is to appear at `path`, whose directory exists.
    pub fn create(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let file = create_over(&*disk, &temporary_path(path))?;
        Ok(Self { disk, file, path: path.to_owned() })
    }

    /// The file under its temporary name, to be written and read back.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, in place of one that is there; when it returns, that survives a power cut.
    pub fn publish(self) -> io::Result<()> {
        // Before the rename: a name that points to unwritten data is what a reader must never see.
        self.file.sync_data()?;
        publish(&*self.disk, &temporary_path(&self.path), &self.path)
    }
}

/// Moves a directory aside under a name that nothing has, within the same parent; durable when it returns.
pub fn move_dir(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    publish(disk, from, to)
}

/// Removes a file if it exists; durable when it returns.
pub fn remove_file(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Ok(()) => disk.sync_dir(directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames `from`, whose content the caller has fsynced, to `to` in the same directory; durable when it returns.
pub(crate) fn publish(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    // A rename survives a power cut only once its directory does.
    disk.sync_dir(directory_of(to))
}

/// Creates an empty file, in place of one that an interrupted attempt left behind.
pub(crate) fn create_over(disk: &dyn Disk, path: &Path) -> io::Result<File> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        other => other,
    }
}

/// The name under which the file at `path` is written before it is renamed.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
