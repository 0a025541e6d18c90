//! Every dependency keeps the rules of `deny.toml`: its licence, where it comes from, and what is banned.
//!
//! `cargo deny` reads the same file. This test needs no program that would have to be built first.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

/// How Cargo names crates.io, wherever it is fetched from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Clone)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a member of the workspace.
    source: Option<String>,
}

#[derive(Debug)]
struct Rules {
    licenses: Vec<Licensee>,
    banned: Vec<(String, String)>,
    once: Vec<String>,
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rules() -> (Rules, Vec<String>) {
    let file: toml::Table = std::fs::read_to_string(workspace().join("deny.toml")).unwrap().parse().unwrap();
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let licenses = file["licenses"]["allow"].as_array().unwrap();
    let mut rules = Rules {
        licenses: licenses
            .iter()
            .map(|license| Licensee::parse(license.as_str().unwrap()).unwrap())
            .collect(),
        banned: Vec::new(),
        once: Vec::new(),
    };
    for entry in file["bans"]["deny"].as_array().unwrap() {
        let entry = entry.as_table().unwrap();
        match entry.get("deny-multiple-versions") {
            Some(only) => {
                assert_eq!(only.as_bool(), Some(true));
                rules.once.push(text(&entry["crate"]));
            }
            None => rules.banned.push((text(&entry["crate"]), text(&entry["reason"]))),
        }
    }
    for kind in ["unknown-registry", "unknown-git"] {
        assert_eq!(file["sources"][kind].as_str(), Some("deny"), "this test knows no other setting");
    }
    (rules, file["graph"]["targets"].as_array().unwrap().iter().map(text).collect())
}

fn packages(targets: &[String]) -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args(["metadata", "--format-version", "1", "--locked"]);
    for target in targets {
        cargo.args(["--filter-platform", target]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| Package {
            name: text(package, "name").unwrap(),
            version: text(package, "version").unwrap(),
            license: text(package, "license"),
            source: text(package, "source"),
        })
        .collect()
}

/// What is wrong, one sentence each.
fn violations(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Package { name, version, license, source } in packages {
        versions.entry(name).or_default().insert(version);
        let allowed = license.as_deref().is_some_and(|license| {
            let license = Expression::parse_mode(license, ParseMode::LAX);
            license.is_ok_and(|terms| {
                terms.evaluate(|term| rules.licenses.iter().any(|allowed| allowed.satisfies(term)))
            })
        });
        if !allowed {
            found.push(format!(
                "{name} {version} has the licence {license:?}, which deny.toml does not allow"
            ));
        }
        if source.as_deref().is_some_and(|source| source != CRATES_IO) {
            found.push(format!("{name} {version} does not come from crates.io"));
        }
        if let Some((_, reason)) = rules.banned.iter().find(|(banned, _)| banned == name) {
            found.push(format!("{name} {version} is banned: {reason}"));
        }
    }
    for name in &rules.once {
        if let Some(versions) = versions.get(name.as_str()).filter(|versions| versions.len() > 1) {
            found.push(format!("{name} is there in several versions: {versions:?}"));
        }
    }
    found
}

#[test]
fn every_dependency_keeps_the_rules_of_deny_toml() {
    let (rules, targets) = rules();
    let packages = packages(&targets);
    assert!(packages.len() > 100, "cargo metadata gives all dependencies, not {}", packages.len());
    let found = violations(&rules, &packages);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_rule_can_be_broken() {
    let (rules, _) = rules();
    let good = Package {
        name: "good".to_owned(),
        version: "1.0.0".to_owned(),
        license: Some("MIT/Apache-2.0 AND (GPL-3.0-only OR ISC)".to_owned()),
        source: Some(CRATES_IO.to_owned()),
    };
    let one = |package: Package| violations(&rules, &[package]);
    assert!(one(good.clone()).is_empty());

    for license in [None, Some("AGPL-3.0-only"), Some("MIT AND GPL-2.0-only"), Some("my own")] {
        let license = license.map(str::to_owned);
        assert_eq!(one(Package { license: license.clone(), ..good.clone() }).len(), 1, "{license:?}");
    }
    let elsewhere = Some("git+https://example.org/good".to_owned());
    assert!(one(Package { source: elsewhere, ..good.clone() })[0].ends_with("does not come from crates.io"));
    assert!(one(Package { name: "openssl-sys".to_owned(), ..good.clone() })[0].contains("is banned: rustls"));

    let (old, new) =
        (Package { name: "tokio".to_owned(), ..good.clone() }, Package { name: "tokio".to_owned(), ..good });
    let new = Package { version: "2.0.0".to_owned(), ..new };
    assert!(violations(&rules, &[old, new])[0].contains("tokio is there in several versions"));
}

/// The crates that Cargo builds for these kinds of dependencies.
fn built(kinds: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args([
        "tree",
        "--locked",
        "--workspace",
        "--prefix",
        "none",
        "--edges",
        kinds,
    ]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// `crates/failpoint` is empty where it does not depend on `fail`.
#[test]
fn programs_have_failpoints_only_where_tests_are_built() {
    let (shipped, tested) = (built("normal,build"), built("normal,build,dev"));
    assert!(shipped.contains("duramen-failpoint") && !shipped.contains("fail"));
    assert!(tested.contains("fail"));
}
