//! What CloudWatch watches is what a node says: alarms and dashboards name metrics that are documented, and so (as the test
//! `emf` has it) written, under the names that the node was given.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Terraform, only, workspace};

/// A metric of CloudWatch's, as an alarm or a widget names it, and how its values are put together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Watched {
    namespace: String,
    metric: String,
    dimensions: BTreeMap<String, String>,
    statistic: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn map(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What the alarms watch, each with its description.
fn of_alarms(resources: &[Value]) -> Vec<(Watched, String)> {
    let alarms = resources.iter().filter(|resource| resource["type"] == "aws_cloudwatch_metric_alarm");
    let mut watched = Vec::new();
    for alarm in alarms.map(|alarm| &alarm["values"]) {
        let of = |of: &Value, statistic: &str| Watched {
            namespace: text(&of["namespace"]),
            metric: text(&of["metric_name"]),
            dimensions: map(&of["dimensions"]),
            statistic: text(&of[statistic]),
        };
        let about = text(&alarm["alarm_description"]);
        if alarm["metric_name"].is_string() {
            watched.push((of(alarm, "statistic"), about));
        } else {
            let metrics = list(&alarm["metric_query"]).flat_map(|query| list(&query["metric"]));
            watched.extend(metrics.map(|metric| (of(metric, "stat"), about.clone())));
        }
    }
    watched
}

/// What the dashboard shows, and its queries of logs.
fn of_dashboard(resources: &[Value]) -> Result<(Vec<Watched>, Vec<String>)> {
    let body = text(&only(resources, "aws_cloudwatch_dashboard", "this")?["dashboard_body"]);
    let body: Value = serde_json::from_str(&body).context("a dashboard is JSON")?;
    let (mut watched, mut queries, mut places) = (Vec::new(), Vec::new(), BTreeSet::new());
    for widget in list(&body["widgets"]) {
        let place = (widget["y"].as_u64(), widget["x"].as_u64());
        ensure!(place.0.is_some() && places.insert(place), "two widgets are in one place: {widget:#}");
        let properties = &widget["properties"];
        ensure!(properties["region"] == "eu-central-1", "{widget:#}");
        queries.extend(properties["query"].as_str().map(str::to_owned));
        for metric in list(&properties["metrics"]) {
            let words: Vec<_> = list(metric).map(text).collect();
            let [namespace, name, dimensions @ ..] = words.as_slice() else {
                anyhow::bail!("{metric} names no metric");
            };
            let pairs =
                dimensions.chunks(2).filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())));
            watched.push(Watched {
                namespace: namespace.clone(),
                metric: name.clone(),
                dimensions: pairs.collect(),
                statistic: text(&properties["stat"]),
            });
        }
    }
    Ok((watched, queries))
}

/// The metrics that a node writes for CloudWatch, with their units.
fn documented() -> Result<BTreeMap<String, String>> {
    let page = std::fs::read_to_string(workspace().join("docs/METRICS.md"))?;
    let part = page.split("\n## CloudWatch\n").nth(1).context("the page has a part for CloudWatch")?;
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    Ok(rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect())
}

/// The anchors of the runbook's headings.
fn anchors() -> Result<BTreeSet<String>> {
    let page = std::fs::read_to_string(workspace().join("docs/operations/RUNBOOK.md"))?;
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    Ok(headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect())
}

/// Every value of `DURAMEN_…` that the node of an example gets.
fn environment(resources: &[Value], example: &str) -> Result<BTreeMap<String, String>> {
    if example == "ecs" {
        let task = only(resources, "aws_ecs_task_definition", "node")?;
        let containers: Value = serde_json::from_str(&text(&task["container_definitions"]))?;
        return Ok(list(&containers[0]["environment"])
            .map(|entry| (text(&entry["name"]), text(&entry["value"])))
            .collect());
    }
    let files = crate::user_data::user_data_files(resources, "node")?;
    crate::user_data::sourced(files.get("/etc/duramen/duramen.env").context("it has an environment")?)
}

#[test]
fn alarms_and_dashboards_watch_what_the_node_writes() -> Result<()> {
    let Some(terraform) = Terraform::find()? else { return Ok(()) };
    let documented = documented()?;
    let anchors = anchors()?;
    for example in ["ecs", "single-vm"] {
        let resources = terraform.apply(example, "acme-duramen")?;
        let environment = environment(&resources, example)?;
        let set = |name: &str| environment.get(name).map(String::as_str);
        ensure!(set("DURAMEN_CLOUDWATCH__EMF") == Some("true"), "{example}: the node writes no metrics");
        let cluster = set("DURAMEN_CLOUDWATCH__CLUSTER").context("the cluster has a name")?;
        let node = set("DURAMEN_NODE__ID").context("the node has a number")?;
        ensure!(set("DURAMEN_CLOUDWATCH__NAMESPACE").is_none(), "{example}: alarms know the default one");
        let expected: BTreeMap<_, _> =
            [("cluster".to_owned(), cluster.to_owned()), ("node".to_owned(), node.to_owned())].into();

        let alarms = of_alarms(&resources);
        for (_, about) in alarms.iter().filter(|(_, about)| about.contains("RUNBOOK.md")) {
            let anchor = about.split("RUNBOOK.md#").nth(1).context("a link has an anchor")?;
            ensure!(anchors.contains(anchor), "{example}: the runbook has no #{anchor}: {about}");
        }
        let (shown, queries) = of_dashboard(&resources)?;
        ensure!(queries.len() == 1, "{queries:?}");
        let watched: Vec<_> = alarms.into_iter().map(|(watched, _)| watched).chain(shown).collect();
        let mut used = BTreeSet::new();
        for watched in watched.iter().filter(|watched| watched.namespace == "Duramen") {
            let unit = documented.get(&watched.metric);
            let unit = unit.with_context(|| format!("{example}: no node writes {}", watched.metric))?;
            ensure!(watched.dimensions == expected, "{example}: the node isn't {watched:?}");
            // A count is of an interval, so several add up; everything else is a state or an extreme.
            let of_an_interval = unit == "Count" || watched.metric.ends_with("_bytes");
            let adds_up = of_an_interval && !is_state(&watched.metric);
            ensure!((watched.statistic == "Sum") == adds_up, "{example}: {watched:?}, in {unit}");
            used.insert(watched.metric.clone());
        }
        let unused: Vec<_> = documented.keys().filter(|name| !used.contains(*name)).collect();
        ensure!(unused.is_empty(), "{example}: billed, and watched by nobody: {unused:?}");
    }
    Ok(())
}

/// Whether a metric in a unit of counts says how things are now, and not what happened in an interval.
fn is_state(metric: &str) -> bool {
    metric.starts_with("archive_lag") || metric == "verification_findings"
}
