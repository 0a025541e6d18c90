//! Random histories of a node on a simulated machine, beside a faulty object store: operations of several clients, followers,
//! crashes, power cuts, syncs that fail or take long, clocks that jump, reads of the past and restores, all of it compared
//! with a model.
//!
//! Without a seed this program is the runner: each seed is a process of its own, the first one runs twice and must have the same
//! history both times. See docs/TESTING.md.

#![expect(clippy::panic, reason = "a wrong setting ends the test")]

mod support;

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[path = "histories/simulation.rs"]
mod simulation;

use simulation::Simulation;

fn main() -> Result<()> {
    let name = "histories";
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !name.contains(&argument)) {
        return Ok(());
    }
    support::log();
    match support::setting::<u64>("DURAMEN_SIM_SEED") {
        Some(seed) => one(seed),
        None => many(),
    }
}

fn one(seed: u64) -> Result<()> {
    let report = support::seeded(seed, || Simulation::new(seed).run())
        .with_context(|| format!("seed {seed}; run it again with `just sim {seed}`"))?;
    println!("seed {seed}: {report}");
    Ok(())
}

fn many() -> Result<()> {
    let first: u64 = support::setting("DURAMEN_SIM_FIRST").unwrap_or(1);
    let count: u64 = support::setting("DURAMEN_SIM_COUNT").unwrap_or(12);
    let run = |seed: u64| -> Result<String> {
        let output = Command::new(std::env::current_exe()?)
            .env("DURAMEN_SIM_SEED", seed.to_string())
            .output()
            .with_context(|| format!("seed {seed} can't be run"))?;
        let (said, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "seed {seed} failed ({}):\n{said}{complaint}", output.status);
        Ok(said.trim_end().to_owned())
    };
    for seed in first..first.saturating_add(count) {
        let said = run(seed)?;
        println!("{said}");
        if seed == first {
            let again = run(seed)?;
            ensure!(said == again, "the same seed had another history:\n{said}\n{again}");
        }
    }
    Ok(())
}
