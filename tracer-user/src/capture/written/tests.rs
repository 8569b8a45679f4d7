//! Lines made of calls.

use super::*;

const STDERR: u64 = 77;
const TEXT: &[u8] = b"2026/11/23 16:06:00 [error] 7#7: *1 broken\n";

fn call(pid: u32, parent_pid: u32, descriptor: u32, inode: u64, bytes: usize) -> Written {
    Written {
        ns: 5,
        inode,
        pid,
        parent_pid,
        tid: pid,
        descriptor,
        bytes: u32::try_from(bytes).unwrap(),
        ..Written::ZERO
    }
}

/// Two masters, 10 and 20, with one stderr.
fn logs() -> WrittenLogs {
    let mut logs = WrittenLogs::default();
    logs.want(10, STDERR, "stderr");
    logs.want(20, STDERR, "stderr");
    logs.want(10, SYSLOG, "syslog");
    logs
}

#[test]
fn a_line_belongs_to_the_instance_of_the_worker_that_wrote_it() {
    let mut logs = logs();
    let line = logs
        .line(&call(11, 10, 2, STDERR, TEXT.len()), TEXT)
        .unwrap();
    assert_eq!(line.file, "stderr of nginx 10");
    assert_eq!((line.offset, line.master_pid, line.pid), (0, 10, Some(11)));
    assert_eq!(line.text, "2026/11/23 16:06:00 [error] 7#7: *1 broken");
    assert_eq!(line.read_ns, 5);
    // The other instance's worker has the same inner pid.
    let other = logs
        .line(&call(21, 20, 2, STDERR, TEXT.len()), TEXT)
        .unwrap();
    assert_eq!((other.master_pid, other.pid), (20, Some(21)));
    assert_eq!(other.offset, 0);
    // The master's own.
    let own = logs
        .line(&call(20, 1, 2, STDERR, TEXT.len()), TEXT)
        .unwrap();
    assert_eq!((own.master_pid, own.offset), (20, TEXT.len() as u64));
}

#[test]
fn a_line_that_goes_to_several_logs_is_one_and_a_second_one_alike_another() {
    let mut logs = logs();
    let head = b"<187>Nov 23 16:06:00 vm nginx: ";
    let datagram = [head.as_slice(), &TEXT[..TEXT.len() - 1]].concat();
    let mut say = |descriptor, inode, text: &[u8]| {
        logs.line(&call(11, 10, descriptor, inode, text.len()), text)
            .map(|line| (line.file, line.text))
    };
    let line = "2026/11/23 16:06:00 [error] 7#7: *1 broken".to_owned();
    for _ in 0..2 {
        assert_eq!(
            say(6, SYSLOG, &datagram),
            Some(("syslog of nginx 10".to_owned(), line.clone()))
        );
        assert_eq!(say(13, SYSLOG, &datagram), None);
        assert_eq!(say(2, STDERR, TEXT), None);
    }
}

#[test]
fn syslogs_header_may_lack_the_host() {
    let line = b"2026/11/23 16:06:00 [error] 7#7: x";
    for head in [
        "<187>Nov 23 16:06:00 abc: ",
        "<11>Nov  3 16:06:00 a-b.c nginx: ",
    ] {
        let datagram = [head.as_bytes(), line].concat();
        assert_eq!(without_header(&datagram), Some(line.as_slice()));
    }
    assert_eq!(
        without_header(b"<190>Nov 23 16:06:00 vm nginx: GET /"),
        None
    );
    assert_eq!(without_header(b"<190>"), None);
}

#[test]
fn a_worker_of_a_master_that_came_later_has_its_predecessors_log() {
    let mut logs = logs();
    let line = logs.line(&call(31, 30, 2, STDERR, TEXT.len()), TEXT);
    assert_eq!(line.unwrap().master_pid, 10);
    assert_eq!(logs.line(&call(31, 30, 2, 78, TEXT.len()), TEXT), None);
}

#[test]
fn a_descriptor_that_leads_to_a_file_is_followed_and_one_to_a_pipe_is_not() {
    use std::os::fd::AsRawFd as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("said");
    let file = std::fs::File::create(&path).unwrap();
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let found = file_behind(&link, &file.metadata().unwrap(), Path::new("/"));
    let text = path.to_str().unwrap().to_owned();
    assert_eq!(found, Some(Source::File(text, PathBuf::from("/"))));
    std::fs::remove_file(&path).unwrap();
    let found = file_behind(&link, &file.metadata().unwrap(), Path::new("/"));
    assert_eq!(found, None);
}
