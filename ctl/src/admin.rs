//! The operators' side of a node: HTTP with JSON answers, shown as they come.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::cli::ArchiveCommand;
use crate::connection::Connection;
use crate::failure::{FAILED, Failure, USAGE};
use crate::output;
use crate::wait::Awaited;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Archiving, checking a store and writing a snapshot wait for the object store.
const LONG_TIMEOUT: Duration = Duration::from_secs(300);

const CHECK: &str = "/admin/archive/check";

struct Answer {
    status: StatusCode,
    body: String,
}

/// Shows the document at `path`.
pub async fn show(to: &Connection, path: &str, as_json: bool) -> Result<(), Failure> {
    print(&call(to, Method::GET, path, TIMEOUT).await?.document(path)?, as_json)
}

/// Has the node do something, and shows its answer.
pub async fn act(to: &Connection, path: &str, as_json: bool) -> Result<(), Failure> {
    print(&call(to, Method::POST, path, LONG_TIMEOUT).await?.document(path)?, as_json)
}

/// Has the node write snapshots, and shows them; says so where there was nothing new to write.
pub async fn snapshot(to: &Connection, as_json: bool) -> Result<(), Failure> {
    const PATH: &str = "/admin/snapshot";
    let written = call(to, Method::POST, PATH, LONG_TIMEOUT).await?.document(PATH)?;
    match written["snapshots"].as_array() {
        Some(none) if none.is_empty() && !as_json => {
            output::line("nothing to do: nothing was archived since each shard's newest snapshot")
        }
        _ => print(&written, as_json),
    }
}

pub async fn archive(to: &Connection, command: ArchiveCommand, as_json: bool) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Status => show(to, "/admin/archive/status", as_json).await,
        ArchiveCommand::Flush => act(to, "/admin/archive/flush", as_json).await,
        ArchiveCommand::Check => check(to, as_json).await,
    }
}

/// Shows what each probe of the archive's store found; fails if one failed.
async fn check(to: &Connection, as_json: bool) -> Result<(), Failure> {
    let report = call(to, Method::POST, CHECK, LONG_TIMEOUT).await?.document(CHECK)?;
    let probes = report.get("probes").and_then(Value::as_array).cloned().unwrap_or_default();
    let outcomes: Vec<(String, String)> = probes.iter().map(|probe| outcome(&probe["outcome"])).collect();
    if as_json {
        output::json(&report)?;
    } else {
        let row = |(probe, (outcome, detail)): (&Value, &(String, String))| {
            let seconds = probe["duration_seconds"].as_f64().unwrap_or_default();
            let name = probe["name"].as_str().unwrap_or_default();
            vec![output::visible(name), outcome.clone(), format!("{seconds:.3}"), output::visible(detail)]
        };
        let headings = ["probe", "outcome", "seconds", "detail"];
        output::table(&headings, probes.iter().zip(&outcomes).map(row).collect())?;
    }
    if outcomes.iter().any(|(outcome, _)| outcome == "failed" || outcome == "skipped") {
        let what = format!("the store at {} did not pass", report["url"].as_str().unwrap_or_default());
        return Err(Failure::failed("archive", what, "mend what failed above; archiving needs all of it"));
    }
    Ok(())
}

/// A probe's outcome in a word, and what there is to say of it.
fn outcome(outcome: &Value) -> (String, String) {
    match outcome {
        Value::Object(members) => members
            .iter()
            .next()
            .map(|(word, detail)| (word.clone(), detail.as_str().unwrap_or_default().to_owned()))
            .unwrap_or_default(),
        other => (other.as_str().unwrap_or_default().to_owned(), String::new()),
    }
}

/// Prints the metrics: as they are, or each sample as a line of JSON.
pub async fn metrics(to: &Connection, as_json: bool) -> Result<(), Failure> {
    let answer = call(to, Method::GET, "/metrics", TIMEOUT).await?;
    if !answer.status.is_success() {
        return Err(answer.refused("/metrics"));
    }
    if !as_json {
        return output::line(answer.body.trim_end());
    }
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        if let Some((series, value)) = line.rsplit_once(' ') {
            let number = value.parse::<f64>().map_or_else(|_| value.into(), Value::from);
            output::json(&output::object([("series", series.into()), ("value", number)]))?;
        }
    }
    Ok(())
}

