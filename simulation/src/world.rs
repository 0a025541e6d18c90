//! The simulated machine, and the object store beside it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use duramen::Environment;
use duramen::config::Config;
use duramen_archive::{Random, Store};
use duramen_types::Clock;
use duramen_wal::sim::SimDisk;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{SimClock, driver};

/// How long a write and its sync take.
const DISK_LATENCY: Duration = Duration::from_micros(300);

/// What outlives a process: its machine's disk and clock, and the object store.
pub struct World {
    pub disk: SimDisk,
    pub objects: Arc<InMemory>,
    pub clock: Arc<SimClock>,
    pub random: Random,
    /// How the store is reached, if not directly.
    through: Option<Arc<dyn ObjectStore>>,
    latency: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            objects: Arc::new(InMemory::new()),
            clock: Arc::new(SimClock::default()),
            random: Random::from_seed(seed),
            through: None,
            latency: Arc::new(|| DISK_LATENCY),
        }
    }

    /// Puts `objects` between nodes and the store.
    pub fn reach_store_through(&mut self, objects: Arc<dyn ObjectStore>) {
        self.through = Some(objects);
    }

    /// How long a write and its sync take at most, in microseconds, and whether one of many takes seconds.
    pub fn set_disk_latency(&mut self, longest: u64, stalls: bool, seed: u64) {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        self.latency = Arc::new(move || {
            let mut random = random.lock();
            if stalls && random.random_ratio(1, 300) {
                return Duration::from_millis(random.random_range(500..15_000));
            }
            Duration::from_micros(random.random_range(0..=longest))
        });
    }

    /// The archive's store.
    pub fn store(&self) -> Store {
        let direct = || Arc::clone(&self.objects) as Arc<dyn ObjectStore>;
        let objects = self.through.clone().unwrap_or_else(direct);
        Store::new(objects, Path::default(), self.clock(), self.random.clone())
    }

    /// What a node stands on here.
    pub fn environment(&self) -> Environment {
        self.beside(self.disk.clone())
    }

    /// What a node on another machine stands on, one that has the same time and reaches the same store.
    pub fn beside(&self, disk: SimDisk) -> Environment {
        let latency = Arc::clone(&self.latency);
        Environment {
            disk: Arc::new(disk),
            clock: self.clock(),
            random: self.random.clone(),
            store: Some(self.store()),
            driver: Some(driver(move || latency())),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// One life of a process: runs `life` on a runtime of its own, on this thread, and then ends whatever it had begun.
    pub fn live<T>(&self, life: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime needs nothing here");
        runtime.block_on(async {
            self.clock.begin_life();
            let result = life.await;
            self.clock.end_life();
            result
        })
    }

    /// A copy of the machine and the store as they are, reached directly, with its own future.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            disk: self.disk.fork(seed),
            objects: Arc::new(self.objects.fork()),
            clock: Arc::new(self.clock.fork()),
            random: Random::from_seed(seed),
            through: None,
            latency: Arc::clone(&self.latency),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// A node whose files are so small, and whose thresholds so low, that little work passes through everything that a node does.
pub fn config() -> Config {
    let mut config = Config::default();
    config.node.data = "/simulated/node".into();
    config.cluster.shards = Some(2);
    config.wal.segment_size = bytesize::ByteSize::kib(48);
    config.wal.cache = bytesize::ByteSize::kib(8);
    config.wal.checkpoint_bytes = bytesize::ByteSize::kib(6);
    config.archive.url = Some("memory:".to_owned());
    config.archive.segment_age = Duration::from_secs(1);
    config.archive.cache = bytesize::ByteSize::mib(1);
    config.local_retention.bytes = bytesize::ByteSize::b(0);
    config
}
