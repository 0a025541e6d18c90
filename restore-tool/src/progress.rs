//! What a long operation tells while it works.

use std::fmt;
use std::sync::Arc;

/// One piece of news from a long operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// How much there is to do, as far as it is known now; may come again with larger numbers.
    Planned { objects: u64, bytes: u64 },
    /// That much more is done.
    Done { objects: u64, bytes: u64 },
}

/// Whoever wants to know how far an operation is; by default nobody. Cheap to clone.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(Step) + Send + Sync>>);

impl Observer {
    /// Calls `tell` for every step, from any thread; it must not block.
    pub fn new(tell: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, step: Step) {
        if let Some(tell) = &self.0 {
            tell(step);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}
