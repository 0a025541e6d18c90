//! One suite for every kind of store, and what only some of them can be made to do.

pub(crate) mod faults;
mod minio;
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use duramen_types::{BranchName, HybridTime, NodeId, SystemClock};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use uuid::Uuid;

use super::{Limits, ProbeOutcome, Store, StoreOptions};
use crate::{Error, ObjectKey, Operation, Random};
use faults::{Fault, Faulty};

/// Quick pauses: the tests' time-outs are answered, not waited for.
pub(crate) fn limits() -> Limits {
    Limits {
        request_timeout: Duration::from_secs(60),
        attempts: 4,
        min_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(4),
    }
}

pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Store {
    let store =
        Store::new(objects, Path::from("some/prefix"), Arc::new(SystemClock::new()), Random::from_seed(7));
    store.with_limits(limits())
}

pub(crate) fn memory() -> Store {
    over(Arc::new(InMemory::new()))
}

/// A store and its fault injector.
fn faulty(script: &[Fault]) -> (Store, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new())));
    faulty.script.lock().extend(script.iter().cloned());
    (over(Arc::clone(&faulty) as Arc<dyn ObjectStore>), faulty)
}

async fn open(url: &str) -> Store {
    let clock = Arc::new(SystemClock::new());
    Store::open(url, &StoreOptions::default(), clock, Random::from_seed(8))
        .await
        .unwrap()
        .with_limits(limits())
}

fn check_key(number: u128) -> ObjectKey {
    ObjectKey::Check { id: Uuid::from_u128(number) }
}

fn closed_key(time: u64) -> ObjectKey {
    let branch = BranchName::parse("main").unwrap();
    ObjectKey::Closed { branch, time: HybridTime::from_micros(time), node: NodeId::new(1) }
}

#[tokio::test]
async fn every_attempt_is_counted_and_a_listing_once() {
    let (store, _) = faulty(&[Fault::None, Fault::TimesOutBefore, Fault::TimesOutBefore]);
    let count = |operation: Operation| {
        store.requests().find_map(|(of, count)| {
            (of == operation).then_some((count.answered, count.failed, count.retried))
        })
    };
    for (number, object) in ["first", "tried three times"].into_iter().enumerate() {
        store.create(&check_key(number as u128), Bytes::from_static(object.as_bytes())).await.unwrap();
    }
    assert_eq!(
        count(Operation::Create),
        Some((4, 2, 2)),
        "two of them ask whose the object is, and are no retries"
    );
    assert!(matches!(store.get(&check_key(9), 10).await, Err(Error::Missing(_))));
    store.get(&check_key(0), 10).await.unwrap();
    assert_eq!(count(Operation::Read), Some((2, 0, 0)), "absence is an answer");
    let listed: Vec<_> = store.wrapped(|objects| objects).list("checks/", None).try_collect().await.unwrap();
    assert_eq!((listed.len(), count(Operation::List)), (2, Some((1, 0, 0))), "a rebuilt store counts on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conforms(&memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_conforms() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&format!("file://{}/not/yet/there~%20x", root.path().display())).await;
    assert!(matches!(store.get(&check_key(1), 10).await, Err(Error::Missing(_))), "reading creates nothing");
    assert!(!root.path().join("not").exists());
    conforms(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_server_conforms() {
    let endpoint = server::Server::start().await;
    let url = format!("s3://{}/some/prefix?endpoint={endpoint}&anonymous=true", server::BUCKET);
    conforms(&open(&url).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_minio_conforms() {
    let Some(minio) = minio::Minio::find().await else {
        assert!(std::env::var_os("DURAMEN_REQUIRE_MINIO").is_none(), "there is no MinIO, and it is required");
        println!("no MinIO here: set DURAMEN_TEST_S3_ENDPOINT, or put minio on PATH");
        return;
    };
    let id = Uuid::from_bytes(Random::from_system().bytes16());
    let clock = Arc::new(SystemClock::new());
    let prefix = Path::from(format!("run-{id}"));
    let store =
        Store::new(Arc::clone(&minio.objects) as Arc<dyn ObjectStore>, prefix, clock, Random::from_seed(9));
    conforms(&store.with_limits(limits())).await;
}

async fn conforms(store: &Store) {
    creating_is_final(store).await;
    one_of_many_creators_wins(store).await;
    reads_are_exact(store).await;
    listing_is_in_order(store).await;
    lost_answers_are_settled(store).await;
    large_objects_are_whole(store).await;
    let report = store.check().await;
    assert!(report.passed(), "{report:?}");
}

async fn creating_is_final(store: &Store) {
    let key = check_key(1);
    let mine = Bytes::from_static(b"mine");
    store.create(&key, mine.clone()).await.unwrap();
    store.create(&key, mine.clone()).await.expect("the same bytes again are done already");
    let error = store.create(&key, Bytes::from_static(b"hers")).await.unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    let error = store.create(&key, Bytes::from_static(b"longer than mine")).await.unwrap_err();
    assert!(
        matches!(error, Error::Exists(_)) && !error.is_retryable() && !error.may_have_had_effect(),
        "{error}"
    );
    assert_eq!(store.get(&key, 100).await.unwrap(), mine);
    store.delete(&key).await.unwrap();
    store.delete(&key).await.expect("deleting what is not there is no error");
    assert_eq!(store.get_if_present(&key, 100).await.unwrap(), None);
}

async fn one_of_many_creators_wins(store: &Store) {
    let key = check_key(2);
    let writers = (0..8_u8).map(|writer| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move { (writer, store.create(&key, Bytes::from(vec![writer; 1000])).await) })
    });
    let outcomes: Vec<_> = futures::future::try_join_all(writers).await.unwrap();
    let winners: Vec<_> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(writer, _)| *writer).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert!(
        outcomes.iter().all(|(_, outcome)| matches!(outcome, Ok(()) | Err(Error::Exists(_)))),
        "{outcomes:?}"
    );
    assert_eq!(store.get(&key, 1000).await.unwrap(), vec![winners[0]; 1000]);
    store.delete(&key).await.unwrap();
}

async fn reads_are_exact(store: &Store) {
    let key = check_key(3);
    let error = store.get(&key, 100).await.unwrap_err();
    assert!(error.is_missing() && !error.is_retryable(), "{error}");
    assert!(store.size(&key).await.unwrap_err().is_missing());
    store.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.size(&key).await.unwrap(), 10);
    assert_eq!(store.get_range(&key, 3..7).await.unwrap(), "3456");
    assert_eq!(store.get_range(&key, 9..10).await.unwrap(), "9");
    assert_eq!(store.get_range(&key, 4..4).await.unwrap(), "");
    for beyond in [8..12, 10..11, 20..30] {
        let error = store.get_range(&key, beyond.clone()).await.unwrap_err();
        assert!(matches!(error, Error::WrongSize { found: 10, .. }), "{beyond:?}: {error}");
    }
    let error = store.get(&key, 9).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 10, limit: 9, .. }), "{error}");
    store.delete(&key).await.unwrap();
}

