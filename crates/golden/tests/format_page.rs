//! `docs/FORMAT.md` is true: its worked examples are the golden files, and a reader that was written from it alone, in
//! another language, reads all of them.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The golden file that an example is of, and its lines.
fn examples() -> Vec<(String, Vec<String>)> {
    let page = std::fs::read_to_string(root().join("docs/FORMAT.md")).unwrap();
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if let Some(file) = line.strip_prefix("```hex ") {
            examples.push((file.to_owned(), Vec::new()));
            inside = true;
        } else if line == "```" {
            inside = false;
        } else if inside && let Some((_, lines)) = examples.last_mut() {
            lines.push(line.to_owned());
        }
    }
    examples
}

/// Where a line begins, and its bytes: `000010  64 65 66  what they are`.
fn parse(line: &str) -> (usize, Vec<u8>) {
    let (at, rest) = line.split_once("  ").unwrap();
    let bytes = rest.split("  ").next().unwrap_or_default().split(' ');
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    (usize::from_str_radix(at, 16).unwrap(), bytes)
}

#[test]
fn the_worked_examples_are_the_golden_files() {
    let mut found = BTreeSet::new();
    for (file, lines) in examples() {
        let golden = std::fs::read(root().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut end = None;
        for line in &lines {
            // A line of dots stands for what is not shown; the next one says where it goes on.
            if line == "…" {
                end = None;
                continue;
            }
            let (at, bytes) = parse(line);
            assert!(end.is_none_or(|end| end == at), "{file}: {line:?} does not follow the line before");
            assert_eq!(golden.get(at..at + bytes.len()), Some(&bytes[..]), "{file}: {line:?}");
            end = Some(at + bytes.len());
        }
        let ends_there = end.is_none_or(|end| end == golden.len());
        assert!(ends_there && lines.len() > 1, "{file}: the example ends where the file does");
        found.insert(file.rsplit('/').next().unwrap_or_default().to_owned());
    }
    let wanted = [
        "batch-none.bin",
        "closed.bin",
        "entry-02-create_stream.bin",
        "entry-03-append.bin",
        "segment-open.wal",
        "segment-stored.bin",
        "snapshot-stored.bin",
        "state-meta.bin",
    ];
    for file in wanted {
        assert!(found.contains(file), "docs/FORMAT.md has no example of {file}");
    }
}

#[test]
fn a_reader_written_from_the_page_reads_every_golden_file() {
    let script = root().join("tests/format/reader.py");
    let python = Command::new("python3").arg(&script).arg(root()).output();
    let output = match python {
        Ok(output) => output,
        Err(error) => {
            println!(
                "SKIPPED: python3 can't be run ({error}), so the second reader of the formats was not tried"
            );
            assert!(std::env::var_os("CI").is_none(), "CI must have python3");
            return;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("every other golden file"), "{out}{err}");
}

/// The second reader notices damage, so that it proves something where it finds none.
#[test]
fn the_second_reader_refuses_altered_files() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: python3 can't be run");
        return;
    }
    let copy = std::env::temp_dir().join(format!("duramen-golden-{}", std::process::id()));
    let crates = ["crates/types", "crates/state", "crates/wal", "crates/archive", "service"];
    for folder in crates {
        let (from, to) = (root().join(folder).join("tests/golden"), copy.join(folder).join("tests/golden"));
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    let altered = [
        ("crates/types/tests/golden/batch-none.bin", 70),
        ("crates/types/tests/golden/entry-04-configure_stream.bin", 30),
        ("crates/state/tests/golden/state-data.bin", 99),
        ("crates/wal/tests/golden/segment-sealed.wal", 4200),
        ("crates/archive/tests/golden/segment-stored.bin", 400),
        ("crates/archive/tests/golden/snapshot-stored.bin", 200),
        ("crates/archive/tests/golden/page.bin", 50),
        ("service/tests/golden/0003.index", 500),
    ];
    let reads = || {
        let script = root().join("tests/format/reader.py");
        Command::new("python3").arg(script).arg(&copy).output().unwrap().status.success()
    };
    let sound = reads();
    let noticed: Vec<_> = altered
        .into_iter()
        .filter(|(file, at)| {
            let path = copy.join(file);
            let bytes = std::fs::read(&path).unwrap();
            let mut other = bytes.clone();
            if let Some(byte) = other.get_mut(*at) {
                *byte ^= 1;
            }
            replace(&path, &other);
            let noticed = !reads();
            replace(&path, &bytes);
            noticed
        })
        .collect();
    std::fs::remove_dir_all(&copy).unwrap();
    assert!(sound, "the copy is as good as the original");
    assert_eq!(noticed, altered, "what is altered is noticed");
}

fn replace(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}
