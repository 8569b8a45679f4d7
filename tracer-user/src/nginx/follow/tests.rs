//! Following a log through appending, rotation and truncation.

mod rotation;
mod truncation;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;

use std::path::PathBuf;

use super::*;

const STAMP: &str = "2026/11/22 18:00:00 [error] 7#7: ";

struct Log {
    directory: tempfile::TempDir,
    follower: Follower,
    watch: Watch,
    out: Vec<Line>,
    now_ns: u64,
}

impl Log {
    #[track_caller]
    fn new(before: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("error.log"), before).unwrap();
        Self::of(directory)
    }

    #[track_caller]
    fn of(directory: tempfile::TempDir) -> Self {
        Self::of_path(directory, "/error.log")
    }

    #[track_caller]
    fn of_path(directory: tempfile::TempDir, path: &str) -> Self {
        let watch = Watch::new().unwrap();
        let follower = Follower::open(path, directory.path(), 42, Some(&watch)).unwrap();
        Self {
            directory,
            follower,
            watch,
            out: Vec::new(),
            now_ns: 0,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn writer(&self, name: &str) -> File {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.file(name))
            .unwrap()
    }

    #[track_caller]
    fn poll(&mut self) {
        self.now_ns += 1;
        let happened = self.watch.happened().unwrap();
        let told = Some((&self.watch, &happened));
        self.follower
            .poll(self.now_ns, told, &mut self.out)
            .unwrap();
    }

    #[track_caller]
    fn finish(&mut self) -> Vec<String> {
        self.now_ns += 1;
        let happened = self.watch.happened().unwrap();
        let told = Some((&self.watch, &happened));
        self.follower
            .finish(self.now_ns, told, &mut self.out)
            .unwrap();
        self.texts()
    }

    fn texts(&self) -> Vec<String> {
        self.out
            .iter()
            .map(|line| line.text.replace(STAMP, ""))
            .collect()
    }
}

#[track_caller]
fn write(mut file: &File, text: &str) {
    file.write_all(format!("{STAMP}{text}\n").as_bytes())
        .unwrap();
}

#[test]
fn a_record_starts_with_a_stamp_and_a_level() {
    assert!(starts_record(b"2026/11/22 18:00:00 [error] 1#1: x"));
    assert!(!starts_record(b"2026/11/22 18:00:00 error"));
    assert!(!starts_record(b"2026/11/22 18:00:00 "));
    assert!(!starts_record(b"PHP message: x"));
}

#[test]
fn only_lines_written_after_the_start_are_read() {
    let mut log = Log::new("2026/11/22 17:00:00 [error] 7#7: before\n");
    let file = log.writer("error.log");
    write(&file, "one");
    log.poll();
    assert_eq!(log.texts(), [""; 0], "it may have a continuation");
    log.poll();
    assert_eq!(log.texts(), ["one"]);
    assert_eq!(log.out[0].offset, 40);
    assert_eq!(
        log.out[0].read_ns, 1,
        "when it was read, not when it was given out"
    );
    assert_eq!(
        (log.out[0].file.as_str(), log.out[0].master_pid),
        ("/error.log", 42)
    );
}

#[test]
fn a_record_is_given_out_when_the_next_begins() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    write(&file, "one\nStack trace:\n#0 {main}");
    write(&file, "two");
    log.poll();
    assert_eq!(log.texts(), ["one\nStack trace:\n#0 {main}"]);
    assert_eq!(log.finish(), ["one\nStack trace:\n#0 {main}", "two"]);
    assert_eq!(log.out[1].offset, 33 + 26 + 1);
}

#[test]
fn a_line_is_complete_with_its_line_feed_only() {
    let mut log = Log::new("");
    let mut file = log.writer("error.log");
    write!(file, "{STAMP}ha").unwrap();
    log.poll();
    log.poll();
    assert_eq!(log.texts(), [""; 0]);
    writeln!(file, "lf").unwrap();
    log.poll();
    log.poll();
    assert_eq!(log.texts(), ["half"]);
    assert_eq!(log.out[0].offset, 0);
    write!(file, "{STAMP}rest").unwrap();
    assert_eq!(log.finish(), ["half", "rest"]);
}

