//! What was configured, measured and inferred, a line for each check.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Setting;

/// How near an inferred number has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// Within a share of the truth, or so many milliseconds, whichever is more.
    Time {
        /// Of the truth.
        share: f64,
        /// Milliseconds.
        least_ms: f64,
    },
    /// A supervisor looks about once a second: within 1.1 s.
    Supervised,
    /// The same number.
    Exact,
    /// The same number or none: the last answer announces the end, nginx closes before
    /// the server does, and no request is ever lost.
    Announced,
    /// No number is inferred.
    None,
}

/// A supervisor's look, milliseconds.
const SUPERVISOR_MS: f64 = 1100.0;

/// What clients without an nginx measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// How many.
    pub samples: usize,
}

impl Measured {
    /// Of plain numbers.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
            samples: values.len(),
        }
    }

    /// Of times, in milliseconds.
    #[must_use]
    pub fn of_times(times: &[Duration]) -> Self {
        Self::of(
            times
                .iter()
                .map(|time| time.as_secs_f64() * 1000.0)
                .collect(),
        )
    }
}

/// What the report says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Inferred {
    /// The number.
    pub value: f64,
    /// How far its samples lie apart, milliseconds.
    pub spread_ms: Option<f64>,
    /// How many.
    pub samples: u64,
}

impl Inferred {
    /// From a time of a report, if it is one.
    pub(super) fn time(value: &Value) -> Option<Self> {
        Some(Self {
            value: value["ms"].as_f64()?,
            spread_ms: value["spread_ms"].as_f64(),
            samples: value["samples"].as_u64()?,
        })
    }

    /// From a request limit of a report, if it is one.
    pub(super) fn requests(value: &Value) -> Option<Self> {
        Some(Self {
            value: value["requests"].as_f64()?,
            spread_ms: None,
            samples: value["samples"].as_u64()?,
        })
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Server and release.
    pub server: String,
    /// What is looked at.
    pub what: &'static str,
    /// As the server's configuration has it.
    pub setting: String,
    /// The server's address.
    pub upstream: String,
    /// How near it has to be.
    pub accuracy: Accuracy,
    /// The number in the configuration; milliseconds, or requests.
    pub configured: f64,
    /// The same, seen without nginx.
    pub measured: Option<Measured>,
    /// The same, by the tool.
    pub inferred: Option<Inferred>,
    /// Idle closes that the tool counted.
    pub idle_closes: u64,
    /// Requests sent under load.
    pub requests: Option<usize>,
    /// Of them those whose client was not served.
    pub failed: Option<usize>,
    /// Error lines by the cause that the tool gave.
    pub verdicts: BTreeMap<String, usize>,
}

impl Row {
    /// With nothing measured or inferred yet.
    pub(super) fn new(setting: &Setting, what: &'static str, upstream: &Value) -> Self {
        Self {
            server: setting.server.clone(),
            what,
            setting: setting.text.clone(),
            upstream: setting.process.address().to_string(),
            accuracy: Accuracy::None,
            configured: 0.0,
            measured: None,
            inferred: None,
            idle_closes: upstream["closes"]["backend_idle"].as_u64().unwrap_or(0),
            requests: None,
            failed: None,
            verdicts: BTreeMap::new(),
        }
    }

    /// Near enough to the configuration, or to what the server does, which may be late
    /// by its own timer's steps. None: there is nothing to infer.
    #[must_use]
    pub fn right(&self) -> Option<bool> {
        let near = |truth: f64, below: f64, above: f64| {
            let found = self.inferred.map(|inferred| inferred.value);
            found.is_some_and(|found| (truth - below..=truth + above).contains(&found))
        };
        let measured = self.measured.as_ref().map(|measured| measured.median);
        let close = |truth: f64| match self.accuracy {
            Accuracy::Time { share, least_ms } => {
                let allowed = (truth * share).max(least_ms);
                near(truth, allowed, allowed)
            }
            Accuracy::Supervised => near(truth, SUPERVISOR_MS, SUPERVISOR_MS),
            Accuracy::Exact => near(truth, 0.0, 0.0),
            Accuracy::Announced => self.inferred.is_none() || near(truth, 0.0, 0.0),
            Accuracy::None => false,
        };
        (self.accuracy != Accuracy::None)
            .then(|| close(self.configured) || measured.is_some_and(close))
    }

