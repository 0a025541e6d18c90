//! Something that gives out credentials over HTTP, as AWS has it in several places.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use duramen_client::when;
use duramen_tests::Session;
use duramen_types::{Clock as _, SystemClock};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }
}

/// Status and body.
pub type Answer = (u16, String);

type Answers = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A service on a loopback port; it answers as it was told last, and keeps what it was asked.
#[derive(Clone)]
pub struct Service {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<Arc<Answers>>>,
}

impl Service {
    pub async fn start(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no loopback port is free")?;
        let service = Self {
            address: listener.local_addr()?,
            asked: Arc::default(),
            answers: Arc::new(Mutex::new(Arc::new(answers))),
        };
        tokio::spawn(service.clone().serve(listener));
        Ok(service)
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let this = self.clone();
            let service = service_fn(move |request| {
                let this = this.clone();
                async move { this.answer(request).await }
            });
            tokio::spawn(async move {
                // A connection that breaks is the client's to notice.
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Result<Response<String>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let asked = Asked {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
                .collect::<Result<_>>()?,
            body: String::from_utf8(body.to_vec())?,
        };
        let answers = Arc::clone(&self.answers.lock());
        let (status, body) = answers(&asked);
        self.asked.lock().push(asked);
        // Only instance metadata looks at the header: how long its token lasts.
        Ok(Response::builder()
            .status(status)
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            .body(body)?)
    }

    /// Answers like this from now on.
    pub fn answer_with(&self, answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.answers.lock() = Arc::new(answers);
    }

    /// What it was asked since the last time; taken.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The time `later` from now.
fn expiration(later: Duration) -> Result<String> {
    let at = SystemClock::new().now().after(later);
    Ok(when::format(at))
}

/// A session as containers and instance metadata answer it.
pub fn json(session: &Session, lasts: Duration) -> Result<String> {
    let answer = serde_json::json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret_key,
        "Token": session.token,
        "Expiration": expiration(lasts)?,
    });
    Ok(answer.to_string())
}

/// A session as STS answers it to `action`.
pub fn xml(action: &str, session: &Session, lasts: Duration) -> Result<String> {
    let Session { access_key, secret_key, token } = session;
    let expiration = expiration(lasts)?;
    Ok(format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{secret_key}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expiration}</Expiration>\
         </Credentials></{action}Result></{action}Response>"
    ))
}

/// How STS refuses.
pub fn xml_refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}
