//! `compose.yaml`, checked as a file and run as plain processes: the same environment, commands and configuration, on other
//! ports.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{Deadline, NodeSettings, Process, programs, python, run, tool};
use serde_json::Value;

use crate::{check_command, check_variable, text, workspace};

/// The file as JSON; `None` where there is no parser for it.
fn yaml(path: &Path) -> Result<Option<Value>> {
    let Some(python) = python()? else { return Ok(None) };
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    Ok(Some(serde_json::from_str(&run(Command::new(python).args(["-c", script]).arg(path))?)?))
}

fn compose() -> Result<Option<Value>> {
    yaml(&workspace().join("deploy/docker/compose.yaml"))
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_path_port_and_variable_of_it_exists() -> Result<()> {
    let Some(compose) = compose()? else { return Ok(()) };
    let here = workspace().join("deploy/docker");
    let services = compose["services"].as_object().context("it has services")?;
    for (name, service) in services {
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap_or_default();
            let there = match source.starts_with('.') {
                true => here.join(source).exists(),
                false => compose["volumes"].get(source).is_some(),
            };
            ensure!(there, "{name}: there is no {source}");
        }
        for port in words(&service["ports"]) {
            ensure!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to everybody");
            let inside = port.rsplit(':').next().unwrap_or_default();
            let listens = match name.as_str() {
                "duramen" => {
                    service["environment"].as_object().into_iter().flatten().any(|(name, address)| {
                        name.starts_with("DURAMEN_LISTEN__") && address == &format!("0.0.0.0:{inside}")
                    })
                }
                // Their own defaults.
                "prometheus" => inside == "9090",
                "grafana" => inside == "3000",
                _ => false,
            };
            ensure!(listens, "{name}: nothing listens at {inside}");
        }
        let image = service["image"].as_str().unwrap_or_default();
        let pinned = image.contains(':') && !image.ends_with(":latest");
        ensure!(pinned || service.get("build").is_some(), "{name}: {image} is not pinned");
        for needed in service["depends_on"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .chain(words(&service["depends_on"]))
        {
            ensure!(services.contains_key(needed), "{name}: there is no service {needed}");
        }
    }
    let node = &services["duramen"];
    for name in node["environment"].as_object().context("the node has an environment")?.keys() {
        check_variable("compose.yaml", name);
    }
    let command: Vec<_> = std::iter::once("duramen").chain(words(&node["command"])).collect();
    check_command("compose.yaml", &command)?;
    let build = &node["build"];
    let context = here.join(build["context"].as_str().context("it is built from a context")?);
    ensure!(context.canonicalize()? == workspace().canonicalize()?, "the context is {}", context.display());
    ensure!(
        context.join(build["dockerfile"].as_str().unwrap_or_default()).is_file(),
        "there is no Dockerfile"
    );
    ensure!(node["stop_grace_period"] == "90s", "a stop takes up to twice shutdown.timeout");

    // Grafana finds its data source and its dashboards.
    let provider = yaml(&workspace().join("grafana/provisioning/dashboards/duramen.yaml"))?
        .context("a parser was there")?;
    let folder = provider["providers"][0]["options"]["path"].as_str().context("it has a folder")?;
    let mounted = words(&services["grafana"]["volumes"]);
    ensure!(
        mounted.iter().any(|volume| *volume == format!("../../grafana/dashboards:{folder}:ro")),
        "{mounted:?}"
    );
    let source = yaml(&workspace().join("grafana/provisioning/datasources/prometheus.yaml"))?
        .context("a parser was there")?;
    ensure!(source["datasources"][0]["url"] == "http://prometheus:9090", "{source:#}");
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[test]
fn the_arrangement_works_as_plain_processes() -> Result<()> {
    let (Some(compose), Some(prometheus), Some(promtool)) =
        (compose()?, tool("prometheus")?, tool("promtool")?)
    else {
        return Ok(());
    };
    let Some(minio) = tool("bash")?
        .and_then(|bash| run(Command::new(bash).arg(workspace().join("tests/minio/build"))).ok())
    else {
        println!("passed over: there is no MinIO");
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let services = &compose["services"];
    let [store, clients, admin, watcher] =
        [free_port()?, free_port()?, free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));

    // The store: the same command line in a shell, with its data and port elsewhere.
    let data = directory.path().join("minio");
    let shell = words(&services["minio"]["entrypoint"]).last().context("it has a command")?.to_string();
    let shell = shell
        .replace("/data", &data.display().to_string())
        .replace("--address :9000", &format!("--quiet --address {store}"))
        .replace(
            "exec minio",
            &format!("exec {}", minio.lines().last().context("the script prints a path")?.trim()),
        );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &shell]).env("HOME", directory.path());
    for (name, value) in services["minio"]["environment"].as_object().context("it has an environment")? {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let mut minio = Process::start("minio", &mut command)?;
    minio.wait_until(Deadline::after_secs(60), || {
        Ok(ureq::get(format!("http://{store}/minio/health/ready")).call()?)
    })?;

    // The node: its environment, word for word but for addresses.
    let mut settings = NodeSettings::in_directory(&directory.path().join("node"));
    for (name, value) in services["duramen"]["environment"].as_object().context("it has an environment")? {
        let value = value.as_str().unwrap_or_default();
        let value = value
            .replace("minio:9000", &store)
            .replace("0.0.0.0:7700", &clients)
            .replace("0.0.0.0:7702", &admin);
        settings = settings.variable(name, &value);
    }
    let mut node = settings.start()?;
    ureq::post(format!("{}/v1/tenants/default/streams/s/records?ack=archived", node.client_url()))
        .send("a record")?;
    let health = ["health", "--degraded-ok", "--admin"];
    run(Command::new(&programs()?.duramenctl).args(health).arg(node.admin_url()))?;

    // Prometheus: its file, beside the rules as they are mounted, with the node's address.
    let config = directory.path().join("prometheus.yml");
    std::fs::write(&config, text("deploy/docker/prometheus.yml").replace("duramen:7702", &admin))?;
    let rules = directory.path().join("rules");
    std::fs::create_dir(&rules)?;
    std::fs::copy(workspace().join("grafana/alerts/duramen.yaml"), rules.join("duramen.yaml"))?;
    run(Command::new(promtool).args(["check", "config"]).arg(&config))?;
    let mut command = Command::new(prometheus);
    for flag in words(&services["prometheus"]["command"]) {
        let flag = flag.replace("/etc/prometheus/prometheus.yml", &config.display().to_string());
        command.arg(flag.replace("=/prometheus", &format!("={}", directory.path().join("tsdb").display())));
    }
    let mut prometheus =
        Process::start("prometheus", command.arg(format!("--web.listen-address={watcher}")))?;
    prometheus.wait_until(Deadline::after_secs(120), || {
        let url = format!("http://{watcher}/api/v1/query");
        let query = "up{job=\"duramen\",cluster=\"compose\"} == 1";
        let body = ureq::get(url).query("query", query).call()?.into_body().read_to_string()?;
        let answer: Value = serde_json::from_str(&body)?;
        match answer["data"]["result"].as_array() {
            Some(samples) if !samples.is_empty() => Ok(()),
            _ => bail!("Prometheus doesn't see the node: {answer}"),
        }
    })?;
    ensure!(node.terminate()?.success(), "the node stops badly");
    Ok(())
}
