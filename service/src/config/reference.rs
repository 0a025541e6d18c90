//! `docs/CONFIGURATION.md`, made of the settings themselves.

use std::fmt::Write as _;

use super::{Config, SECTIONS, split};

const HEAD: &str = "\
# Configuration

A node reads its settings from four places; a later one wins:

1. the defaults below;
2. a TOML file: `--config PATH`, else `DURAMEN_CONFIG`, else `./duramen.toml` if there is one;
3. the environment: `DURAMEN_SECTION__KEY` (two underscores between section and key), for example
   `DURAMEN_WAL__SEGMENT_SIZE=64MiB`. `DURAMEN_ARCHIVE`, which the other programs read, sets `archive.url`; their
   `DURAMEN_BRANCH` is not read;
4. flags: `--set section.key=value` for every setting, and short ones for the most used: `--data` (`node.data`),
   `--node-id` (`node.id`), `--archive` (`archive.url`), `--branch` (`archive.branch`), `--listen` (`listen.clients`),
   `--admin-listen` (`listen.admin`), `--allow-insecure-listen` (`listen.allow_insecure`).

Durations are written `500ms`, `10s`, `5m`, `1h`, `30d`; sizes `64MiB`, `10GiB` (or `MB`, `GB`, which are powers of
ten). In the file both are strings. In the environment and in flags an empty value takes an optional setting away.

`duramen --validate` prints the effective configuration and where each value came from, and starts nothing. All
mistakes are reported at once, each with its line, variable or flag; a node with any doesn't start (exit code 2).

This page is generated from the settings' declarations: `duramen config-reference > docs/CONFIGURATION.md`.
";

/// The page that documents every setting, as Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut config = Config::default();
    let mut current = "";
    let write = |page: &mut String, text: std::fmt::Arguments<'_>| {
        page.write_fmt(text).expect("writing to a String can't fail");
    };
    for setting in config.settings() {
        let (section, name) = split(setting.key);
        if section != current {
            let about = SECTIONS.iter().find(|(of, _)| *of == section).map_or("", |(_, about)| about);
            write(&mut page, format_args!("\n## `[{section}]`\n\n{}\n", flow(about)));
            current = section;
        }
        let default = setting.value.toml().map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let variable = format!("DURAMEN_{}__{}", section.to_uppercase(), name.to_uppercase());
        write(&mut page, format_args!("\n### `{}`\n\n{}\n\n", setting.key, flow(setting.doc)));
        write(&mut page, format_args!("- Value: {}\n- Default: {default}\n", setting.value.kind().is));
        if let Some(limits) = setting.limits {
            write(&mut page, format_args!("- Range: `{}` to `{}`\n", limits.lowest, limits.highest));
        }
        write(&mut page, format_args!("- Environment: `{variable}`\n"));
    }
    page
}

/// Doc comments lose the blank that each line begins with.
fn flow(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
