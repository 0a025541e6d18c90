//! Objects in the store and files on disk as the archive reader sees them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use duramen_archive::{ObjectKey, RangeSource, SegmentError, SegmentIdentity, SegmentReader, Store, ViewRow};
use duramen_types::ArchiveId;
use duramen_wal::File;
use futures::future::BoxFuture;

use crate::Result;

/// An object of the archive.
#[derive(Debug)]
pub(crate) struct StoreSource {
    store: Store,
    key: ObjectKey,
    name: String,
}

impl StoreSource {
    pub(crate) fn new(store: &Store, key: ObjectKey) -> Self {
        Self { store: store.clone(), name: key.to_string(), key }
    }
}

impl RangeSource for StoreSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SegmentError>> {
        Box::pin(async move {
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            Ok(self.store.get_range(&self.key, range).await?)
        })
    }
}

/// A file that is being staged.
#[derive(Debug)]
pub(crate) struct DiskSource {
    pub name: String,
    pub file: File,
}

impl RangeSource for DiskSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SegmentError>> {
        let (file, name, at) = (Arc::clone(&self.file), self.name.clone(), range.clone());
        Box::pin(async move {
            let read = move || {
                let len = usize::try_from(at.end.saturating_sub(at.start)).map_err(std::io::Error::other)?;
                // The length was stated by the object: check it against the file before it sizes anything.
                if file.len()? < at.end {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, at.start)?;
                Ok(Bytes::from(buffer))
            };
            let result = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
            result.map_err(|error| SegmentError::Local { object: name, range, reason: error.to_string() })
        })
    }
}

/// Opens the segment of a manifest's row, wherever its bytes are, and compares its trailer with the row.
pub(crate) async fn open_segment(
    source: Arc<dyn RangeSource>,
    archive: ArchiveId,
    row: &ViewRow,
) -> Result<SegmentReader, SegmentError> {
    let identity =
        SegmentIdentity { archive, branch: row.branch.clone(), shard: row.shard, segment: row.row.id };
    let reader = SegmentReader::open(source, row.row.bytes, &identity).await?;
    let (trailer, stated) = (reader.index().trailer(), &row.row);
    let same = trailer.first == stated.first
        && trailer.end == stated.end
        && trailer.first_time == stated.first_time
        && trailer.last_time == stated.last_time
        && trailer.chain_before == stated.chain_before
        && trailer.chain_after == stated.chain_after
        && trailer.records == stated.records
        && trailer.timestamps == stated.record_times;
    if same {
        return Ok(reader);
    }
    Err(SegmentError::Altered {
        object: row.key().to_string(),
        part: "trailer".to_owned(),
        reason: format!(
            "it covers {}..{} otherwise than its manifest's row says",
            trailer.first, trailer.end
        ),
    })
}
