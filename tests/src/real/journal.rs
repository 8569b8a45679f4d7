//! What the applications behind the servers wrote down: each request before they work on
//! it. One line `TIME PID PORT TARGET`: nanoseconds of CLOCK_MONOTONIC, the process,
//! nginx's port (0 where the application is not told it) and the target.

use super::Process;

/// The file in the server's folder.
pub(super) const FILE: &str = "journal";

/// One request that reached an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at_ns: u64,
    pub(super) pid: u32,
    pub(super) port: Option<u16>,
    pub(super) target: String,
}

/// All so far.
pub(super) fn read(process: &Process) -> Vec<Entry> {
    process.text(FILE).lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.splitn(4, ' ');
    Some(Entry {
        at_ns: fields.next()?.parse().ok()?,
        pid: fields.next()?.parse().ok()?,
        port: fields.next()?.parse().ok().filter(|port| *port > 0),
        target: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_time_process_port_and_target() {
        let entry = parse("12 7 40000 /a/1?hang").unwrap();
        assert_eq!((entry.at_ns, entry.pid, entry.port), (12, 7, Some(40_000)));
        assert_eq!(entry.target, "/a/1?hang");
        assert_eq!(parse("12 7 0 /a").unwrap().port, None);
        assert!(parse("12 7").is_none());
    }
}
