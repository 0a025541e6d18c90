//! A real Prometheus for one test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use duramen_tests::{Deadline, Process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Prometheus that scrapes every second, with the project's alerts; ends when dropped.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    process: Process,
    targets: PathBuf,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts `program` on a free port; it scrapes each node of `targets`, which are its cluster and its operators' URL.
    pub fn start(program: &Path, targets: &[(&str, String)], rules: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("duramen-prometheus-").tempdir()?;
        let discovered = directory.path().join("targets.json");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ '{}' ]\n\
             scrape_configs:\n  \
             - job_name: duramen\n    \
             file_sd_configs: [ {{ files: [ '{}' ], refresh_interval: 1s }} ]\n",
            rules.display(),
            discovered.display()
        );
        write_targets(&discovered, targets)?;
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
        Ok(Self { url, process, targets: discovered, _directory: directory })
    }

    /// Tells it of other nodes than before, as a service discovery does.
    pub fn discover(&self, targets: &[(&str, String)]) -> Result<()> {
        write_targets(&self.targets, targets)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
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

fn write_targets(file: &Path, targets: &[(&str, String)]) -> Result<()> {
    let each = targets.iter().map(|(cluster, url)| {
        json!({ "targets": [url.trim_start_matches("http://")], "labels": { "cluster": cluster } })
    });
    let text = serde_json::to_string(&each.collect::<Vec<_>>())?;
    // Renamed over the old one: it must not be read half written.
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, file)?)
}

/// A loopback address whose port was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
