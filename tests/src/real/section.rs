//! The section about real servers on the page about the accuracy.

use std::fmt::Write as _;

use super::Outcome;

const HEADING: &str = "\n## Real servers\n";

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

/// The section of a page that has one: from its heading up to the next.
#[must_use]
pub fn of(page: &str) -> Option<&str> {
    let start = page.find(HEADING)?;
    let section = page.get(start..)?;
    let next = section.get(HEADING.len()..)?.find("\n## ");
    section.get(..next.map_or(section.len(), |next| HEADING.len() + next))
}

/// The page with this section instead of its own, or after all others.
#[must_use]
pub fn replaced(page: &str, section: &str) -> String {
    match of(page) {
        Some(old) => page.replacen(old, section, 1),
        None => format!("{page}{section}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_section_is_found_and_replaced_and_others_stay() {
        let page = "# Page\n\n## One\ntext\n";
        let new = replaced(page, "\n## Real servers\nfirst\n");
        assert_eq!(of(&new), Some("\n## Real servers\nfirst\n"));
        let more = format!("{new}\n## Last\nend\n");
        let again = replaced(&more, "\n## Real servers\nsecond\n");
        assert_eq!(
            again,
            "# Page\n\n## One\ntext\n\n## Real servers\nsecond\n\n## Last\nend\n"
        );
        assert_eq!(of(page), None);
    }
}
