//! A score as text.

use std::fmt;

use super::Score;

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>5} {:>11} {:>5} {:>5} {:>5} {:>5} {:>11}",
            "true cause", "lines", "connection", "side", "means", "cause", "wrong", "unexplained"
        )?;
        for (cause, row) in &self.causes {
            let connection = format!("{}/{}", row.right_connection, row.with_connection);
            writeln!(
                f,
                "{cause:<24} {:>5} {connection:>11} {:>5} {:>5} {:>5} {:>5} {:>11}",
                row.lines,
                row.right_side,
                row.right_means,
                row.right_cause,
                row.wrong,
                row.unexplained
            )?;
        }
        writeln!(f, "connections held against the wire: {}", self.witnessed)?;
        writeln!(
            f,
            "idle times held against the records: {}",
            self.idle_times
        )?;
        for (strength, row) in &self.matches {
            writeln!(
                f,
                "match: {strength}: {} lines, {} of {} on the right connection",
                row.lines, row.right_connection, row.with_connection
            )?;
        }
        for (truth, said) in &self.confusion {
            for (cause, count) in said.iter().filter(|(cause, _)| *cause != truth) {
                writeln!(f, "confused: {truth} called {cause}: {count}")?;
            }
        }
        for (confidence, calibration) in &self.calibration {
            let (right, all) = (calibration.right, calibration.verdicts);
            writeln!(f, "calibration: {confidence}: {right} of {all} right")?;
        }
        for inferred in &self.constants {
            let found = inferred
                .found
                .map_or("nothing".to_owned(), |found| format!("{found:.1}"));
            let right = if inferred.right { "right" } else { "WRONG" };
            let constant = &inferred.constant;
            writeln!(
                f,
                "constant: {} ({}): {}, inferred {found}: {right}",
                inferred.scenario, constant.upstream, constant.value
            )?;
        }
        for (cause, count) in &self.without_line {
            writeln!(f, "met no request or left no line: {cause}: {count}")?;
        }
        if let Some(traffic) = &self.traffic {
            writeln!(
                f,
                "good traffic: {} requests answered in {:.1} s, {:.0} a second; {} failed",
                traffic.answered,
                traffic.seconds,
                traffic.rate(),
                traffic.failed
            )?;
        }
        if self.crowd > 0 {
            writeln!(f, "crowd: {} sends, and as many receives", self.crowd)?;
        }
        if self.lost.is_empty() {
            writeln!(f, "lost by the capture: nothing")?;
        }
        for (what, count) in &self.lost {
            writeln!(f, "lost by the capture: {count} {what}")?;
        }
        for mistake in &self.mistakes {
            writeln!(f, "mistake: {mistake}")?;
        }
        for failure in &self.failures {
            writeln!(f, "WRONG: {failure}")?;
        }
        Ok(())
    }
}
