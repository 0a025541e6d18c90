//! An object store in the weather: it fails, is slow, loses answers, and sends damaged bodies, as a seed decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many of a thousand requests meet with what. Bytes that a store keeps are never damaged: that is for `verify` to find, and
/// nothing could be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Refused with an internal error or a broken connection, without an effect.
    pub errors: u32,
    /// Refused with `SlowDown`, or as too many.
    pub throttled: u32,
    /// Refused because it is not allowed; a thousand are all of them.
    pub denied: u32,
    /// A write that is carried out, and whose answer is lost: a time-out, or "already exists" for a retry inside.
    pub lost_answers: u32,
    /// Never answered, with or without an effect.
    pub hangs: u32,
    /// A body that arrives truncated or altered.
    pub damaged_bodies: u32,
    /// A listing that leaves out its latest objects.
    pub stale_lists: u32,
    /// The longest that a request takes.
    pub latency: Duration,
    /// Nothing can be reached.
    pub down: bool,
}

impl Weather {
    /// No faults.
    pub const fn clear() -> Self {
        Self {
            errors: 0,
            throttled: 0,
            denied: 0,
            lost_answers: 0,
            hangs: 0,
            damaged_bodies: 0,
            stale_lists: 0,
            latency: Duration::from_millis(20),
            down: false,
        }
    }

    /// Some faults, many faults, or nothing but faults.
    pub fn random(random: &mut StdRng) -> Self {
        let most = *[20, 100, 400].get(random.random_range(0..3)).unwrap_or(&20);
        let mut rate = || random.random_range(0..=most);
        let mut weather = Self {
            errors: rate(),
            throttled: rate(),
            denied: rate() / 8,
            lost_answers: rate(),
            hangs: rate() / 8,
            damaged_bodies: rate() / 4,
            stale_lists: rate(),
            ..Self::clear()
        };
        weather.latency = Duration::from_millis(random.random_range(1..2000));
        match random.random_range(0..10) {
            0 | 1 => weather.down = true,
            2 => weather.denied = 1000,
            _ => {}
        }
        weather
    }
}

/// A store that behaves as the [`Weather`] says.
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

struct State {
    random: StdRng,
    weather: Weather,
    faults: u64,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Error,
    Throttled,
    Denied,
    LostAnswer,
    AlreadyExists,
    HangsBefore,
    HangsAfter,
    Damaged,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let state = State { random: StdRng::seed_from_u64(seed), weather: Weather::clear(), faults: 0 };
        Self { inner, state: Arc::new(Mutex::new(state)) }
    }

    pub fn set(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Whether no request fails.
    pub fn is_clear(&self) -> bool {
        self.state.lock().weather == Weather::clear()
    }

    /// How many requests met with a fault.
    pub fn faults(&self) -> u64 {
        self.state.lock().faults
    }

    /// How long a request takes, and what happens to it.
    async fn fault(&self, writes: bool) -> Fault {
        let (latency, fault) = self.state.lock().draw(writes);
        tokio::time::sleep(latency).await;
        fault
    }

    fn below(&self, end: usize) -> usize {
        self.state.lock().random.random_range(0..end.max(1))
    }
}

impl State {
    fn draw(&mut self, writes: bool) -> (Duration, Fault) {
        let Weather { latency, down, .. } = self.weather;
        let longest = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let took = Duration::from_micros(self.random.random_range(0..=longest));
        let mut left = self.random.random_range(0..1000_u32);
        let mut hit = |rate: u32| {
            let hit = left < rate;
            left = left.saturating_sub(rate);
            hit
        };
        let weather = self.weather;
        let fault = if down || hit(weather.errors) {
            Fault::Error
        } else if hit(weather.denied) {
            Fault::Denied
        } else if hit(weather.throttled) {
            Fault::Throttled
        } else if hit(weather.hangs) {
            if self.random.random() { Fault::HangsBefore } else { Fault::HangsAfter }
        } else if writes && hit(weather.lost_answers) {
            if self.random.random() { Fault::LostAnswer } else { Fault::AlreadyExists }
        } else if !writes && hit(weather.damaged_bodies) {
            Fault::Damaged
        } else {
            Fault::None
        };
        self.faults += u64::from(fault != Fault::None);
        (took, fault)
    }
}

