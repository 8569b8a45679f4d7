//! What happened to a log's name in its directory between two looks: which files stood
//! there, and by what names they go now. Opens nothing; that is the follower's.

use std::ffi::{OsStr, OsString};

/// Names remembered: more files than this are not rotated within one look.
const MOST: usize = 32;

/// One thing that happened to a name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A file was created.
    Created(OsString),
    /// A file was renamed away; the number joins it to where it went.
    MovedFrom(OsString, u32),
    /// A file was renamed to this name.
    MovedTo(OsString, u32),
    /// A file was removed.
    Deleted(OsString),
    /// Events were lost, or the directory is another one now.
    Gap,
}

/// Does the follower know a file that stood at the log's name?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Known,
    /// It stood at the log's name when the follower looked, which may have opened its
    /// successor instead.
    Looked,
    Fresh,
    /// It never stood at the log's name, but was created since the last look, by a name
    /// that begins with the log's: it may be a copy of it.
    Copy,
}

/// The log's name and those that its former files have got.
#[derive(Debug)]
pub(super) struct Names {
    log: OsString,
    at_log: Option<Is>,
    /// Renamed away, and not told where to so far: `true` after a look in between.
    moving: Vec<(u32, Is, bool)>,
    former: Vec<(OsString, Is)>,
    missed: u64,
}

impl Names {
    pub(super) fn new(log: OsString, exists: bool) -> Self {
        Self {
            log,
            at_log: exists.then_some(Is::Known),
            moving: Vec::new(),
            former: Vec::new(),
            missed: 0,
        }
    }

    pub(super) fn push(&mut self, event: &Event) {
        match event {
            Event::Created(name) if *name == self.log => {
                let before = self.at_log.replace(Is::Fresh);
                self.gone(before);
            }
            Event::Created(name) => {
                let before = self.forget(name);
                self.gone(before);
                let log = self.log.as_encoded_bytes();
                if name.as_encoded_bytes().starts_with(log) {
                    self.remember(name, Is::Copy);
                }
            }
            Event::MovedFrom(name, cookie) => {
                if let Some(is) = self.take(name) {
                    self.moving.push((*cookie, is, false));
                }
            }
            Event::MovedTo(name, cookie) => {
                let moving = self
                    .moving
                    .iter()
                    .position(|(known, ..)| known == cookie)
                    .map(|at| self.moving.remove(at).1);
                let before = self.take(name);
                self.gone(before);
                if *name == self.log {
                    self.at_log = Some(moving.unwrap_or(Is::Fresh));
                } else if let Some(is) = moving {
                    let is = if is == Is::Known { Is::Looked } else { is };
                    self.remember(name, is);
                }
            }
            Event::Deleted(name) => {
                let before = self.take(name);
                self.gone(before);
            }
            Event::Gap => self.missed += 1,
        }
    }

    /// Names of files that stood at the log's name and may be unknown to the follower,
    /// in the order in which they left it.
    pub(super) fn fresh(&self) -> Vec<OsString> {
        self.that_are(&[Is::Looked, Is::Fresh])
    }

    /// Names of files created since the last look that may be copies of the log, in their
    /// order.
    pub(super) fn copies(&self) -> Vec<OsString> {
        self.that_are(&[Is::Copy])
    }

    fn that_are(&self, wanted: &[Is]) -> Vec<OsString> {
        self.former
            .iter()
            .filter(|(_, is)| wanted.contains(is))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The follower has looked; `found` if something stood at the log's name.
    pub(super) fn looked(&mut self, found: bool) {
        if found {
            self.at_log = Some(Is::Known);
        }
        self.former.retain(|(_, is)| *is != Is::Copy);
        // What left the directory for another before the last look does not come back.
        let (over, waiting): (Vec<_>, Vec<_>) =
            self.moving.drain(..).partition(|(.., waited)| *waited);
        self.moving = waiting
            .into_iter()
            .map(|(cookie, is, _)| (cookie, is, true))
            .collect();
        for (_, is, _) in over {
            self.gone(Some(is));
        }
    }

    /// A former file was opened by this name.
    pub(super) fn opened(&mut self, name: &OsStr) {
        for (known, is) in &mut self.former {
            if known == name {
                *is = Is::Known;
            }
        }
    }

    /// Files that stood at the log's name and were gone before anybody could open them.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    fn take(&mut self, name: &OsStr) -> Option<Is> {
        if name == self.log {
            return self.at_log.take();
        }
        self.forget(name)
    }

