//! What a configuration must keep beyond the type of each value.

use std::net::SocketAddr;

use duramen_archive::StoreOptions;
use tokio_cron_scheduler::Job;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::{Host, Url};

use super::Config;

/// Every rule that the configuration breaks, as (key, what to do).
pub(super) fn validate(config: &mut Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for setting in config.settings() {
        if let Some(limits) = setting.limits.filter(|limits| !limits.kept) {
            let value = setting.value.show().unwrap_or_default();
            let message =
                format!("{value} is out of range; it must be from {} to {}", limits.lowest, limits.highest);
            found.push((setting.key, message));
        }
    }
    listeners(config, &mut found);
    collector(config, &mut found);
    sizes(config, &mut found);
    archive(config, &mut found);
    cloudwatch(config, &mut found);
    log_level(config, &mut found);
    found
}

fn log_level(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let level = &config.telemetry.log_level;
    if let Err(error) = EnvFilter::builder().parse(level) {
        found.push(("telemetry.log_level", format!("{level:?}: {error}")));
        return;
    }
    // Any word is a valid filter, for what has this word as its name; alone it silences everything.
    let is_level = |part: &&str| part.contains(['=', '[']) || part.trim().parse::<LevelFilter>().is_ok();
    if let Some(part) = level.split(',').find(|part| !is_level(part)) {
        let levels = "off, error, warn, info, debug or trace";
        let message = format!(
            "{part:?} is no level: write {levels}, or a part of the program with its own, as in \"info,duramen=debug\""
        );
        found.push(("telemetry.log_level", message));
    }
}

fn collector(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let Some(endpoint) = &config.telemetry.otlp_endpoint else { return };
    let fits = Url::parse(endpoint).is_ok_and(|url| url.scheme() == "http" && url.has_host());
    if !fits {
        let message = format!(
            "{endpoint:?} is not the address of a collector like \"http://127.0.0.1:4317\" (https is not available)"
        );
        found.push(("telemetry.otlp_endpoint", message));
    }
}

fn listeners(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let listen = &config.listen;
    if listen.clients == listen.admin && listen.clients.port() != 0 {
        found.push((
            "listen.admin",
            format!("{} is the address for clients too; choose another", listen.admin),
        ));
    }
    let mut check = |key: &'static str, address: SocketAddr| {
        if !address.ip().is_loopback() && !listen.allow_insecure {
            let message = format!(
                "{address} can be reached from other machines, and there is no TLS and there are no tokens yet: \
                 whoever reaches it can read, write and delete everything. Listen on 127.0.0.1, or say \
                 --allow-insecure-listen where the network itself is protected"
            );
            found.push((key, message));
        }
    };
    check("listen.clients", listen.clients);
    check("listen.admin", listen.admin);
}

fn sizes(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let (log, wal) = (&config.log, &config.wal);
    if log.record_limit > log.batch_limit {
        found.push((
            "log.record_limit",
            "must not exceed log.batch_limit: a batch holds whole records".to_owned(),
        ));
    }
    if log.batch_limit > log.byte_budget {
        let message = "must be at least log.batch_limit: else the largest batch never fits".to_owned();
        found.push(("log.byte_budget", message));
    }
    if wal.segment_size.as_u64() < log.batch_limit.as_u64().saturating_mul(2) {
        let message = "must be at least twice log.batch_limit: an entry never spans two segments".to_owned();
        found.push(("wal.segment_size", message));
    }
}

fn archive(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let archive = &config.archive;
    let checked = archive.url.as_deref().map(|url| {
        check_url(url)?;
        // Its query has options too; those that are settings of their own are checked with them.
        let options = StoreOptions { allow_http: archive.allow_http, ..StoreOptions::default() };
        options.validate(url).map_err(|error| match error {
            duramen_archive::Error::Config { problems, .. } => problems.join("; "),
            error => error.to_string(),
        })
    });
    if let Some(Err(message)) = checked {
        found.push(("archive.url", message));
    }
    if let Some(endpoint) = archive.endpoint.as_deref() {
        match Url::parse(endpoint) {
            Ok(url) if url.scheme() == "http" && !archive.allow_http && !is_here(&url) => found.push((
                "archive.endpoint",
                "is not encrypted: use https://, or set archive.allow_http = true in a protected network"
                    .to_owned(),
            )),
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => found.push((
                "archive.endpoint",
                format!("{endpoint:?} is not a URL like https://store.example:9000"),
            )),
        }
    }
    if let Err(error) = Job::new(archive.snapshot_schedule.as_str(), |_, _| {}) {
        let message = format!(
            "{:?} is not a cron expression like \"0 0 * * * *\" (second minute hour day month weekday): {error}",
            archive.snapshot_schedule
        );
        found.push(("archive.snapshot_schedule", message));
    }
    if config.log.default_acknowledgement == duramen_types::Acknowledgement::Archived && archive.url.is_none()
    {
        let message =
            "\"archived\" needs an archive: set archive.url, or choose \"local\" or \"quorum\"".to_owned();
        found.push(("log.default_acknowledgement", message));
    }
}

/// CloudWatch passes over a whole line for a name that it doesn't take, and says so nowhere that one would look.
fn cloudwatch(config: &Config, found: &mut Vec<(&'static str, String)>) {
    let names = [
        ("cloudwatch.namespace", &config.cloudwatch.namespace),
        ("cloudwatch.cluster", &config.cloudwatch.cluster),
    ];
    for (key, name) in names {
        let valid = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
        if name.is_empty() || name.len() > 255 || !name.chars().all(valid) || name.starts_with("AWS/") {
            let message = format!(
                "{name:?} is no name for CloudWatch: it must have 1 to 255 letters, digits and . _ - / #, and not \
                 begin with AWS/"
            );
            found.push((key, message));
        }
    }
}

/// Whether the URL's host is this machine itself.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The message never repeats the URL: somebody may have put a secret in it.
fn check_url(text: &str) -> Result<(), String> {
    let example =
        "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory or memory:";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {example}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not hold credentials: they come from the environment, the profile or the instance".into()
        );
    }
    match url.scheme() {
        "s3" | "gs" | "az" if url.host_str().is_none_or(str::is_empty) => {
            Err(format!("names no bucket; {example}"))
        }
        "file" if url.path() == "/" => Err("is the root directory; name a directory of its own".into()),
        "s3" | "gs" | "az" | "file" | "memory" => Ok(()),
        other => Err(format!("{other:?} is no kind of store known here; {example}")),
    }
}
