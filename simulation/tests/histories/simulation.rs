//! One seed's history.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duramen::api::{Code, ReadFrom, ReadRequest};
use duramen::config::Config;
use duramen::{Node, StartError};
use duramen_archive::Depth;
use duramen_restore::{BranchOptions, Target, VerifyOptions};
use duramen_simulation::{FaultyStore, Player, Weather, World, config, observe, stream_ref};
use duramen_types::batch::{Batch, normalise};
use duramen_types::{Acknowledgement, BranchName, Clock, HybridTime, ShardId};
use duramen_wal::sim::SimDisk;
use futures::future::{Either, join, join_all, select};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const SHUTDOWN: Duration = Duration::from_secs(20);
const STREAMS: [&[&str]; 3] = [&["orders", "payments", "ci"], &["us", "a.b_c-d"], &["events", "audit"]];

/// How a life is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Stopped as an operator does.
    Stop,
    /// Killed, after some time.
    Kill,
    /// The power fails, after some operations of the disk.
    PowerCut,
    /// A sync fails, after some operations of the disk, and the process ends itself.
    FailedSync,
}

/// What a history came to.
#[derive(Debug, Default)]
pub struct Report {
    history: u64,
    operations: u64,
    lives: BTreeMap<String, u64>,
    faults: u64,
    restores: u64,
    reads_of_the_past: u64,
    followed: u64,
    disk_operations: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            history,
            operations,
            lives,
            faults,
            restores,
            reads_of_the_past,
            followed,
            disk_operations,
        } = self;
        write!(
            f,
            "history {history:016x}: {operations} operations, {disk_operations} of the disk, lives {lives:?}, \
             {faults} faults of the store, {restores} restores, {reads_of_the_past} reads of the past, \
             {followed} records followed"
        )
    }
}

/// What followers were given, by shard, stream id and offset: it can't be taken back.
type Followed = Arc<Mutex<BTreeMap<(ShardId, u64, u64), String>>>;

