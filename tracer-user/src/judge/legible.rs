//! Which lines of the logs that were followed could be read as nginx's: a file none of
//! whose lines can is likely to be no error log of nginx's.

use std::collections::BTreeMap;

use crate::report::words::counted;

/// Lines of one file.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    read: u64,
    unread: u64,
}

/// Lines by file.
#[derive(Debug, Default)]
pub(super) struct Legible {
    files: BTreeMap<String, Lines>,
}

impl Legible {
    pub(super) fn line(&mut self, file: &str, read: bool) {
        if !self.files.contains_key(file) {
            self.files.insert(file.to_owned(), Lines::default());
        }
        if let Some(lines) = self.files.get_mut(file) {
            *(if read {
                &mut lines.read
            } else {
                &mut lines.unread
            }) += 1;
        }
    }

    /// Lines that could not be read, of all files.
    pub(super) fn unread(&self) -> u64 {
        self.files.values().map(|lines| lines.unread).sum()
    }

    /// Files with lines, none of which could be read.
    pub(super) fn alien(&self) -> impl Iterator<Item = &str> {
        let alien = |lines: &Lines| lines.read == 0 && lines.unread > 0;
        let files = self.files.iter();
        files.filter_map(move |(file, lines)| alien(lines).then_some(file.as_str()))
    }

    /// What a report says of them.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut rest = self.unread();
        for file in self.alien() {
            let unread = self.files.get(file).map_or(0, |lines| lines.unread);
            rest -= unread;
            notes.push(format!(
                "{file} does not look like an error log of nginx's: {}",
                match unread {
                    1 => "its only line in that time could not be read as one".to_owned(),
                    more => format!("none of its {more} lines in that time could be read as one"),
                }
            ));
        }
        if rest > 0 {
            notes.push(format!(
                "{} of the error log could not be read as nginx's",
                counted(rest, "line", "lines")
            ));
        }
        notes
    }
}
