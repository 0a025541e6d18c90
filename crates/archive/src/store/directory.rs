//! A directory as an object store: fsynced, created by the first write, listed in the order of keys.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A [`LocalFileSystem`] whose writes survive a power cut and whose root need not exist before the first of them.
///
/// The library walks directories in no order: listings are collected and sorted here.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    files: OnceLock<LocalFileSystem>,
}

impl Directory {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root, files: OnceLock::new() }
    }

    /// The file system below the root; `None` while there is no root.
    fn existing(&self) -> Result<Option<&LocalFileSystem>> {
        if let Some(files) = self.files.get() {
            return Ok(Some(files));
        }
        if !self.root.exists() {
            return Ok(None);
        }
        let files = LocalFileSystem::new_with_prefix(&self.root)?.with_fsync(true);
        Ok(Some(self.files.get_or_init(|| files)))
    }

    fn required(&self, location: &Path) -> Result<&LocalFileSystem> {
        self.existing()?.ok_or_else(|| object_store::Error::NotFound {
            path: location.to_string(),
            source: format!("{} does not exist", self.root.display()).into(),
        })
    }

    /// The file system below the root, which is made where it never was there.
    ///
    /// A root that was there and is gone is an error: its disk isn't mounted, or somebody moved it. Made anew it would take
    /// an archive's objects away from the archive.
    fn created(&self) -> Result<&LocalFileSystem> {
        if !self.root.exists() {
            if self.files.get().is_some() {
                return Err(object_store::Error::Generic {
                    store: "directory",
                    source: format!("{} was there and is gone: is its disk mounted?", self.root.display())
                        .into(),
                });
            }
            create_durably(&self.root).map_err(|error| object_store::Error::Generic {
                store: "directory",
                source: Box::new(error),
            })?;
        }
        self.required(&Path::default())
    }
}

/// Creates a directory and those above it; on return they survive a power cut.
fn create_durably(path: &FilePath) -> std::io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if !parent.exists() {
        create_durably(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => std::fs::File::open(parent)?.sync_all(),
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.created()?.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.created()?.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.required(location)?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.required(location)?.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.required(&Path::default()) {
            Ok(files) => files.delete_stream(locations),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.existing() {
            Ok(Some(files)) => sorted(files.list(prefix)),
            Ok(None) => stream::empty().boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.existing() {
            Ok(Some(files)) => sorted(files.list_with_offset(prefix, offset)),
            Ok(None) => stream::empty().boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.existing()? {
            Some(files) => files.list_with_delimiter(prefix).await,
            None => {
                Ok(ListResult { common_prefixes: vec![], objects: vec![], extensions: Default::default() })
            }
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.required(from)?.copy_opts(from, to, options).await
    }
}

fn sorted(list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    stream::once(async {
        let mut found: Vec<_> = list.try_collect().await?;
        found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, object_store::Error>(stream::iter(found.into_iter().map(Ok)))
    })
    .try_flatten()
    .boxed()
}
