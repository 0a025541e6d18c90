//! Credentials that a server gives out for a while.

use anyhow::{Context, Result, bail};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use crate::s3::{Credentials, REGION, ask};
use crate::{Bucket, ServerKind};

/// Temporary credentials of an S3 server: of no use without their token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub access_key: String,
    pub secret_key: String,
    pub token: String,
}

impl Bucket {
    /// New temporary credentials that may do everything, from the server's own STS. An in-process server has none: there they
    /// are the server's own, and a token that it doesn't look at.
    pub fn session(&self) -> Result<Session> {
        let Credentials { access_key, secret_key } = self.server().credentials().clone();
        if self.server().kind() == ServerKind::InProcess {
            return Ok(Session { access_key, secret_key, token: "unused".to_owned() });
        }
        let credential = AwsCredential { key_id: access_key, secret_key, token: None };
        let body = "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600".to_owned();
        let mut request = hyper::Request::post(format!("{}/", self.server().endpoint()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(HttpRequestBody::from(body.clone()))?;
        AwsAuthorizer::new(&credential, "sts", REGION).try_authorize(&mut request, None)?;
        let (status, answer) = ask(request.map(|_| body))?;
        if status != 200 {
            bail!("{} gives no session: {status} {answer}", self.server().endpoint());
        }
        let element = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        let element = |name: &str| element(name).with_context(|| format!("no {name} in {answer}"));
        Ok(Session {
            access_key: element("AccessKeyId")?,
            secret_key: element("SecretAccessKey")?,
            token: element("SessionToken")?,
        })
    }
}
