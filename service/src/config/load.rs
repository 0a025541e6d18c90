//! Reading the layers, remembering where each value came from, and collecting every mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::validate::validate;

const PREFIX: &str = "DURAMEN_";

/// What a configuration is made of, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file's path and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those that don't look like `DURAMEN_SECTION__KEY` are passed over.
    pub environment: Vec<(String, String)>,
    /// From the command line: the flag, the setting's key, its value.
    pub flags: Vec<(String, String, String)>,
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
    /// A line of the file, from 1.
    File(PathBuf, usize),
    Environment(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One mistake: where it is, which setting it is about, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub at: Source,
    /// Empty where no setting could be made out.
    pub key: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.at, self.message),
            key => write!(f, "{}: {key}: {}", self.at, self.message),
        }
    }
}

/// All mistakes of a configuration, by place; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

/// A configuration without mistakes, and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// Where the setting's value came from.
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }

    /// Puts the layers together and checks the result; reports all mistakes of all layers at once.
    pub fn from_layers(layers: &Layers) -> Result<Self, Problems> {
        let mut loading =
            Loading { config: Config::default(), sources: BTreeMap::new(), problems: Vec::new() };
        if let Some((path, text)) = &layers.file {
            loading.file(path, text);
        }
        let (short, long): (Vec<_>, Vec<_>) =
            layers.environment.iter().partition(|(name, _)| SHORT_VARIABLES.iter().any(|(of, _)| of == name));
        // The name that is made like all others is the stronger one.
        for (name, value) in short.into_iter().chain(long) {
            match key_of_variable(name) {
                Some(key) => loading.set(Source::Environment(name.clone()), &key, value),
                None => loading.almost_a_setting(name),
            }
        }
        for (flag, key, value) in &layers.flags {
            loading.set(Source::Flag(flag.clone()), key, value);
        }
        loading.finish()
    }
}

/// What the other programs call by a shorter name. Their `DURAMEN_BRANCH` is none of a node's settings: after a restore it names
/// what the next restore begins at, and a node that is told of a branch refuses a directory of another one.
const SHORT_VARIABLES: [(&str, &str); 1] = [("DURAMEN_ARCHIVE", "archive.url")];

/// `DURAMEN_WAL__SEGMENT_SIZE` is `wal.segment_size`; but for one, variables without a double underscore are no settings.
fn key_of_variable(name: &str) -> Option<String> {
    if let Some((_, key)) = SHORT_VARIABLES.iter().find(|(short, _)| *short == name) {
        return Some((*key).to_owned());
    }
    let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
    Some(format!("{}.{}", section.to_ascii_lowercase(), key.to_ascii_lowercase()))
}

struct Loading {
    config: Config,
    sources: BTreeMap<String, Source>,
    problems: Vec<Problem>,
}

impl Loading {
    fn report(&mut self, at: Source, key: &str, message: impl Into<String>) {
        self.problems.push(Problem { at, key: key.to_owned(), message: message.into() });
    }

    /// Reports a variable that would be a setting with another underscore: a node must not start without what somebody
    /// meant to set.
    fn almost_a_setting(&mut self, name: &str) {
        let Some(rest) = name.strip_prefix(PREFIX) else { return };
        let meant = self.config.settings().into_iter().find_map(|setting| {
            let (section, key) = super::split(setting.key);
            let (section, key) = (section.to_uppercase(), key.to_uppercase());
            (rest.eq_ignore_ascii_case(&format!("{section}_{key}")))
                .then(|| (setting.key, format!("{PREFIX}{section}__{key}")))
        });
        if let Some((key, meant)) = meant {
            let message = format!("is not read: the variable is {meant}, with two underscores");
            self.report(Source::Environment(name.to_owned()), key, message);
        }
    }

    /// Takes a value given as text.
    fn set(&mut self, at: Source, key: &str, text: &str) {
        match self.config.settings().into_iter().find(|setting| setting.key == key) {
            None => {
                let message = unknown(key, &mut self.config);
                self.report(at, key, message);
            }
            Some(setting) => match setting.value.set(text) {
                Ok(()) => {
                    self.sources.insert(key.to_owned(), at);
                }
                Err(message) => self.report(at, key, message),
            },
        }
    }

