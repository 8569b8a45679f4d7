//! The page about the accuracy, docs/accuracy.md: written by the lab from its scores.

use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{Row, Score};

/// What the page is made of.
#[derive(Clone, Debug)]
pub struct Page {
    /// The score with each version of nginx.
    pub versions: Vec<Version>,
    /// The seeds, as given.
    pub seeds: String,
    /// The command that makes it again.
    pub command: String,
    /// What is to be said of numbers that were not reached.
    pub notes: String,
}

/// The score with one version of nginx.
#[derive(Clone, Debug)]
pub struct Version {
    /// `1.22.1`.
    pub version: String,
    /// Of all its runs.
    pub score: Score,
}

/// A number to reach: its name, the number in words, what was reached and whether that
/// is enough. Without a case to count it is none.
type Goal = (&'static str, &'static str, fn(&Score) -> (String, bool));

const GOALS: [Goal; 12] = [
    (
        "lines matched to the right connection, of those with a socket",
        "100 %",
        |score| {
            let sum = sum(score);
            share(sum.right_connection, sum.with_connection, 100.0)
        },
    ),
    (
        "of these, held against the packets on the wire",
        "",
        |score| (score.witnessed.to_string(), true),
    ),
    ("right side", "≥ 99 %", |score| {
        let sum = sum(score);
        share(sum.right_side, sum.lines, 99.0)
    }),
    ("right cause", "≥ 95 %", |score| {
        let sum = sum(score);
        share(sum.right_cause, sum.lines, 95.0)
    }),
    (
        "right cause, of the cause with the smallest share",
        "≥ 85 %",
        |score| {
            let rows = score.causes.iter();
            let least = rows.min_by(|(_, one), (_, other)| {
                percent(one.right_cause, one.lines)
                    .total_cmp(&percent(other.right_cause, other.lines))
            });
            least.map_or(("no line".into(), false), |(cause, row)| {
                let (text, reached) = share(row.right_cause, row.lines, 85.0);
                (format!("`{cause}`: {text}"), reached)
            })
        },
    ),
    ("wrong among `certain`", "0", |score| {
        let certain = score
            .calibration
            .get("certain")
            .cloned()
            .unwrap_or_default();
        let wrong = certain.verdicts - certain.right;
        (format!("{wrong} of {}", certain.verdicts), wrong == 0)
    }),
    (
        "`unexplained` where the evidence existed",
        "≤ 3 %",
        |score| {
            let sum = sum(score);
            let found = percent(sum.needlessly_unexplained, sum.evident);
            let text = told(sum.needlessly_unexplained, sum.evident);
            (text, found <= 3.0)
        },
    ),
    (
        "inferred idle timeouts within 2 % or 20 ms",
        "all",
        |score| {
            let idle = || {
                let constants = score.constants.iter();
                constants.filter(|inferred| kind(&inferred.constant.value) == "idle timeout")
            };
            let right = idle().filter(|inferred| inferred.right).count();
            share(right, idle().count(), 100.0)
        },
    ),
    ("false incidents", "0", |score| none(score.false_incidents)),
    ("lines of the log that the report lacks", "0", |score| {
        none(score.missing_lines)
    }),
    ("records that the capture lost", "0", |score| {
        let lost: u64 = score.lost.values().sum();
        (lost.to_string(), lost == 0)
    }),
    (
        "good requests a second beside, all answered",
        "≥ 500",
        |score| match &score.traffic {
            Some(traffic) => (
                format!(
                    "{:.0} a second, {} failed of {}",
                    traffic.rate(),
                    traffic.failed,
                    traffic.answered + traffic.failed
                ),
                traffic.rate() >= 500.0 && traffic.failed == 0,
            ),
            None => ("not run".into(), false),
        },
    ),
];

/// How many mistakes the page names in words.
const NAMED: usize = 60;

impl Page {
    /// The page.
    ///
    /// # Errors
    /// If the kernel's release cannot be read.
    pub fn text(&self) -> Result<String> {
        let mut total = Score::default();
        for one in &self.versions {
            total.add(&format!("nginx {}", one.version), one.score.clone());
        }
        let mut page = self.head(&total)?;
        page += &self.goals();
        page += &causes(&total);
        page += &confusion(&total);
        page += &calibration(&total);
        page += &constants(&total);
        page += &scenarios(&total);
        page += &mistakes(&total);
        if !self.notes.trim().is_empty() {
            // Writing to a String does not fail.
            let _ = write!(page, "\n{}\n", self.notes.trim());
        }
        Ok(page)
    }

