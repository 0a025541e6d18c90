//! A bounded cache of decoded row pages.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::Row;

/// The page's segment and its position there.
type Key = (u64, u64);

/// Row pages of sealed segments, the least recently used one is dropped first.
#[derive(Debug)]
pub(crate) struct PageCache {
    pages: HashMap<Key, (Arc<[Row]>, u64)>,
    bytes: u64,
    budget: u64,
    clock: u64,
}

impl PageCache {
    pub(crate) fn new(budget: u64) -> Self {
        Self { pages: HashMap::new(), bytes: 0, budget, clock: 0 }
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<Arc<[Row]>> {
        self.clock += 1;
        let (page, used) = self.pages.get_mut(&key)?;
        *used = self.clock;
        Some(page.clone())
    }

    pub(crate) fn insert(&mut self, key: Key, page: Arc<[Row]>) {
        self.clock += 1;
        self.bytes += size(&page);
        if let Some((replaced, _)) = self.pages.insert(key, (page, self.clock)) {
            self.bytes -= size(&replaced);
        }
        // A page is up to 64 KiB, so the cache holds few enough to look through.
        while self.bytes > self.budget && self.pages.len() > 1 {
            let Some(oldest) = self.pages.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)
            else {
                break;
            };
            if let Some((dropped, _)) = self.pages.remove(&oldest) {
                self.bytes -= size(&dropped);
            }
        }
    }
}

fn size(page: &[Row]) -> u64 {
    (std::mem::size_of_val(page) + 64) as u64
}