    fn file(&mut self, path: &Path, text: &str) {
        let lines = Lines::of(text);
        let at = |position: usize| Source::File(path.to_owned(), lines.line(position));
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken = Vec::new();
        for error in errors {
            let source = at(error.span().map_or(0, |span| span.start));
            // One mistake often throws the parser off for the rest of its line.
            if !broken.contains(&source) {
                self.report(source.clone(), "", error.message());
                broken.push(source);
            }
        }
        // What the parser made of a line that it complained about is no second mistake.
        for (section, value) in table.get_ref() {
            let name = section.get_ref().as_ref();
            let source = at(section.span().start);
            match value.get_ref() {
                DeValue::Table(table) if known_section(name) => {
                    for (key, value) in table {
                        let source = at(key.span().start);
                        if !broken.contains(&source) {
                            self.entry(source, &format!("{name}.{}", key.get_ref()), value);
                        }
                    }
                }
                _ if broken.contains(&source) => {}
                DeValue::Table(_) => {
                    let message = unavailable(name).unwrap_or_else(|| {
                        format!("there is no section of this name; there are {}", section_names().join(", "))
                    });
                    self.report(source, name, message);
                }
                _ => {
                    let message = unavailable(name)
                        .unwrap_or_else(|| "belongs into a section, like [node] or [log]".to_owned());
                    self.report(source, name, message);
                }
            }
        }
    }

    /// Takes a value of the file, which must have the setting's TOML type.
    fn entry(&mut self, at: Source, key: &str, value: &Spanned<DeValue<'_>>) {
        let value = value.get_ref();
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            _ => String::new(),
        };
        let wanted =
            self.config.settings().into_iter().find(|setting| setting.key == key).map(|s| s.value.kind());
        match wanted {
            Some(kind) if kind.toml != value.type_str() => {
                let message =
                    format!("is {} {}, expected {}", article(value.type_str()), value.type_str(), kind.is);
                self.report(at, key, message);
            }
            _ => self.set(at, key, &text),
        }
    }

    fn finish(mut self) -> Result<Loaded, Problems> {
        let found = validate(&mut self.config);
        for (key, message) in found {
            let at = self.sources.get(key).cloned().unwrap_or(Source::Default);
            self.report(at, key, message);
        }
        if self.problems.is_empty() {
            return Ok(Loaded { config: self.config, sources: self.sources });
        }
        self.problems.sort();
        Err(Problems(self.problems))
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn section_names() -> Vec<&'static str> {
    super::SECTIONS.iter().map(|(name, _)| *name).collect()
}

fn known_section(name: &str) -> bool {
    section_names().contains(&name)
}

/// What is planned and can't be configured yet: naming it must not look like having it.
fn unavailable(key: &str) -> Option<String> {
    let planned = [
        ("encrypt", "encryption of the archive"),
        ("kms", "encryption of the archive"),
        ("merg", "merging of archived segments"),
        ("expir", "expiry of archived history"),
        ("token", "access tokens"),
        ("auth", "access tokens"),
        ("tls", "TLS"),
        ("cert", "TLS"),
        ("peers", "a cluster of several nodes"),
        ("replication", "a cluster of several nodes"),
        ("gossip", "a cluster of several nodes"),
    ];
    let (_, feature) = planned.into_iter().find(|(part, _)| key.contains(part))?;
    Some(format!("{feature} is not available in this version: take the setting out to start without it"))
}

fn unknown(key: &str, config: &mut Config) -> String {
    if let Some(message) = unavailable(key) {
        return message;
    }
    let (section, name) = super::split(key);
    if !known_section(section) {
        return format!("there is no section {section:?}; there are {}", section_names().join(", "));
    }
    let names: Vec<_> = config
        .settings()
        .iter()
        .map(|setting| super::split(setting.key))
        .filter(|(of, _)| *of == section)
        .map(|(_, name)| name)
        .collect();
    match names.iter().find(|known| alike(known, name)) {
        Some(known) => format!("there is no such setting; did you mean {section}.{known}?"),
        None => format!("there is no such setting; [{section}] has {}", names.join(", ")),
    }
}

/// Whether two names differ in how they are put together only, or in at most two letters.
fn alike(known: &str, given: &str) -> bool {
    let plain =
        |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let (known, given) = (plain(known), plain(given));
    let shared_start = known.chars().zip(given.chars()).take_while(|(a, b)| a == b).count();
    let shared_end = known.chars().rev().zip(given.chars().rev()).take_while(|(a, b)| a == b).count();
    let longest = known.len().max(given.len());
    longest.saturating_sub(shared_start + shared_end) <= 2 && shared_start + shared_end > 2
}

/// Byte positions as lines, from 1.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn line(&self, position: usize) -> usize {
        self.0.partition_point(|&newline| newline < position) + 1
    }
}
