//! What lies in a node's data directory.
//!
//! ```text
//! LOCK              held by the running process, its pid inside
//! node.json         who the directory belongs to
//! restore.json      written first by a restore: its source and how far it is
//! activated.json    written last by a restore: from then on the directory is whole
//! wal/              the write-ahead log
//! index/            one rebuildable index file per sealed segment
//! checkpoint/       applied state, for a fast restart
//! hydrated/         archived segments that a restore put here
//! archived.json     the node's note of how far it is archived, for what it shows; means nothing else
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_types::{ArchiveId, ClusterId, HybridTime, NodeId};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, LockGuard};
use crate::durable;

/// The newest data directory format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const LOCK: &str = "LOCK";
const NODE: &str = "node.json";
const RESTORE: &str = "restore.json";
const ACTIVATED: &str = "activated.json";
/// No description comes near this: a larger file is not one.
const MAX_JSON_BYTES: u64 = 16 * 1024 * 1024;

/// Why a data directory can't be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "{dir} is in use{}: stop that process, or use another data directory",
        holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    InUse { dir: PathBuf, holder: Option<u32> },
    /// A file in it is not what it should be.
    #[error(
        "{file} can't be read: {reason}; restore it from a copy, or rebuild the directory with `duramen-restore hydrate`"
    )]
    Malformed { file: PathBuf, reason: String },
    /// A newer release wrote it.
    #[error(
        "{dir} has format version {found}, this program reads up to {FORMAT_VERSION}: use a newer release"
    )]
    Newer { dir: PathBuf, found: u32 },
    /// It belongs to another node, cluster or archive.
    #[error("{dir} belongs to {what} {found}, but this is {what} {expected}: use that one's data directory")]
    Foreign { dir: PathBuf, what: &'static str, found: String, expected: String },
    /// A restore into it has not finished.
    #[error(
        "{dir} is half restored (from {from}, {progress}): run `duramen-restore hydrate --to {dir}` again, which goes on \
         where it stopped"
    )]
    HalfRestored { dir: PathBuf, from: String, progress: String },
    /// A restore would overwrite a directory that is already in use.
    #[error("{dir} is not empty: it belongs to node {node}; restore into an empty directory")]
    NotEmpty { dir: PathBuf, node: NodeId },
}

/// Who a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDescription {
    /// The directory's format.
    pub format_version: u32,
    pub node: NodeId,
    pub cluster: ClusterId,
    /// The archive that the cluster writes, once it is bound to one.
    pub archive: Option<ArchiveId>,
    /// The branch of that archive.
    pub branch: Option<String>,
    /// How many shards besides shard 0 the cluster has; never changes.
    pub shards: u16,
    /// When the directory was made.
    pub created: HybridTime,
    /// Whatever is stamped here is later: than the cut at which the branch begins, if it has ancestors, and than what was
    /// closed before the directory was repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<HybridTime>,
}

/// What a restore brings into the directory, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreDescription {
    /// The directory's format.
    pub format_version: u32,
    /// The archive's URL.
    pub source: String,
    /// The branch restored from.
    pub branch: String,
    /// For people: what is done and what is left.
    pub progress: String,
    /// The restore's own notes, to go on where it stopped.
    pub details: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// A node's data directory, locked for this process until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _lock: Arc<LockGuard>,
}