    fn cells(&self) -> [String; 7] {
        let is_time = matches!(self.accuracy, Accuracy::Time { .. } | Accuracy::Supervised);
        let number = |value: f64| {
            if is_time {
                format!("{:.3} s", value / 1000.0)
            } else {
                format!("{value:.0}")
            }
        };
        let none = || "-".to_owned();
        let measured = self.measured.as_ref().map(|measured| {
            let median = number(measured.median);
            if measured.least < measured.most {
                format!(
                    "{median} ({}..{})",
                    number(measured.least),
                    number(measured.most)
                )
            } else {
                median
            }
        });
        let inferred = match (&self.inferred, self.accuracy) {
            (_, Accuracy::None) => none(),
            (Some(inferred), _) => number(inferred.value),
            (None, Accuracy::Announced) => "nothing: announced".to_owned(),
            (None, _) => "nothing".to_owned(),
        };
        let samples = self.inferred.map(|inferred| inferred.samples.to_string());
        let mut lines: Vec<String> = (self.verdicts.iter())
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect();
        if let (Some(requests), Some(failed)) = (self.requests, self.failed) {
            lines.insert(0, format!("{failed} of {requests} requests failed"));
        }
        [
            self.server.clone(),
            format!("{}: {}", self.what, self.setting),
            measured.unwrap_or_else(none),
            inferred,
            samples.unwrap_or_else(none),
            match self.right() {
                Some(true) => "right".to_owned(),
                Some(false) => "WRONG".to_owned(),
                None => none(),
            },
            lines.join(", "),
        ]
    }
}

const HEADINGS: [&str; 7] = [
    "server",
    "configured",
    "measured",
    "inferred",
    "samples",
    "",
    "error lines",
];

/// The rows as a table in Markdown.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 7]> = self.0.iter().map(Row::cells).collect();
        let headings = HEADINGS.map(str::to_owned);
        let widths: Vec<usize> = (0..headings.len())
            .map(|column| {
                let cells = rows.iter().chain([&headings]);
                cells
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut line = |cells: &[String; 7]| {
            f.write_str("|")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, " {cell:<width$} |")?;
            }
            writeln!(f)
        };
        line(&headings)?;
        line(&std::array::from_fn(|column| "-".repeat(widths[column])))?;
        rows.iter().try_for_each(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(accuracy: Accuracy, configured: f64, found: Option<f64>) -> Row {
        Row {
            server: "server 1.0".to_owned(),
            what: "idle timeout",
            setting: "timeout 5".to_owned(),
            upstream: "127.0.0.1:1".to_owned(),
            accuracy,
            configured,
            measured: None,
            inferred: found.map(|value| Inferred {
                value,
                spread_ms: None,
                samples: 10,
            }),
            idle_closes: 0,
            requests: None,
            failed: None,
            verdicts: BTreeMap::new(),
        }
    }

    #[test]
    fn a_time_has_to_be_near_the_configuration_or_what_was_measured() {
        let time = Accuracy::Time {
            share: 0.02,
            least_ms: 20.0,
        };
        assert_eq!(row(time, 5000.0, Some(5099.0)).right(), Some(true));
        assert_eq!(row(time, 5000.0, Some(5500.0)).right(), Some(false));
        assert_eq!(row(time, 5000.0, None).right(), Some(false));
        let late = Row {
            measured: Some(Measured::of(vec![5400.0, 5490.0, 5510.0])),
            ..row(time, 5000.0, Some(5500.0))
        };
        assert_eq!(late.right(), Some(true));
        assert_eq!(
            row(Accuracy::Exact, 100.0, Some(101.0)).right(),
            Some(false)
        );
        assert_eq!(row(Accuracy::None, 1.0, None).right(), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let rows = [row(Accuracy::Exact, 100.0, Some(100.0))];
        let text = Table(&rows).to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("| right |"), "{text}");
    }
}
