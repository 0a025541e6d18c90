use std::time::Duration;

use bytesize::ByteSize;

use super::*;

fn file(text: &str) -> Layers {
    Layers { file: Some(("duramen.toml".into(), text.to_owned())), ..Layers::default() }
}

fn problems(layers: &Layers) -> Vec<String> {
    match Loaded::from_layers(layers) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(problems(&Layers::default()), Vec::<String>::new());
}

#[test]
fn three_mistakes_are_three_reports_each_with_its_line() {
    let found = problems(&file(
        "[node]\n\
         id = \"one\"\n\
         \n\
         [wal]\n\
         segment_sise = \"64MiB\"\n\
         fsync = \"always\"\n\
         [cluster]\n\
         shards = 300\n",
    ));
    assert_eq!(
        found,
        [
            "duramen.toml:2: node.id: is a string, expected a whole number",
            "duramen.toml:5: wal.segment_sise: there is no such setting; did you mean wal.segment_size?",
            "duramen.toml:8: cluster.shards: 300 is out of range; it must be from 1 to 256",
        ]
    );
}

#[test]
fn a_line_that_is_no_toml_does_not_hide_the_mistakes_after_it() {
    let found = problems(&file("[node]\nid = = 3\n[log]\nrecord_limit = \"lots\"\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("duramen.toml:2: "), "{found:?}");
    assert_eq!(
        found[1],
        "duramen.toml:4: log.record_limit: \"lots\" is not a size like \"64MiB\" or \"10GiB\""
    );
}

#[test]
fn unknown_sections_and_values_outside_a_section_are_reported() {
    let found = problems(&file("id = 3\n[nodes]\nid = 3\n[log.more]\nx = 1\n"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("duramen.toml:1: id: belongs into a section"), "{found:?}");
    assert!(found[1].starts_with("duramen.toml:2: nodes: there is no section of this name"), "{found:?}");
    assert!(found[2].starts_with("duramen.toml:4: log.more: there is no such setting"), "{found:?}");
}

#[test]
fn a_later_layer_wins_and_its_origin_is_shown() {
    let mut layers = file("[wal]\nsegment_size = \"64MiB\"\nreserve = \"1GiB\"\ncache = \"32MiB\"\n");
    layers.environment = pairs(&[
        ("DURAMEN_WAL__RESERVE", "2GiB"),
        ("DURAMEN_WAL__CACHE", "16MiB"),
        ("DURAMEN_CONFIG", "elsewhere.toml"),
        ("PATH", "/bin"),
    ]);
    layers.flags = vec![("--set".into(), "wal.cache".into(), "8MiB".into())];
    let loaded = Loaded::from_layers(&layers).unwrap();
    let wal = &loaded.config.wal;
    assert_eq!(
        [wal.segment_size, wal.reserve, wal.cache],
        [ByteSize::mib(64), ByteSize::gib(2), ByteSize::mib(8)]
    );
    let shown = loaded.show();
    for (value, origin) in [
        ("segment_size = \"64MiB\"", "duramen.toml:2"),
        ("reserve = \"2GiB\"", "DURAMEN_WAL__RESERVE"),
        ("cache = \"8MiB\"", "--set"),
        ("fsync = \"always\"", "default"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(value)).unwrap_or_else(|| panic!("{shown}"));
        assert!(line.ends_with(&format!("# {origin}")), "{line}");
    }
}

#[test]
fn the_variable_of_the_other_programs_sets_the_archive_and_not_the_branch() {
    let environment = [("DURAMEN_BRANCH", "trial"), ("DURAMEN_ARCHIVE", "file:///there")];
    let mut layers = Layers { environment: pairs(&environment), ..Layers::default() };
    let loaded = Loaded::from_layers(&layers).unwrap();
    assert_eq!(loaded.config.archive.url.as_deref(), Some("file:///there"));
    assert_eq!(loaded.source("archive.url"), &Source::Environment("DURAMEN_ARCHIVE".to_owned()));
    // It is what duramen-restore reads, and after a restore also what the node's directory knows better.
    assert_eq!(loaded.config.archive.branch, None);
    assert_eq!(loaded.source("archive.branch"), &Source::Default);
    // Nor is it taken for a setting that lacks an underscore; whatever is in it.
    let layers_of_restore = Layers { environment: pairs(&[("DURAMEN_BRANCH", "a b")]), ..Layers::default() };
    Loaded::from_layers(&layers_of_restore).unwrap();
    // Whatever the order of the environment is.
    layers.environment.insert(0, ("DURAMEN_ARCHIVE__URL".into(), "file:///here".into()));
    let loaded = Loaded::from_layers(&layers).unwrap();
    assert_eq!(loaded.config.archive.url.as_deref(), Some("file:///here"));
}

#[test]
fn a_variable_that_lacks_an_underscore_is_not_passed_over() {
    let environment = [("DURAMEN_ARCHIVE_URL", "file:///there"), ("DURAMEN_POWER_CUTS", "3")];
    let layers = Layers { environment: pairs(&environment), ..Layers::default() };
    let expected = "DURAMEN_ARCHIVE_URL: archive.url: is not read: the variable is DURAMEN_ARCHIVE__URL, with two underscores";
    assert_eq!(problems(&layers), [expected]);
}

#[test]
fn what_is_shown_can_be_read_back() {
    let flags = vec![
        ("--archive".into(), "archive.url".into(), "s3://bucket/pre \"fix\"".into()),
        ("--set".into(), "local_retention.age".into(), "36h".into()),
        ("--set".into(), "log.append_timeout".into(), "1500ms".into()),
        ("--set".into(), "log.record_limit".into(), "1000001B".into()),
    ];
    let loaded = Loaded::from_layers(&Layers { flags, ..Layers::default() }).unwrap();
    let again = Loaded::from_layers(&file(&loaded.show())).unwrap();
    assert_eq!(again.config, loaded.config);
    assert_eq!(again.config.local_retention.age, Some(Duration::from_secs(36 * 3600)));
}

#[test]
fn mistakes_in_the_environment_and_in_flags_name_their_variable_or_flag() {
    let layers = Layers {
        environment: pairs(&[("DURAMEN_LOG__RECORDLIMIT", "1MiB"), ("DURAMEN_ARCHIVE__SEGMENT_AGE", "soon")]),
        flags: vec![("--node-id".into(), "node.id".into(), "0".into())],
        ..Layers::default()
    };
    let found = problems(&layers);
    assert_eq!(
        found,
        [
            "DURAMEN_ARCHIVE__SEGMENT_AGE: archive.segment_age: \"soon\" is not a duration like \"10s\", \"500ms\" \
             or \"30d\"",
            "DURAMEN_LOG__RECORDLIMIT: log.recordlimit: there is no such setting; did you mean log.record_limit?",
            "--node-id: node.id: 0 is out of range; it must be from 1 to 281474976710655",
        ]
    );
}

#[test]
fn an_address_that_others_can_reach_needs_an_explicit_word() {
    let text = "[listen]\nclients = \"0.0.0.0:7700\"\n";
    let found = problems(&file(text));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("duramen.toml:2: listen.clients: 0.0.0.0:7700 can be reached"), "{found:?}");
    assert!(found[0].contains("--allow-insecure-listen"));
    assert_eq!(problems(&file(&format!("{text}allow_insecure = true\n"))), Vec::<String>::new());
    assert_eq!(problems(&file("[listen]\nclients = \"[::1]:7700\"\n")), Vec::<String>::new());
}

#[test]
fn features_that_do_not_exist_yet_are_refused_as_such() {
    for text in [
        "[archive]\nencryption_key = \"x\"\n",
        "[encryption]\nkey = \"x\"\n",
        "[archive]\nmerge_fan_in = 32\n",
        "[listen]\ntls_certificate = \"x\"\n",
        "[tokens]\n",
        "[listen]\npeers = \"127.0.0.1:7701\"\n",
    ] {
        let found = problems(&file(text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is not available in this version"), "{found:?}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_reported() {
    let found = problems(&file(
        "[log]\nrecord_limit = \"20MiB\"\nbyte_budget = \"5MiB\"\ndefault_acknowledgement = \"archived\"\n\
         [wal]\nsegment_size = \"15MiB\"\n[listen]\nadmin = \"127.0.0.1:7700\"\n",
    ));
    let keys: Vec<_> = found.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        keys,
        [
            "log.record_limit",
            "log.byte_budget",
            "log.default_acknowledgement",
            "wal.segment_size",
            "listen.admin"
        ]
    );
}

#[test]
fn archive_urls_are_checked_and_never_repeated() {
    let of = |url: &str| problems(&file(&format!("[archive]\nurl = \"{url}\"\n")));
    for good in ["s3://bucket", "s3://bucket/a/b", "gs://b/p", "az://c/p", "file:///srv/archive", "memory:"] {
        assert_eq!(of(good), Vec::<String>::new(), "{good}");
    }
    for (bad, part) in [
        ("bucket/prefix", "is not a URL"),
        ("s3:///prefix", "names no bucket"),
        ("https://bucket", "\"https\" is no kind of store"),
        ("file:///", "root directory"),
        ("s3://key:hunter2@bucket/p", "must not hold credentials"),
    ] {
        let found = of(bad).join("\n");
        assert!(found.contains(part), "{bad}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn an_endpoint_in_the_clear_is_for_this_machine_or_an_explicit_word() {
    let of = |text: &str| problems(&file(&format!("[archive]\n{text}\n")));
    for good in [
        "endpoint = \"http://127.0.0.1:9000\"",
        "endpoint = \"http://localhost:9000\"",
        "endpoint = \"http://[::1]:9000\"",
        "endpoint = \"https://store.example\"",
        "endpoint = \"http://store.example\"\nallow_http = true",
    ] {
        assert_eq!(of(good), Vec::<String>::new(), "{good}");
    }
    assert!(of("endpoint = \"http://store.example\"").join("").contains("use https://"));
    assert!(of("endpoint = \"store.example:9000\"").join("").contains("is not a URL like"));
}

#[test]
fn schedules_and_log_levels_are_checked() {
    let found = problems(&file(
        "[archive]\nsnapshot_schedule = \"hourly-ish\"\n[telemetry]\nlog_level = \"duramen=loud\"\n",
    ));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("duramen.toml:2: archive.snapshot_schedule: \"hourly-ish\" is not a cron"));
    assert!(found[1].starts_with("duramen.toml:4: telemetry.log_level: "), "{found:?}");
    for (level, part) in
        [("loud", "loud"), ("inof", "inof"), ("duramen=debug,wran", "wran"), ("duramen", "duramen")]
    {
        let found = problems(&file(&format!("[telemetry]\nlog_level = \"{level}\"\n")));
        assert!(
            found.len() == 1 && found[0].contains(&format!("{part:?} is no level: write off,")),
            "{found:?}"
        );
    }
    for level in ["info", "WARN", "info,duramen=debug", "off", "warn,duramen::node=trace"] {
        assert_eq!(problems(&file(&format!("[telemetry]\nlog_level = \"{level}\"\n"))), Vec::<String>::new());
    }
}

#[test]
fn the_reference_page_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/CONFIGURATION.md is out of date; run: cargo run -p duramen -- config-reference > docs/CONFIGURATION.md"
    );
}
