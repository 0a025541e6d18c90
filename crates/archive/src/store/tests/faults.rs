//! An object store that fails on demand: the unreliable network and the lying server of the tests.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What happens to one PUT.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    None,
    /// It is carried out, and the answer is lost.
    TimesOutAfterSuccess,
    TimesOutBefore,
    /// It is carried out, and no answer ever comes.
    HangsAfterSuccess,
    /// It is carried out, and a retry inside the library is told that the object exists.
    AlreadyExistsAfterSuccess,
    AlreadyExistsWithoutReason,
    /// Another writer comes first, and the answer is lost.
    AnotherWins(Bytes),
    /// "OK", and nothing is written.
    Lies,
    /// "OK", and other bytes of the same length are written.
    Alters,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    /// For the next PUTs, in order; none when it is empty.
    pub script: Mutex<VecDeque<Fault>>,
    /// How many PUTs are carried out; the process dies at the next one, and every request fails from then on.
    pub budget: AtomicUsize,
    dead: AtomicBool,
    pub puts: AtomicUsize,
    pub gets: AtomicUsize,
    /// Whether create-only is ignored.
    pub overwrites: bool,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            script: Mutex::default(),
            budget: AtomicUsize::new(usize::MAX),
            dead: AtomicBool::new(false),
            puts: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            overwrites: false,
        }
    }

    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(dead()) } else { Ok(()) }
    }
}

fn dead() -> Error {
    Error::NotSupported { source: "the process is dead".into() }
}

fn timed_out() -> Error {
    let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
    Error::Generic { store: "faulty", source: Box::new(HttpError::new(HttpErrorKind::Timeout, cause)) }
}

fn already_exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "412".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let left = self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| {
            self.dead.store(true, Ordering::SeqCst);
            dead()
        })?;
        self.puts.fetch_add(1, Ordering::SeqCst);
        if self.overwrites {
            options.mode = PutMode::Overwrite;
        }
        let fault = self.script.lock().pop_front().unwrap_or(Fault::None);
        let ok = PutResult { e_tag: None, version: None, extensions: Default::default() };
        match fault {
            Fault::None => self.inner.put_opts(path, payload, options).await,
            Fault::TimesOutBefore => Err(timed_out()),
            Fault::TimesOutAfterSuccess => {
                self.inner.put_opts(path, payload, options).await?;
                Err(timed_out())
            }
            Fault::HangsAfterSuccess => {
                self.inner.put_opts(path, payload, options).await?;
                std::future::pending().await
            }
            Fault::AlreadyExistsAfterSuccess => {
                self.inner.put_opts(path, payload, options).await?;
                Err(already_exists(path))
            }
            Fault::AlreadyExistsWithoutReason => Err(already_exists(path)),
            Fault::AnotherWins(bytes) => {
                self.inner.put(path, bytes.into()).await?;
                Err(timed_out())
            }
            Fault::Lies => Ok(ok),
            Fault::Alters => {
                let other: Vec<u8> = payload.iter().flatten().map(|byte| byte ^ 1).collect();
                self.inner.put_opts(path, other.into(), options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