fn broken(kind: HttpErrorKind) -> Error {
    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Generic { store: "simulated", source: Box::new(HttpError::new(kind, cause)) }
}

/// What a request without an effect is answered with.
fn refused(fault: Fault, path: &str) -> Option<Error> {
    let generic = |said: &'static str| Error::Generic { store: "simulated", source: said.into() };
    match fault {
        Fault::Error => Some(broken(HttpErrorKind::Interrupted)),
        Fault::Throttled if path.len().is_multiple_of(2) => Some(generic("status code: 503, SlowDown")),
        Fault::Throttled => Some(generic("status code: 429, Too Many Requests")),
        Fault::Denied => Some(Error::PermissionDenied {
            path: path.to_owned(),
            source: "status code: 403, AccessDenied".into(),
        }),
        _ => None,
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store")
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.fault(true).await;
        if let Some(error) = refused(fault, path.as_ref()) {
            return Err(error);
        }
        match fault {
            Fault::HangsBefore => std::future::pending().await,
            Fault::HangsAfter => {
                let _ = self.inner.put_opts(path, payload, options).await;
                std::future::pending().await
            }
            Fault::LostAnswer => {
                let _ = self.inner.put_opts(path, payload, options).await;
                Err(broken(HttpErrorKind::Timeout))
            }
            Fault::AlreadyExists => {
                let _ = self.inner.put_opts(path, payload, options).await;
                Err(Error::AlreadyExists { path: path.to_string(), source: "status code: 412".into() })
            }
            _ => self.inner.put_opts(path, payload, options).await,
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
        let fault = self.fault(false).await;
        if let Some(error) = refused(fault, path.as_ref()) {
            return Err(error);
        }
        if matches!(fault, Fault::HangsBefore | Fault::HangsAfter) {
            std::future::pending::<()>().await;
        }
        let found = self.inner.get_opts(path, options).await?;
        if fault != Fault::Damaged || found.range.is_empty() {
            return Ok(found);
        }
        let (meta, range, attributes, extensions) =
            (found.meta.clone(), found.range.clone(), found.attributes.clone(), found.extensions.clone());
        let mut body = found.bytes().await?.to_vec();
        let at = self.below(body.len());
        if self.below(2) == 0 {
            body.truncate(at);
        } else if let Some(byte) = body.get_mut(at) {
            *byte ^= 1 << self.below(8);
        }
        let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(body)) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // One request each, as an archive's store makes them.
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let delete = move |path: Result<Path>| {
            let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
            async move {
                let path = path?;
                let (latency, fault) = state.lock().draw(true);
                tokio::time::sleep(latency).await;
                match (refused(fault, path.as_ref()), fault) {
                    (Some(error), _) => return Err(error),
                    (None, Fault::HangsBefore) => std::future::pending().await,
                    _ => {}
                }
                inner.delete(&path).await?;
                match fault {
                    Fault::HangsAfter => std::future::pending().await,
                    Fault::LostAnswer | Fault::AlreadyExists => Err(broken(HttpErrorKind::Timeout)),
                    _ => Ok(path),
                }
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl FaultyStore {
    fn listed(
        &self,
        prefix: Option<&Path>,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (state, prefix) = (Arc::clone(&self.state), prefix.map(ToString::to_string).unwrap_or_default());
        async move {
            let (latency, fault) = state.lock().draw(false);
            tokio::time::sleep(latency).await;
            if let Some(error) = refused(fault, &prefix) {
                return Err(error);
            }
            if matches!(fault, Fault::HangsBefore | Fault::HangsAfter) {
                std::future::pending::<()>().await;
            }
            let mut found: Vec<ObjectMeta> = list.try_collect().await?;
            let mut state = state.lock();
            if state.random.random_range(0..1000) < state.weather.stale_lists {
                let kept = state.random.random_range(0..=found.len());
                found.truncate(kept);
                state.faults += 1;
            }
            drop(state);
            Ok(stream::iter(found.into_iter().map(Ok)))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}
