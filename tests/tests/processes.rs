//! Processes that tests start are watched, stopped and cleaned up.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::Command;
use std::time::Duration;

use duramen_tests::{Deadline, Process, Signal};
use rustix::process::{Pid, test_kill_process};

fn shell(script: &str) -> Process {
    Process::start("script", Command::new("sh").args(["-c", script])).unwrap()
}

fn exists(id: u32) -> bool {
    test_kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap()).is_ok()
}

#[test]
fn a_line_is_found_whether_it_comes_before_or_while_it_is_waited_for() {
    let mut process = shell("echo one; echo two >&2; exec tail -f /dev/null");
    for wanted in ["one", "two", "one"] {
        let found =
            process.wait_for_line(Deadline::after_secs(30), |line| (line == wanted).then(|| line.to_owned()));
        assert_eq!(found.unwrap(), wanted);
    }
}

#[test]
fn waiting_for_a_line_ends_with_the_process_and_shows_what_it_said() {
    let mut process = shell("echo 'port in use' >&2; exit 7");
    let error =
        process.wait_for_line(Deadline::after_secs(30), |line| line.strip_prefix("listening").map(drop));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("exit status: 7") && message.contains("port in use"), "{message}");
}

#[test]
fn waiting_ends_at_the_deadline() {
    let mut process = shell("exec tail -f /dev/null");
    process.wait_for_line(Deadline::after(Duration::from_millis(50)), |_| Some(())).unwrap_err();
    process.wait(Deadline::after(Duration::from_millis(50))).unwrap_err();
    let never =
        process.wait_until::<()>(Deadline::after(Duration::from_millis(50)), || anyhow::bail!("not yet"));
    assert!(format!("{:#}", never.unwrap_err()).contains("not yet"));
}

#[test]
fn a_terminated_process_may_finish_and_a_killed_one_may_not() {
    let script = "trap 'echo bye; exit 3' TERM; echo started; while :; do :; done";
    for (signal, code) in [(Signal::Terminate, Some(3)), (Signal::Kill, None)] {
        let mut process = shell(script);
        process.wait_for_line(Deadline::after_secs(30), |line| (line == "started").then_some(())).unwrap();
        process.signal(signal).unwrap();
        assert_eq!(process.wait(Deadline::after_secs(30)).unwrap().code(), code);
        assert_eq!(process.output().contains("bye"), code.is_some());
    }
}

#[test]
fn a_process_ends_with_its_handle() {
    let process = shell("exec tail -f /dev/null");
    let id = process.id();
    assert!(exists(id));
    drop(process);
    assert!(!exists(id));
}
