//! The requests behind [`Store`]: one attempt each, and the loop that tries them again.

use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::timeout;

use super::classify::classify;
use super::{Listed, MAX_PUT_BYTES, Store};
use crate::{At, Error, ObjectKey, Operation, Result};

impl Store {
    fn objects(&self) -> &dyn ObjectStore {
        &*self.inner.objects
    }

    fn path(&self, at: &At, below: &str) -> Result<Path> {
        let prefix = self.inner.prefix.as_ref();
        let whole = if prefix.is_empty() { below.to_owned() } else { format!("{prefix}/{below}") };
        Path::parse(whole).map_err(|error| Error::Refused { at: at.clone(), reason: error.to_string() })
    }

    fn deadline(&self, bytes: u64) -> Duration {
        self.inner.limits.request_timeout.saturating_add(Duration::from_secs(bytes >> 20))
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let limits = self.inner.limits;
        ExponentialBuilder::default()
            .with_min_delay(limits.min_backoff)
            .with_max_delay(limits.max_backoff)
            .with_max_times(usize::try_from(limits.attempts.saturating_sub(1)).unwrap_or(usize::MAX))
            .with_jitter()
            .with_jitter_seed(self.inner.random.u64())
            .build()
    }

    /// Runs one attempt after the other until one succeeds, or fails for good, or their number is used up.
    async fn retry<'a, T>(
        &self,
        operation: Operation,
        mut attempt: impl FnMut() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let mut pauses = self.pauses();
        let mut count = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if error.is_retryable() => {
                    tracing::debug!(%error, attempt = count, ?pause, "a request to the object store is tried again");
                    tokio::time::sleep(pause).await;
                    self.inner.requests.tried_again(operation);
                    count += 1;
                }
                _ => return Err(error.after(count)),
            }
        }
    }

    /// One attempt with its deadline, its error classified; it is counted.
    async fn once<T>(
        &self,
        at: &At,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let result = self.attempt(at, bytes, request).await;
        self.inner.requests.made(at.operation, &result);
        result
    }

    async fn attempt<T>(
        &self,
        at: &At,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let deadline = self.deadline(bytes);
        match timeout(deadline, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(classify(at.clone(), &error)),
            Err(_) => {
                let reason = format!("no answer within {}", humantime::format_duration(deadline));
                Err(Error::Unavailable { at: at.clone(), attempts: 1, reason })
            }
        }
    }
}

impl Error {
    /// The same error, saying how often it was tried.
    fn after(mut self, count: u32) -> Self {
        if let Self::Throttled { attempts, .. }
        | Self::Unavailable { attempts, .. }
        | Self::NoCredentialsNow { attempts, .. } = &mut self
        {
            *attempts = count;
        }
        self
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Whose object lies under a key that a writer wanted to create.
enum Occupant {
    Mine,
    Another,
    Nobody,
    /// The answer ended early, and was ours as far as it went.
    BrokeOff,
}

pub(super) async fn create(store: &Store, key: &ObjectKey, bytes: &Bytes) -> Result<()> {
    let at = store.at(Operation::Create, &key.to_string());
    let path = store.path(&at, &at.key)?;
    if length(bytes) > MAX_PUT_BYTES {
        return Err(Error::TooLarge { at, size: length(bytes), limit: MAX_PUT_BYTES });
    }
    store.retry(at.operation, || create_once(store, &at, &path, bytes).boxed()).await
}

async fn create_once(store: &Store, at: &At, path: &Path, bytes: &Bytes) -> Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let put = store.objects().put_opts(path, PutPayload::from_bytes(bytes.clone()), options);
    let error = match store.once(at, length(bytes), put).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if !matches!(error, Error::Exists(_) | Error::Unavailable { .. }) {
        return Err(error);
    }
    match occupant(store, at, path, bytes).await {
        Ok(Occupant::Mine) => Ok(()),
        Ok(Occupant::Another) => Err(Error::Exists(at.clone())),
        Ok(Occupant::BrokeOff) => {
            let reason = "its answer broke off when the object was read back".to_owned();
            Err(Error::Unavailable { at: at.clone(), attempts: 1, reason })
        }
        Ok(Occupant::Nobody) => Err(match error {
            Error::Exists(at) => {
                let reason = "it answered \"already exists\", and nothing is there".to_owned();
                Error::Unavailable { at, attempts: 1, reason }
            }
            error => error,
        }),
        // Not known yet: the next attempt meets "already exists" if this one had succeeded.
        Err(unknown) if matches!(error, Error::Exists(_)) => Err(unknown),
        Err(_) => Err(error),
    }
}

/// Compares the object under `path` with `bytes`, piece by piece.
async fn occupant(store: &Store, at: &At, path: &Path, bytes: &Bytes) -> Result<Occupant> {
    let compare = async {
        let found = match store.objects().get_opts(path, GetOptions::default()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Occupant::Nobody),
            Err(error) => return Err(error),
        };
        if found.meta.size != length(bytes) {
            return Ok(Occupant::Another);
        }
        let mut rest: &[u8] = bytes;
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            match rest.strip_prefix(&*piece) {
                Some(after) => rest = after,
                None => return Ok(Occupant::Another),
            }
        }
        Ok(if rest.is_empty() { Occupant::Mine } else { Occupant::BrokeOff })
    };
    store.once(at, length(bytes), compare).await
}

pub(super) async fn verify_tail(store: &Store, key: &ObjectKey, bytes: &Bytes, tail: usize) -> Result<()> {
    let from = bytes.len().saturating_sub(tail);
    let expected = bytes.slice(from..);
    let range = length(&bytes.slice(..from))..length(bytes);
    let altered = || Err(Error::AlteredInStore(store.at(Operation::Create, &key.to_string())));
    match ranged(store, key, range).await {
        Ok((found, size)) if size == length(bytes) && found == expected => Ok(()),
        Ok(_) => altered(),
        Err(Error::Missing(_) | Error::WrongSize { .. }) => altered(),
        Err(error) => Err(error),
    }
}

