//! Dashboards and alerts: what can be checked of them as files, and that every query gives data on a live node.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod faults;
mod live;
mod load;
mod prometheus;
mod scene;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use duramen_tests::{python, run, tool};
use serde_json::Value;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The dashboards' files with what is in them.
fn dashboards() -> Vec<(PathBuf, Value)> {
    let directory = workspace().join("grafana/dashboards");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "there are {} dashboards", files.len());
    files.into_iter().map(|path| (path.clone(), read_json(&path))).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// Long enough for a scrape a second, short enough that what happened at the start doesn't count for long.
const RATE_INTERVAL: &str = "15s";

/// What Grafana would put in for variables.
fn filled_in(query: &str) -> String {
    let variables =
        [("$__rate_interval", RATE_INTERVAL), ("$cluster", ".*"), ("$node", ".*"), ("$tenant", ".*")];
    let query = variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "{query}");
    query
}

/// Every name that begins like a metric of a node.
fn metric_names(query: &str) -> BTreeSet<&str> {
    query
        .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("duramen_"))
        .collect()
}

/// The metrics that `docs/METRICS.md` has, and for histograms their series.
fn documented() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in text("docs/METRICS.md").lines().filter(|line| line.starts_with("| `duramen_")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        if cells.next() == Some("histogram") {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name);
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// The anchors of the runbook's headings, as GitHub and GitLab make them.
fn anchors() -> BTreeSet<String> {
    let page = text("docs/operations/RUNBOOK.md");
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn dashboards_are_what_their_source_writes() -> Result<()> {
    let Some(python) = tool("python3")? else { return Ok(()) };
    run(Command::new(python).arg(workspace().join("grafana/generate")).arg("--check"))?;
    Ok(())
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_where_to_read_on() {
    let anchors = anchors();
    let mut ids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let path = path.display();
        assert!(ids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{path}: its uid is another's");
        let names: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
        for wanted in ["datasource", "cluster", "node", "tenant", "runbook"] {
            assert!(
                names.iter().any(|variable| variable["name"] == wanted),
                "{path} has no variable {wanted}"
            );
            let used = Value::from(panels(&dashboard).into_iter().cloned().collect::<Vec<_>>()).to_string();
            let how = [format!("${wanted}\\\""), format!("${{{wanted}}}")];
            assert!(how.iter().any(|how| used.contains(how)), "{path}: no panel uses the variable {wanted}");
        }
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert(title), "{path}: {title} is there twice");
            let description = panel["description"].as_str().unwrap();
            assert!(description.len() > 15 && description.ends_with('.'), "{path}: {title}: {description}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!defaults["unit"].as_str().unwrap().is_empty(), "{path}: {title}");
            assert!(!defaults["thresholds"]["steps"].as_array().unwrap().is_empty(), "{path}: {title}");
            let link = panel["links"][0]["url"].as_str().unwrap();
            let anchor =
                link.strip_prefix("${runbook}#").unwrap_or_else(|| panic!("{path}: {title}: {link}"));
            assert!(anchors.contains(anchor), "{path}: {title}: the runbook has no #{anchor}");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{path}: {title}");
            }
        }
    }
}

#[test]
fn queries_name_documented_metrics_only() {
    let documented = documented();
    let mut used = BTreeSet::new();
    let mut check = |place: &str, query: &str| {
        for name in metric_names(query) {
            assert!(documented.contains(name), "{place}: {name} is not in docs/METRICS.md");
            used.insert(name.to_owned());
        }
    };
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{}: {}", path.display(), panel["title"]);
                check(&place, target["expr"].as_str().unwrap());
            }
        }
    }
    for line in text("grafana/alerts/duramen.yaml").lines().filter(|line| line.trim().starts_with("expr:")) {
        check("duramen.yaml", line);
    }
    assert!(used.len() > 30, "{used:?}");
}

#[test]
fn dashboards_keep_grafanas_published_schema() -> Result<()> {
    let Some(python) = python()? else { return Ok(()) };
    let files = dashboards().into_iter().map(|(path, _)| path);
    run(Command::new(python).arg(workspace().join("tests/grafana/schema")).args(files))?;
    Ok(())
}

#[test]
fn alerts_are_right_and_each_was_seen_to_fire_and_to_be_silent() -> Result<()> {
    let rules = text("grafana/alerts/duramen.yaml");
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 11, "{names:?}");
    let cases = text("grafana/alerts/tests/duramen.yaml") + &text("grafana/alerts/tests/ages.yaml");
    for name in &names {
        for how in ["fires", "is silent"] {
            assert!(cases.contains(&format!("- name: {name} {how}\n")), "no test in which {name} {how}");
        }
    }
    let anchors = anchors();
    let links: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(links.len(), names.len(), "each alert has a link to the runbook");
    let runbook = text("docs/operations/RUNBOOK.md");
    for (name, link) in names.iter().zip(links) {
        let anchor = link.strip_prefix("docs/operations/RUNBOOK.md#").unwrap_or_else(|| panic!("{link}"));
        assert!(anchors.contains(anchor), "the runbook has no #{anchor}");
        let row = runbook.lines().find(|line| line.starts_with('|') && line.contains(name));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the runbook's table"));
        assert!(
            row.contains(&format!("(#{anchor})")),
            "{name} leads to #{anchor}, and the table elsewhere: {row}"
        );
    }
    for severity in rules.lines().filter_map(|line| line.trim().strip_prefix("severity: ")) {
        assert!(matches!(severity, "critical" | "warning"), "{severity}");
    }

    let Some(promtool) = tool("promtool")? else { return Ok(()) };
    let alerts = workspace().join("grafana/alerts");
    run(Command::new(&promtool).args(["check", "rules"]).arg(alerts.join("duramen.yaml")))?;
    let mut tests = Command::new(&promtool);
    run(tests.current_dir(alerts.join("tests")).args(["test", "rules", "duramen.yaml", "ages.yaml"]))?;
    Ok(())
}
