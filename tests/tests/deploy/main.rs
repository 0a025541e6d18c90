//! What deploys a node: every path, port, flag and variable that those files name exists, real tools accept them, and the
//! arrangement of `compose.yaml` runs.

#![expect(clippy::disallowed_methods, reason = "a test's own files")]

mod compose;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use duramen_tests::{programs, run, tool};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package")
}

#[expect(clippy::panic, reason = "a file of the project that the test is about")]
fn text(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The environment variables that `docs/CONFIGURATION.md` has.
fn documented_variables() -> BTreeSet<String> {
    let page = text("docs/CONFIGURATION.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("- Environment: `"));
    names.map(|name| name.trim_end_matches('`').to_owned()).collect()
}

/// Variables that aren't settings: of the programs, of the AWS libraries, and of the C library.
const OTHER_VARIABLES: [&str; 7] = [
    "DURAMEN_ARCHIVE",
    "DURAMEN_BRANCH",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MALLOC_ARENA_MAX",
];

fn check_variable(place: &str, name: &str) {
    let known = documented_variables().contains(name) || OTHER_VARIABLES.contains(&name);
    assert!(known, "{place}: {name} is neither a setting of docs/CONFIGURATION.md nor known otherwise");
}

/// Whether one of the programs takes the words of this command line.
fn check_command(place: &str, words: &[&str]) -> Result<()> {
    let program =
        Path::new(words[0]).file_name().and_then(|name| name.to_str()).context("a command has a program")?;
    let programs = programs()?;
    let file = match program {
        "duramen" => &programs.duramen,
        "duramen-archiver" => &programs.duramen_archiver,
        "duramen-restore" => &programs.duramen_restore,
        "duramenctl" => &programs.duramenctl,
        _ => bail!("{place}: {program} is none of the programs"),
    };
    let subcommand: Vec<_> = words[1..].iter().take_while(|word| !word.starts_with('-')).collect();
    let help = run(Command::new(file).args(&subcommand).arg("--help")).with_context(|| place.to_owned())?;
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        let flag = flag.split('=').next().unwrap_or(flag);
        ensure!(help.contains(flag), "{place}: {program} {subcommand:?} has no {flag}");
    }
    Ok(())
}

/// The values of a directive in a unit file.
fn directives<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

/// What the Debian package installs: source, below the workspace, and destination.
fn assets() -> Vec<(String, String)> {
    let manifest: toml::Table = text("service/Cargo.toml").parse().expect("a manifest is TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    let rows = deb["assets"].as_array().expect("it has assets").iter().map(|row| {
        let cell = |at: usize| row[at].as_str().expect("an asset is text").to_owned();
        let source = match cell(0).strip_prefix("../") {
            Some(below) => below.to_owned(),
            None => cell(0),
        };
        let mut to = format!("/{}", cell(1));
        if to.ends_with('/') {
            to.push_str(source.rsplit('/').next().unwrap_or_default());
        }
        (source, to)
    });
    // And each unit of these names, with its timer.
    let units = deb["systemd-units"].as_array().expect("it has units").iter();
    let units = units.flat_map(|entry| {
        let name = entry["unit-name"].as_str().expect("a unit has a name");
        ["service", "timer"].map(|kind| format!("{name}.{kind}"))
    });
    let units = units.filter(|unit| workspace().join("deploy/systemd").join(unit).is_file());
    rows.chain(units.map(|unit| (format!("deploy/systemd/{unit}"), format!("/lib/systemd/system/{unit}"))))
        .collect()
}

#[test]
fn everything_that_the_package_installs_is_there() {
    for (source, _) in assets() {
        let built = source.strip_prefix("target/release/");
        let there = match built {
            Some(program) => {
                ["duramen", "duramen-archiver", "duramen-restore", "duramenctl"].contains(&program)
            }
            None => workspace().join(&source).is_file(),
        };
        assert!(there, "service/Cargo.toml: {source} is not there");
    }
    for script in ["postinst", "postrm"] {
        assert!(text(&format!("deploy/debian/{script}")).contains("#DEBHELPER#"), "{script}");
    }
}

/// Every unit in `deploy/systemd`.
fn unit_names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in std::fs::read_dir(workspace().join("deploy/systemd"))? {
        names.push(file?.file_name().into_string().map_err(|name| anyhow::anyhow!("{name:?}"))?);
    }
    names.sort_unstable();
    ensure!(names.len() >= 5, "{names:?}");
    Ok(names)
}

