//! A file system that is full before long.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// A small file system of its own; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `bytes`; `None`, with a word on standard error, where this machine doesn't permit it.
    pub fn mount(bytes: u64) -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "duramen-test"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { directory })),
            Ok(output) => {
                eprintln!(
                    "SKIPPED: no small disk can be mounted: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                Ok(None)
            }
            Err(error) => {
                eprintln!("SKIPPED: no small disk can be mounted: {error}");
                Ok(None)
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A node that was killed a moment ago may still hold it; then it goes with its last file.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.path().display());
        }
    }
}
