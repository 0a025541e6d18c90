//! Connections that are only there: silent, half open, or never read.

use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Result, ensure};
use duramen_tests::{Deadline, Tool};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Attacked, PATIENCE};

/// How many connections this process may have: as many as asked for, where the machine allows it.
fn allowed(wanted: u64) -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let room = most.saturating_sub(500);
    if room < wanted {
        eprintln!("only {room} connections: this machine allows no more open files");
    }
    Ok(wanted.min(room))
}

#[test]
fn ten_thousand_silent_connections_cost_little_and_harm_nobody() -> Result<()> {
    let count = allowed(10_000)?;
    let mut attacked = Attacked::start(|settings| {
        settings.set("listen.connections", "12000").set("listen.header_timeout", "10m")
    })?;
    let silent = (0..count).map(|_| attacked.connect()).collect::<Result<Vec<TcpStream>>>()?;
    let open = |admin: &str| -> Result<u64> {
        let (_, page) = get(&format!("{admin}/metrics"))?;
        let line = page.lines().find_map(|line| line.strip_prefix("duramen_connections{port=\"clients\"} "));
        Ok(line.unwrap_or("0").parse()?)
    };
    let admin = attacked.node.admin_url();
    attacked.node.process().wait_until(Deadline::after(PATIENCE), || {
        let open = open(&admin)?;
        ensure!(open >= count, "{open} of {count} are open");
        Ok(())
    })?;
    attacked.neighbour_goes_on()?;
    drop(silent);
    attacked.survives(300)
}

fn get(url: &str) -> Result<(u16, String)> {
    let mut response = ureq::get(url).call()?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
}

#[test]
fn silent_connections_beyond_the_limit_give_way_in_time() -> Result<()> {
    let mut attacked = Attacked::start(|settings| {
        settings.set("listen.connections", "20").set("listen.header_timeout", "1s")
    })?;
    let silent = (0..100).map(|_| attacked.connect()).collect::<Result<Vec<TcpStream>>>()?;
    // One that comes after all of them.
    let late = Tool::ctl(&attacked.node)?.line("append late - --timeout 60s").input("a record\n");
    late.succeed()?;
    attacked.neighbour_goes_on()?;
    drop(silent);
    attacked.survives(200)
}

#[test]
fn readers_that_never_read_hold_little() -> Result<()> {
    let mut attacked = Attacked::start(|settings| settings)?;
    let lines = format!("{}\n", "x".repeat(100_000)).repeat(600);
    Tool::ctl(&attacked.node)?.line("append large -").input(&lines).succeed()?;
    let before = attacked.peak_memory()?;
    let mut readers = Vec::new();
    for _ in 0..100 {
        let mut stream = attacked.connect()?;
        stream.write_all(
            b"GET /v1/tenants/default/streams/large/records?from=0&follow=true HTTP/1.1\r\nhost: x\r\n\r\n",
        )?;
        readers.push(stream);
    }
    attacked.neighbour_goes_on()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let after = attacked.peak_memory()?;
    ensure!(after < before + 200, "100 readers that do not read took {before} to {after} MiB");
    attacked.neighbour_goes_on()?;
    drop(readers);
    attacked.survives(before + 200)
}
