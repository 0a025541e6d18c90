//! From a checked URL to an object store of its kind.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_types::service_config::ServiceConfigKey;
use duramen_types::Clock;
use object_store::aws::{AmazonS3Builder, Checksum as S3Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::credentials::{Chain, causes};
use super::directory::Directory;
use super::options::{Checksum, Location, Scheme, is_this_machine};
use crate::{Error, Result};

/// The store that a location names, and the prefix in it.
pub(super) async fn open(
    location: &Location,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let prefix = match location.scheme {
        // The directory itself is the root of the store.
        Scheme::File => Path::default(),
        _ => Path::from_url_path(location.url.path()).map_err(|error| refused(location, &error))?,
    };
    let objects: Arc<dyn ObjectStore> = match location.scheme {
        Scheme::Memory => Arc::new(InMemory::new()),
        Scheme::File => {
            let root = location.url.to_file_path().map_err(|()| Error::Config {
                url: Arc::clone(&location.shown),
                problems: vec!["it names no directory".to_owned()],
            })?;
            Arc::new(Directory::new(root))
        }
        Scheme::S3 => s3(location, clock).await?,
        Scheme::Gcs => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&location.bucket)
                .with_client_options(client(location, false))
                .with_retry(no_retries())
                .build()
                .map_err(|error| refused(location, &error))?,
        ),
        Scheme::Azure => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_container_name(&location.bucket)
                .with_client_options(client(location, location.options.allow_http))
                .with_retry(no_retries())
                .build()
                .map_err(|error| refused(location, &error))?,
        ),
    };
    Ok((objects, prefix))
}

fn refused(location: &Location, error: &dyn std::error::Error) -> Error {
    Error::Config { url: Arc::clone(&location.shown), problems: vec![causes(error)] }
}

async fn s3(location: &Location, clock: &Arc<dyn Clock>) -> Result<Arc<dyn ObjectStore>> {
    let options = &location.options;
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if options.anonymous {
        loader = loader.no_credentials();
    }
    let environment = loader.load().await;
    let endpoint = options.endpoint.clone().or_else(|| configured_endpoint(&environment));
    let local =
        endpoint.as_deref().and_then(|url| Url::parse(url).ok()).is_some_and(|url| is_this_machine(&url));
    let region = environment.region().map_or("us-east-1", Region::as_ref);
    let path_style = options.path_style.unwrap_or(endpoint.is_some());
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!path_style)
        .with_skip_signature(options.anonymous)
        // One request an object says for each whether it may be deleted; a bulk request hides that in its answer.
        .with_disable_bulk_delete(true)
        .with_client_options(client(location, options.allow_http || local))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    match options.checksum {
        Checksum::Sha256 => builder = builder.with_checksum_algorithm(S3Checksum::SHA256),
        Checksum::Crc64nvme => builder = builder.with_checksum_algorithm(S3Checksum::CRC64NVME),
        Checksum::None => {}
    }
    if let Some(provider) = environment.credentials_provider()
        && !options.anonymous
    {
        builder = builder.with_credentials(Arc::new(Chain::new(provider, Arc::clone(clock))));
    }
    Ok(Arc::new(builder.build().map_err(|error| refused(location, &error))?))
}

/// What the environment or the profile names for S3, else for all services.
fn configured_endpoint(environment: &SdkConfig) -> Option<String> {
    let of_s3 = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let of_s3 = of_s3.build().ok().zip(environment.service_config());
    let of_s3 = of_s3.and_then(|(key, settings)| settings.load_config(key));
    of_s3.or_else(|| environment.endpoint_url().map(str::to_owned))
}

/// [`super::Store`] has the deadline of each request: it knows how much the request moves.
fn client(location: &Location, allow_http: bool) -> ClientOptions {
    let connect = location.options.request_timeout.min(Duration::from_secs(5));
    ClientOptions::new().with_allow_http(allow_http).with_timeout_disabled().with_connect_timeout(connect)
}

/// [`super::Store`] tries again, for every kind of store alike; two loops would multiply.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}
