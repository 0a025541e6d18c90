//! The one source of randomness of this crate: seeded, passed in, shared by its clones.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A shared, seeded source of random bytes for nonces, ids and the jitter of retries.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// The same seed gives the same sequence: for simulations and tests.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Seeded once from the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// 16 random bytes: a nonce, or an id's bytes.
    pub fn bytes16(&self) -> [u8; 16] {
        self.0.lock().random()
    }

    pub fn u64(&self) -> u64 {
        self.0.lock().random()
    }
}
