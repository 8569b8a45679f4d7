//! What is read of a file that was truncated.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use super::source::{Read, Source};
use super::{Sink, identity_of};
use crate::nginx::processes::Root;

/// Files of a directory that are looked at to find the copy that a truncation left.
const MOST_COPIES: usize = 1000;

/// A file no longer holds what was read of it: it is read from its start. Before, what
/// its copies have (`logrotate`'s `copytruncate`): the one made before the truncation,
/// beyond what was read; and those of what was written and truncated since.
pub(super) fn begin_anew(
    source: &mut Source,
    (root, directory, name): (&Root, &str, &OsStr),
    copies: &[OsString],
    used: &mut [Vec<(u64, u64)>; 2],
    now_ns: u64,
    sink: &mut Sink<'_>,
) -> io::Result<Read> {
    let open = |name: &OsString| {
        let file = root.file(&Path::new(directory).join(name)).ok()?;
        let regular = file.metadata().ok()?.is_file();
        let identity = identity_of(&file).ok()?;
        (regular && identity != source.identity).then_some((file, identity))
    };
    let unread: Vec<_> = copies
        .iter()
        .filter_map(open)
        .filter(|(_, identity)| !used.iter().flatten().any(|known| known == identity))
        .filter(|(file, _)| source.is_unread_in(file).unwrap_or(false))
        .collect();
    if source.offset > 0 {
        let names = root.names(Path::new(directory)).unwrap_or_default();
        let copy = names
            .iter()
            .filter(|found| *found != name)
            .take(MOST_COPIES)
            .filter_map(open)
            .find(|(file, _)| source.is_copied_in(file).unwrap_or(false));
        used[0].extend(copy.iter().map(|(_, identity)| *identity));
        sink.counts.truncations += 1;
        let taken = source.begin_anew(copy.as_ref().map(|(file, _)| file), now_ns, sink)?;
        sink.counts.recovered += taken;
    }
    for (file, identity) in unread {
        used[0].push(identity);
        sink.counts.truncations += 1;
        let taken = source.begin_anew(Some(&file), now_ns, sink)?;
        sink.counts.recovered += taken;
    }
    source.read(now_ns, sink)
}
