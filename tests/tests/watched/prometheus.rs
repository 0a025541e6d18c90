//! A real Prometheus for one test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use duramen_tests::{Deadline, Process};
use serde_json::Value;
use tempfile::TempDir;

/// A Prometheus that scrapes every second, with the project's alerts; ends when dropped.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    process: Process,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts `program` on a free port; it scrapes the node at `target`.
    pub fn start(program: &Path, target: &str, rules: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("duramen-prometheus-").tempdir()?;
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ '{}' ]\n\
             scrape_configs:\n  \
             - job_name: duramen\n    \
             static_configs: [ {{ targets: [ '{target}' ], labels: {{ cluster: test }} }} ]\n",
            rules.display()
        );
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config)?;
        let address = free_port()?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::start("prometheus", &mut command)?;
        let url = format!("http://{address}");
        process.wait_until(Deadline::after_secs(60), || {
            ureq::get(format!("{url}/-/ready")).call().context("it is not ready")
        })?;
        Ok(Self { url, process, _directory: directory })
    }

    /// Waits until `condition` gives a value.
    pub fn wait_until<T>(&mut self, deadline: Deadline, condition: impl FnMut() -> Result<T>) -> Result<T> {
        self.process.wait_until(deadline, condition)
    }

    /// Asks it.
    pub fn client(&self) -> Client {
        Client { url: self.url.clone() }
    }
}

/// Asks a Prometheus.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
}

impl Client {
    /// The samples that an instant query gives now; NaN, which is no data, left out.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/query", &[("query", query)])?;
        let samples = answer["data"]["result"].as_array().with_context(|| format!("{query}: {answer}"))?;
        Ok(samples.iter().filter(|sample| sample["value"][1] != "NaN").cloned().collect())
    }

    /// The alerting rules as Prometheus has understood them.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/rules", &[("type", "alert")])?;
        let groups = answer["data"]["groups"].as_array().context("there are no groups of rules")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut request = ureq::get(format!("{}{path}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let config =
            request.config().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30)));
        let mut response = config.build().call()?;
        let body = response.body_mut().read_to_string()?;
        if response.status() != 200 {
            bail!("Prometheus answers {} to {parameters:?}: {body}", response.status());
        }
        Ok(serde_json::from_str(&body)?)
    }
}

/// A loopback address whose port was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