#[test]
fn nothing_is_read_after_the_end() {
    let mut log = Log::new("");
    write(&log.writer("error.log"), "one");
    assert_eq!(log.finish(), ["one"]);
    log.poll();
    assert_eq!(log.finish(), ["one"]);
}

#[test]
fn bytes_that_are_no_utf8_keep_their_numbers() {
    let mut log = Log::new("");
    let mut file = log.writer("error.log");
    file.write_all(b"2026/11/22 18:00:00 [error] 7#7: \xff\xc3(\n")
        .unwrap();
    write(&file, "größe");
    log.finish();
    assert_eq!(log.texts(), ["\u{ff}\u{c3}(", "größe"]);
    assert!(log.out[0].latin1 && !log.out[1].latin1);
}

#[test]
fn a_line_without_end_comes_in_pieces() {
    let mut log = Log::new("");
    let mut file = log.writer("error.log");
    let long = "x".repeat(record::LONGEST * 2 + 100);
    write(&file, "before");
    writeln!(file, "{long}").unwrap();
    write(&file, "after");
    log.poll();
    let texts = log.finish();
    assert_eq!(texts.first().map(String::as_str), Some("before"));
    assert_eq!(texts.last().map(String::as_str), Some("after"));
    assert_eq!(texts[1..texts.len() - 1].concat(), long);
    let mut end = 40;
    for line in &log.out[1..log.out.len() - 1] {
        assert_eq!(line.offset, end);
        assert!(line.text.len() <= record::LONGEST);
        end += line.text.len() as u64;
    }
    assert_eq!(log.follower.counts.cut, 1);
}

#[test]
fn endless_continuation_lines_stay_bounded() {
    let mut log = Log::new("");
    let mut file = log.writer("error.log");
    write(&file, "head");
    for _ in 0..3000 {
        writeln!(file, "{}", "y".repeat(99)).unwrap();
    }
    let texts = log.finish();
    assert!(texts.iter().all(|text| text.len() <= record::LONGEST));
    assert_eq!(texts.join("\n").matches('y').count(), 3000 * 99);
}

#[test]
fn a_file_created_later_is_read_from_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::of(directory);
    log.poll();
    assert_eq!(log.follower.identity(), None);
    write(&log.writer("error.log"), "one");
    log.poll();
    assert!(log.follower.identity().is_some());
    fs::remove_file(log.file("error.log")).unwrap();
    log.poll();
    write(&log.writer("error.log"), "two");
    assert_eq!(log.finish(), ["one", "two"]);
}

#[test]
fn two_paths_to_one_file_have_one_identity() {
    let log = Log::new("");
    symlink("/error.log", log.file("link.log")).unwrap();
    let link = Follower::open("/link.log", log.directory.path(), 1, None).unwrap();
    assert_eq!(link.identity(), log.follower.identity());
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = Follower::open("/", directory.path(), 1, None).unwrap_err();
    assert!(
        format!("{error:#}").contains("not a regular file"),
        "{error:#}"
    );
    assert!(Follower::open("error.log", directory.path(), 1, None).is_err());
}

#[test]
fn a_burst_is_read_in_bounded_steps() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    let line = "x".repeat(1000);
    for _ in 0..3 * source::MOST_BYTES_A_POLL / 1000 {
        write(&file, &line);
    }
    let mut most = 0;
    let mut steps = 0;
    loop {
        log.poll();
        most = most.max(log.out.iter().map(|line| line.text.len()).sum());
        steps += 1;
        if !log.follower.behind {
            break;
        }
        log.out.clear();
    }
    assert!(most <= source::MOST_BYTES_A_POLL + (1 << 20), "{most}");
    assert!(steps >= 3, "{steps}");
}
