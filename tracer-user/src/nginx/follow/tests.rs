//! Following a log through appending, rotation and truncation.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const STAMP: &str = "2026/11/22 18:00:00 [error] 7#7: ";

struct Log {
    directory: tempfile::TempDir,
    follower: Follower,
    out: Vec<Line>,
    now_ns: u64,
}

impl Log {
    #[track_caller]
    fn new(before: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("error.log"), before).unwrap();
        let follower = Follower::open_at_end("/error.log", directory.path(), 42).unwrap();
        Self {
            directory,
            follower,
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
        self.follower.poll(self.now_ns, &mut self.out).unwrap();
    }

    #[track_caller]
    fn finish(&mut self) -> Vec<String> {
        self.now_ns += 1;
        self.follower.finish(self.now_ns, &mut self.out).unwrap();
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
fn rotation_by_rename_loses_no_line_and_repeats_none() {
    let mut log = Log::new("");
    let mut expected = Vec::new();
    let mut file = log.writer("error.log");
    for turn in 0..40 {
        for number in 0..turn % 7 {
            write(&file, &format!("{turn}.{number}"));
            expected.push(format!("{turn}.{number}"));
        }
        if turn % 2 == 0 {
            log.poll();
        }
        if turn % 5 == 0 {
            fs::rename(
                log.file("error.log"),
                log.file(&format!("error.log.{turn}")),
            )
            .unwrap();
            // nginx writes to the old file until it reopens its logs.
            write(&file, "late");
            expected.push("late".to_owned());
            if turn % 10 == 0 {
                log.poll();
            }
            let next = log.writer("error.log");
            log.poll();
            write(&file, "later");
            expected.push("later".to_owned());
            file = next;
        }
    }
    let mut texts = log.finish();
    texts.sort();
    expected.sort();
    assert_eq!(texts, expected);
    assert_eq!(log.follower.counts().rotations, 8);
}

#[test]
fn a_writer_that_rotates_meanwhile_loses_no_line() {
    const ROTATIONS: u64 = 30;
    let mut log = Log::new("");
    let seen = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (directory, seen, done) = (log.directory.path().to_owned(), &seen, &done);
        scope.spawn(move || {
            let current = directory.join("error.log");
            let open = || {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&current)
                    .unwrap()
            };
            let mut file = open();
            for turn in 0..ROTATIONS {
                for number in 0..200 {
                    write(&file, &format!("{turn}.{number}\ncontinued"));
                }
                fs::rename(&current, directory.join(format!("error.log.{turn}"))).unwrap();
                write(&file, &format!("{turn}.late\ncontinued"));
                let next = open();
                write(&file, &format!("{turn}.later\ncontinued"));
                file = next;
                // A file that comes and goes between two polls is never seen.
                while seen.load(Ordering::SeqCst) <= turn {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            log.poll();
            seen.store(log.follower.counts().rotations, Ordering::SeqCst);
        }
    });
    let joined = log.finish().join("\n");
    let (mut texts, continued): (Vec<&str>, Vec<&str>) =
        joined.split('\n').partition(|line| *line != "continued");
    let numbers = || {
        (0..200)
            .map(|n| n.to_string())
            .chain(["late".into(), "later".into()])
    };
    let mut expected: Vec<String> = (0..ROTATIONS)
        .flat_map(|turn| numbers().map(move |number| format!("{turn}.{number}")))
        .collect();
    texts.sort();
    expected.sort();
    assert_eq!(continued.len(), expected.len());
    assert_eq!(texts, expected);
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
fn an_old_file_is_kept_until_it_is_quiet_and_its_successor_has_content() {
    let mut log = Log::new("");
    let old = log.writer("error.log");
    fs::rename(log.file("error.log"), log.file("error.log.1")).unwrap();
    let new = log.writer("error.log");
    log.poll();
    log.now_ns += 2 * OLD_FILE_QUIET_NS;
    write(&old, "old");
    log.poll();
    log.poll();
    assert_eq!(log.texts(), ["old"]);
    write(&new, "new");
    log.poll();
    assert_eq!(log.follower.old.len(), 1);
    log.now_ns += 2 * OLD_FILE_QUIET_NS;
    log.poll();
    assert_eq!(log.follower.old.len(), 0);
    assert_eq!(log.texts(), ["old", "new"]);
}

#[test]
fn a_file_renamed_back_is_not_read_twice() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    write(&file, "one");
    log.poll();
    fs::rename(log.file("error.log"), log.file("aside")).unwrap();
    log.poll();
    log.writer("error.log");
    log.poll();
    fs::rename(log.file("aside"), log.file("error.log")).unwrap();
    write(&file, "two");
    log.poll();
    assert_eq!(log.finish(), ["one", "two"]);
}

#[test]
fn truncation_starts_over() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    for turn in 0..5 {
        write(&file, &format!("{turn} a"));
        write(&file, &format!("{turn} b"));
        log.poll();
        file.set_len(0).unwrap();
        write(&file, &format!("{turn} c"));
        log.poll();
        log.poll();
        file.set_len(0).unwrap();
        log.poll();
    }
    let expected: Vec<String> = (0..5)
        .flat_map(|turn| ["a", "b", "c"].map(|letter| format!("{turn} {letter}")))
        .collect();
    assert_eq!(log.finish(), expected);
    assert_eq!(log.follower.counts().truncations, 10);
}

#[test]
fn truncation_is_noticed_though_the_file_has_grown_again() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    write(&file, "one");
    log.poll();
    file.set_len(0).unwrap();
    for text in ["two", "three", "four"] {
        write(&file, text);
    }
    log.poll();
    assert_eq!(log.finish(), ["one", "two", "three", "four"]);
    assert_eq!(log.follower.counts().truncations, 1);
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
    assert_eq!(log.follower.counts().cut, 1);
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
    assert!(Follower::open_at_end("/error.log", directory.path(), 1).is_err());
    let follower = Follower::open_when_created("/error.log", directory.path(), 1).unwrap();
    let mut log = Log {
        directory,
        follower,
        out: Vec::new(),
        now_ns: 0,
    };
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
    let link = Follower::open_at_end("/link.log", log.directory.path(), 1).unwrap();
    assert_eq!(link.identity(), log.follower.identity());
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = Follower::open_at_end("/", directory.path(), 1).unwrap_err();
    assert!(
        format!("{error:#}").contains("not a regular file"),
        "{error:#}"
    );
    assert!(Follower::open_at_end("error.log", directory.path(), 1).is_err());
}
