//! Continuations and unanswered connections, kept for lines and retries that may come.

use std::collections::{HashMap, VecDeque};

/// Entries kept.
const MOST_WAITING: usize = 16_384;

/// A map that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Recent<T> {
    pub(super) values: HashMap<u64, T>,
    order: VecDeque<u64>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Recent<T> {
    /// Gives back what is forgotten for it.
    pub(super) fn insert(&mut self, key: u64, value: T) -> Option<T> {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() <= MOST_WAITING {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.values.remove(&oldest)
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.values.get(&key)
    }
}