pub struct Simulation {
    seed: u64,
    random: StdRng,
    world: World,
    store: Arc<FaultyStore>,
    players: Vec<(Player, StdRng)>,
    followed: Followed,
    config: Config,
    report: Report,
    hash: DefaultHasher,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut config = config();
        let kib = |random: &mut StdRng, from, to| bytesize::ByteSize::kib(random.random_range(from..to));
        config.cluster.shards = Some(random.random_range(1..4));
        config.wal.segment_size = bytesize::ByteSize::kib(random.random_range(5..20) * 4);
        config.wal.checkpoint_bytes = kib(&mut random, 2, 60);
        config.wal.cache = kib(&mut random, 4, 100);
        config.archive.segment_age = Duration::from_millis(random.random_range(1000..4000));
        config.archive.segment_size = kib(&mut random, 16, 200);
        config.local_retention.bytes = kib(&mut random, 0, 200);
        config.local_retention.age =
            random.random_bool(0.3).then(|| Duration::from_secs(random.random_range(1..30)));
        let levels = [None, Some(Acknowledgement::Quorum), Some(Acknowledgement::Archived)];
        let mut world = World::new(seed);
        let store = Arc::new(FaultyStore::new(Arc::clone(&world.objects) as _, seed));
        world.reach_store_through(Arc::clone(&store) as _);
        let slowest = random.random_range(200..4000);
        let stalls = random.random_bool(0.3);
        world.set_disk_latency(slowest, stalls, seed);
        let players = STREAMS.iter().zip(1..).map(|(names, n)| {
            (Player::new(names, &levels), StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(n)))
        });
        Self {
            seed,
            players: players.collect(),
            random,
            world,
            store,
            followed: Followed::default(),
            config,
            report: Report::default(),
            hash: DefaultHasher::new(),
        }
    }

    pub fn run(mut self) -> Result<Report> {
        for life in 0..self.random.random_range(4..12) {
            let death =
                *[Death::Stop, Death::Kill, Death::Kill, Death::PowerCut, Death::PowerCut, Death::FailedSync]
                    .choose(&mut self.random)
                    .unwrap_or(&Death::Stop);
            self.live(death).with_context(|| format!("life {life}, to end by {death:?}"))?;
        }
        self.finish().context("the last life")?;
        self.report.history = self.hash.finish();
        self.report.faults = self.store.faults();
        self.report.disk_operations = self.world.disk.operations();
        Ok(self.report)
    }

    fn live(&mut self, death: Death) -> Result<()> {
        let in_weather = self.random.random_bool(0.25);
        self.store.set(if in_weather { Weather::random(&mut self.random) } else { Weather::clear() });
        if self.random.random_bool(0.2) {
            self.world.clock.jump(self.random.random_range(-600_000_000..600_000_000));
        }
        let disk = self.world.disk.clone();
        let at = disk.operations() + self.random.random_range(1..800);
        match death {
            Death::PowerCut => disk.fail_power_at(at),
            Death::FailedSync => disk.fail_syncs_from(at),
            Death::Stop | Death::Kill => {}
        }
        let disk_fails_at = matches!(death, Death::PowerCut | Death::FailedSync).then_some(at);
        let life = Life {
            simulation_seed: self.seed,
            death,
            disk_fails_at,
            in_weather,
            span: Duration::from_millis(self.random.random_range(500..40_000)),
            world: &self.world,
            store: &self.store,
            config: &self.config,
            followed: &self.followed,
        };
        let (players, random, report) = (&mut self.players, &mut self.random, &mut self.report);
        let lived = self.world.live(life.run(players, random, report));
        match lived {
            Ok(()) => {}
            Err(error) if disk.is_off() && is_failure(&error) => {}
            Err(error) => return Err(error),
        }
        *self.report.lives.entry(format!("{death:?}")).or_default() += 1;
        match death {
            Death::PowerCut => disk.power_cut(),
            // The machine goes on: what was written is still to be seen, whether it is on the disk or not.
            Death::Kill | Death::FailedSync => {
                disk.kill();
                disk.fail_syncs_from(u64::MAX);
            }
            Death::Stop => {}
        }
        for (player, _) in &self.players {
            player.history().hash(&mut self.hash);
        }
        (disk.operations(), self.world.clock.now()).hash(&mut self.hash);
        Ok(())
    }

    /// All faults are over: everything is there, is archived, verifies, and can be restored.
    fn finish(&mut self) -> Result<()> {
        self.store.set(Weather::clear());
        let life = Life {
            simulation_seed: self.seed,
            death: Death::Stop,
            disk_fails_at: None,
            in_weather: false,
            span: Duration::ZERO,
            world: &self.world,
            store: &self.store,
            config: &self.config,
            followed: &self.followed,
        };
        let (players, random, report) = (&mut self.players, &mut self.random, &mut self.report);
        self.world.live(async {
            let node = Node::start_in(life.world.environment(), life.config).await?;
            life.check(&node, players).await?;
            node.archive_flush().await?;
            for _ in 0..5 {
                life.read_the_past(&node, players, random, report).await?;
                life.restore(&node, players, random, report).await?;
            }
            let options = VerifyOptions { record: false, ..VerifyOptions::new(Depth::Full) };
            let branch = life.config.archive.branch.clone().unwrap_or_default();
            let verified = duramen_restore::verify(&life.world.store(), &branch, &options).await?;
            ensure!(verified.is_clean(), "the archive: {:?}", verified.verdict);
            node.shutdown(SHUTDOWN).await?;
            Ok(())
        })
    }
}

/// One life of the node's process.
struct Life<'a> {
    simulation_seed: u64,
    death: Death,
    /// The disk's operation that fails.
    disk_fails_at: Option<u64>,
    /// Whether the store fails when the life begins.
    in_weather: bool,
    span: Duration,
    world: &'a World,
    store: &'a FaultyStore,
    config: &'a Config,
    followed: &'a Followed,
}