    fn head(&self, total: &Score) -> Result<String> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("cannot read the kernel's release")?;
        // What follows the number is the builder's own.
        let release = release.trim().split('-').next().unwrap_or_default();
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|one| one.version.as_str())
            .collect();
        Ok(format!(
            "# Accuracy

Written by the lab; do not edit. It makes failures of every kind on purpose through a real nginx, \
and holds what `whoclosed` says of each line against what its backends and clients recorded \
themselves. All parameters are drawn from the seed. Where two verdicts would both be right, the \
scenario says so.

| | |
|---|---|
| date | {date} |
| kernel | {release} {arch} |
| nginx | {versions} |
| seeds | {seeds} |
| runs | {runs}, of which {broken} came to no end |
| command | `{command}` |
",
            date = date(),
            arch = std::env::consts::ARCH,
            versions = versions.join(", "),
            seeds = self.seeds,
            runs = total.runs + total.broken_runs,
            broken = total.broken_runs,
            command = self.command,
        ))
    }

    fn goals(&self) -> String {
        let mut text = "\n## Numbers to reach\n\n| | to reach |".to_owned();
        for one in &self.versions {
            text += &format!(" nginx {} |", one.version);
        }
        text += "\n|---|---|";
        text += &"---|".repeat(self.versions.len());
        text += "\n";
        for (name, number, reached) in GOALS {
            text += &format!("| {name} | {number} |");
            for one in &self.versions {
                let (found, enough) = reached(&one.score);
                let found = if enough {
                    found
                } else {
                    format!("**{found}**")
                };
                text += &format!(" {found} |");
            }
            text += "\n";
        }
        text + "\nWhat is not enough stands **bold**.\n"
    }
}

fn causes(total: &Score) -> String {
    let text = "\n## By true cause\n\n| | lines | right connection | side | means | cause | \
        another cause | `unexplained` |\n|---|---|---|---|---|---|---|---|\n";
    let rows = total.causes.iter();
    rows.fold(text.to_owned(), |text, (cause, row)| {
        text + &line(&format!("`{cause}`"), row)
    }) + &line("all", &sum(total))
}

fn scenarios(total: &Score) -> String {
    let text = "\n## By scenario\n\n| | lines | right connection | side | means | cause | \
        another cause | `unexplained` |\n|---|---|---|---|---|---|---|---|\n";
    let rows = total.scenarios.iter();
    rows.fold(text.to_owned(), |text, (scenario, row)| {
        text + &line(scenario, row)
    })
}

fn line(name: &str, row: &Row) -> String {
    format!(
        "| {name} | {} | {} of {} | {} | {} | {} | {} | {} |\n",
        row.lines,
        row.right_connection,
        row.with_connection,
        row.right_side,
        row.right_means,
        row.right_cause,
        row.wrong,
        row.unexplained
    )
}

fn confusion(total: &Score) -> String {
    let mut text = "\n## Confusion\n\n| true cause | called | lines |\n|---|---|---|\n".to_owned();
    for (truth, said) in &total.confusion {
        for (cause, count) in said.iter().filter(|(cause, _)| *cause != truth) {
            text += &format!("| `{truth}` | `{cause}` | {count} |\n");
        }
    }
    text
}

fn calibration(total: &Score) -> String {
    let mut text = "\n## Calibration\n\nSide and cause both right, `unexplained` aside:\n\n\
        | | verdicts | right |\n|---|---|---|\n"
        .to_owned();
    for confidence in ["certain", "likely", "possible"] {
        let found = total
            .calibration
            .get(confidence)
            .cloned()
            .unwrap_or_default();
        let right = told(found.right, found.verdicts);
        text += &format!("| `{confidence}` | {} | {right} |\n", found.verdicts);
    }
    text
}