async fn listing_is_in_order(store: &Store) {
    let times: Vec<u64> = (0..30).map(|n| n * 7919 % 30 * 1000).collect();
    for time in &times {
        store.create(&closed_key(*time), Bytes::from_static(b"x")).await.unwrap();
    }
    store.create(&check_key(4), Bytes::from_static(b"elsewhere")).await.unwrap();
    let listed = |after: Option<String>| {
        let store = store.clone();
        async move {
            let objects = store.list("main/closed/", after.as_deref());
            objects.map_ok(|object| object.path).try_collect::<Vec<_>>().await.unwrap()
        }
    };
    let expected: Vec<_> = (0..30).map(|n| closed_key(n * 1000).to_string()).collect();
    assert_eq!(listed(None).await, expected);
    assert_eq!(listed(Some(expected[11].clone())).await, expected[12..]);
    assert_eq!(listed(Some(closed_key(11_500).to_string())).await, expected[12..]);
    assert_eq!(listed(Some(expected[29].clone())).await, [""; 0]);
    let nothing: Vec<_> = store.list("main/nowhere/", None).collect().await;
    assert!(nothing.is_empty(), "{nothing:?}");
    let everything: Vec<_> = store.list("", None).try_collect().await.unwrap();
    assert_eq!(everything.len(), 31);
    assert!(everything.iter().all(|object| object.key.is_some()), "{everything:?}");
    for object in everything {
        store.delete(&object.key.unwrap()).await.unwrap();
    }
}

async fn lost_answers_are_settled(store: &Store) {
    let mine = Bytes::from_static(b"mine");
    let cases = [
        (vec![Fault::TimesOutAfterSuccess], true),
        (vec![Fault::TimesOutBefore, Fault::TimesOutBefore], true),
        (vec![Fault::TimesOutBefore, Fault::TimesOutAfterSuccess], true),
        (vec![Fault::AlreadyExistsAfterSuccess], true),
        (vec![Fault::AlreadyExistsWithoutReason], true),
        (vec![Fault::AnotherWins(Bytes::from_static(b"hers"))], false),
        (vec![Fault::TimesOutBefore, Fault::AnotherWins(Bytes::from_static(b"her own"))], false),
    ];
    for (number, (script, wins)) in (100..).zip(cases) {
        let key = check_key(number);
        let wrapped = store.wrapped(|inner| {
            let faulty = Faulty::new(inner);
            faulty.script.lock().extend(script.iter().cloned());
            Arc::new(faulty)
        });
        let outcome = wrapped.create(&key, mine.clone()).await;
        assert_eq!(outcome.is_ok(), wins, "{script:?}: {outcome:?}");
        assert_eq!(store.get(&key, 100).await.unwrap() == mine, wins, "{script:?}");
        if let Err(error) = outcome {
            assert!(matches!(error, Error::Exists(_)), "{script:?}: {error}");
        }
        store.delete(&key).await.unwrap();
    }
}

