//! `duramen demo`, as the README's first command runs it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use duramen_tests::{Block, Deadline, Shell, programs};

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

/// The sums that the demo says its records have, or the program `cksum` of what was read.
fn sums(said: &str, before: &str) -> Vec<String> {
    let of = |line: &str| {
        let sum = line.split_once(before)?.1;
        let words: Vec<&str> = sum.split([' ', ';', ')']).take(2).collect();
        words.iter().all(|word| word.parse::<u64>().is_ok()).then(|| words.join(" "))
    };
    said.lines().filter_map(of).collect()
}

/// Types every command that the demo printed, in their order, each in a terminal of its own where the demo says so.
///
/// Only the ports differ, because other tests run at the same time.
fn type_all(said: &str, directory: &Path) -> String {
    let free: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [clients, admin, other_clients, other_admin] =
        [0, 1, 2, 3].map(|n: usize| free[n].local_addr().unwrap().to_string());
    let mut shell = Shell::new(directory).unwrap();
    shell.variable("DURAMEN_LISTEN__CLIENTS", &clients).variable("DURAMEN_LISTEN__ADMIN", &admin);
    shell.variable("DURAMEN_ENDPOINT", format!("http://{clients}"));
    shell.variable("DURAMEN_ADMIN", format!("http://{admin}"));
    let mut step = String::new();
    let mut typed = 0;
    for line in said.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            line.clone_into(&mut step);
            continue;
        };
        let command = line.strip_prefix("$ ").map(|command| {
            typed += 1;
            command.replace("127.0.0.1:7800", &other_clients).replace("127.0.0.1:7802", &other_admin)
        });
        let commands = match command {
            Some(command) if command.starts_with("duramen serve ") => {
                let (variable, admin) = match command.contains("--branch") {
                    true => ("BRANCH_NODE", &other_admin),
                    false => ("NODE", &admin),
                };
                format!(
                    "{command} >> {variable}.log 2>&1 &\n{variable}=$!\n\
                     until duramenctl --admin http://{admin} health > health.log 2>&1; do\n\
                       kill -0 ${variable} || cat {variable}.log; sleep 0.1\ndone\n"
                )
            }
            Some(command) => format!("{command}\n"),
            None if line.contains("Ctrl-C") => "kill $NODE; wait $NODE\n".to_owned(),
            None => continue,
        };
        shell.block(&Block { name: step.replace('"', ""), commands });
    }
    assert_eq!(typed, 19, "the demo prints {typed} commands:\n{said}");
    drop(free);
    shell.run(Deadline::after_secs(300)).unwrap()
}

fn replay(keep: &Path, arguments: &[&str]) -> String {
    let (ok, said) = demo(&[arguments, &["--keep", keep.to_str().unwrap()]].concat());
    assert!(ok, "{said}");
    let by_hand = type_all(&said, keep.parent().unwrap());
    let (demo, hand) = (sums(&said, "cksum: "), sums(&by_hand, ""));
    // Read back, as of the instant before, on the branch, and after the disaster.
    assert!(demo.len() == 4 && demo[0] == demo[1] && demo[0] == demo[2] && demo[0] != demo[3], "{said}");
    // The records were appended a second time to what was left, so the first sum is another.
    assert_eq!(hand.get(1..), demo.get(1..), "by hand:\n{by_hand}\nthe demo:\n{said}");
    assert!(by_hand.contains("no damage"), "{by_hand}");
    said
}

#[test]
fn every_command_that_the_demo_prints_works_as_it_is_in_a_directory_that_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let said = replay(&directory.path().join("it's kept"), &[]);
    assert!(said.contains("--stream-field net --key-field id --timestamp-field time"), "{said}");
}

#[test]
fn the_demo_s_commands_name_only_fields_that_another_file_has() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("mine.jsonl");
    // Some records have a network, and none has an id or a time.
    let line = |n: u32| match n % 3 {
        0 => format!("{{\"net\":\"s\",\"shop\":\"shop-{}\",\"n\":{n}}}\n", n % 2),
        _ => format!("{{\"shop\":\"shop-{}\",\"n\":{n}}}\n", n % 2),
    };
    let text: String = (1..=50).map(line).collect();
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&input, text).unwrap();
    let keep = directory.path().join("kept");
    let mine = ["--input", input.to_str().unwrap()];
    let said = replay(&keep, &[&mine[..], &["--stream-field", "shop"]].concat());
    assert!(said.contains("duramenctl append --stream-field shop /"), "{said}");
    assert!(said.contains("50 records in 2 streams"), "{said}");
    assert!(keep.join("archive").join("archive.json").is_file(), "{said}");

    let said = replay(&directory.path().join("of one stream"), &mine);
    assert!(
        said.contains("duramenctl append records /") && said.contains("50 records in 1 stream"),
        "{said}"
    );

    let (ok, said) = demo(&[&mine[..], &["--keep", keep.to_str().unwrap()]].concat());
    assert!(!ok && said.contains("is not empty"), "{said}");
    let (ok, said) = demo(&[&mine[..], &["--stream-field", "net"]].concat());
    assert!(!ok && said.contains("mine.jsonl, line 1: its field \"net\" names no stream"), "{said}");
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