fn constants(total: &Score) -> String {
    let mut text = "\n## Inferred constants\n\n| scenario | constant | backends | inferred \
        | near enough | off by, at most |\n|---|---|---|---|---|---|\n"
        .to_owned();
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for inferred in &total.constants {
        let group = (inferred.scenario.as_str(), kind(&inferred.constant.value));
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups.sort_unstable();
    for (scenario, constant) in groups {
        let of_group: Vec<_> = total
            .constants
            .iter()
            .filter(|one| one.scenario == scenario && kind(&one.constant.value) == constant)
            .collect();
        let off = of_group
            .iter()
            .filter_map(|one| one.off_by_ms())
            .reduce(f64::max);
        text += &format!(
            "| {scenario} | {constant} | {} | {} | {} | {} |\n",
            of_group.len(),
            of_group.iter().filter(|one| one.found.is_some()).count(),
            of_group.iter().filter(|one| one.right).count(),
            off.map_or("-".to_owned(), |off| format!("{off:.1} ms")),
        );
    }
    text
}

fn kind(value: &crate::act::Value) -> &'static str {
    use crate::act::Value;
    match value {
        Value::IdleTimeoutMs(_) | Value::KeptMs { .. } => "idle timeout",
        Value::RequestLimit(_) => "request limit",
        Value::WorkTimeoutMs(_) | Value::SupervisedTimeoutMs(_) => "work timeout",
        Value::SizeThreshold { .. } => "size threshold",
        Value::FailedBodyBytes(_) => "bytes of failed requests",
    }
}

/// Each wrong verdict and whatever else failed a run.
fn mistakes(total: &Score) -> String {
    let mut text = "\n## Mistakes\n\n".to_owned();
    let failures = total.failures.iter().map(|text| format!("* **{text}**\n"));
    let mistakes = total.mistakes.iter().map(|text| format!("* {text}\n"));
    let all: Vec<_> = failures.chain(mistakes).collect();
    if all.is_empty() {
        text += "None.\n";
    }
    text.extend(all.iter().take(NAMED).map(String::as_str));
    if all.len() > NAMED {
        text += &format!("* and {} more\n", all.len() - NAMED);
    }
    text
}

pub(super) fn sum(score: &Score) -> Row {
    score.causes.values().fold(Row::default(), |mut sum, row| {
        sum.add(row);
        sum
    })
}

fn percent(part: usize, whole: usize) -> f64 {
    let number = |count| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 {
        0.0
    } else {
        number(part) / number(whole) * 100.0
    }
}

pub(super) fn told(part: usize, whole: usize) -> String {
    // Rounded down: 99.96 % is not 100 %.
    let percent = (percent(part, whole) * 10.0).floor() / 10.0;
    format!("{part} of {whole} ({percent:.1} %)")
}

/// At least so many percent.
pub(super) fn share(part: usize, whole: usize, least: f64) -> (String, bool) {
    let enough = whole > 0 && percent(part, whole) >= least;
    (told(part, whole), enough)
}

pub(super) fn none(count: usize) -> (String, bool) {
    (count.to_string(), count == 0)
}

/// Today, UTC: `2026-01-31`.
fn date() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (year, month, day) = civil(now.map_or(0, |now| now.as_secs() / 86_400));
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (19_782, (2024, 2, 29)),
            (20_454, (2026, 1, 1)),
            (11_016, (2000, 2, 29)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn what_is_not_reached_stands_out_and_nothing_is_rounded_up() {
        let mut score = Score::default();
        let row = Row {
            lines: 10_000,
            right_side: 9_999,
            right_cause: 9_400,
            with_connection: 10_000,
            right_connection: 9_999,
            evident: 10_000,
            ..Row::default()
        };
        score.causes.insert("stale-keepalive".into(), row);
        score.mistakes.push("called something else".into());
        let page = Page {
            versions: vec![Version {
                version: "1.22.1".into(),
                score,
            }],
            seeds: "1..2".into(),
            command: "cargo xtask lab".into(),
            notes: "## Why\n\nBecause.\n".into(),
        };
        let text = page.text().unwrap();
        for line in [
            "| nginx | 1.22.1 |",
            "| lines matched to the right connection, of those with a socket | 100 % | **9999 of 10000 (99.9 %)** |",
            "| right side | ≥ 99 % | 9999 of 10000 (99.9 %) |",
            "| right cause | ≥ 95 % | **9400 of 10000 (94.0 %)** |",
            "| false incidents | 0 | 0 |",
            "* nginx 1.22.1: called something else",
            "## Why",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line:?} in {text}"
            );
        }
    }
}