pub(super) async fn get(store: &Store, key: &ObjectKey, limit: u64) -> Result<Bytes> {
    let at = store.at(Operation::Read, &key.to_string());
    let path = store.path(&at, &at.key)?;
    let read = || async {
        let request = async {
            let found = store.objects().get_opts(&path, GetOptions::default()).await?;
            let size = found.meta.size;
            if size > limit { Ok((None, size)) } else { found.bytes().await.map(|bytes| (Some(bytes), size)) }
        };
        match store.once(&at, limit, request).await? {
            (Some(bytes), size) if length(&bytes) == size => Ok(bytes),
            (Some(bytes), expected) => Err(broke_off(&at, &bytes, expected)),
            (None, size) => Err(Error::TooLarge { at: at.clone(), size, limit }),
        }
    };
    store.retry(at.operation, || read().boxed()).await
}

pub(super) async fn get_range(store: &Store, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
    ranged(store, key, range).await.map(|(bytes, _)| bytes)
}

/// The error of an answer that is shorter than the object, by the answer's own word: what is wrong is the way here.
fn broke_off(at: &At, bytes: &Bytes, expected: u64) -> Error {
    let reason = format!("its answer broke off after {} of {expected} bytes", length(bytes));
    Error::Unavailable { at: at.clone(), attempts: 1, reason }
}

/// The bytes of a range, and the size of the whole object.
async fn ranged(store: &Store, key: &ObjectKey, range: Range<u64>) -> Result<(Bytes, u64)> {
    let at = store.at(Operation::Read, &key.to_string());
    let path = store.path(&at, &at.key)?;
    if range.is_empty() {
        // No store knows empty ranges; the object must be there all the same.
        return size(store, key).await.map(|size| (Bytes::new(), size));
    }
    let expected = range.end.saturating_sub(range.start);
    let read = || async {
        let request = async {
            let options =
                GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let found = store.objects().get_opts(&path, options).await?;
            let size = found.meta.size;
            found.bytes().await.map(|bytes| (bytes, size))
        };
        let (bytes, size) = store.once(&at, expected, request).await?;
        if length(&bytes) == expected {
            Ok((bytes, size))
        } else if size >= range.end {
            Err(broke_off(&at, &bytes, expected))
        } else {
            Err(Error::WrongSize { at: at.clone(), expected: range.end, found: size })
        }
    };
    match store.retry(at.operation, || read().boxed()).await {
        // The stores word "beyond the end" differently: the size tells.
        Err(error @ Error::Refused { .. }) => match size(store, key).await {
            Ok(found) if found < range.end => Err(Error::WrongSize { at, expected: range.end, found }),
            _ => Err(error),
        },
        other => other,
    }
}

pub(super) async fn size(store: &Store, key: &ObjectKey) -> Result<u64> {
    let at = store.at(Operation::Stat, &key.to_string());
    let path = store.path(&at, &at.key)?;
    store
        .retry(at.operation, || store.once(&at, 0, store.objects().head(&path)).boxed())
        .await
        .map(|found| found.size)
}

pub(super) async fn delete(store: &Store, key: &ObjectKey) -> Result<()> {
    let at = store.at(Operation::Delete, &key.to_string());
    let path = store.path(&at, &at.key)?;
    match store.retry(at.operation, || store.once(&at, 0, store.objects().delete(&path)).boxed()).await {
        Err(Error::Missing(_)) => Ok(()),
        other => other,
    }
}

pub(super) fn list(
    store: Store,
    folder: String,
    after: Option<String>,
) -> impl Stream<Item = Result<Listed>> + Send + Unpin + 'static {
    let stream = async_stream::try_stream! {
        let at = store.at(Operation::List, &folder);
        let folder = store.path(&at, &folder)?;
        let mut last = match &after {
            Some(after) => Some(store.path(&at, after)?),
            None => None,
        };
        let mut pauses = store.pauses();
        let mut count = 1;
        'again: loop {
            let mut page = match &last {
                Some(last) => store.inner.objects.list_with_offset(Some(&folder), last),
                None => store.inner.objects.list(Some(&folder)),
            };
            loop {
                let found = store.attempt(&at, 0, async { page.next().await.transpose() }).await;
                if !matches!(found, Ok(Some(_))) {
                    store.inner.requests.made(at.operation, &found);
                }
                let error = match found {
                    Ok(None) => break 'again,
                    Ok(Some(object)) if last.as_ref().is_none_or(|last| object.location > *last) => {
                        last = Some(object.location.clone());
                        pauses = store.pauses();
                        count = 1;
                        let path = below(&store, &object.location);
                        yield Listed { key: ObjectKey::parse(&path), path, bytes: object.size };
                        continue;
                    }
                    Ok(Some(_)) => {
                        let reason = "it lists keys out of order (an S3 directory bucket?)".to_owned();
                        Error::Unsupported { at: at.clone(), reason }
                    }
                    Err(error) => error,
                };
                match pauses.next() {
                    Some(pause) if error.is_retryable() => {
                        tokio::time::sleep(pause).await;
                        store.inner.requests.tried_again(at.operation);
                        count += 1;
                        continue 'again;
                    }
                    _ => Err(error.after(count))?,
                }
            }
        }
    };
    Box::pin(stream)
}

fn below(store: &Store, location: &Path) -> String {
    let prefix = store.inner.prefix.as_ref();
    let whole = location.as_ref();
    match whole.strip_prefix(prefix) {
        Some(rest) => rest.trim_start_matches('/').to_owned(),
        None => whole.to_owned(),
    }
}
