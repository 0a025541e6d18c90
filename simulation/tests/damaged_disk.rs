//! A disk that turns bits and fails to read, in every kind of file that a node has, while it runs and before it starts.
//!
//! Whatever is damaged: nothing wrong is ever served. Either everything is right all the same, or the node says which file it is
//! and what to do; and after a repair from the archive everything is there again, but for what is reported as gone, which is
//! never anything that was archived. See docs/TESTING.md.

#![expect(clippy::panic, reason = "a wrong setting ends the test")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen::config::Config;
use duramen::{Node, StartError};
use duramen_archive::Depth;
use duramen_restore::{HydrateOptions, RepairOptions, Target, VerifyOptions};
use duramen_simulation::{Player, World, config};
use duramen_types::{Acknowledgement, BranchName, NodeId};
use duramen_wal::Disk;
use duramen_wal::sim::SimDisk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many rounds of operations are archived, and how many follow that are not.
const ARCHIVED: u32 = 24;
const NOT_ARCHIVED: u32 = 4;
/// Of so many games, one is on a directory that `hydrate` filled.
const RESTORED: u64 = 3;
const KINDS: &[&str] = &["log", "checkpoint", "index", "node.json"];
const RESTORED_KINDS: &[&str] = &["log", "node.json", "restore.json", "activated.json"];
const SHUTDOWN: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let name = "damaged_disk";
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !name.contains(&argument)) {
        return Ok(());
    }
    support::log();
    let first: u64 = support::setting("DURAMEN_DAMAGE_SEED").unwrap_or(1);
    let count: u64 = support::setting("DURAMEN_DAMAGE_SEEDS").unwrap_or(3);
    let bits: usize = support::setting("DURAMEN_DAMAGE_BITS").unwrap_or(4);
    for seed in first..first.saturating_add(count) {
        let counts = support::seeded(seed, || Game::new(seed).play(bits));
        let counts = counts.with_context(|| {
            format!("seed {seed}; again with DURAMEN_DAMAGE_SEED={seed} DURAMEN_DAMAGE_SEEDS=1 DURAMEN_DAMAGE_BITS={bits}")
        })?;
        println!("seed {seed}: {counts:?}");
        let restored = seed.is_multiple_of(RESTORED);
        let kinds = if restored { RESTORED_KINDS } else { KINDS };
        for kind in kinds {
            ensure!(counts.contains_key(*kind), "there was no {kind} to damage: {counts:?}");
        }
    }
    Ok(())
}

/// What came of the damage to one kind of file.
#[derive(Debug, Default)]
struct Counts {
    /// It made no difference.
    harmless: u32,
    /// It was reported, and what was wrong is right after a repair or a restart.
    mended: u32,
    /// The same, and what only the damaged file had is reported as gone.
    gone: u32,
    /// It was reported, and the node can be rebuilt from the archive only.
    refused: u32,
}

/// How the disk does it.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Bit { byte: u64, bit: u8 },
    Unreadable,
}

struct Game {
    seed: u64,
    world: World,
    players: Vec<Player>,
    config: Config,
}

impl Game {
    fn new(seed: u64) -> Self {
        let levels = [None, Some(Acknowledgement::Local), Some(Acknowledgement::Archived)];
        let mut config = config();
        if !seed.is_multiple_of(2) {
            // Everything stays local, and is read from the disk; else what is archived goes, and the checkpoint counts.
            config.local_retention.bytes = bytesize::ByteSize::gib(1);
        }
        let players = vec![Player::new(&["orders", "a.b_c-d"], &levels), Player::new(&["ci"], &levels)];
        Self { seed, world: World::new(seed), players, config }
    }

    fn fork(&self, seed: u64) -> Self {
        let (world, players, config) = (self.world.fork(seed), self.players.clone(), self.config.clone());
        Self { seed, world, players, config }
    }

