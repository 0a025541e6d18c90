//! How to reach an archive: its URL, and the options that a URL's query or a configuration gives.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Error, Result};

/// How an object store is spoken to. Every field can also be a query parameter of the archive's URL, which wins:
/// `s3://bucket/prefix?endpoint=http://127.0.0.1:9000&path_style=true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// The server of an S3-compatible store, as a URL. Default: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or
    /// the profile's, else Amazon's.
    pub endpoint: Option<String>,
    /// Whether the bucket is part of the path instead of the host name. Default: `true` with an `endpoint`.
    pub path_style: Option<bool>,
    /// The region of an S3 bucket. Default: `AWS_REGION` or the profile's, else `us-east-1`.
    pub region: Option<String>,
    /// Whether an endpoint that is not this machine may be spoken to without TLS. Default: `false`.
    pub allow_http: bool,
    /// Whether S3 requests go unsigned, for a public bucket. Default: `false`.
    pub anonymous: bool,
    /// The checksum that S3 verifies on arrival and keeps. Default: `sha256`, which the signature needs anyway.
    pub checksum: Checksum,
    /// How long one request may take, plus one second for each MiB that it moves. Default: `30s`.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How often a request is tried before its error is given to the caller, at least 1. Default: 6.
    pub attempts: u32,
    /// The longest pause between two attempts; pauses start at 100 ms and double. Default: `10s`.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

/// The checksum sent with every upload to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    Sha256,
    Crc64nvme,
    /// For a store that refuses checksum headers: the signature still covers each upload.
    None,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            path_style: None,
            region: None,
            allow_http: false,
            anonymous: false,
            checksum: Checksum::Sha256,
            request_timeout: Duration::from_secs(30),
            attempts: 6,
            max_backoff: Duration::from_secs(10),
        }
    }
}

mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?} is no duration: {error}")))
    }
}

/// The kind of store that a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Memory,
    File,
    S3,
    Gcs,
    Azure,
}

/// An archive's URL, taken apart and checked.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub scheme: Scheme,
    /// Without query and user: fit to be shown.
    pub shown: Arc<str>,
    /// The bucket or container; empty for memory and directories.
    pub bucket: String,
    pub url: Url,
    pub options: StoreOptions,
}

impl StoreOptions {
    /// Every mistake in these options for the archive at `url`, all at once; nothing is contacted.
    pub fn validate(&self, url: &str) -> Result<()> {
        Location::parse(url, self).map(|_| ())
    }

    fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        let flag = || match value {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{name}={value:?} is neither true nor false")),
        };
        let duration =
            || humantime::parse_duration(value).map_err(|error| format!("{name}={value:?}: {error}"));
        match name {
            "endpoint" => self.endpoint = Some(value.to_owned()),
            "path_style" => self.path_style = Some(flag()?),
            "region" => self.region = Some(value.to_owned()),
            "allow_http" => self.allow_http = flag()?,
            "anonymous" => self.anonymous = flag()?,
            "checksum" => {
                self.checksum = match value {
                    "sha256" => Checksum::Sha256,
                    "crc64nvme" => Checksum::Crc64nvme,
                    "none" => Checksum::None,
                    _ => return Err(format!("checksum={value:?} is none of sha256, crc64nvme, none")),
                }
            }
            "request_timeout" => self.request_timeout = duration()?,
            "attempts" => {
                self.attempts = value.parse().map_err(|_| format!("attempts={value:?} is no number"))?
            }
            "max_backoff" => self.max_backoff = duration()?,
            _ => return Err(format!("the URL has an unknown parameter {name:?}")),
        }
        Ok(())
    }

    fn problems(&self, scheme: Scheme, problems: &mut Vec<String>) {
        if scheme != Scheme::S3 {
            for (set, name) in [
                (self.endpoint.is_some(), "endpoint"),
                (self.path_style.is_some(), "path_style"),
                (self.region.is_some(), "region"),
                (self.anonymous, "anonymous"),
            ] {
                if set {
                    problems.push(format!("{name} applies to s3:// only"));
                }
            }
        }
        match self.endpoint.as_deref().map(Url::parse) {
            None => {}
            Some(Err(error)) => problems.push(format!("the endpoint is no URL: {error}")),
            Some(Ok(url)) => match url.scheme() {
                "https" => {}
                "http" if self.allow_http || is_this_machine(&url) => {}
                "http" => problems.push("the endpoint has no TLS: use https, or set allow_http".to_owned()),
                other => problems
                    .push(format!("the endpoint begins with {other}://, not with https:// or http://")),
            },
        }
        if self.request_timeout.is_zero() {
            problems.push("request_timeout is zero".to_owned());
        }
        if self.attempts == 0 {
            problems.push("attempts is zero: at least one is needed".to_owned());
        }
    }
}

