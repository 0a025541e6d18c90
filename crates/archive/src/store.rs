//! Access to the objects of one archive: create-only writes whose outcome is certain, bounded reads, ordered listing.
//!
//! Every request has a deadline, and is tried again with growing, jittered pauses while its error is retryable.
//! A write that timed out, or that the store answered with "already exists", is settled by reading the object back:
//! identical bytes are ours (every object that can be raced for carries its writer's nonce), other bytes are another
//! writer's, and an absent object is written again.

mod check;
mod classify;
mod count;
mod credentials;
mod directory;
mod open;
mod options;
mod requests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duramen_failpoint::Point;
use duramen_types::Clock;
use futures::Stream;
use object_store::ObjectStore;
use object_store::path::Path;

pub use check::{CheckReport, Probe, ProbeOutcome};
pub use count::RequestCount;
pub use credentials::LOG_DIRECTIVES;
pub use options::{Checksum, StoreOptions};

use crate::{At, Error, FormatError, ObjectKey, Operation, Random, Result};

/// The largest object that one PUT creates: nothing in an archive is larger before merging.
pub const MAX_PUT_BYTES: u64 = 256 << 20;

/// An archive's object store below its prefix. Cheap to clone; all clones share connections and randomness.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
    clock: Arc<dyn Clock>,
    random: Random,
    limits: Limits,
    requests: Arc<count::Requests>,
}

/// How long and how often requests are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one attempt, plus one second for each MiB that it moves.
    pub request_timeout: Duration,
    /// At least 1.
    pub attempts: u32,
    /// Pauses start at `min_backoff` and double up to `max_backoff`.
    pub min_backoff: Duration,
    pub max_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&StoreOptions::default())
    }
}

impl From<&StoreOptions> for Limits {
    fn from(options: &StoreOptions) -> Self {
        Self {
            request_timeout: options.request_timeout,
            attempts: options.attempts,
            min_backoff: Duration::from_millis(100).min(options.max_backoff),
            max_backoff: options.max_backoff,
        }
    }
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the archive's prefix.
    pub path: String,
    /// What the path names, or `None` for an object that no archive has.
    pub key: Option<ObjectKey>,
    pub bytes: u64,
}

impl Store {
    /// Opens the archive's store at `url` (see [`StoreOptions`]). For `s3://` the credential chain is set up, but
    /// nothing is contacted: [`Store::check`] and the first request do that.
    ///
    /// `memory:` gives a new, empty store each time, which the clones of this one share.
    pub async fn open(
        url: &str,
        options: &StoreOptions,
        clock: Arc<dyn Clock>,
        random: Random,
    ) -> Result<Self> {
        let location = options::Location::parse(url, options)?;
        let (objects, prefix) = open::open(&location, &clock).await?;
        let store = Self::new(objects, prefix, clock, random).with_limits(Limits::from(&location.options));
        Ok(store.shown_as(&location.shown))
    }

