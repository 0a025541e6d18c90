//! The power fails at every single operation of a node's disk: at appends, seals, checkpoints, index files, purges, when the
//! data directory is made and bound, when a branch is entered, and during the recovery from an earlier power cut.
//!
//! Whenever it was: what was acknowledged is all back, at its offsets, with cursors and trims; the archive verifies; and the
//! node goes on. See docs/TESTING.md for what can be set.

#![expect(clippy::panic, reason = "a wrong setting ends the test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen::config::Config;
use duramen::{Node, StartError};
use duramen_archive::Depth;
use duramen_restore::{BranchOptions, Target, VerifyOptions};
use duramen_simulation::{FaultyStore, Player, Weather, World, config};
use duramen_types::{Acknowledgement, BranchName};
use duramen_wal::sim::SimDisk;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many rounds of operations the players do.
const ROUNDS: u64 = 40;
/// After which the node is stopped and started in an orderly way.
const RESTART: u64 = 22;
/// How many rounds follow a recovery.
const AFTERWARDS: u64 = 4;
const SHUTDOWN: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let name = "power_cuts";
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !name.contains(&argument)) {
        return Ok(());
    }
    support::log();
    if let Some(cut) = support::setting::<String>("DURAMEN_POWER_CUT") {
        let (seed, at) = cut.split_once(':').context("DURAMEN_POWER_CUT is SEED:OPERATION")?;
        return cut_at(seed.parse()?, at.parse()?, true);
    }
    let seeds = support::setting("DURAMEN_POWER_CUT_SEEDS").unwrap_or(2);
    let cuts: u64 = support::setting("DURAMEN_POWER_CUTS").unwrap_or(100);
    for seed in 1..=seeds {
        let total = support::seeded(seed, || Game::new(seed).play_undisturbed())?;
        let step = (total / cuts.max(1)).max(1);
        // Not always the same ones: each seed begins elsewhere.
        for at in (1 + seed % step..=total).step_by(usize::try_from(step)?) {
            cut_at(seed, at, (at / step).is_multiple_of(10))?;
        }
        println!("seed {seed}: {total} operations, the power failed at every {step}th");
    }
    entering_a_branch()
}

fn cut_at(seed: u64, at: u64, thoroughly: bool) -> Result<()> {
    support::seeded(seed, || Game::new(seed).play_with_power_cut(at, thoroughly)).with_context(|| {
        format!("the power failed at operation {at}; again with DURAMEN_POWER_CUT={seed}:{at}")
    })
}

/// Two clients, their operations, and the machine that they work on.
struct Game {
    world: World,
    players: Vec<(Player, StdRng)>,
    random: StdRng,
    config: Config,
    round: u64,
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    PowerOff,
    Stopped,
}

impl Game {
    fn new(seed: u64) -> Self {
        let levels = [
            None,
            Some(Acknowledgement::Local),
            Some(Acknowledgement::Quorum),
            Some(Acknowledgement::Archived),
        ];
        let player =
            |n: u64, names: &[&str]| (Player::new(names, &levels), StdRng::seed_from_u64(seed * 10 + n));
        let mut config = config();
        if seed.is_multiple_of(2) {
            // No checkpoint is due by itself: those that there are are taken because local segments go.
            config.wal.checkpoint_bytes = bytesize::ByteSize::mib(64);
        }
        Self {
            world: World::new(seed),
            players: vec![player(0, &["orders", "a.b_c-d"]), player(1, &["payments", "ci"])],
            random: StdRng::seed_from_u64(seed),
            config,
            round: 0,
        }
    }

    /// Plays to the end, and gives the number of the disk's operations.
    fn play_undisturbed(&mut self) -> Result<u64> {
        while self.round < ROUNDS {
            ensure!(self.live()? == End::Stopped, "nobody cut the power");
        }
        self.finish()?;
        let purged = self.world.live(async {
            let node = Node::start_in(self.world.environment(), &self.config).await?;
            let status = node.status().await;
            anyhow::Ok(status.shards.iter().filter(|shard| shard.local_first > 0).count())
        })?;
        ensure!(purged >= 2, "local segments of {purged} shards were purged: the game is too short");
        Ok(self.world.disk.operations())
    }

    fn play_with_power_cut(mut self, at: u64, thoroughly: bool) -> Result<()> {
        self.world.disk.fail_power_at(at);
        while !self.world.disk.is_off() && self.round < ROUNDS {
            self.live()?;
        }
        self.world.disk.power_cut();
        if self.round > 0 {
            self.start_without_store(at).context("starting while the store is away")?;
        }
        if thoroughly {
            self.cut_next_start()?;
        }
        self.round = self.round.max(ROUNDS - AFTERWARDS);
        while self.round < ROUNDS {
            ensure!(self.live()? == End::Stopped, "nobody cut the power");
        }
        self.finish()
    }

