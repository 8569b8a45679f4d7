//! When each log was read: a line that a look shows was not there at the look before.

use std::collections::HashMap;

/// The logs of one instance.
#[derive(Debug, Default)]
pub(super) struct Logs {
    by_file: HashMap<String, Reads>,
}

#[derive(Clone, Copy, Debug)]
struct Reads {
    last_ns: u64,
    before_ns: Option<u64>,
}

impl Logs {
    /// A line of this file was read; tells when it was last read before.
    pub(super) fn read_before(&mut self, file: &str, read_ns: u64) -> Option<u64> {
        let Some(reads) = self.by_file.get_mut(file) else {
            let reads = Reads {
                last_ns: read_ns,
                before_ns: None,
            };
            self.by_file.insert(file.to_owned(), reads);
            return None;
        };
        if read_ns > reads.last_ns {
            reads.before_ns = Some(reads.last_ns);
            reads.last_ns = read_ns;
        }
        reads.before_ns
    }
}
