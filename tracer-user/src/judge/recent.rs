//! Continuations and unanswered connections, kept for lines and retries that may come.

use std::collections::{HashMap, VecDeque};

/// Entries kept.
const MOST_WAITING: usize = 16_384;

/// A map that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Recent<T> {
    pub(super) values: HashMap<u64, T>,
    order: VecDeque<u64>,
    forgot: bool,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
            forgot: false,
        }
    }
}

impl<T> Recent<T> {
    pub(super) fn insert(&mut self, key: u64, value: T) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST_WAITING
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
            self.forgot = true;
        }
    }

    /// Was nothing forgotten, so that what is not here never came?
    pub(super) fn is_complete(&self) -> bool {
        !self.forgot
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.values.get(&key)
    }
}
