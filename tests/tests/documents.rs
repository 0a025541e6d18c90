//! Every command that a document shows exists, with every option that it is given.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use duramen_tests::{Tool, programs};

const PROGRAMS: [&str; 4] = ["duramen", "duramenctl", "duramen-restore", "duramen-archiver"];

/// Command lines in code spans and fenced blocks that begin with one of the programs.
fn commands(document: &str) -> Vec<String> {
    let spans = document.split('`').skip(1).step_by(2);
    let lines = document.lines().map(str::trim_start);
    // Part of a pipeline or of a list is a command too.
    let parts = spans.chain(lines).flat_map(|text| text.split(['|', ';', '\n']));
    let mut found: Vec<String> = parts
        .map(str::trim)
        .filter(|text| PROGRAMS.iter().any(|program| text.split(' ').next() == Some(program)))
        // A picture is no command.
        .filter(|text| !text.contains("   "))
        .map(ToOwned::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The help of a program's command, which is asked for once.
struct Help {
    known: BTreeMap<Vec<String>, String>,
}

impl Help {
    fn of(&mut self, path: &[String]) -> Result<&str> {
        if !self.known.contains_key(path) {
            let programs = programs()?;
            let tool = match path.first().map(String::as_str) {
                Some("duramen") => &programs.duramen,
                Some("duramenctl") => &programs.duramenctl,
                Some("duramen-restore") => &programs.duramen_restore,
                _ => &programs.duramen_archiver,
            };
            let text =
                Tool::at(tool).args(path.get(1..).unwrap_or_default().to_vec()).args(["--help"]).succeed()?;
            self.known.insert(path.to_vec(), text);
        }
        Ok(self.known.get(path).expect("it was put there above"))
    }
}

/// What a help text lists under `Commands:`; a line that goes on with a description is indented more.
fn subcommands(help: &str) -> Vec<&str> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    listed
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// Walks a command line; the error says what of it there is not.
fn check(help: &mut Help, command: &str) -> Result<()> {
    let mut words = command.split_whitespace().peekable();
    let mut path = vec![words.next().context("a command has a word")?.to_owned()];
    while let Some(word) = words.next() {
        let text = help.of(&path)?.to_owned();
        // What is left is the shell's, or left out.
        if word.starts_with(['>', '&', '#', '\u{2026}']) || word == "2>&1" {
            break;
        }
        if let Some(option) = word.strip_prefix("--").map(|option| option.split('=').next().unwrap_or(option))
        {
            let option = format!("--{option}");
            let line = text.lines().find(|line| {
                line.split([' ', ',']).any(|part| part == option) && line.trim_start().starts_with('-')
            });
            let line = line.with_context(|| format!("{path:?} has no option {option}"))?;
            if line.contains(&format!("{option} <")) && !word.contains('=') {
                words.next();
            }
        } else if !subcommands(&text).is_empty() {
            let known = subcommands(&text);
            path.push(word.to_owned());
            // One that only documents are made with is not listed.
            ensure!(
                known.contains(&word) || help.of(&path).is_ok(),
                "there is no command {path:?}; there are {known:?}"
            );
        }
    }
    help.of(&path).map(drop)
}

#[test]
fn every_command_that_a_document_shows_exists_with_its_options() -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this package")?;
    let mut documents: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name)).to_vec();
    for file in std::fs::read_dir(root.join("docs"))? {
        documents.push(file?.path());
    }
    for file in std::fs::read_dir(root.join("docs/adr"))? {
        documents.push(file?.path());
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut help = Help { known: BTreeMap::new() };
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for document in documents {
        for command in commands(&std::fs::read_to_string(&document)?) {
            checked += 1;
            if let Err(error) = check(&mut help, &command) {
                wrong.push(format!("{}: {command}: {error:#}", document.display()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(checked > 50, "only {checked} commands were found");
    Ok(())
}
