//! A node as a process: it starts, says where it listens, survives being killed, and stops when asked. What it refuses to
//! start on is in `bad_input`.

use std::net::TcpStream;

use duramen_tests::{Bucket, NodeSettings};

#[test]
fn a_node_gets_ready_stops_when_asked_and_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).start().unwrap();
    assert_eq!(node.admin_get("/ready").unwrap().0, 200);
    let address = node.client_url().strip_prefix("http://").unwrap().to_owned();
    TcpStream::connect(&address).expect("it listens for clients");

    assert_eq!(node.terminate().unwrap().code(), Some(0), "{}", node.process().output());
    TcpStream::connect(&address).expect_err("nobody listens any more");
    node.start_again().unwrap();
    assert_eq!(node.admin_get("/ready").unwrap().0, 200);
}

#[test]
fn a_killed_node_starts_again_on_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).start().unwrap();
    for _ in 0..3 {
        node.kill_9().unwrap();
        assert!(!node.process().is_running());
        node.start_again().unwrap();
    }
}

#[test]
fn a_node_gets_ready_with_an_archive_in_a_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create().unwrap();
    let mut node = NodeSettings::in_directory(directory.path()).archive_in(&bucket, "log").start().unwrap();
    assert_eq!(node.terminate().unwrap().code(), Some(0), "{}", node.process().output());
}
