//! The same line in two logs: nginx writes it to every `error_log` of its context, byte for
//! byte; Angie to each in that log's format.

use std::collections::{HashMap, VecDeque};

/// Lines remembered.
const MOST: usize = 8192;

/// How often each of the last lines stood in each file.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    counts: HashMap<u64, Vec<(String, u32)>>,
    order: VecDeque<u64>,
}

impl Duplicates {
    /// Takes a line by its hash; true if another file has shown it already. A file that
    /// holds it twice tells of two events.
    pub(super) fn is_duplicate(&mut self, hash: u64, file: &str) -> bool {
        if !self.counts.contains_key(&hash) {
            self.order.push_back(hash);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.counts.remove(&oldest);
            }
        }
        let files = self.counts.entry(hash).or_default();
        let most = files.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if let Some((_, count)) = files.iter_mut().find(|(name, _)| name == file) {
            *count += 1;
            *count <= most
        } else {
            files.push((file.to_owned(), 1));
            most > 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_once_however_the_files_are_read() {
        for order in ["AABB", "ABAB", "ABBA"] {
            let mut duplicates = Duplicates::default();
            let fresh = order
                .chars()
                .filter(|file| !duplicates.is_duplicate(7, &file.to_string()))
                .count();
            assert_eq!(fresh, 2, "{order}");
        }
    }

    #[test]
    fn memory_stays_bounded() {
        let mut duplicates = Duplicates::default();
        for hash in 0..100_000 {
            assert!(!duplicates.is_duplicate(hash, "a"));
        }
        assert!(duplicates.counts.len() <= MOST && duplicates.order.len() <= MOST);
    }
}
