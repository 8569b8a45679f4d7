//! Truncation, with and without a copy before it (`copytruncate`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

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
    assert_eq!(log.follower.counts.truncations, 10);
}

#[test]
fn truncation_is_noticed_though_the_file_is_as_long_as_before() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    for text in ["one", "two", "six"] {
        write(&file, text);
        log.poll();
        file.set_len(0).unwrap();
    }
    assert_eq!(log.finish(), ["one", "two", "six"]);
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
    assert_eq!(log.follower.counts.truncations, 1);
}

#[test]
fn what_the_copy_before_a_truncation_has_is_read_from_it_once() {
    const ROTATIONS: usize = 200;
    let mut log = Log::new("2026/11/22 17:00:00 [error] 7#7: before\n");
    let (done, firsts) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (directory, done, firsts) = (log.directory.path().to_owned(), &done, &firsts);
        scope.spawn(move || {
            let current = directory.join("error.log");
            let file = OpenOptions::new().append(true).open(&current).unwrap();
            for turn in 0..ROTATIONS {
                for number in 0..1 + turn % 7 {
                    write(&file, &format!("{turn}.{number}\ncontinued"));
                }
                fs::copy(&current, directory.join(format!("error.log.{turn}"))).unwrap();
                if turn % 3 == 0 {
                    write(&file, &format!("{turn}.between\ncontinued"));
                }
                file.set_len(0).unwrap();
                // A copy of a file of which nothing was read cannot be told.
                write(&file, &format!("{turn}.first"));
                while firsts.load(Ordering::SeqCst) <= turn {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            log.poll();
            let first = |line: &&Line| line.text.ends_with(".first");
            firsts.store(log.out.iter().filter(first).count(), Ordering::SeqCst);
        }
    });
    let counts = log.follower.counts;
    let texts = log.finish();
    let mut once = texts.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), texts.len(), "none twice");
    for turn in 0..ROTATIONS {
        for number in 0..1 + turn % 7 {
            let text = format!("{turn}.{number}\ncontinued");
            assert!(texts.contains(&text), "{text:?} {counts:?}");
        }
    }
    assert_eq!(counts.truncations, ROTATIONS as u64);
}

#[test]
fn files_copied_and_truncated_between_two_looks_are_read_once_each() {
    for first_read in [true, false] {
        let mut log = Log::new("");
        let file = log.writer("error.log");
        write(&file, "first");
        if first_read {
            log.poll();
        }
        for turn in 0..5 {
            write(&file, &format!("{turn}"));
            for old in (0..turn).rev() {
                let (from, to) = (format!("error.log.{old}"), format!("error.log.{}", old + 1));
                fs::rename(log.file(&from), log.file(&to)).unwrap();
            }
            fs::copy(log.file("error.log"), log.file("error.log.0")).unwrap();
            file.set_len(0).unwrap();
        }
        write(&file, "last");
        fs::copy(log.file("error.log"), log.file("error.log.still")).unwrap();
        log.poll();
        log.poll();
        assert_eq!(log.finish(), ["first", "0", "1", "2", "3", "4", "last"]);
        assert_eq!(log.follower.counts.truncations, 5);
    }
}

#[test]
fn a_copy_that_is_told_of_after_the_truncation_is_not_read_again() {
    let mut log = Log::new("");
    let file = log.writer("error.log");
    for turn in 0..3 {
        write(&file, &format!("{turn}"));
        log.poll();
        // The poll takes the events before it looks at the file.
        let happened = log.watch.happened().unwrap();
        fs::copy(
            log.file("error.log"),
            log.file(&format!("error.log.{turn}")),
        )
        .unwrap();
        file.set_len(0).unwrap();
        let told = Some((&log.watch, &happened));
        log.follower.poll(log.now_ns, told, &mut log.out).unwrap();
        log.poll();
    }
    assert_eq!(log.finish(), ["0", "1", "2"]);
}
