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
        let fresh = self.provider.provide_credentials().await.map_err(|error| {
            object_store::Error::Generic { store: "S3", source: Box::new(NoCredentials(causes(&error))) }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;

    /// Seconds since 1970, set by the test.
    #[derive(Debug, Clone, Default)]
    struct Time(Arc<AtomicU64>);

    impl Clock for Time {
        fn now(&self) -> HybridTime {
            HybridTime::ZERO.after(Duration::from_secs(self.0.load(Ordering::SeqCst)))
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    /// Gives credentials that last an hour, named by how many were given.
    #[derive(Debug, Default)]
    struct Hourly {
        time: Time,
        given: AtomicU64,
    }

    impl ProvideCredentials for Hourly {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let given = self.given.fetch_add(1, Ordering::SeqCst);
            let expiry = UNIX_EPOCH + self.time.monotonic() + Duration::from_secs(3600);
            let name = given.to_string();
            future::ProvideCredentials::ready(Ok(Credentials::new(
                name,
                "secret",
                None,
                Some(expiry),
                "test",
            )))
        }
    }

    #[derive(Debug)]
    struct Nothing;

    impl ProvideCredentials for Nothing {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no profile, no role")))
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_they_expire() {
        let time = Time::default();
        let provider =
            SharedCredentialsProvider::new(Hourly { time: time.clone(), given: AtomicU64::new(0) });
        let chain = Chain::new(provider, Arc::new(time.clone()));
        let name_at = async |seconds: u64| {
            time.0.store(seconds, Ordering::SeqCst);
            chain.get_credential().await.unwrap().key_id.clone()
        };
        assert_eq!(name_at(0).await, "0");
        assert_eq!(name_at(3299).await, "0");
        assert_eq!(name_at(3300).await, "1");
        assert_eq!(name_at(3301).await, "1");
    }

    #[tokio::test]
    async fn without_credentials_the_error_says_where_they_come_from() {
        let chain = Chain::new(SharedCredentialsProvider::new(Nothing), Arc::new(Time::default()));
        let error = chain.get_credential().await.unwrap_err();
        let at = crate::At { operation: crate::Operation::Read, key: "k".into(), url: "s3://b".into() };
        let error = super::super::classify::classify(at, &error);
        assert!(matches!(error, crate::Error::NoCredentials { .. }) && !error.is_retryable(), "{error}");
        assert!(
            error.to_string().contains("no profile, no role") && error.to_string().contains("AWS_PROFILE"),
            "{error}"
        );
    }
}