    /// Lets the power fail at each operation of the next start, each time on a copy of the world, and starts again; gives how
    /// many operations that were.
    fn cut_next_start(&self) -> Result<u64> {
        for at in 1.. {
            let mut game = self.fork(at);
            let what = || format!("operation {at} of the start");
            game.round = ROUNDS;
            game.world.disk.fail_power_at(game.world.disk.operations() + at);
            let end = game.live().with_context(what)?;
            let done = !game.world.disk.is_off();
            ensure!(done == (end == End::Stopped), "{}: {end:?}", what());
            game.world.disk.power_cut();
            game.round = ROUNDS - 1;
            ensure!(game.live().with_context(what)? == End::Stopped, "nobody cut the power");
            if done || at.is_multiple_of(16) {
                game.finish().with_context(what)?;
            }
            if done {
                return Ok(at);
            }
        }
        Ok(0)
    }

    /// A node that has been there before starts without its archive: nothing that it needs for that is only there.
    fn start_without_store(&self, seed: u64) -> Result<()> {
        let mut world = self.world.fork(seed);
        let store = FaultyStore::new(Arc::clone(&world.objects) as _, seed);
        store.set(Weather { down: true, ..Weather::clear() });
        world.reach_store_through(Arc::new(store));
        world.live(async {
            Node::start_in(world.environment(), &self.config).await?;
            Ok(())
        })
    }

    fn fork(&self, seed: u64) -> Self {
        Self {
            world: self.world.fork(seed),
            players: self.players.clone(),
            random: self.random.clone(),
            config: self.config.clone(),
            round: self.round,
        }
    }

    /// One life of the node's process: starts it, compares what is there, and plays rounds.
    fn live(&mut self) -> Result<End> {
        let Self { world, players, random, config, round, .. } = self;
        let life = world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            for (player, _) in &mut *players {
                player.check(&node).await?;
            }
            while *round < ROUNDS {
                *round += 1;
                for played in
                    join_all(players.iter_mut().map(|(player, random)| player.play(&node, random))).await
                {
                    played?;
                }
                if world.disk.is_off() {
                    return Ok(());
                }
                if let Some(answer) = players.iter().find_map(|(player, _)| player.uncertain()) {
                    anyhow::bail!("an operation had no outcome: {answer}");
                }
                match *round % 8 {
                    3 => drop(node.archive_flush().await?),
                    7 => drop(node.snapshot().await?),
                    // Time passes: rounds of archiving come, and local segments go.
                    _ => tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await,
                }
                if *round == RESTART {
                    break;
                }
            }
            node.shutdown(SHUTDOWN).await?;
            Ok(())
        });
        match life {
            // What is said without power is heard by nobody; that the log said something wrong before is another matter.
            Err(error) if world.disk.is_off() && is_failure(&error) => Ok(End::PowerOff),
            Err(error) => Err(error.context(format!("round {round}"))),
            Ok(()) if world.disk.is_off() => Ok(End::PowerOff),
            Ok(()) => Ok(End::Stopped),
        }
    }

    /// The last life: everything is there, now and as of before, and in the archive.
    fn finish(&mut self) -> Result<()> {
        let Self { world, players, random, config, .. } = self;
        world.live(async {
            let node = Node::start_in(world.environment(), config).await.context("the last start")?;
            node.archive_flush().await?;
            for (player, _) in &mut *players {
                player.check(&node).await.context("at the end")?;
                for _ in 0..4 {
                    if let Some(time) = player.some_instant(random) {
                        player.check_as_of(&node, time).await?;
                    }
                }
            }
            let options = VerifyOptions { record: false, ..VerifyOptions::new(Depth::Full) };
            let branch = config.archive.branch.clone().unwrap_or_default();
            let report = duramen_restore::verify(&world.store(), &branch, &options).await?;
            ensure!(report.is_clean(), "the archive: {:?}", report.verdict);
            node.shutdown(SHUTDOWN).await?;
            Ok(())
        })
    }
}

/// Whether an operation failed, and not a comparison.
fn is_failure(error: &anyhow::Error) -> bool {
    error.downcast_ref::<duramen::api::Error>().is_some() || error.downcast_ref::<StartError>().is_some()
}

/// A node on an empty disk enters a branch of what another one wrote.
fn entering_a_branch() -> Result<()> {
    let name = BranchName::parse("experiment")?;
    let mut game = Game::new(7);
    support::seeded(7, || {
        game.play_undisturbed()?;
        let world = &game.world;
        world.live(async {
            let parent = game.config.archive.branch.clone().unwrap_or_default();
            let options = BranchOptions::default();
            duramen_restore::branch(&world.store(), &parent, Some(&name), &Target::Latest, &options).await
        })?;
        game.config.archive.branch = Some(name.clone());
        game.world.disk = SimDisk::new(7);
        let operations = game.cut_next_start().context("the power failed while a branch was entered")?;
        println!("entering a branch: the power failed at each of {operations} operations");
        Ok(())
    })
}
