//! What a capture shows while it runs: on a terminal a bar with the time left and the
//! counts so far, and each verdict as it comes. All on stderr; stdout is the report's.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::model::Incident;
use crate::report::text;
use crate::report::words::counted;

/// Verdicts shown in one second; the rest is counted.
const VERDICTS_A_SECOND: u32 = 10;

/// Counts so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Connections that ended.
    pub(super) connections: u64,
    /// Log lines read.
    pub(super) lines: u64,
    /// Upstream errors among them with their connection.
    pub(super) incidents: u64,
    /// Records lost.
    pub(super) lost: u64,
}

impl Counts {
    fn words(self) -> String {
        format!(
            "{}, {}, {}, {} lost",
            counted(self.connections, "connection", "connections"),
            counted(self.lines, "line", "lines"),
            counted(self.incidents, "error", "errors"),
            self.lost
        )
    }
}

/// The display.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    started: Instant,
    duration: Duration,
    second: u64,
    shown: u32,
    held_back: u64,
}

impl Progress {
    /// A display for a capture of this length; silent if `quiet`.
    #[must_use]
    pub(super) fn new(duration: Duration, quiet: bool) -> Self {
        let bar = (!quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(
                Some(duration.as_secs()),
                ProgressDrawTarget::stderr_with_hz(8),
            );
            let style = ProgressStyle::with_template("{bar:24} {msg}")
                .unwrap_or_else(|_no_template| ProgressStyle::default_bar());
            bar.set_style(style);
            bar
        });
        // A terminal of no type (`TERM` unset or `dumb`) can show no bar, and a hidden bar
        // would keep the lines back that are to stand above it.
        let bar = bar.filter(|bar| !bar.is_hidden());
        Self {
            bar,
            quiet,
            started: Instant::now(),
            duration,
            second: 0,
            shown: 0,
            held_back: 0,
        }
    }

    /// Prints a line above the bar.
    pub(super) fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.println(line),
            None => crate::stderr::line(line),
        }
    }

    /// Shows a verdict, unless there were too many in this second.
    pub(super) fn verdict(&mut self, incident: &Incident) {
        let second = self.started.elapsed().as_secs();
        if second != self.second {
            self.second = second;
            self.shown = 0;
            self.tell_held_back();
        }
        if self.shown < VERDICTS_A_SECOND {
            self.shown += 1;
            self.say(&text::one_line(incident));
        } else {
            self.held_back += 1;
        }
    }

    fn tell_held_back(&mut self) {
        if self.held_back > 0 {
            self.say(&format!(
                "... and {} more; the report has them all",
                self.held_back
            ));
            self.held_back = 0;
        }
    }

    /// Shows the counts.
    pub(super) fn update(&self, counts: Counts) {
        self.show(&counts.words());
    }

    /// Shows the time left and this.
    pub(super) fn show(&self, counts: &str) {
        if let Some(bar) = &self.bar {
            let elapsed = self.started.elapsed().min(self.duration);
            let left = (self.duration - elapsed).as_secs();
            bar.set_position(elapsed.as_secs());
            bar.set_message(format!("{left}s left, {counts}"));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        self.tell_held_back();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_not_told_as_many() {
        let counts = Counts {
            connections: 1,
            lines: 1,
            incidents: 1,
            lost: 1,
        };
        assert_eq!(counts.words(), "1 connection, 1 line, 1 error, 1 lost");
        let none = Counts::default();
        assert_eq!(none.words(), "0 connections, 0 lines, 0 errors, 0 lost");
    }
}
