//! How many kernels make the whole matrix: with fewer, all right says too little, and a run
//! that names none of its rows fails.

use std::collections::BTreeSet;

use super::rows::HOST;
use super::table::Row;

/// The fewest kernels beside the host's own.
const FEWEST: usize = 8;
/// The oldest line of the archive's on which a capture runs: it has to be among them.
const OLDEST: &str = "6.1.";

/// What is missing from these rows for the whole matrix, in words. A kernel counts once,
/// however it was started, and not if it is the host's own, whose release is `here`.
pub(super) fn missing(rows: &[Row], here: &str) -> Option<String> {
    let ran = rows.iter().filter(|row| {
        let is_here = row.name == HOST || row.release == here;
        !row.is_missing() && !row.release.is_empty() && !is_here
    });
    let releases: BTreeSet<&str> = ran.map(|row| row.release.as_str()).collect();
    let has_oldest = releases.iter().any(|release| release.starts_with(OLDEST));
    let line = OLDEST.trim_end_matches('.');
    match (releases.len() < FEWEST, has_oldest) {
        (false, true) => None,
        (true, true) => Some(format!(
            "{} kernels beside the host's were run, and it takes {FEWEST}",
            releases.len()
        )),
        (false, false) => Some(format!("no kernel {line} was run, and it takes one")),
        (true, false) => Some(format!(
            "{} kernels beside the host's were run and none of them was {line}; it takes \
             {FEWEST}, with one of {line}",
            releases.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Told;
    use super::*;

    const HERE: &str = "6.18.44";

    fn rows(releases: &[&str]) -> Vec<Row> {
        let row = |release: &&str| Row {
            name: (*release).to_owned(),
            release: (*release).to_owned(),
            told: Told::Ran(Vec::new()),
            ..Row::default()
        };
        releases.iter().map(row).collect()
    }

    const EIGHT: [&str; 8] = [
        "6.1.0-57-amd64",
        "6.12.1",
        "6.16.1",
        "6.18.1",
        "7.0.1",
        "7.1.1",
        "7.2.1",
        "7.3.1",
    ];

    #[test]
    fn eight_kernels_with_one_of_6_1_are_enough() {
        assert_eq!(missing(&rows(&EIGHT), HERE), None);
        let without_oldest = [&["6.10.1"], &EIGHT[1..]].concat();
        let said = missing(&rows(&without_oldest), HERE).unwrap();
        assert_eq!(said, "no kernel 6.1 was run, and it takes one");
        assert!(
            missing(&rows(&EIGHT[1..]), HERE)
                .unwrap()
                .starts_with("7 kernels")
        );
        assert!(missing(&[], HERE).is_some());
    }

    #[test]
    fn the_same_kernel_twice_the_hosts_and_one_that_was_not_had_do_not_count() {
        let seven = rows(&EIGHT[..7]);
        let with = |row: Row| missing(&[seven.clone(), vec![row]].concat(), HERE);
        assert!(with(rows(&["7.3.1"]).remove(0)).is_none());
        let same = rows(&["7.2.1"]).remove(0);
        let host = Row {
            name: HOST.to_owned(),
            ..rows(&["7.9.1"]).remove(0)
        };
        let here = rows(&[HERE]).remove(0);
        let not_had = Row {
            told: Told::Missing,
            ..rows(&["7.3.1"]).remove(0)
        };
        for row in [same, host, here, not_had] {
            let said = with(row).unwrap();
            assert!(said.starts_with("7 kernels"), "{said}");
        }
    }
}