impl DataDir {
    /// Opens the directory for a node, creating it if it doesn't exist, and locks it.
    ///
    /// Refuses one that is in use, half restored, or of a newer release.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, Error> {
        let dir = Self::open_unfinished(disk, root)?;
        if let Some(restore) = dir.restore()?
            && !dir.is_activated()?
        {
            return Err(Error::HalfRestored {
                dir: dir.root,
                from: format!("branch {} of {}", restore.branch, restore.source),
                progress: restore.progress,
            });
        }
        Ok(dir)
    }

    /// Opens and locks the directory whether or not a restore into it has finished: for the restore itself.
    pub fn open_unfinished(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, Error> {
        let io = |action, source| Error::Io { action, path: root.to_owned(), source };
        disk.create_dir(root).map_err(|source| io("create", source))?;
        let dir = Self::open_to_look(disk, root)?;
        for folder in [dir.wal(), dir.index(), dir.checkpoint(), dir.hydrated()] {
            dir.disk.create_dir(&folder).map_err(|source| Error::Io {
                action: "create",
                path: folder,
                source,
            })?;
        }
        Ok(dir)
    }

    /// Locks the directory, which must exist, and makes nothing in it but the lock's file.
    pub fn open_to_look(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, Error> {
        let lock = lock(&*disk, root)?;
        let dir = Self { disk, root: root.to_owned(), _lock: Arc::new(lock) };
        // Whatever is refused is refused now.
        dir.node()?;
        Ok(dir)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The folder of the write-ahead log.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The folder of the index files.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The folder of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// The folder of the archived segments that a restore put here.
    pub fn hydrated(&self) -> PathBuf {
        self.root.join("hydrated")
    }

    /// The file in which the node notes how far it is archived.
    pub fn archived(&self) -> PathBuf {
        self.root.join("archived.json")
    }

    /// Who the directory belongs to; `None` while it is new.
    pub fn node(&self) -> Result<Option<NodeDescription>, Error> {
        self.read_versioned(NODE)
    }

    /// Checks that the directory belongs to this node, or makes it this node's; durable when it returns.
    ///
    /// Node, cluster and number of shards must agree; an archive and a branch that are already written down must,
    /// too, and are written down otherwise. Gives what is written down then.
    pub fn bind(&self, wanted: &NodeDescription) -> Result<NodeDescription, Error> {
        let Some(found) = self.node()? else {
            self.write(NODE, wanted)?;
            return Ok(wanted.clone());
        };
        self.agree("node", &found.node, &wanted.node)?;
        self.agree("cluster", &found.cluster, &wanted.cluster)?;
        self.agree("a cluster with shard count", &found.shards, &wanted.shards)?;
        if let (Some(found), Some(wanted)) = (&found.archive, &wanted.archive) {
            self.agree("archive", found, wanted)?;
        }
        if let (Some(found), Some(wanted)) = (&found.branch, &wanted.branch) {
            self.agree("branch", found, wanted)?;
        }
        let bound = NodeDescription {
            archive: found.archive.or(wanted.archive),
            branch: found.branch.clone().or_else(|| wanted.branch.clone()),
            cut: found.cut.or(wanted.cut),
            ..found.clone()
        };
        if bound != found {
            self.write(NODE, &bound)?;
        }
        Ok(bound)
    }

    /// Has whatever is stamped here be later than `time`; durable when it returns. Only of a directory with a node.
    pub fn stamp_after(&self, time: HybridTime) -> Result<(), Error> {
        match self.node()? {
            Some(node) if node.cut.is_none_or(|cut| cut < time) => {
                self.write(NODE, &NodeDescription { cut: Some(time), ..node })
            }
            _ => Ok(()),
        }
    }

    /// The restore that was started into the directory, if any.
    pub fn restore(&self) -> Result<Option<RestoreDescription>, Error> {
        self.read_versioned(RESTORE)
    }

    /// Starts a restore, or notes how far it is; durable when it returns. The first thing a restore writes.
    ///
    /// Refuses a directory that a node uses already.
    pub fn note_restore(&self, restore: &RestoreDescription) -> Result<(), Error> {
        if self.restore()?.is_none()
            && let Some(found) = self.node()?
        {
            return Err(Error::NotEmpty { dir: self.root.clone(), node: found.node });
        }
        self.write(RESTORE, restore)
    }

    /// Declares the restore finished; durable when it returns. The last thing a restore writes.
    pub fn activate(&self, at: HybridTime) -> Result<(), Error> {
        self.write(ACTIVATED, &Activated { format_version: FORMAT_VERSION, at })
    }

    /// Whether a restore into the directory was finished.
    pub fn is_activated(&self) -> Result<bool, Error> {
        Ok(self.read_versioned::<Activated>(ACTIVATED)?.is_some())
    }

    fn agree<T: PartialEq + ToString>(
        &self,
        what: &'static str,
        found: &T,
        expected: &T,
    ) -> Result<(), Error> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Foreign {
            dir: self.root.clone(),
            what,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.root.join(name);
        match durable::read_file(&*self.disk, &path, MAX_JSON_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    /// The description in a file, if there is one. A newer release's may have fields that this one doesn't know, so its
    /// version is looked at first.
    fn read_versioned<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let VersionOnly { format_version } = self.parse(name, &bytes)?;
        if format_version > FORMAT_VERSION {
            return Err(Error::Newer { dir: self.root.clone(), found: format_version });
        }
        self.parse(name, &bytes).map(Some)
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.root.join(name);
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|error| Error::Malformed { file: path.clone(), reason: error.to_string() })?;
        json.push(b'\n');
        durable::write_file(&*self.disk, &path, &json).map_err(|source| Error::Io {
            action: "write",
            path,
            source,
        })
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, name: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::Malformed { file: self.root.join(name), reason: error.to_string() })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Activated {
    format_version: u32,
    at: HybridTime,
}

/// Locks the directory and leaves this process's pid in the lock file.
fn lock(disk: &dyn Disk, root: &Path) -> Result<LockGuard, Error> {
    let path = root.join(LOCK);
    let guard = match disk.lock(&path) {
        Ok(guard) => guard,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let holder = durable::read_file(disk, &path, 64).ok();
            let holder = holder.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
            return Err(Error::InUse { dir: root.to_owned(), holder });
        }
        Err(source) => return Err(Error::Io { action: "lock", path, source }),
    };
    // Of use to people only, and only while the process lives: no fsync.
    let pid = format!("{}\n", std::process::id());
    let noted = disk.open(&path).and_then(|file| {
        file.set_len(0)?;
        file.write_all_at(pid.as_bytes(), 0)
    });
    noted.map_err(|source| Error::Io { action: "write", path, source })?;
    Ok(guard)
}

#[cfg(test)]
mod tests;
