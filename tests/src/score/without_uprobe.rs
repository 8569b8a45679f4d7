//! The section about captures without the uprobe on the page about the accuracy.

use std::fmt::Write as _;

use super::page::{Version, none, share, sum, told};
use super::{Row, Score};

/// Its heading.
pub const HEADING: &str = "\n## Without the uprobe\n";

/// Lines that have to be on the right connection, in percent.
const RIGHT: f64 = 97.0;

/// How many mistakes the section names in words.
const NAMED: usize = 20;

type Line = (&'static str, &'static str, fn(&Score) -> (String, bool));

const LINES: [Line; 8] = [
    (
        "lines matched to the right connection, of those with a socket",
        "≥ 97 %",
        |score| {
            let sum = sum(score);
            share(sum.right_connection, sum.with_connection, RIGHT)
        },
    ),
    ("of the match `ordered`", "", |score| {
        of_match(score, "ordered")
    }),
    ("of the match `window`", "", |score| {
        of_match(score, "window")
    }),
    ("of the match `none`", "", |score| of_match(score, "none")),
    ("right side", "", |score| {
        let sum = sum(score);
        (told(sum.right_side, sum.lines), true)
    }),
    ("right cause", "", |score| {
        let sum = sum(score);
        (told(sum.right_cause, sum.lines), true)
    }),
    ("wrong among `certain`", "0", |score| {
        let certain = score.calibration.get("certain").cloned();
        let certain = certain.unwrap_or_default();
        let wrong = certain.verdicts - certain.right;
        let (_, enough) = none(wrong);
        (format!("{wrong} of {}", certain.verdicts), enough)
    }),
    (
        "good requests a second beside, all answered",
        "≥ 500",
        |score| match &score.traffic {
            Some(traffic) => (
                format!("{:.0} a second, {} failed", traffic.rate(), traffic.failed),
                traffic.rate() >= 500.0 && traffic.failed == 0,
            ),
            None => ("not run".into(), false),
        },
    ),
];

fn of_match(score: &Score, strength: &str) -> (String, bool) {
    let row: Row = score.matches.get(strength).cloned().unwrap_or_default();
    (told(row.right_connection, row.with_connection), true)
}

/// The section, from the scores with each nginx.
#[must_use]
pub fn text(versions: &[Version], seeds: &str, command: &str) -> String {
    let mut text = format!(
        "{HEADING}
Written by `{command}`, seeds {seeds}. The same failures, but nothing is attached to nginx's \
         binary, as where it has no symbols: lines are matched to connections by the order of each \
         worker's lines and closes, and how many requests a TLS connection had is not known.\n\n| | to reach |"
    );
    // Writing to a String does not fail.
    for one in versions {
        let _ = write!(text, " nginx {} |", one.version);
    }
    text += "\n|---|---|";
    text += &"---|".repeat(versions.len());
    text += "\n";
    for (name, number, reached) in LINES {
        let _ = write!(text, "| {name} | {number} |");
        for one in versions {
            let (found, enough) = reached(&one.score);
            let bold = if enough { "" } else { "**" };
            let _ = write!(text, " {bold}{found}{bold} |");
        }
        text += "\n";
    }
    for one in versions {
        let (failures, mistakes) = (&one.score.failures, &one.score.mistakes);
        let all = failures.len() + mistakes.len();
        for mistake in failures.iter().chain(mistakes).take(NAMED) {
            let _ = write!(text, "\n* nginx {}: {mistake}", one.version);
        }
        if all > NAMED {
            let _ = write!(text, "\n* and {} more", all - NAMED);
        }
    }
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_tells_each_strength_and_what_is_not_reached() {
        let mut score = Score::default();
        let row = |right| Row {
            lines: 100,
            with_connection: 100,
            right_connection: right,
            right_cause: right,
            ..Row::default()
        };
        score.causes.insert("stale-keepalive".into(), row(96));
        score.matches.insert("ordered".into(), row(96));
        let one = Version {
            version: "1.28.3".into(),
            score,
        };
        let text = text(&[one], "1..2", "cargo xtask lab");
        assert!(text.starts_with(HEADING));
        for line in [
            "| | to reach | nginx 1.28.3 |",
            "| lines matched to the right connection, of those with a socket | ≥ 97 % | **96 of 100 (96.0 %)** |",
            "| of the match `ordered` |  | 96 of 100 (96.0 %) |",
            "| right cause |  | 96 of 100 (96.0 %) |",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line:?} in {text}"
            );
        }
    }
}