    fn remember(&mut self, name: &OsStr, is: Is) {
        self.former.push((name.to_owned(), is));
        if self.former.len() > MOST {
            let (_, is) = self.former.remove(0);
            self.gone(Some(is));
        }
    }

    fn forget(&mut self, name: &OsStr) -> Option<Is> {
        let at = self.former.iter().position(|(known, _)| known == name)?;
        Some(self.former.remove(at).1)
    }

    fn gone(&mut self, is: Option<Is>) {
        self.missed += u64::from(is == Some(Is::Fresh));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(exists: bool) -> Names {
        Names::new("error.log".into(), exists)
    }

    fn rename(names: &mut Names, from: &str, to: &str, cookie: u32) {
        names.push(&Event::MovedFrom(from.into(), cookie));
        names.push(&Event::MovedTo(to.into(), cookie));
    }

    #[test]
    fn two_rotations_in_one_look_leave_the_file_between_by_its_present_name() {
        let mut log = names(true);
        rename(&mut log, "error.log", "error.log.1", 1);
        log.push(&Event::Created("error.log".into()));
        rename(&mut log, "error.log.1", "error.log.2", 2);
        rename(&mut log, "error.log", "error.log.1", 3);
        log.push(&Event::Created("error.log".into()));
        // The first may not be the file that the look before found at the path.
        assert_eq!(log.fresh(), ["error.log.2", "error.log.1"]);
        log.opened(OsStr::new("error.log.2"));
        log.opened(OsStr::new("error.log.1"));
        log.looked(true);
        assert_eq!(log.fresh(), [""; 0]);
        log.push(&Event::Deleted("error.log.1".into()));
        log.push(&Event::Deleted("error.log".into()));
        assert_eq!(log.take_missed(), 0);
    }

    #[test]
    fn a_file_that_was_gone_before_it_was_seen_is_counted() {
        let mut log = names(true);
        rename(&mut log, "error.log", "error.log.1", 1);
        log.push(&Event::Created("error.log".into()));
        rename(&mut log, "error.log", "error.log.1", 2);
        log.push(&Event::Created("error.log".into()));
        log.push(&Event::Deleted("error.log.1".into()));
        log.push(&Event::Deleted("error.log".into()));
        assert_eq!(log.take_missed(), 2);
        log.push(&Event::Gap);
        assert_eq!(log.take_missed(), 1);
    }

    #[test]
    fn a_file_that_left_for_another_directory_is_missed_if_nobody_knew_it() {
        let mut log = names(true);
        log.push(&Event::MovedFrom("error.log".into(), 1));
        log.looked(false);
        log.looked(false);
        assert_eq!(log.take_missed(), 0, "it was known");
        log.push(&Event::Created("error.log".into()));
        log.push(&Event::MovedFrom("error.log".into(), 2));
        log.looked(false);
        assert_eq!(log.take_missed(), 0, "where it went to may still be told");
        log.looked(false);
        assert_eq!(log.take_missed(), 1);
    }

    #[test]
    fn copies_are_those_created_since_the_last_look_by_their_present_names() {
        let mut log = names(true);
        log.push(&Event::Created("error.log.1".into()));
        rename(&mut log, "error.log.1", "error.log.2", 1);
        log.push(&Event::Created("error.log.1".into()));
        log.push(&Event::Created("access.log.1".into()));
        log.push(&Event::Created("error.log.9".into()));
        log.push(&Event::Deleted("error.log.9".into()));
        assert_eq!(log.copies(), ["error.log.2", "error.log.1"]);
        log.looked(true);
        assert_eq!((log.copies(), log.take_missed()), (Vec::new(), 0));
    }

    #[test]
    fn other_files_of_the_directory_are_none_of_it() {
        let mut log = names(false);
        rename(&mut log, "access.log", "access.log.1", 1);
        log.push(&Event::Created("access.log".into()));
        log.push(&Event::Deleted("access.log.1".into()));
        log.looked(false);
        assert_eq!((log.fresh(), log.take_missed()), (Vec::new(), 0));
    }

    #[test]
    fn what_is_remembered_stays_bounded() {
        let mut log = names(true);
        for turn in 0..1000 {
            rename(&mut log, "error.log", &format!("error.log.{turn}"), turn);
            log.push(&Event::Created("error.log".into()));
        }
        assert_eq!(log.fresh().len(), MOST);
        assert_eq!(log.take_missed(), 1000 - 1 - MOST as u64);
    }
}
