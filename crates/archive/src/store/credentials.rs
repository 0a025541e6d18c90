//! Credentials for S3 from the whole chain of `aws-config`: environment, profile, SSO, web identity, ECS, IMDS.

mod failure;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use duramen_types::{Clock, HybridTime};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

pub(crate) use self::failure::{NoCredentials, causes};

/// Fetched anew this long before they expire, so that no request is signed with ones about to lapse.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// How long those that are still valid are used after new ones were not to be had.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Directives for a program's `tracing` filter: what this crate's errors say anyway, a library would also print, with the
/// whole answer of a server.
pub const LOG_DIRECTIVES: &str = "aws_config::meta=error,aws_config::profile=error,aws_config::sso=error,aws_config::web_identity_token=error";

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
    expires_at: HybridTime,
}

impl Chain {
    pub(crate) fn new(provider: SharedCredentialsProvider, clock: Arc<dyn Clock>) -> Self {
        Self { provider, clock, cached: Mutex::new(None) }
    }
}

impl Cached {
    fn of(fresh: &Credentials) -> Self {
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        match fresh.expiry().and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            Some(since_1970) => {
                let expires_at = HybridTime::ZERO.after(since_1970);
                Self { credential, refresh_at: expires_at.before(REFRESH_BEFORE), expires_at }
            }
            None => Self { credential, refresh_at: HybridTime::MAX, expires_at: HybridTime::MAX },
        }
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
        let error = match self.provider.provide_credentials().await {
            Ok(fresh) => {
                let fresh = cached.insert(Cached::of(&fresh));
                return Ok(Arc::clone(&fresh.credential));
            }
            Err(error) => NoCredentials::because_of(&error),
        };
        let now = self.clock.now();
        match cached.as_mut() {
            // What gives credentials may be away for a moment, and these last until then.
            Some(found) if now < found.expires_at => {
                tracing::warn!(%error, "new credentials can't be had; those of before are used while they last");
                found.refresh_at = now.after(ASK_AGAIN).min(found.expires_at);
                Ok(Arc::clone(&found.credential))
            }
            _ => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
        is_away: Arc<AtomicBool>,
    }

    impl ProvideCredentials for Hourly {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.is_away.load(Ordering::SeqCst) {
                let error = CredentialsError::provider_error("StatusCode(503)");
                return future::ProvideCredentials::ready(Err(error));
            }
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
        let provider = SharedCredentialsProvider::new(Hourly { time: time.clone(), ..Hourly::default() });
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
    async fn credentials_are_used_until_they_expire_while_new_ones_cannot_be_had() {
        let time = Time::default();
        let hourly = Hourly { time: time.clone(), ..Hourly::default() };
        let is_away = Arc::clone(&hourly.is_away);
        let chain = Chain::new(SharedCredentialsProvider::new(hourly), Arc::new(time.clone()));
        let name_at = async |seconds: u64| {
            time.0.store(seconds, Ordering::SeqCst);
            chain.get_credential().await.map(|credential| credential.key_id.clone())
        };
        assert_eq!(name_at(0).await.unwrap(), "0");
        is_away.store(true, Ordering::SeqCst);
        assert_eq!(name_at(3300).await.unwrap(), "0");
        assert_eq!(name_at(3599).await.unwrap(), "0");
        let at = crate::At { operation: crate::Operation::Read, key: "k".into(), url: "s3://b".into() };
        let error = super::super::classify::classify(at, &name_at(3600).await.unwrap_err());
        assert!(matches!(error, crate::Error::NoCredentialsNow { .. }), "{error}");
        assert!(error.is_retryable() && !error.may_have_had_effect(), "{error}");
        // Back again, the next request has new ones; and not each request asks while it is away.
        is_away.store(false, Ordering::SeqCst);
        assert_eq!(name_at(3601).await.unwrap(), "1");
        is_away.store(true, Ordering::SeqCst);
        assert_eq!(name_at(6902).await.unwrap(), "1");
        is_away.store(false, Ordering::SeqCst);
        assert_eq!(name_at(6931).await.unwrap(), "1");
        assert_eq!(name_at(6932).await.unwrap(), "2");
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
