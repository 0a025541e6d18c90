//! What a restore downloaded, and what has become of it on this disk since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen_archive::{Blocking, FileSource, ObjectKey, SegmentIdentity, SegmentReader, Snapshot};
use duramen_types::ArchiveId;

/// The files of `hydrated/` that are not what their names say any more, and why; reads every byte.
///
/// A node does not look for another copy of what it has here, so such a file keeps what it held from being read.
pub async fn damaged(hydrated: &Path, archive: ArchiveId) -> std::io::Result<Vec<(PathBuf, String)>> {
    let mut damaged = Vec::new();
    let mut folders = vec![hydrated.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = match tokio::fs::read_dir(&folder).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path();
            if entry.file_type().await?.is_dir() {
                folders.push(path);
                continue;
            }
            let key = path.strip_prefix(hydrated).ok().and_then(Path::to_str).and_then(ObjectKey::parse);
            let Some(key) = key else { continue };
            if let Err(problem) = check(&path, &key, archive).await {
                damaged.push((path, problem));
            }
        }
    }
    damaged.sort();
    Ok(damaged)
}

async fn check(path: &Path, key: &ObjectKey, archive: ArchiveId) -> Result<(), String> {
    match key {
        ObjectKey::Segment { branch, shard, id, .. } => {
            let length = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
            let source = FileSource::open(path, Blocking::Threads).map_err(|error| error.to_string())?;
            let identity = SegmentIdentity { archive, branch: branch.clone(), shard: *shard, segment: *id };
            let reader = SegmentReader::open(Arc::new(source), length, &identity).await;
            let reader = reader.map_err(|error| error.to_string())?;
            reader.verify_structure().await.map_err(|error| error.to_string())?;
            reader.verify_full().await.map_err(|error| error.to_string())
        }
        ObjectKey::Snapshot { .. } => {
            let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
            Snapshot::decode(&bytes).map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}
