//! A node's configuration: `duramen.toml`, then the environment (`DURAMEN_SECTION__KEY`), then flags; the last wins.
//!
//! Every setting is declared once, in `sections.rs`, with its type, default, range and documentation. From that
//! one list come the loader, the checks, `duramen --validate` and `docs/CONFIGURATION.md`.

mod load;
mod reference;
mod section;
mod sections;
mod validate;
mod value;

use std::fmt::Write as _;

pub use load::{Layers, Loaded, Problem, Problems, Source};
pub use reference::reference;
pub use sections::{
    Archive, CloudWatch, Cluster, DEFAULT_SHARDS, Listen, LocalRetention, Log, Node, Shutdown, Telemetry, Wal,
};
pub use value::{Fsync, LogFormat};

use section::Setting;

macro_rules! config {
    ($($field:ident: $type:ident),+) => {
        /// Everything that can be set of a node; `Config::default()` is what a node without any configuration has.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Config {
            $(pub $field: $type,)+
        }

        impl Config {
            /// All settings in place, in the order in which they are declared.
            fn settings(&mut self) -> Vec<Setting<'_>> {
                let mut all = Vec::new();
                $(all.extend(self.$field.settings());)+
                all
            }
        }

        /// Each section's name and documentation.
        const SECTIONS: &[(&str, &str)] = &[$(($type::NAME, $type::ABOUT)),+];
    };
}

config! {
    node: Node,
    cluster: Cluster,
    listen: Listen,
    wal: Wal,
    log: Log,
    archive: Archive,
    local_retention: LocalRetention,
    telemetry: Telemetry,
    cloudwatch: CloudWatch,
    shutdown: Shutdown
}

impl Loaded {
    /// The keys of the settings of which `other` has another value, in the order in which they are declared.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (mut one, mut other) = (self.config.clone(), other.config.clone());
        let pairs = one.settings().into_iter().zip(other.settings());
        let differing = pairs.filter(|(one, other)| one.value.toml() != other.value.toml());
        differing.map(|(setting, _)| setting.key).collect()
    }

    /// The effective configuration as a `duramen.toml`, each line with where its value came from.
    pub fn show(&self) -> String {
        let mut config = self.config.clone();
        let mut lines = Vec::new();
        for setting in config.settings() {
            let (section, name) = split(setting.key);
            let line = match setting.value.toml() {
                Some(value) => format!("{name} = {value}"),
                None => format!("# {name} is not set"),
            };
            lines.push((section, line, self.source(setting.key).to_string()));
        }
        let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        let mut current = "";
        for (section, line, source) in lines {
            if section != current {
                let gap = if current.is_empty() { "" } else { "\n" };
                writeln!(text, "{gap}[{section}]").expect("writing to a String can't fail");
                current = section;
            }
            writeln!(text, "{line:width$}  # {source}").expect("writing to a String can't fail");
        }
        text
    }
}

/// A key's section and name.
fn split(key: &str) -> (&str, &str) {
    key.split_once('.').unwrap_or((key, ""))
}

#[cfg(test)]
mod tests;