    /// A store over any [`ObjectStore`], whose listings must be in the order of keys: for simulations, and for
    /// wrappers that inject faults.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: Path, clock: Arc<dyn Clock>, random: Random) -> Self {
        let url = format!("{objects}/{prefix}").into();
        let (limits, requests) = (Limits::default(), Arc::default());
        Self { inner: Arc::new(Inner { objects, prefix, url, clock, random, limits, requests }) }
    }

    /// The same store with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        self.rebuilt(self.inner.url.clone(), limits, Arc::clone(&self.inner.objects))
    }

    /// The same store with its object access wrapped, for fault injection or measuring.
    #[must_use]
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let objects = wrap(Arc::clone(&self.inner.objects));
        self.rebuilt(self.inner.url.clone(), self.inner.limits, objects)
    }

    fn shown_as(&self, url: &str) -> Self {
        self.rebuilt(url.into(), self.inner.limits, Arc::clone(&self.inner.objects))
    }

    fn rebuilt(&self, url: Arc<str>, limits: Limits, objects: Arc<dyn ObjectStore>) -> Self {
        let Inner { prefix, clock, random, requests, .. } = &*self.inner;
        let (prefix, clock, random) = (prefix.clone(), Arc::clone(clock), random.clone());
        let requests = Arc::clone(requests);
        Self { inner: Arc::new(Inner { objects, prefix, url, clock, random, limits, requests }) }
    }

    /// How many requests were made so far through this store and its clones, for each operation: each attempt counts,
    /// and a listing counts once, however many pages it has. How many of them were tried again is counted beside it.
    pub fn requests(&self) -> impl Iterator<Item = (Operation, RequestCount)> {
        self.inner.requests.snapshot()
    }

    /// The archive as the user named it, without secrets: for messages.
    pub fn url(&self) -> &Arc<str> {
        &self.inner.url
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub fn random(&self) -> &Random {
        &self.inner.random
    }

    /// Writes an object that must not exist yet.
    ///
    /// On `Ok` the object is durable and holds exactly `bytes`; that is also so when an earlier attempt, or another
    /// writer, had written the same bytes. [`Error::Exists`] means that other bytes are there and stay there. After a
    /// retryable error the outcome is unknown, and calling again with the same bytes settles it. Dropping the future
    /// leaves the outcome unknown as well.
    pub async fn create(&self, key: &ObjectKey, bytes: Bytes) -> Result<()> {
        requests::create(self, key, &bytes).await
    }

    /// Like [`Store::create`], and then reads the object's size and its last `tail` bytes back.
    ///
    /// [`Error::AlteredInStore`] means that the store acknowledged what it does not have.
    pub async fn create_verified(&self, key: &ObjectKey, bytes: Bytes, tail: usize) -> Result<()> {
        requests::create(self, key, &bytes).await?;
        duramen_failpoint::reached(Point::UploadCreated);
        requests::verify_tail(self, key, &bytes, tail).await
    }

    /// The whole object, if it has at most `limit` bytes; nothing is allocated before its size is known.
    pub async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes> {
        requests::get(self, key, limit).await
    }

    /// Like [`Store::get`], with `None` for an object that is not there.
    pub async fn get_if_present(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        match self.get(key, limit).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Exactly the bytes `range` of an object; an object that is too short for it is [`Error::WrongSize`].
    pub async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
        requests::get_range(self, key, range).await
    }

    /// The object's size in bytes.
    pub async fn size(&self, key: &ObjectKey) -> Result<u64> {
        requests::size(self, key).await
    }

    /// The objects whose paths begin with `folder` (a prefix of whole segments, such as `main/closed/`; empty for
    /// all) and come after `after`, in the order of their paths. An interrupted listing goes on where it stopped.
    pub fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> impl Stream<Item = Result<Listed>> + Send + Unpin + 'static + use<> {
        requests::list(self.clone(), folder.to_owned(), after.map(str::to_owned))
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, key: &ObjectKey) -> Result<()> {
        requests::delete(self, key).await
    }

    /// Proves that the store does what an archive needs: create-only PUT, reading, ranges, listing.
    ///
    /// Writes one small object under `checks/` and removes it again if it may; see [`CheckReport`].
    pub async fn check(&self) -> CheckReport {
        check::check(self).await
    }

    fn at(&self, operation: Operation, key: &str) -> At {
        At { operation, key: key.into(), url: Arc::clone(&self.inner.url) }
    }

    /// The error of an object that could not be read as what its key says.
    pub fn unreadable(&self, key: &ObjectKey, error: impl Into<FormatError>) -> Error {
        let (key, url) = (key.to_string().into(), Arc::clone(&self.inner.url));
        match error.into() {
            FormatError::Damaged(reason @ duramen_types::DecodeError::Version { .. }) => {
                Error::Newer { key, url, reason }
            }
            FormatError::Damaged(source) => Error::Damaged { key, url, source },
            FormatError::NotSupported(feature) => Error::NotSupported { key, url, feature },
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.inner.url)
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
