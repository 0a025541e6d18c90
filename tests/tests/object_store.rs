//! The S3 servers that other tests stand on keep what those tests take for granted.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::TcpStream;
use std::path::Path as FilePath;
use std::process::Command;
use std::sync::Arc;

use duramen_tests::{Bucket, S3Server, s3_server};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

/// The server of this run, and the in-process one where that is another.
fn servers() -> Vec<Arc<S3Server>> {
    vec![s3_server().unwrap(), Arc::new(S3Server::in_process().unwrap())]
}

async fn create(bucket: &Bucket, key: &Path, value: &'static str) -> object_store::Result<()> {
    let payload = PutPayload::from_static(value.as_bytes());
    bucket.store().put_opts(key, payload, PutMode::Create.into()).await.map(drop)
}

#[tokio::test]
async fn of_many_creations_of_one_object_exactly_one_succeeds() {
    for server in servers() {
        let bucket = server.bucket().unwrap();
        for round in 0..20 {
            let key = Path::from(format!("manifest/{round}"));
            let outcomes = futures::future::join_all((0..8).map(|_| create(&bucket, &key, "mine"))).await;
            let refused =
                outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::AlreadyExists { .. }))).count();
            assert_eq!(refused, 7, "{:?}: {outcomes:?}", server.kind());
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{:?}", server.kind());
        }
    }
}

#[tokio::test]
async fn a_refused_creation_leaves_the_object_as_it_was() {
    for server in servers() {
        let bucket = server.bucket().unwrap();
        let key = Path::from("archive.json");
        create(&bucket, &key, "first").await.unwrap();
        create(&bucket, &key, "second").await.unwrap_err();
        let stored = bucket.store().get(&key).await.unwrap().bytes().await.unwrap();
        assert_eq!(stored, "first", "{:?}", server.kind());
    }
}

#[tokio::test]
async fn ranges_and_listings_give_what_was_stored() {
    for server in servers() {
        let bucket = server.bucket().unwrap();
        for name in ["a/1", "a/2", "b/1"] {
            create(&bucket, &Path::from(name), "0123456789").await.unwrap();
        }
        let range = bucket.store().get_range(&Path::from("a/2"), 3..6).await.unwrap();
        assert_eq!(range, "345", "{:?}", server.kind());
        let listed: Vec<_> = bucket.store().list(Some(&Path::from("a"))).try_collect().await.unwrap();
        let mut keys: Vec<_> = listed.iter().map(|object| object.location.to_string()).collect();
        keys.sort();
        assert_eq!(keys, ["a/1", "a/2"], "{:?}", server.kind());
    }
}

#[tokio::test]
async fn one_bucket_does_not_see_another_s_objects() {
    for server in servers() {
        let (one, other) = (server.bucket().unwrap(), server.bucket().unwrap());
        let key = Path::from("key");
        create(&one, &key, "here").await.unwrap();
        assert!(matches!(other.store().head(&key).await, Err(Error::NotFound { .. })), "{:?}", server.kind());
    }
}

#[test]
fn a_minio_ends_with_its_handle_and_takes_its_data_along() {
    let Some(minio) = S3Server::minio().unwrap() else { return };
    let address = minio.endpoint().strip_prefix("http://").unwrap().to_owned();
    TcpStream::connect(&address).expect("it runs");
    drop(minio);
    TcpStream::connect(&address).expect_err("it is gone");
}

#[test]
fn building_minio_without_go_says_what_to_install() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("bin");
    std::fs::create_dir(&path).unwrap();
    for tool in ["awk", "dirname"] {
        let dirs = std::env::var_os("PATH").unwrap();
        let file = std::env::split_paths(&dirs).map(|dir| dir.join(tool)).find(|file| file.exists()).unwrap();
        std::os::unix::fs::symlink(file, path.join(tool)).unwrap();
    }
    let build = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("minio/build");
    let output = Command::new("/bin/bash")
        .arg(build)
        .env("PATH", &path)
        .env("XDG_CACHE_HOME", scratch.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("install Go 1.24 or newer"));
}