#[test]
fn every_unit_is_installed_and_every_timer_starts_a_service_that_verifies_and_is_told_of() -> Result<()> {
    let installed: BTreeSet<String> = assets().into_iter().map(|(_, to)| to).collect();
    for name in unit_names()? {
        ensure!(
            installed.contains(&format!("/lib/systemd/system/{name}")),
            "the package doesn't install {name}"
        );
        let Some(service) = name.strip_suffix(".timer") else { continue };
        let unit = text(&format!("deploy/systemd/{service}.service"));
        let verifies = directives(&unit, "ExecStart");
        ensure!(verifies.iter().all(|command| command.contains("verify --full")), "{name}: {verifies:?}");
        for page in ["docs/RECOVERY.md", "docs/operations/RUNBOOK.md"] {
            ensure!(text(page).contains(&name), "{page} does not tell of {name}");
        }
        let start = text("docs/operations/RUNBOOK.md");
        let start = start.lines().find(|line| line.starts_with("systemctl enable --now duramen "));
        ensure!(start.is_some_and(|line| line.contains(&name)), "the runbook does not enable {name}");
    }
    // One of them looks again at what was clean once.
    let all = text("deploy/systemd/duramen-verify-all.service");
    let all = directives(&all, "ExecStart").join("\n");
    ensure!(!all.is_empty() && !all.contains("--since"), "{all}");
    // Beside that they are the same.
    let differs = |name: &str| {
        let text = text(&format!("deploy/systemd/{name}.service"));
        let same = |line: &&str| {
            !["#", "Description", "ExecStart", "After"].iter().any(|start| line.starts_with(start))
        };
        text.lines().filter(same).map(str::to_owned).collect::<Vec<_>>()
    };
    ensure!(differs("duramen-verify") == differs("duramen-verify-all"), "they are hardened alike");
    Ok(())
}

#[test]
fn units_are_accepted_hardened_and_name_what_the_package_installs() -> Result<()> {
    let installed: BTreeSet<String> = assets().into_iter().map(|(_, to)| to).collect();
    let systemd = tool("systemd-analyze")?;
    let directory = tempfile::tempdir()?;
    let names = unit_names()?;
    for name in &names {
        let unit = text(&format!("deploy/systemd/{name}"));
        for command in directives(&unit, "ExecStart") {
            let words: Vec<_> = command.split(' ').collect();
            ensure!(installed.contains(words[0]), "{name}: the package doesn't install {}", words[0]);
            check_command(name, &words)?;
            for path in words.iter().filter(|word| word.starts_with("/etc/")) {
                ensure!(installed.contains(*path), "{name}: the package doesn't install {path}");
            }
        }
        let files = directives(&unit, "EnvironmentFile").into_iter().map(|path| path.trim_start_matches('-'));
        let pages =
            directives(&unit, "Documentation").into_iter().filter_map(|url| url.strip_prefix("file://"));
        for path in files.chain(pages) {
            ensure!(installed.contains(path), "{name}: the package doesn't install {path}");
        }
        // systemd looks for the programs where they are now.
        let built =
            programs()?.duramen.parent().context("programs are in a directory")?.display().to_string();
        std::fs::write(directory.path().join(name), unit.replace("/usr/bin/", &format!("{built}/")))?;
    }
    let Some(systemd) = systemd else { return Ok(()) };
    let units: Vec<_> = names.iter().map(|name| directory.path().join(name)).collect();
    let said = run(Command::new(&systemd).args(["verify", "--man=no"]).args(&units))?;
    ensure!(said.trim().is_empty(), "{said}");
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        // In tenths: 2.0 is what systemd calls OK.
        run(Command::new(&systemd)
            .args(["security", "--offline=yes", "--threshold=20", "--no-pager"])
            .arg(unit))?;
    }
    Ok(())
}

#[test]
fn a_stop_has_the_time_that_a_node_takes_and_a_report_comes_before_its_deadline() -> Result<()> {
    let unit = text("deploy/systemd/duramen.service");
    // Requests under way and then the archiver may take shutdown.timeout each.
    let page = text("docs/CONFIGURATION.md");
    let timeout = page.split("### `shutdown.timeout`").nth(1).context("the page has shutdown.timeout")?;
    ensure!(
        timeout.contains("- Default: `\"30s\"`"),
        "the default has changed: the unit's, compose's and the task's with it"
    );
    ensure!(directives(&unit, "TimeoutStopSec") == ["90s"], "twice 30 s, and some");
    ensure!(
        directives(&unit, "Type") == ["notify"] && directives(&unit, "NotifyAccess") == ["main"],
        "it reports itself"
    );
    ensure!(
        directives(&unit, "WatchdogSec") == ["60s"]
            && directives(&unit, "ExecReload") == ["/bin/kill -HUP $MAINPID"],
        "{unit}"
    );
    Ok(())
}

