//! A node, its archiver, its reader, and every part of a restore, through a store that fails in all the ways that stores do.
//!
//! A failure is worth another attempt, never another result: whatever succeeds in bad weather is right, and once the weather is
//! better everything is archived, verifies, and can be restored. Each seed is a game of its own; see docs/TESTING.md.

#![expect(clippy::panic, reason = "a wrong setting ends the test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen::Node;
use duramen::api::Code;
use duramen::config::Config;
use duramen_archive::{BranchView, Depth};
use duramen_archiver::collect_orphans;
use duramen_restore::{BranchOptions, HydrateOptions, Target, VerifyOptions};
use duramen_simulation::{FaultyStore, Player, Weather, World, config, observe};
use duramen_types::{Acknowledgement, BranchName, HybridTime, NodeId};
use duramen_wal::sim::SimDisk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often the weather changes while operations are played.
const ROUNDS: u32 = 8;
/// How often something is tried in bad weather; nothing needs more than a part of it.
const ATTEMPTS: u32 = 200;
const SHUTDOWN: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let name = "weather";
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !name.contains(&argument)) {
        return Ok(());
    }
    support::log();
    let first: u64 = support::setting("DURAMEN_WEATHER_SEED").unwrap_or(1);
    let count: u64 = support::setting("DURAMEN_WEATHER_SEEDS").unwrap_or(24);
    let mut faults = 0;
    for seed in first..first.saturating_add(count) {
        let game = support::seeded(seed, || Game::new(seed).play());
        faults += game.with_context(|| {
            format!("seed {seed}; again with DURAMEN_WEATHER_SEED={seed} DURAMEN_WEATHER_SEEDS=1")
        })?;
    }
    println!("{count} games from seed {first}: {faults} requests met with a fault");
    ensure!(faults > 20 * count, "the weather was too good");
    Ok(())
}

struct Game {
    seed: u64,
    world: World,
    store: Arc<FaultyStore>,
    players: Vec<(Player, StdRng)>,
    random: StdRng,
    config: Config,
}

/// What was restored, and the instant of it.
struct Restored {
    time: HybridTime,
    branch: BranchName,
    disk: SimDisk,
}

impl Game {
    fn new(seed: u64) -> Self {
        // Each has an outcome whatever the store does.
        let levels = [None, Some(Acknowledgement::Local), Some(Acknowledgement::Quorum)];
        let player =
            |n: u64, names: &[&str]| (Player::new(names, &levels), StdRng::seed_from_u64(seed * 10 + n));
        let mut world = World::new(seed);
        let store = Arc::new(FaultyStore::new(Arc::clone(&world.objects) as _, seed));
        world.reach_store_through(Arc::clone(&store) as _);
        Self {
            seed,
            world,
            store,
            players: vec![player(0, &["orders", "a.b_c-d"]), player(1, &["payments", "ci"])],
            random: StdRng::seed_from_u64(seed),
            config: config(),
        }
    }

    /// Plays to the end, and gives the number of faults.
    fn play(mut self) -> Result<u64> {
        self.operate().context("operations in bad weather")?;
        let restored = self.restore().context("restoring in bad weather")?;
        self.finish(&restored).context("when the weather is better")?;
        Ok(self.store.faults())
    }

