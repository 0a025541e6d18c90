//! Where an object's bytes come from.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::error::SegmentError;
use crate::Blocking;

/// An object whose ranges can be read: in the object store, in a local file, in memory.
pub trait RangeSource: Send + Sync + std::fmt::Debug {
    /// The object's key or path, for messages.
    fn name(&self) -> &str;

    /// Exactly the bytes of `range`, or an error; reads nothing for an empty range.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SegmentError>>;
}

/// An object in memory.
#[derive(Debug, Clone)]
pub struct BytesSource {
    name: String,
    bytes: Bytes,
}

impl BytesSource {
    pub fn new(name: impl Into<String>, bytes: Bytes) -> Self {
        Self { name: name.into(), bytes }
    }
}

impl RangeSource for BytesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SegmentError>> {
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX);
        let result = if start <= end && end <= self.bytes.len() {
            Ok(self.bytes.slice(start..end))
        } else {
            let reason = format!("it has only {} bytes", self.bytes.len());
            Err(SegmentError::Local { object: self.name.clone(), range, reason })
        };
        Box::pin(std::future::ready(result))
    }
}

/// An object in a local file.
#[derive(Debug, Clone)]
pub struct FileSource {
    name: String,
    file: Arc<File>,
    blocking: Blocking,
}

impl FileSource {
    /// Opens the file; an `io::Error` of kind `NotFound` says that it is absent.
    pub fn open(path: &Path, blocking: Blocking) -> std::io::Result<Self> {
        Ok(Self { name: path.display().to_string(), file: Arc::new(File::open(path)?), blocking })
    }
}

impl RangeSource for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SegmentError>> {
        let (file, name, blocking) = (Arc::clone(&self.file), self.name.clone(), self.blocking);
        Box::pin(async move {
            let at = range.clone();
            let read = move || {
                let len = usize::try_from(at.end.saturating_sub(at.start)).map_err(std::io::Error::other)?;
                // The length was stated by the object: check it against the file before it sizes anything.
                if file.metadata()?.len() < at.end {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, at.start)?;
                Ok(Bytes::from(buffer))
            };
            let result = blocking.run(read).await.map_err(std::io::Error::other).flatten();
            result.map_err(|error| SegmentError::Local { object: name, range, reason: error.to_string() })
        })
    }
}