#[test]
fn the_packaged_configuration_is_valid_also_with_everything_in_it_switched_on() -> Result<()> {
    let packaged = text("deploy/duramen.toml");
    let directory = tempfile::tempdir()?;
    let switched_on: Vec<_> = packaged
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with('[')
                    || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .collect();
    let switched_on = switched_on.join("\n");
    ensure!(
        switched_on.contains("\n[archive]\nurl = ") && switched_on.contains("\n[listen]\n"),
        "{switched_on}"
    );
    for (name, config) in [("packaged", &packaged), ("switched-on", &switched_on)] {
        let file = directory.path().join(name);
        std::fs::write(&file, config)?;
        let shown =
            run(Command::new(&programs()?.duramen).args(["serve", "--validate", "--config"]).arg(&file))?;
        ensure!(shown.contains("data = \"/var/lib/duramen\""), "{shown}");
    }
    for line in text("deploy/duramen.env").lines() {
        if let Some((name, _)) =
            line.trim_start_matches("# ").split_once('=').filter(|(name, _)| !name.contains(' '))
        {
            check_variable("duramen.env", name);
        }
    }
    Ok(())
}

#[test]
fn the_image_is_linted_and_names_what_exists() -> Result<()> {
    let file = text("deploy/docker/Dockerfile");
    for program in ["duramen", "duramen-archiver", "duramen-restore", "duramenctl"] {
        ensure!(file.contains(&format!("target/release/{program}")), "{program} is not in the image");
    }
    // What it is built with is what the workspace is checked with, and it runs on the C library that it was built for.
    let manifest: toml::Table = text("Cargo.toml").parse()?;
    let version = manifest["workspace"]["package"]["rust-version"].as_str().context("a version of Rust")?;
    let minor: Vec<_> = version.split('.').take(2).collect();
    ensure!(
        file.contains(&format!("FROM rust:{}-bookworm ", minor.join("."))),
        "it is built with another Rust"
    );
    ensure!(file.contains("FROM gcr.io/distroless/cc-debian12:"), "Debian 12 is bookworm");
    let joined = file.replace("\\\n", " ");
    let list = |start: &str| -> Result<Vec<String>> {
        let line = joined.lines().find_map(|line| line.strip_prefix(start));
        Ok(serde_json::from_str(line.with_context(|| format!("it has {start}"))?)?)
    };
    let started = [list("ENTRYPOINT ")?, list("CMD ")?].concat();
    check_command("ENTRYPOINT", &started.iter().map(String::as_str).collect::<Vec<_>>())?;
    for line in joined.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ENV", rest @ ..] => {
                for (name, _) in rest.iter().filter_map(|word| word.split_once('=')) {
                    check_variable("Dockerfile", name);
                }
            }
            ["EXPOSE", ports @ ..] => {
                let page = text("docs/CONFIGURATION.md");
                for port in ports {
                    ensure!(
                        page.contains(&format!("- Default: `\"127.0.0.1:{port}\"`")),
                        "no port is {port}"
                    );
                }
            }
            ["HEALTHCHECK", ..] => {
                let command = line.split_once("CMD ").context("it has a command")?.1;
                let words: Vec<String> = serde_json::from_str(command)?;
                check_command("HEALTHCHECK", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            _ => {}
        }
    }
    // Every member of the workspace is in the build's context, or Cargo refuses to build any.
    let ignored = text(".dockerignore");
    for member in manifest["workspace"]["members"].as_array().context("the workspace has members")? {
        let directory = member.as_str().unwrap_or_default().split('/').next().unwrap_or_default();
        ensure!(!ignored.lines().any(|line| line == directory), ".dockerignore leaves {directory} out");
    }
    image_has_the_programs_and_a_directory(&joined)?;
    // The build is told the commit by the variable that the build script reads.
    let told = joined.find("\nARG DURAMEN_COMMIT=\n").context("nobody can say which commit it is")?;
    let build = joined.find("\nRUN cargo build ").context("it builds")?;
    ensure!(told < build, "the build is not told its commit");
    ensure!(text("version.rs").contains("std::env::var(\"DURAMEN_COMMIT\")"), "nobody reads it");
    for page in ["deploy/README.md", "deploy/docker/Dockerfile"] {
        ensure!(
            text(page).contains("--build-arg DURAMEN_COMMIT=\"$(git rev-parse --short=12 HEAD)\""),
            "{page}"
        );
    }
    let Some(hadolint) = tool("hadolint")? else { return Ok(()) };
    run(Command::new(hadolint).arg(workspace().join("deploy/docker/Dockerfile")))?;
    Ok(())
}

