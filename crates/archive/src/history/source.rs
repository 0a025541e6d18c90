//! Where a segment's bytes come from: the local mirror if it has them, else the object store.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Inner;
use crate::{FileSource, ObjectKey, RangeSource, SegmentError, Store};

/// An object in the archive's store.
#[derive(Debug)]
struct StoreSource {
    store: Store,
    key: ObjectKey,
    name: String,
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

/// The local copy of an object, if the mirror holds one; one that can't be read is an error.
pub(super) fn mirrored(inner: &Inner, key: &ObjectKey) -> Result<Option<FileSource>, SegmentError> {
    let Some(mirror) = &inner.options.mirror else { return Ok(None) };
    let path = mirror.join(key.to_string());
    match FileSource::open(&path, inner.options.blocking) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let object = path.display().to_string();
            Err(SegmentError::Local { object, range: 0..0, reason: error.to_string() })
        }
    }
}

/// The object's source; a mirror that holds the object but can't be read is an error, not a reason to go elsewhere.
pub(super) fn open(inner: &Inner, key: &ObjectKey) -> Result<Arc<dyn RangeSource>, SegmentError> {
    if let Some(file) = mirrored(inner, key)? {
        return Ok(Arc::new(file));
    }
    let name = key.to_string();
    Ok(Arc::new(StoreSource { store: inner.store.clone(), key: key.clone(), name }))
}
