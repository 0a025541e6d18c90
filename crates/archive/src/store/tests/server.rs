//! An S3 server in this process: `s3s` speaks the protocol, the objects are in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput,
    StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

/// The one bucket that exists; `denied` refuses, `busy` throttles, all others are missing.
pub(super) const BUCKET: &str = "bucket";
/// Few keys a page, so that listings have many pages.
const PAGE: usize = 7;

#[derive(Default)]
pub(super) struct Server {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl Server {
    /// Serves on a free port of this machine until the runtime ends; gives the endpoint.
    pub(super) async fn start() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = S3ServiceBuilder::new(Self::default()).build();
        tokio::spawn(async move {
            let http = Arc::new(Builder::new(TokioExecutor::new()));
            while let Ok((socket, _)) = listener.accept().await {
                let (http, service) = (Arc::clone(&http), service.clone());
                tokio::spawn(async move {
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        format!("http://{address}")
    }

    fn get(&self, bucket: &str, key: &str) -> S3Result<Bytes> {
        check(bucket)?;
        self.objects.lock().get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

fn check(bucket: &str) -> S3Result<()> {
    match bucket {
        BUCKET => Ok(()),
        "denied" => Err(s3_error!(AccessDenied)),
        "wrong-key" => Err(s3_error!(InvalidAccessKeyId)),
        "wrong-secret" => Err(s3_error!(SignatureDoesNotMatch)),
        "busy" => Err(s3_error!(SlowDown)),
        _ => Err(s3_error!(NoSuchBucket)),
    }
}

fn size(bytes: &Bytes) -> Option<i64> {
    i64::try_from(bytes.len()).ok()
}

fn stamp() -> Option<Timestamp> {
    Some(Timestamp::from(std::time::UNIX_EPOCH))
}

#[async_trait::async_trait]
impl S3 for Server {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        check(&input.bucket)?;
        assert!(input.checksum_sha256.is_some(), "every upload to S3 carries its checksum");
        let mut content = Vec::new();
        let mut body = input.body.unwrap_or_else(|| StreamingBlob::from(Body::empty()));
        while let Some(piece) = body.try_next().await.map_err(|_| s3_error!(IncompleteBody))? {
            content.extend_from_slice(&piece);
        }
        // Check and insert under one lock: two writers never both win.
        let mut objects = self.objects.lock();
        if input.if_none_match.is_some_and(|condition| condition.is_any()) && objects.contains_key(&input.key)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        objects.insert(input.key, content.into());
        let e_tag = Some(ETag::Strong("0".to_owned()));
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let whole = self.get(&input.bucket, &input.key)?;
        let length = u64::try_from(whole.len()).unwrap();
        let (content, content_range) = match input.range {
            None => (whole, None),
            Some(range) => {
                let range = range.check(length)?;
                let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                let (from, to) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
                (whole.slice(from..to), Some(text))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: size(&content),
            content_range,
            body: Some(StreamingBlob::from(Body::from(content))),
            last_modified: stamp(),
            e_tag: Some(ETag::Strong("0".to_owned())),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let content = self.get(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: size(&content),
            last_modified: stamp(),
            e_tag: Some(ETag::Strong("0".to_owned())),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        check(&request.input.bucket)?;
        self.objects.lock().remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        check(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let objects = self.objects.lock();
        let mut found = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let contents: Vec<_> = found
            .by_ref()
            .take(PAGE)
            .map(|(key, content)| Object {
                key: Some(key.clone()),
                size: size(content),
                last_modified: stamp(),
                e_tag: Some(ETag::Strong("0".to_owned())),
                ..Default::default()
            })
            .collect();
        let next = contents.last().and_then(|last| last.key.clone()).filter(|_| found.next().is_some());
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            contents: Some(contents),
            name: Some(input.bucket),
            prefix: Some(prefix),
            ..Default::default()
        }))
    }
}
