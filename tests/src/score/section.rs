//! Sections of the page about the accuracy that runs of their own write.

/// The section of a page that has one: from its heading, a line with the line breaks
/// around it, up to the next.
#[must_use]
pub fn of<'page>(page: &'page str, heading: &str) -> Option<&'page str> {
    let start = page.find(heading)?;
    let section = page.get(start..)?;
    let next = section.get(heading.len()..)?.find("\n## ");
    section.get(..next.map_or(section.len(), |next| heading.len() + next))
}

/// The page with this section instead of its own, or after all others.
#[must_use]
pub fn replaced(page: &str, heading: &str, section: &str) -> String {
    match of(page, heading) {
        Some(old) => page.replacen(old, section, 1),
        None => format!("{page}{section}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_section_is_found_and_replaced_and_others_stay() {
        const HEADING: &str = "\n## Real servers\n";
        let page = "# Page\n\n## One\ntext\n";
        let new = replaced(page, HEADING, "\n## Real servers\nfirst\n");
        assert_eq!(of(&new, HEADING), Some("\n## Real servers\nfirst\n"));
        let more = format!("{new}\n## Last\nend\n");
        let again = replaced(&more, HEADING, "\n## Real servers\nsecond\n");
        assert_eq!(
            again,
            "# Page\n\n## One\ntext\n\n## Real servers\nsecond\n\n## Last\nend\n"
        );
        assert_eq!(of(page, HEADING), None);
    }
}
