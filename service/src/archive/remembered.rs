//! `archived.json` in the data directory: up to where the shards were archived, as far as the node noted it.
//!
//! It is for nothing but the lag that is shown while the archive can't be asked: nothing is deleted or acknowledged by it, and
//! without it what the local log holds counts as not archived.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use duramen_types::{ArchiveId, BranchName, Index, ShardId};
use duramen_wal::datadir::NodeDescription;
use duramen_wal::{Disk, durable};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Shared, archived};

const FORMAT_VERSION: u32 = 1;
const LARGEST: u64 = 16 << 20;
/// The least time between two notes.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    format_version: u32,
    archive: Option<ArchiveId>,
    branch: BranchName,
    /// By shard.
    ends: Vec<Index>,
}

/// The ends in a note of this node's branch, by shard, for those who only look; none, where it is gone or can't be read.
pub(crate) fn archived_ends(path: &std::path::Path, node: &NodeDescription) -> Vec<Index> {
    let read = durable::read_file(&duramen_wal::RealDisk, path, LARGEST);
    let note = read.ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    let of_node = note.filter(|note| {
        let branch = node.branch.as_deref() == Some(note.branch.as_str());
        branch && note.archive == node.archive && note.format_version == FORMAT_VERSION
    });
    of_node.map_or_else(Vec::new, |note| note.ends)
}

/// The note of a node.
#[derive(Debug)]
pub(super) struct Remembered {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    note: Mutex<Note>,
}

impl Remembered {
    /// What an earlier run of the node noted of this branch; nothing, where the note is gone or can't be read.
    pub(super) fn load(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        archive: Option<ArchiveId>,
        branch: BranchName,
    ) -> Self {
        let mut note = Note { format_version: FORMAT_VERSION, archive, branch, ends: Vec::new() };
        let read = durable::read_file(&*disk, &path, LARGEST);
        match read.and_then(|bytes| Ok(serde_json::from_slice::<Note>(&bytes)?)) {
            Ok(found) if (Note { ends: Vec::new(), ..found.clone() }) == note => note.ends = found.ends,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "it can't be read, and is written anew once the archive is open");
            }
        }
        Self { disk, path, note: Mutex::new(note) }
    }

    /// An end of the shard's archived history.
    pub(super) fn end(&self, shard: ShardId) -> Index {
        self.note.lock().ends.get(usize::from(shard.get())).copied().unwrap_or_default()
    }
}

/// Keeps the note, at most once a minute.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        shared.more_to_remember.notified().await;
        shared.remember().await;
        tokio::time::sleep(PAUSE).await;
    }
}

impl Shared {
    /// Notes up to where the shards are archived, if that is known and news; it survives a power cut.
    pub(super) async fn remember(&self) {
        if self.opened.borrow().is_none() {
            return;
        }
        let ends: Vec<_> = self.shards.iter().map(|shard| archived(shard)).collect();
        let mut note = self.remembered.note.lock().clone();
        if note.ends == ends {
            return;
        }
        note.ends = ends;
        let (disk, path) = (Arc::clone(&self.remembered.disk), self.remembered.path.clone());
        let written = note.clone();
        let write = self.settings.blocking.run(move || {
            let bytes = serde_json::to_vec_pretty(&written)?;
            durable::write_file(&*disk, &path, &bytes)
        });
        match write.await {
            Ok(Ok(())) => *self.remembered.note.lock() = note,
            Ok(Err(error)) => tracing::debug!(%error, "up to where the shards are archived can't be noted"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use duramen_wal::sim::SimDisk;

    use super::*;

    #[test]
    fn a_note_counts_for_its_own_branch_and_only_where_it_can_be_read() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        disk.create_dir(std::path::Path::new("/data")).unwrap();
        let path = PathBuf::from("/data/archived.json");
        let archive = Some(ArchiveId::from_bytes([7; 16]));
        let branch = |name: &str| BranchName::parse(name).unwrap();
        let end = |archive, name: &str| {
            let remembered = Remembered::load(Arc::clone(&disk), path.clone(), archive, branch(name));
            remembered.end(ShardId::new(1)).get()
        };
        assert_eq!(end(archive, "main"), 0, "there is no note");
        let ends = vec![Index::new(3), Index::new(9)];
        let note = Note { format_version: FORMAT_VERSION, archive, branch: branch("main"), ends };
        durable::write_file(&*disk, &path, &serde_json::to_vec_pretty(&note).unwrap()).unwrap();
        assert_eq!((end(archive, "main"), end(archive, "other"), end(None, "main")), (9, 0, 0));
        durable::write_file(&*disk, &path, b"{").unwrap();
        assert_eq!(end(archive, "main"), 0, "it is damaged");
    }
}