/// What is put into the image, put into a directory with the programs as they were built for the tests.
fn image_has_the_programs_and_a_directory(dockerfile: &str) -> Result<()> {
    let step = dockerfile.lines().find_map(|line| line.strip_prefix("RUN ")).context("it builds")?;
    let (_, install) = step.split_once(" --bins").context("it builds the programs")?;
    let image = tempfile::tempdir()?;
    let built = programs()?.duramen.parent().context("programs are in a directory")?;
    let install = install
        .trim_start()
        .trim_start_matches("&&")
        .replace("target/release/", &format!("{}/", built.display()))
        .replace("/image/", &format!("{}/", image.path().display()));
    run(Command::new("sh").args(["-ec", &install]))?;
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY --from=build ")) {
        let words: Vec<_> = line.split(' ').filter(|word| !word.starts_with("--")).collect();
        let [from, to] = words[..] else { bail!("COPY {line}") };
        let below = from.strip_prefix("/image").with_context(|| format!("{from} is not what was made"))?;
        ensure!(below == to && image.path().join(to.trim_start_matches('/')).is_dir(), "COPY {line}");
    }
    for program in ["duramen", "duramen-archiver", "duramen-restore", "duramenctl"] {
        let file = image.path().join("usr/bin").join(program);
        let said = run(Command::new(&file).arg("--version"))?;
        ensure!(said.starts_with(program), "{program} in the image says {said}");
    }
    Ok(())
}

#[test]
fn logrotate_keeps_what_it_moves_and_the_node_goes_on_with_its_file() -> Result<()> {
    let Some(logrotate) = tool("logrotate")? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs)?;
    let config =
        text("deploy/logrotate/duramen").replace("/var/log/duramen/", &format!("{}/", logs.display()));
    ensure!(config.contains(&format!("{}/*.log", logs.display())), "{config}");
    let file = directory.path().join("logrotate.conf");
    std::fs::write(&file, config)?;
    let rotate = || {
        run(Command::new(&logrotate)
            .args(["--verbose", "--force", "--state"])
            .arg(directory.path().join("state"))
            .arg(&file))
    };
    // As a node's standard error: the same file throughout.
    let mut log = std::fs::File::options().create(true).append(true).open(logs.join("node.log"))?;
    let read = |name: &str| std::fs::read_to_string(logs.join(name)).with_context(|| name.to_owned());
    for line in ["one", "two", "three"] {
        writeln!(log, "{line}")?;
        let said = rotate()?;
        ensure!(!said.contains("error"), "{said}");
        ensure!(read("node.log.1")? == format!("{line}\n") && read("node.log")?.is_empty(), "{said}");
    }
    let oldest = run(Command::new("gzip").arg("-dc").arg(logs.join("node.log.3.gz")))?;
    ensure!(oldest == "one\n" && logs.join("node.log.2.gz").exists(), "{oldest}");
    // What is empty stays as it is.
    rotate()?;
    ensure!(!logs.join("node.log.4.gz").exists(), "an empty log is moved");
    writeln!(log, "four")?;
    ensure!(read("node.log")? == "four\n", "the node's lines go elsewhere");
    Ok(())
}

#[test]
fn scripts_have_nothing_that_shellcheck_minds() -> Result<()> {
    let Some(shellcheck) = tool("shellcheck")? else { return Ok(()) };
    let scripts = [
        ".ci/run",
        "deploy/debian/postinst",
        "deploy/debian/postrm",
        "tests/deb/check",
        "tests/minio/build",
        "tests/terraform/build",
        "tests/tests/runbook/systemctl",
        "tests/tests/terraform/stub",
        "tests/tools/install",
    ];
    run(Command::new(shellcheck).args(scripts.map(|script| workspace().join(script))))?;
    Ok(())
}
