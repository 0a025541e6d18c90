//! Credentials for S3 from the whole chain of `aws-config`: environment, profile, SSO, web identity, ECS, IMDS.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use duramen_types::{Clock, HybridTime};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

/// Fetched anew this long before they expire, so that no request is signed with ones about to lapse.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);

/// What the chain gave, or why it gave nothing; found again by the classification of errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredentials(pub String);

#[derive(Debug)]
pub(crate) struct Chain {
    provider: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    /// Only one request at a time asks the chain; the others wait for its answer.
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    credential: Arc<AwsCredential>,
    refresh_at: HybridTime,
}

impl Chain {
    pub(crate) fn new(provider: SharedCredentialsProvider, clock: Arc<dyn Clock>) -> Self {
        Self { provider, clock, cached: Mutex::new(None) }
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        if let Some(found) = cached.as_ref()
            && self.clock.now() < found.refresh_at
        {
            return Ok(Arc::clone(&found.credential));
        }
        let fresh = self.provider.provide_credentials().await.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(NoCredentials(causes(&error))),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        let refresh_at = match fresh.expiry().and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            Some(since_1970) => HybridTime::ZERO.after(since_1970).before(REFRESH_BEFORE),
            None => HybridTime::MAX,
        };
        *cached = Some(Cached { credential: Arc::clone(&credential), refresh_at });
        Ok(credential)
    }
}

/// An error with everything that caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many libraries repeat their cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