    /// A node serves, archives, and reads what is archived, in whatever weather.
    fn operate(&mut self) -> Result<()> {
        let Self { world, store, players, random, config, .. } = self;
        world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            for _ in 0..ROUNDS {
                store.set(Weather::random(random));
                for (player, own) in &mut *players {
                    for _ in 0..own.random_range(1..8) {
                        player.play(&node, own).await?;
                        tokio::time::sleep(Duration::from_millis(own.random_range(0..300))).await;
                    }
                    ensure!(player.uncertain().is_none(), "{:?}", player.uncertain());
                }
                // They succeed or say that they can't.
                let _ = node.archive_flush().await;
                let _ = node.snapshot().await;
                for (player, _) in &*players {
                    if let Some(time) = player.some_instant(random)
                        && let Err(error) = player.check_as_of(&node, time).await
                    {
                        ensure!(may_fail(&error), "{error:?}");
                    }
                }
            }
            node.shutdown(SHUTDOWN).await?;
            Ok(())
        })
    }

    /// Restores to the archive and to a disk; each part is tried until it succeeds.
    fn restore(&mut self) -> Result<Restored> {
        let Self { world, store, players, random, config, seed } = self;
        world.live(async {
            store.set(Weather::clear());
            let node = Node::start_in(world.environment(), config).await?;
            for (player, _) in &mut *players {
                player.check(&node).await?;
            }
            flush(&node).await?;
            node.shutdown(SHUTDOWN).await?;
            let time = players.iter().find_map(|(player, _)| player.some_instant(random));
            let time = time.context("something was done")?;
            let (archive, parent) = (world.store(), &config.archive.branch.clone().unwrap_or_default());
            let mut weather = || store.set(bearable(Weather::random(random)));

            let full = VerifyOptions::new(Depth::Full);
            let verified =
                until_it_succeeds(&mut weather, || duramen_restore::verify(&archive, parent, &full)).await;
            let verified = verified.context("verifying")?;
            ensure!(verified.is_clean(), "damage on the way is called damage there: {:?}", verified.verdict);

            let (branch, target) = (BranchName::parse("there")?, Target::Time(time));
            let options = BranchOptions::default();
            let made = until_it_succeeds(&mut weather, || {
                duramen_restore::branch(&archive, parent, Some(&branch), &target, &options)
            });
            made.await.context("branching")?;

            let disk = SimDisk::new(*seed + 1);
            let name = BranchName::parse("here")?;
            let options = HydrateOptions {
                branch: Some(name.clone()),
                disk: Arc::new(disk.clone()),
                ..HydrateOptions::new(NodeId::new(1))
            };
            let made = until_it_succeeds(&mut weather, || {
                duramen_restore::hydrate(&archive, parent, &target, &config.node.data, &options)
            });
            made.await.context("hydrating")?;

            let collected = until_it_succeeds(&mut weather, || async {
                let view = BranchView::open(&archive, parent).await.map_err(anyhow::Error::from)?;
                for shard in view.shard_ids() {
                    collect_orphans(&view, shard, false).await?;
                }
                anyhow::Ok(())
            });
            collected.await.context("collecting orphans")?;
            Ok(Restored { time, branch, disk })
        })
    }

    /// Everything is there, is archived, verifies, and so is what was restored.
    fn finish(&mut self, restored: &Restored) -> Result<()> {
        let Self { world, store, players, random, config, .. } = self;
        store.set(Weather::clear());
        world.live(async {
            let node = Node::start_in(world.environment(), config).await?;
            for (player, _) in &mut *players {
                player.check(&node).await?;
                if let Some(time) = player.some_instant(random) {
                    player.check_as_of(&node, time).await?;
                }
            }
            node.shutdown(SHUTDOWN).await?;
            let full = VerifyOptions { record: false, ..VerifyOptions::new(Depth::Full) };
            for (branch, disk) in [
                (config.archive.branch.clone().unwrap_or_default(), None),
                (restored.branch.clone(), Some(SimDisk::new(0))),
                (BranchName::parse("here")?, Some(restored.disk.clone())),
            ] {
                let what = || format!("branch {branch}");
                let verified = duramen_restore::verify(&world.store(), &branch, &full).await?;
                ensure!(verified.is_clean(), "{}: {:?}", what(), verified.verdict);
                let Some(disk) = disk else { continue };
                let mut config = config.clone();
                config.archive.branch = Some(branch.clone());
                let node = Node::start_in(world.beside(disk), &config).await.with_context(what)?;
                let log = observe::now(&node).await.with_context(what)?;
                for (player, _) in &*players {
                    player.check_restored(&log, restored.time).with_context(what)?;
                }
                node.shutdown(SHUTDOWN).await?;
            }
            Ok(())
        })
    }
}

/// Weather in which something succeeds at times.
fn bearable(weather: Weather) -> Weather {
    let most = |rate: u32| rate.min(60);
    Weather {
        errors: most(weather.errors),
        throttled: most(weather.throttled),
        denied: weather.denied.min(5),
        lost_answers: most(weather.lost_answers),
        hangs: weather.hangs.min(10),
        damaged_bodies: weather.damaged_bodies.min(5),
        stale_lists: most(weather.stale_lists),
        latency: weather.latency.min(Duration::from_millis(200)),
        down: false,
    }
}

/// Tries again, in other weather each time.
async fn until_it_succeeds<T, E: Into<anyhow::Error>, F: Future<Output = Result<T, E>>>(
    mut weather: impl FnMut(),
    mut work: impl FnMut() -> F,
) -> Result<T> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        weather();
        match work().await {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error.into()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(last.context("it was tried")?)
}

/// Archives everything; requests that were made in worse weather may still hang, and pauses be long.
async fn flush(node: &Node) -> Result<()> {
    let mut attempts = 0;
    while let Err(error) = node.archive_flush().await {
        attempts += 1;
        ensure!(attempts < 6 && error.code.is_retryable(), "the archive can't be flushed: {error}");
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    Ok(())
}

/// Whether a read of the past failed, in a way that it may; not a comparison.
fn may_fail(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<duramen::api::Error>();
    error.is_some_and(|error| matches!(error.code, Code::Unavailable | Code::FutureTime | Code::Corruption))
}