/// Shows the node's health; the exit code is the verdict.
pub async fn health(to: &Connection, degraded_ok: bool, as_json: bool) -> Result<(), Failure> {
    let unhealthy = |failure: Failure| failure.with_exit(USAGE);
    let answer = call(to, Method::GET, "/health", TIMEOUT).await.map_err(unhealthy)?;
    // An unhealthy node may answer with an error status, and still says why.
    let Ok(document) = serde_json::from_str::<Value>(&answer.body) else {
        return Err(unhealthy(answer.refused("/health")));
    };
    print(&document, as_json)?;
    match verdict(answer.status, &document, degraded_ok) {
        0 => Ok(()),
        exit => Err(Failure::verdict(exit)),
    }
}

/// 0 is ok, 1 degraded (0 as well with `degraded_ok`), 2 anything else.
fn verdict(status: StatusCode, document: &Value, degraded_ok: bool) -> u8 {
    match document.get("condition").and_then(Value::as_str) {
        Some("ok") if status.is_success() => 0,
        Some("degraded") if degraded_ok => 0,
        Some("degraded") => FAILED,
        _ => USAGE,
    }
}

fn print(document: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json { output::json(document) } else { output::document(document) }
}

async fn call(to: &Connection, method: Method, path: &str, usual: Duration) -> Result<Answer, Failure> {
    let admin = &to.admin;
    let url = format!("{}{path}", admin.trim_end_matches('/'));
    let failed = |error: reqwest::Error| {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        let what = format!("the node's admin interface at {admin} cannot be asked for {path}: {reason}");
        Failure::failed(
            "unreachable",
            what,
            "start the node, or name its admin address with --admin or DURAMEN_ADMIN",
        )
    };
    // A check leaves nothing that anybody asked for.
    let is_action = method == Method::POST;
    let is_change = is_action && path != CHECK;
    let answer = async {
        let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
        let response = client.request(method, &url).send().await.map_err(failed)?;
        let status = response.status();
        let body = response.text().await.map_err(failed)?;
        Ok(Answer { status, body })
    };
    let why = if is_action { "it waits for the archive" } else { "the node is busy, or can't be reached" };
    let what = || format!("the answer to {path} of the admin interface at {admin}");
    to.patience(usual).wait(Awaited { what: &what, why, is_change }, answer).await?
}

impl Answer {
    fn document(&self, path: &str) -> Result<Value, Failure> {
        match serde_json::from_str(&self.body) {
            Ok(document) if self.status.is_success() => Ok(document),
            _ => Err(self.refused(path)),
        }
    }

    fn refused(&self, path: &str) -> Failure {
        let document: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let message = ["/message", "/error/message", "/error"]
            .into_iter()
            .find_map(|pointer| document.pointer(pointer)?.as_str())
            .map_or_else(|| self.body.chars().take(200).collect(), str::to_owned);
        let what =
            format!("the node answers {path} with {}: {}", self.status, output::visible(message.trim()));
        let failure = Failure::failed("admin", what, "see the message, and the node's log");
        let code = document.pointer("/error/code").and_then(Value::as_str).and_then(|code| code.parse().ok());
        match code {
            Some(code) => {
                let flag = |name: &str| document.pointer(name).and_then(Value::as_bool).unwrap_or_default();
                failure.of_node(code, flag("/error/retryable"), flag("/error/may_have_had_effect"))
            }
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_verdict_on_health_is_the_exit_code() {
        let cases = [
            (200, json!({ "condition": "ok" }), 0),
            (200, json!({ "condition": "degraded" }), 1),
            (503, json!({ "condition": "degraded" }), 1),
            (503, json!({ "condition": "unhealthy" }), 2),
            (503, json!({ "condition": "ok" }), 2),
            (200, json!({}), 2),
            (200, json!(null), 2),
        ];
        for (status, document, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(status, &document, false), expected, "{status} {document}");
            let degraded_is_ok = if expected == FAILED { 0 } else { expected };
            assert_eq!(verdict(status, &document, true), degraded_is_ok, "{status} {document}");
        }
    }

    #[test]
    fn the_outcome_of_a_probe_is_a_word_and_a_detail() {
        assert_eq!(outcome(&json!("passed")), ("passed".to_owned(), String::new()));
        assert_eq!(outcome(&json!({ "failed": "denied" })), ("failed".to_owned(), "denied".to_owned()));
    }

    #[test]
    fn a_refusal_shows_the_nodes_own_words() {
        let answer = Answer {
            status: StatusCode::CONFLICT,
            body: json!({ "error": {
                "code": "unavailable", "message": "no archive is configured",
                "retryable": true, "may_have_had_effect": false,
            } })
            .to_string(),
        };
        let failure = answer.document("/admin/archive/status").unwrap_err();
        assert_eq!(failure.exit, FAILED);
        let shown = format!("{failure:?}");
        assert!(shown.contains("no archive is configured") && shown.contains("\"unavailable\""), "{shown}");
    }
}
