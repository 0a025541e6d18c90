//! `duramen demo`, as the README's first command runs it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::Command;

use duramen_tests::programs;

fn demo(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(&programs().unwrap().duramen).arg("demo").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_demo_needs_nothing_and_every_comparison_holds() {
    let (ok, said) = demo(&[]);
    assert!(ok, "{said}");
    assert!(said.contains("1707 records in 12 streams"), "{said}");
    assert!(said.contains("every comparison held"), "{said}");
}

#[test]
fn the_demo_keeps_its_directory_and_takes_another_file() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("mine.jsonl");
    let line = |n: u32| format!("{{\"net\":\"s{}\",\"id\":\"{n}\",\"time\":{n}}}\n", n % 3);
    std::fs::create_dir_all(directory.path()).unwrap();
    let text: String = (1..=50).map(line).collect();
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&input, text).unwrap();
    let keep = directory.path().join("kept");
    let arguments = ["--input", input.to_str().unwrap(), "--keep", keep.to_str().unwrap()];
    let (ok, said) = demo(&arguments);
    assert!(ok, "{said}");
    assert!(keep.join("archive").join("archive.json").is_file(), "{said}");

    let (ok, said) = demo(&arguments);
    assert!(!ok && said.contains("is not empty"), "{said}");
}

#[test]
fn a_broken_input_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("broken.jsonl");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&input, "{\"net\":\"a\"}\n{oops\n").unwrap();
    let (ok, said) = demo(&["--input", input.to_str().unwrap()]);
    assert!(!ok && said.contains("line 2"), "{said}");
}