/// Whether a URL's host is this machine, where TLS protects nothing.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Location {
    pub(crate) fn parse(text: &str, options: &StoreOptions) -> Result<Self> {
        let refuse = |shown: &str, problems| Err(Error::Config { url: shown.into(), problems });
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                let hint = "write file:///absolute/path, s3://bucket/prefix, gs://, az:// or memory:";
                return refuse(
                    text.split('?').next().unwrap_or(text),
                    vec![format!("it is no URL ({error}): {hint}")],
                );
            }
        };
        let shown = shown(&url);
        let scheme = match url.scheme() {
            "memory" => Scheme::Memory,
            "file" => Scheme::File,
            "s3" => Scheme::S3,
            "gs" => Scheme::Gcs,
            "az" => Scheme::Azure,
            other => {
                let problem = format!("{other}: is none of file:, s3:, gs:, az:, memory:");
                return refuse(&shown, vec![problem]);
            }
        };
        let mut problems = Vec::new();
        let mut options = options.clone();
        for (name, value) in url.query_pairs() {
            if let Err(problem) = options.set(&name, &value) {
                problems.push(problem);
            }
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        match scheme {
            Scheme::Memory => {}
            Scheme::File if !bucket.is_empty() => {
                problems.push(format!(
                    "{bucket:?} is taken for a host: a directory needs three slashes, file:///"
                ));
            }
            Scheme::File if url.to_file_path().is_err() => problems.push("it names no directory".to_owned()),
            Scheme::File => {}
            Scheme::S3 | Scheme::Gcs | Scheme::Azure if bucket.is_empty() => {
                problems.push("it names no bucket".to_owned());
            }
            Scheme::S3 | Scheme::Gcs | Scheme::Azure => {}
        }
        if !url.username().is_empty() || url.password().is_some() {
            problems
                .push("credentials do not belong into the URL: use the environment or a profile".to_owned());
        }
        options.problems(scheme, &mut problems);
        if problems.is_empty() {
            Ok(Self { scheme, shown: shown.into(), bucket, url, options })
        } else {
            refuse(&shown, problems)
        }
    }
}

fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // These fail only for URLs without a host, which hold no user either.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(url: &str) -> String {
        match Location::parse(url, &StoreOptions::default()) {
            Err(error) => error.to_string(),
            Ok(location) => panic!("accepted {location:?}"),
        }
    }

    #[test]
    fn the_query_of_a_url_sets_options() {
        let url =
            "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&path_style=true&region=eu-1&request_timeout=5s";
        let location = Location::parse(url, &StoreOptions::default()).unwrap();
        assert_eq!(&*location.shown, "s3://bucket/a/b");
        assert_eq!(location.options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(location.options.path_style, Some(true));
        assert_eq!(location.options.region.as_deref(), Some("eu-1"));
        assert_eq!(location.options.request_timeout, Duration::from_secs(5));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_secrets_are_not_shown() {
        let text = problems(
            "s3://key:secret@bucket/?endpoint=http://example.com&attempts=0&colour=red&anonymous=maybe",
        );
        for part in ["no TLS", "attempts is zero", "\"colour\"", "neither true nor false", "do not belong"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn urls_that_name_no_store_say_what_to_write() {
        assert!(problems("/var/archive").contains("write file:///absolute/path"));
        assert!(problems("ftp://host/x").contains("none of file:"));
        assert!(problems("file://var/archive").contains("three slashes"));
        assert!(problems("s3:///prefix").contains("names no bucket"));
        assert!(problems("memory:?region=x").contains("applies to s3:// only"));
    }

    #[test]
    fn options_round_trip_and_unknown_fields_are_refused() {
        let options = StoreOptions { attempts: 3, ..StoreOptions::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert!(text.contains("\"30s\""), "{text}");
        assert_eq!(serde_json::from_str::<StoreOptions>(&text).unwrap(), options);
        assert!(serde_json::from_str::<StoreOptions>("{\"endpiont\":\"x\"}").is_err());
    }
}
