//! Alignments by hand, and held against trying every one.

use proptest::prelude::*;

use super::*;
use crate::judge::tests::cases;

fn pairs(closes: &[usize]) -> Vec<Pair> {
    let pair = |close: &usize| Pair {
        close: *close,
        weight: 0,
    };
    closes.iter().map(pair).collect()
}

/// Close and number of candidates of each line.
fn got(lines: &[&[usize]], closes: usize) -> Vec<Option<(usize, u32, bool)>> {
    let lines: Vec<Vec<Pair>> = lines.iter().map(|line| pairs(line)).collect();
    align(&lines, closes)
        .into_iter()
        .map(|found| found.map(|found| (found.close, found.candidates, found.unique)))
        .collect()
}

#[test]
fn as_many_closes_as_lines_leave_no_choice() {
    assert_eq!(
        got(&[&[0, 1], &[0, 1]], 2),
        [Some((0, 1, true)), Some((1, 1, true))]
    );
}

#[test]
fn a_close_too_many_leaves_each_line_two() {
    assert_eq!(
        got(&[&[0, 1, 2], &[0, 1, 2]], 3),
        [Some((0, 2, false)), Some((1, 2, false))]
    );
}

#[test]
fn a_close_too_few_is_nobodys_for_certain() {
    let found = got(&[&[0], &[0]], 1);
    assert_eq!(found.iter().flatten().count(), 1);
    assert!(found.iter().flatten().all(|(_, _, unique)| !unique));
}

#[test]
fn pairs_that_cross_are_not_both_taken_and_neither_is_sure() {
    let found = got(&[&[1], &[0]], 2);
    assert_eq!(found.iter().flatten().count(), 1);
    assert!(found.iter().flatten().all(|(_, _, unique)| !unique));
}

#[test]
fn what_speaks_for_a_close_decides_if_it_weighs_enough() {
    for (weight, unique) in [(40, false), (100, true)] {
        let lines = [vec![
            Pair {
                close: 0,
                weight: 0,
            },
            Pair { close: 1, weight },
        ]];
        let found = align(&lines, 2)[0].unwrap();
        assert_eq!((found.close, found.unique), (1, unique));
        assert!(!found.forced);
    }
}

#[test]
fn a_pair_without_any_other_is_forced() {
    let lines = [pairs(&[0]), pairs(&[1, 2])];
    let found = align(&lines, 3);
    assert!(found[0].unwrap().forced && !found[1].unwrap().forced);
}

/// Every alignment with its weight.
fn all(lines: &[Vec<Pair>]) -> Vec<(i64, Vec<Option<usize>>)> {
    let mut found = vec![(0i64, Vec::new())];
    for pairs in lines {
        let mut longer = Vec::new();
        for (weight, closes) in &found {
            let last = closes.iter().flatten().copied().max();
            let with = |close: Option<usize>| {
                let mut closes: Vec<Option<usize>> = closes.clone();
                closes.push(close);
                closes
            };
            longer.push((*weight, with(None)));
            for pair in pairs.iter().filter(|pair| Some(pair.close) > last) {
                let weight = weight + LINE + i64::from(pair.weight);
                longer.push((weight, with(Some(pair.close))));
            }
        }
        found = longer;
    }
    found
}

fn some_lines() -> impl Strategy<Value = Vec<Vec<Pair>>> {
    let pair = (0usize..6, prop_oneof![Just(0), Just(100), -60i32..60]);
    let line = proptest::collection::vec(pair, 0..4).prop_map(|pairs| {
        let mut pairs: Vec<Pair> = pairs
            .into_iter()
            .map(|(close, weight)| Pair { close, weight })
            .collect();
        pairs.sort_by_key(|pair| pair.close);
        pairs.dedup_by_key(|pair| pair.close);
        pairs
    });
    proptest::collection::vec(line, 0..6)
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_best_alignment_is_found_and_uniqueness_is_what_trying_every_one_says(
        lines in some_lines(),
    ) {
        let found = align(&lines, 6);
        let every = all(&lines);
        let best = every.iter().map(|(weight, _)| *weight).max().unwrap();
        let closes: Vec<Option<usize>> =
            found.iter().map(|found| found.map(|found| found.close)).collect();
        prop_assert!(every.contains(&(best, closes)));
        let good: Vec<_> = every.iter().filter(|(weight, _)| *weight >= best - ABOUT).collect();
        for (line, found) in found.iter().enumerate() {
            let Some(found) = found else { continue };
            let same = good.iter().all(|(_, closes)| closes[line] == Some(found.close));
            prop_assert_eq!(found.unique, same);
            let mut choices: Vec<usize> =
                good.iter().filter_map(|(_, closes)| closes[line]).collect();
            choices.sort_unstable();
            choices.dedup();
            prop_assert_eq!(found.candidates as usize, choices.len());
        }
    }
}