impl Life<'_> {
    async fn run(
        &self,
        players: &mut [(Player, StdRng)],
        random: &mut StdRng,
        report: &mut Report,
    ) -> Result<()> {
        let node = match Node::start_in(self.world.environment(), self.config).await {
            Ok(node) => node,
            // A first start needs the store, and so does one that has lost its state.
            Err(error) if self.in_weather && is_about_the_archive(&error) => return Ok(()),
            Err(_) if self.is_dying() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match self.check(&node, players).await {
            Err(error) if (self.in_weather || self.is_dying()) && is_failure(&error) => return Ok(()),
            checked => checked?,
        }
        let before: u64 = players.iter().map(|(player, _)| player.played()).sum();
        let directed = self.direct(&node, players, random, report);
        let died = std::pin::pin!(async {
            node.failed().await;
        });
        let end = match select(std::pin::pin!(directed), died).await {
            Either::Left((directed, _)) => directed,
            Either::Right(_) => Ok(()),
        };
        report.operations += players.iter().map(|(player, _)| player.played()).sum::<u64>() - before;
        match end {
            Err(error) if self.is_dying() && is_failure(&error) => return Ok(()),
            end => end?,
        }
        if self.death == Death::Stop {
            node.shutdown(SHUTDOWN).await?;
        }
        Ok(())
    }

    /// Whether the disk has failed, so that nothing can be asked of the node any more.
    fn is_dying(&self) -> bool {
        self.disk_fails_at.is_some_and(|at| self.world.disk.operations() >= at)
    }

    /// Lets the clients work for the life's span, and meanwhile makes things happen.
    async fn direct(
        &self,
        node: &Node,
        players: &mut [(Player, StdRng)],
        random: &mut StdRng,
        report: &mut Report,
    ) -> Result<()> {
        let mut left = self.span;
        while !left.is_zero() {
            let stretch = Duration::from_millis(random.random_range(200..6000)).min(left);
            left -= stretch;
            if random.random_bool(0.3) {
                self.store.set(if random.random_bool(0.5) {
                    Weather::clear()
                } else {
                    Weather::random(random)
                });
            }
            if random.random_bool(0.1) {
                self.world.clock.jump(random.random_range(-60_000_000..60_000_000));
            }
            let followers = join_all((0..2).map(|_| {
                let name = STREAMS.iter().flat_map(|names| names.iter()).collect::<Vec<_>>();
                let name = name.choose(random).map_or("orders", |name| name);
                self.follow(node, name)
            }));
            let clients = join_all(players.iter_mut().map(|(player, random)| client(node, player, random)));
            let all = join(clients, followers);
            // The clients are cut off in the middle of what they do, and their operations are left without an answer.
            if let Ok((clients, _)) = tokio::time::timeout(stretch, all).await {
                clients.into_iter().collect::<Result<Vec<()>>>()?;
            }
            report.followed = self.followed.lock().len() as u64;
            match random.random_range(0..10) {
                0..2 => self.tolerate(node.archive_flush().await.map(drop))?,
                2..4 => self.tolerate(node.snapshot().await.map(drop))?,
                4..7 => self.read_the_past(node, players, random, report).await?,
                7 => self.restore(node, players, random, report).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What may fail while the store does: it is tried again, or given up.
    fn tolerate(&self, result: duramen::api::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.code.is_retryable() || !self.store.is_clear() || self.is_dying() => Ok(()),
            result => Ok(result?),
        }
    }

    async fn check(&self, node: &Node, players: &mut [(Player, StdRng)]) -> Result<()> {
        let log = observe::now(node).await?;
        for (player, _) in players.iter_mut() {
            player.learn(&log, node.latest_time())?;
            for (name, stream) in player.streams() {
                let Ok(info) = node.describe_stream(&stream_ref(name)).await else { continue };
                let (shard, id) = (info.shard, info.id.get());
                for ((.., offset), value) in self.followed.lock().range((shard, id, 0)..(shard, id, u64::MAX))
                {
                    let held = usize::try_from(*offset).ok().and_then(|offset| stream.values.get(offset));
                    ensure!(
                        held == Some(value),
                        "stream {name}: a follower was given {value:?} at {offset}, now {held:?} is there"
                    );
                }
            }
        }
        Ok(())
    }

    /// Follows a stream from its beginning until it is stopped, deleted, or the store has failed.
    async fn follow(&self, node: &Node, name: &str) {
        let Ok(info) = node.describe_stream(&stream_ref(name)).await else { return };
        let request = ReadRequest {
            stream: stream_ref(name),
            from: ReadFrom::Earliest,
            max_records: None,
            max_bytes: None,
            follow: true,
            as_of: None,
            seen: HybridTime::ZERO,
        };
        let Ok(mut session) = node.read(request).await else { return };
        while let Some(Ok(served)) = session.next().await {
            let records = normalise(served.batch.clone())
                .and_then(|(_, bytes)| Batch::from_trusted(bytes))
                .and_then(|batch| {
                    batch
                        .records(served.base)?
                        .iter()
                        .map(|record| {
                            record.map(|record| (record.offset, record.value.map(|value| value.to_vec())))
                        })
                        .collect::<Result<Vec<_>, _>>()
                })
                .expect("what a node serves is a valid batch");
            let mut followed = self.followed.lock();
            for (offset, value) in records {
                if offset >= served.from && offset < served.end {
                    let value = String::from_utf8(value.unwrap_or_default()).expect("values are text");
                    followed.insert((info.shard, info.id.get(), offset.get()), value);
                }
            }
        }
    }

    async fn read_the_past(
        &self,
        node: &Node,
        players: &[(Player, StdRng)],
        random: &mut StdRng,
        report: &mut Report,
    ) -> Result<()> {
        let Some((player, _)) = players.choose(random) else { return Ok(()) };
        let Some(time) = player.some_instant(random) else { return Ok(()) };
        let clear = self.store.is_clear();
        for (player, _) in players {
            match player.check_as_of(node, time).await {
                Ok(()) => report.reads_of_the_past += 1,
                Err(error) if has_code(&error, Code::FutureTime) && time > self.world.clock.now() => {}
                // An archive that was not to be reached a moment ago may not be open yet.
                Err(error) if has_code(&error, Code::Unavailable) => {}
                Err(error) if (!clear || !self.store.is_clear() || self.is_dying()) && is_failure(&error) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a branch at some instant, and starts a node on it, on another machine.
    async fn restore(
        &self,
        node: &Node,
        players: &[(Player, StdRng)],
        random: &mut StdRng,
        report: &mut Report,
    ) -> Result<()> {
        let Some((player, _)) = players.choose(random) else { return Ok(()) };
        let Some(time) = player.some_instant(random) else { return Ok(()) };
        self.store.set(Weather::clear());
        // As far as that the history must be closed.
        let mut attempts = 0;
        while let Err(error) = node.archive_flush().await {
            attempts += 1;
            if self.is_dying() {
                return Ok(());
            }
            ensure!(attempts < 6 && error.code.is_retryable(), "the archive can't be flushed: {error}");
            // Requests that were made in worse weather may still be hanging, and pauses be long.
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        let name = BranchName::parse(&format!("at-{}-{}", time, report.restores))?;
        let parent = &self.config.archive.branch.clone().unwrap_or_default();
        let options = BranchOptions::default();
        let made =
            duramen_restore::branch(&self.world.store(), parent, Some(&name), &Target::Time(time), &options)
                .await;
        match made {
            Ok(_) => {}
            // The clock was set back: for it, the instant is still to come.
            Err(_) if time > self.world.clock.now() => return Ok(()),
            Err(error) => return Err(anyhow::Error::from(error).context(format!("branching at {time}"))),
        }
        let mut config = self.config.clone();
        config.archive.branch = Some(name);
        let machine = self.world.beside(SimDisk::new(self.simulation_seed));
        let restored = Node::start_in(machine, &config).await.context("starting on a branch")?;
        let log = observe::now(&restored).await?;
        for (player, _) in players {
            player.check_restored(&log, time)?;
        }
        restored.shutdown(SHUTDOWN).await?;
        report.restores += 1;
        Ok(())
    }
}

/// One client: operations, with pauses.
async fn client(node: &Node, player: &mut Player, random: &mut StdRng) -> Result<()> {
    for _ in 0..random.random_range(1..30) {
        player.play(node, random).await?;
        if random.random_bool(0.5) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        }
    }
    Ok(())
}

/// Whether an operation failed, and not a comparison.
fn is_failure(error: &anyhow::Error) -> bool {
    error.downcast_ref::<duramen::api::Error>().is_some() || error.downcast_ref::<StartError>().is_some()
}

fn has_code(error: &anyhow::Error, code: Code) -> bool {
    error.downcast_ref::<duramen::api::Error>().is_some_and(|error| error.code == code)
}

fn is_about_the_archive(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Archive(_) | StartError::History(_) | StartError::Claim(_) | StartError::Other(_)
    )
}