    fn play(mut self, bits: usize) -> Result<BTreeMap<&'static str, Counts>> {
        self.operate().context("before any damage")?;
        self.world.disk.kill();
        if self.seed.is_multiple_of(RESTORED) {
            self.restore().context("before any damage")?;
        }
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut counts: BTreeMap<&'static str, Counts> = BTreeMap::new();
        let mut failed = Vec::new();
        for file in self.world.disk.files() {
            let Some(kind) = kind(&self.config.node.data, &file) else { continue };
            let content = self.world.disk.content(&file)?;
            // What was written ahead is all zeros, and nobody's.
            let written = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let mut damages = vec![Damage::Unreadable];
            for at in 0..bits {
                let byte = if at == 0 { 0 } else { random.random_range(0..written.max(1)) };
                damages.push(Damage::Bit { byte: byte as u64, bit: random.random_range(0..8) });
            }
            for damage in damages {
                for running in [false, true] {
                    let seed = random.random();
                    let game = self.fork(seed).damaged(&file, kind, damage, running);
                    let what = || format!("{damage:?} in {}, running: {running}", file.display());
                    let counts = counts.entry(kind).or_default();
                    match game.with_context(what) {
                        Ok(Outcome::Harmless) => counts.harmless += 1,
                        Ok(Outcome::Mended) => counts.mended += 1,
                        Ok(Outcome::Gone) => counts.gone += 1,
                        Ok(Outcome::Refused) => counts.refused += 1,
                        Err(error) => failed.push(format!("{error:#}")),
                    }
                }
            }
        }
        ensure!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
        Ok(counts)
    }

    /// Fills the disk, and archives most of it.
    fn operate(&mut self) -> Result<()> {
        let Self { seed, world, players, config } = self;
        world.live(async {
            let mut random = StdRng::seed_from_u64(*seed);
            let node = Node::start_in(world.environment(), config).await?;
            for round in 0..ARCHIVED + NOT_ARCHIVED {
                if round == ARCHIVED {
                    node.archive_flush().await?;
                }
                for player in &mut *players {
                    player.play(&node, &mut random).await?;
                }
            }
            Ok(())
        })
    }

    /// Goes on in another directory, to which everything is restored.
    fn restore(&mut self) -> Result<()> {
        let Self { seed, world, config, players } = self;
        let (disk, branch) = (SimDisk::new(*seed), BranchName::parse("restored")?);
        let options = HydrateOptions {
            branch: Some(branch.clone()),
            disk: Arc::new(disk.clone()),
            ..HydrateOptions::new(NodeId::new(config.node.id))
        };
        world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            for player in &mut *players {
                player.check(&node).await?;
            }
            node.archive_flush().await?;
            node.shutdown(SHUTDOWN).await?;
            let (parent, data) = (&config.archive.branch.clone().unwrap_or_default(), &config.node.data);
            duramen_restore::hydrate(&world.store(), parent, &Target::LatestPerShard, data, &options).await?;
            anyhow::Ok(())
        })?;
        world.disk = disk;
        config.archive.branch = Some(branch);
        let said = self.live(None)?;
        ensure!(said.is_none(), "what was restored does not start: {said:?}");
        Ok(())
    }

    fn damage(&self, file: &Path, damage: Damage) -> Result<()> {
        match damage {
            Damage::Bit { byte, bit } => self.world.disk.flip_bit(file, byte, bit)?,
            Damage::Unreadable => self.world.disk.set_unreadable(file, true)?,
        }
        Ok(())
    }

    fn damaged(mut self, file: &Path, kind: &str, damage: Damage, running: bool) -> Result<Outcome> {
        if !running {
            self.damage(file, damage)?;
        }
        // Where everything is right although it is damaged, it is so when it starts again, or it says so then.
        let said = match self.live(running.then_some((file, damage)))? {
            None => self.live(None)?,
            said => said,
        };
        let Some(said) = said else { return Ok(Outcome::Harmless) };
        if kind.ends_with(".json") && matches!(damage, Damage::Bit { .. }) {
            // An identity of which a bit turned is another's, and so is the branch then.
            return Ok(Outcome::Refused);
        }
        if kind == "log" && said.contains("the log has lost entries. Run `duramen-restore repair") {
            // Damage in the last frame looks like the end that a power cut leaves. The checkpoint knows better.
            return Ok(Outcome::Refused);
        }
        ensure!(says(&said, file), "it does not say which file it is, and what to do: {said}");
        self.mended(file, kind, damage).with_context(|| format!("it said: {said}"))
    }

    /// Does what the node said.
    fn mended(mut self, file: &Path, kind: &str, damage: Damage) -> Result<Outcome> {
        if let Damage::Unreadable = damage {
            let mut moved = self.fork(self.seed);
            moved.world.disk.set_unreadable(file, false)?;
            let said = moved.live(None)?;
            ensure!(said.is_none(), "once the disk reads again it says {said:?}");
        }
        match kind {
            "index" => {
                self.world.disk.remove(file)?;
                // What only it led to is in the archive before long.
                let Self { world, config, .. } = &self;
                world.live(async {
                    let node = Node::start_in(world.environment(), config).await?;
                    node.archive_flush().await?;
                    anyhow::Ok(())
                })?;
                world.disk.kill();
                let said = self.live(None)?;
                ensure!(said.is_none(), "without the file it says {said:?}");
                Ok(Outcome::Mended)
            }
            "log" => self.repaired(),
            _ => Ok(Outcome::Refused),
        }
    }

    /// One life of the node: starts it, damages a file then, and reads everything; what it said of the damage.
    fn live(&mut self, damaged: Option<(&Path, Damage)>) -> Result<Option<String>> {
        let Self { world, players, config, .. } = self;
        let life = world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            if let Some((file, damage)) = damaged {
                let done = match damage {
                    Damage::Bit { byte, bit } => world.disk.flip_bit(file, byte, bit),
                    Damage::Unreadable => world.disk.set_unreadable(file, true),
                };
                match done {
                    // The start has written the open segment anew.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
            for player in &mut *players {
                player.check(&node).await?;
            }
            Ok(())
        });
        world.disk.kill();
        match life {
            Ok(()) => Ok(None),
            Err(error) if is_failure(&error) => Ok(Some(format!("{error:#}"))),
            Err(error) => Err(error),
        }
    }

    /// Repairs the directory from the archive, starts the node, and reads everything.
    fn repaired(mut self) -> Result<Outcome> {
        let Self { world, config, .. } = &self;
        let options = RepairOptions { disk: Arc::new(world.disk.clone()), ..RepairOptions::default() };
        let repaired =
            world.live(async { duramen_restore::repair(&world.store(), &config.node.data, &options).await });
        let repaired = repaired.context("repairing")?;
        world.disk.kill();
        if repaired.lost_nothing() {
            let report = self.live(None)?;
            ensure!(report.is_none(), "after the repair ({repaired:?}) it says {report:?}");
            return Ok(Outcome::Mended);
        }
        for gone in &repaired.gone {
            let shard = repaired.shards.iter().find(|shard| shard.shard == gone.shard);
            let archived = shard.is_none_or(|shard| gone.first < shard.archived);
            ensure!(!archived, "what is archived is called gone: {repaired:?}");
        }
        let Self { world, config, .. } = &self;
        world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            node.archive_flush().await?;
            let options = VerifyOptions { record: false, ..VerifyOptions::new(Depth::Full) };
            let branch = config.archive.branch.clone().unwrap_or_default();
            let verified = duramen_restore::verify(&world.store(), &branch, &options).await?;
            ensure!(verified.is_clean(), "{:?}", verified.verdict);
            node.shutdown(SHUTDOWN).await?;
            Ok(Outcome::Gone)
        })
    }
}

#[derive(Debug)]
enum Outcome {
    Harmless,
    Mended,
    Gone,
    Refused,
}

/// What kind of file it is; `None` for one that holds nothing.
fn kind(data: &Path, file: &Path) -> Option<&'static str> {
    let below: PathBuf = file.strip_prefix(data).ok()?.to_owned();
    match below.to_str()? {
        "node.json" => Some("node.json"),
        "restore.json" => Some("restore.json"),
        "activated.json" => Some("activated.json"),
        path if path.starts_with("wal/") => Some("log"),
        path if path.starts_with("checkpoint/") => Some("checkpoint"),
        path if path.starts_with("index/") => Some("index"),
        _ => None,
    }
}

/// Whether a report names the file and something to do.
fn says(report: &str, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    report.contains(name)
        && ["duramen-restore", "delete", "restore it", "disk"].iter().any(|todo| report.contains(todo))
}

/// Whether an operation failed, and not a comparison.
fn is_failure(error: &anyhow::Error) -> bool {
    error.downcast_ref::<duramen::api::Error>().is_some() || error.downcast_ref::<StartError>().is_some()
}