async fn large_objects_are_whole(store: &Store) {
    let key = check_key(5);
    let bytes: Bytes =
        (0..(64_u32 << 18)).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    assert_eq!(bytes.len(), 64 << 20);
    store.create_verified(&key, bytes.clone(), 4096).await.unwrap();
    let end = 64_u64 << 20;
    assert_eq!(store.get_range(&key, end - 5000..end).await.unwrap(), bytes.slice(bytes.len() - 5000..));
    assert_eq!(blake3::hash(&store.get(&key, end).await.unwrap()), blake3::hash(&bytes));
    store.create(&key, bytes.clone()).await.expect("the same 64 MiB again");
    let mut other = bytes.to_vec();
    other[60 << 20] ^= 1;
    assert!(matches!(store.create(&key, other.into()).await, Err(Error::Exists(_))));
    store.delete(&key).await.unwrap();
}

#[tokio::test]
async fn a_request_without_an_answer_ends_at_its_deadline() {
    let (store, faults) = faulty(&[Fault::HangsAfterSuccess]);
    let store = store.with_limits(Limits { request_timeout: Duration::from_millis(50), ..limits() });
    store.create(&check_key(1), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(faults.puts.load(Ordering::SeqCst), 1, "read back, not written again");
}

#[tokio::test]
async fn a_store_that_stays_away_is_reported_with_its_attempts() {
    let (store, faults) = faulty(&[const { Fault::TimesOutBefore }; 4]);
    let error = store.create(&check_key(1), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 4, .. }), "{error}");
    assert!(error.is_retryable() && error.may_have_had_effect());
    assert_eq!(faults.puts.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_store_that_lies_about_success_is_found_out() {
    for fault in [Fault::Lies, Fault::Alters] {
        let (store, _) = faulty(std::slice::from_ref(&fault));
        let error =
            store.create_verified(&check_key(1), Bytes::from_static(b"0123456789"), 4).await.unwrap_err();
        assert!(matches!(error, Error::AlteredInStore(_)), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_store_that_overwrites_fails_its_check() {
    let mut objects = Faulty::new(Arc::new(InMemory::new()));
    objects.overwrites = true;
    let report = over(Arc::new(objects)).check().await;
    assert!(!report.passed());
    assert_eq!(report.probes[0].outcome, ProbeOutcome::Passed);
    assert!(matches!(&report.probes[1].outcome, ProbeOutcome::Failed(why) if why.contains("If-None-Match")));
    assert_eq!(report.probes[2].outcome, ProbeOutcome::Skipped);
}

#[tokio::test]
async fn s3_errors_say_what_to_do() {
    let endpoint = server::Server::start().await;
    let store =
        async |bucket: &str| open(&format!("s3://{bucket}/p?endpoint={endpoint}&anonymous=true")).await;
    let put = async |bucket: &str| {
        store(bucket).await.create(&check_key(1), Bytes::from_static(b"x")).await.unwrap_err()
    };
    let missing = put("missing").await;
    assert!(matches!(missing, Error::NoBucket(_)) && missing.to_string().contains("create it"), "{missing}");
    let denied = put("denied").await;
    assert!(
        matches!(denied, Error::Denied { .. }) && denied.to_string().contains("s3:PutObject"),
        "{denied}"
    );
    let busy = put("busy").await;
    assert!(matches!(busy, Error::Throttled { attempts: 4, .. }) && busy.is_retryable(), "{busy}");
    let listed = store("denied").await.list("checks/", None).next().await.unwrap().unwrap_err();
    assert!(
        matches!(listed, Error::Denied { .. }) && listed.to_string().contains("s3:ListBucket"),
        "{listed}"
    );
    let nobody = open("s3://bucket/p?endpoint=http://127.0.0.1:1&anonymous=true").await;
    let refused = nobody.get(&check_key(1), 10).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }) && !refused.may_have_had_effect(), "{refused}");
}

#[tokio::test]
async fn credentials_that_are_wrong_are_called_wrong_and_nothing_is_said_of_an_object_that_is_not_there() {
    let endpoint = server::Server::start().await;
    let store =
        async |bucket: &str| open(&format!("s3://{bucket}/p?endpoint={endpoint}&anonymous=true")).await;
    for bucket in ["wrong-key", "wrong-secret"] {
        let report = store(bucket).await.check().await;
        let ProbeOutcome::Failed(why) = &report.probes[0].outcome else { panic!("{report:?}") };
        assert!(why.contains("check the access key") && !why.contains("s3:PutObject"), "{why}");
        let rest = report.probes[1..].iter().map(|probe| &probe.outcome);
        assert!(rest.clone().all(|outcome| *outcome == ProbeOutcome::Skipped), "{report:?}");
        assert_eq!(rest.count(), 5);
        let listed = store(bucket).await.list("checks/", None).next().await.unwrap().unwrap_err();
        assert!(listed.to_string().contains("check the access key"), "{listed}");
    }
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_says_so() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::File::create(&file).unwrap();
    let store = open(&format!("file://{}/below", file.display())).await;
    let error = store.create(&check_key(1), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. } | Error::Denied { .. }), "{error:?}");
}
