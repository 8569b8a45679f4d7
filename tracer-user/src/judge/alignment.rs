//! Puts two sequences in order against each other: a worker's lines and its closes.
//!
//! Each line takes at most one close and each close at most one line, and no two pairs
//! cross. Of all such alignments the one with the greatest weight is taken; what else
//! would be about as good says which pairs are the only ones possible.

/// Weight of a line that found a close, less what speaks against the pair.
const LINE: i64 = 1000;
/// Alignments that weigh this much less than the best one are about as good.
const ABOUT: i64 = 50;

/// A pair that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Index of the close.
    pub(super) close: usize,
    /// What speaks for it (above 0) or against it, small beside [`LINE`].
    pub(super) weight: i32,
}

/// What a line got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aligned {
    /// Index of the close.
    pub(super) close: usize,
    /// Closes that it may be, this one included.
    pub(super) candidates: u32,
    /// Every alignment about as good has this pair.
    pub(super) unique: bool,
    /// The line could have had no other, and the close no other line, in any order.
    pub(super) forced: bool,
}

/// Greatest value of any prefix, with insertions (a Fenwick tree).
struct Prefixes {
    best: Vec<i64>,
}

impl Prefixes {
    fn new(length: usize) -> Self {
        Self {
            best: vec![0; length + 1],
        }
    }

    /// Of those before `end`.
    fn before(&self, end: usize) -> i64 {
        let mut at = end;
        let mut best = 0;
        while at > 0 {
            best = best.max(self.best.get(at).copied().unwrap_or(0));
            at &= at - 1;
        }
        best
    }

    fn insert(&mut self, index: usize, value: i64) {
        let mut at = index + 1;
        while let Some(best) = self.best.get_mut(at) {
            *best = (*best).max(value);
            at += at & at.wrapping_neg();
        }
    }
}

/// Aligns lines, each with the pairs that are possible for it in the order of the closes,
/// with so many closes.
pub(super) fn align(lines: &[Vec<Pair>], closes: usize) -> Vec<Option<Aligned>> {
    let up_to = best_chains(lines, closes, false);
    let from = best_chains(lines, closes, true);
    let best = up_to.iter().flatten().copied().max().unwrap_or(0);
    // What an alignment that has this pair weighs at most.
    let through = |line: usize, at: usize| -> Option<i64> {
        let weight = LINE + i64::from(lines.get(line)?.get(at)?.weight);
        Some(up_to.get(line)?.get(at)? + from.get(line)?.get(at)? - weight)
    };
    let good: Vec<Vec<usize>> = lines
        .iter()
        .enumerate()
        .map(|(line, pairs)| {
            let about = |at: &usize| through(line, *at) >= Some(best - ABOUT);
            (0..pairs.len()).filter(about).collect()
        })
        .collect();
    let close_of = |line: usize, at: usize| lines.get(line)?.get(at).map(|pair| pair.close);
    let chosen = one_best(lines, &up_to, best);
    let mut users = vec![0u32; closes];
    for pair in lines.iter().flatten() {
        if let Some(count) = users.get_mut(pair.close) {
            *count += 1;
        }
    }
    // A pair is in every good alignment if no good pair of another line crosses it or
    // shares its close: one without it could be added to.
    let closes_of = |line: usize| {
        let good = good.get(line).map(Vec::as_slice).unwrap_or_default();
        good.iter().filter_map(move |at| close_of(line, *at))
    };
    let mut before: Vec<Option<usize>> = Vec::with_capacity(lines.len());
    let mut latest = None;
    for line in 0..lines.len() {
        before.push(latest);
        latest = latest.max(closes_of(line).max());
    }
    let mut earliest = usize::MAX;
    let mut found = vec![None; lines.len()];
    for line in (0..lines.len()).rev() {
        if let Some(close) = chosen.get(line).copied().flatten()
            && let Some(slot) = found.get_mut(line)
        {
            let candidates = closes_of(line).count();
            let alone = before.get(line).copied().flatten() < Some(close) && close < earliest;
            let only = lines.get(line).is_some_and(|pairs| pairs.len() == 1)
                && users.get(close) == Some(&1);
            *slot = Some(Aligned {
                close,
                candidates: u32::try_from(candidates.max(1)).unwrap_or(u32::MAX),
                unique: candidates == 1 && alone,
                forced: only,
            });
        }
        earliest = earliest.min(closes_of(line).min().unwrap_or(usize::MAX));
    }
    found
}

/// For each pair, what the best chain of pairs weighs that ends with it, or, backwards,
/// that begins with it.
fn best_chains(lines: &[Vec<Pair>], closes: usize, backwards: bool) -> Vec<Vec<i64>> {
    let mut prefixes = Prefixes::new(closes);
    let mut chains = vec![Vec::new(); lines.len()];
    let place = |close: usize| {
        if backwards {
            closes.saturating_sub(close + 1)
        } else {
            close
        }
    };
    for step in 0..lines.len() {
        let line = if backwards {
            lines.len() - 1 - step
        } else {
            step
        };
        let pairs = lines.get(line).map(Vec::as_slice).unwrap_or_default();
        let weights: Vec<i64> = pairs
            .iter()
            .map(|pair| prefixes.before(place(pair.close)) + LINE + i64::from(pair.weight))
            .collect();
        for (pair, weight) in pairs.iter().zip(&weights) {
            prefixes.insert(place(pair.close), *weight);
        }
        if let Some(slot) = chains.get_mut(line) {
            *slot = weights;
        }
    }
    chains
}

/// The closes of one best alignment, the earliest that there are.
fn one_best(lines: &[Vec<Pair>], up_to: &[Vec<i64>], best: i64) -> Vec<Option<usize>> {
    let mut chosen = vec![None; lines.len()];
    let mut left = best;
    let mut bound = usize::MAX;
    for line in (0..lines.len()).rev() {
        let (Some(pairs), Some(weights)) = (lines.get(line), up_to.get(line)) else {
            continue;
        };
        // The weight that is left says that this line is the last of the chain, unless
        // an earlier one's chain weighs as much.
        let ends_here = pairs
            .iter()
            .zip(weights)
            .find(|(pair, weight)| **weight == left && pair.close < bound);
        if left > 0
            && let Some((pair, weight)) = ends_here
            && let Some(slot) = chosen.get_mut(line)
        {
            *slot = Some(pair.close);
            bound = pair.close;
            left = weight - LINE - i64::from(pair.weight);
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
