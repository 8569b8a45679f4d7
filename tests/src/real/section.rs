//! The section about real servers on the page about the accuracy.

use std::fmt::Write as _;

use super::Outcome;

/// Its heading.
pub const HEADING: &str = "\n## Real servers\n";

/// The section, from the runs with each version of nginx.
#[must_use]
pub fn text(outcomes: &[(String, Outcome)], command: &str) -> String {
    let mut text = format!(
        "{HEADING}
Written by `{command}`. Servers as they are released, behind nginx; \
         what the tool infers from a capture, against what their configuration says and \
         what clients without nginx or the servers' own records measure (median, least and most).\n"
    );
    for (version, outcome) in outcomes {
        // Writing to a String does not fail.
        let _ = write!(text, "\nnginx {version}:\n\n{}", outcome.table());
        for mistake in outcome.score.failures.iter().chain(&outcome.score.mistakes) {
            let _ = writeln!(text, "\n* {mistake}");
        }
    }
    text
}
