//! Rotation by rename, and files that stand at the log's path for a moment only.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

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
    assert_eq!(log.follower.counts.rotations, 8);
}

#[test]
fn a_writer_that_rotates_meanwhile_loses_no_line() {
    const ROTATIONS: u64 = 30;
    let mut log = Log::new("");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (directory, done) = (log.directory.path().to_owned(), &done);
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
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            log.poll();
        }
    });
    assert_eq!(log.follower.counts.missed, 0);
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
fn a_directory_created_later_is_watched_once_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::of_path(directory, "/logs/error.log");
    log.poll();
    fs::create_dir(log.file("logs")).unwrap();
    log.poll();
    for number in 0..5 {
        write(&log.writer("logs/error.log"), &number.to_string());
        fs::rename(
            log.file("logs/error.log"),
            log.file(&format!("logs/error.log.{number}")),
        )
        .unwrap();
    }
    fs::rename(log.file("logs"), log.file("aside")).unwrap();
    fs::create_dir(log.file("logs")).unwrap();
    write(&log.writer("logs/error.log"), "elsewhere");
    log.poll();
    log.poll();
    // The five went with their directory; what stands at the path now is read.
    assert_eq!(log.finish(), ["elsewhere"]);
}

#[test]
fn files_between_two_looks_are_read_in_their_order() {
    let mut log = Log::new("");
    log.poll();
    for number in 0..5 {
        write(&log.writer("error.log"), &number.to_string());
        for old in (0..number).rev() {
            fs::rename(
                log.file(&format!("error.log.{old}")),
                log.file(&format!("error.log.{}", old + 1)),
            )
            .unwrap();
        }
        fs::rename(log.file("error.log"), log.file("error.log.0")).unwrap();
    }
    assert_eq!(log.finish(), ["0", "1", "2", "3", "4"]);
    assert_eq!(log.follower.counts.missed, 0);
}

#[test]
fn a_file_that_came_and_went_between_two_looks_is_counted() {
    let mut log = Log::new("");
    log.poll();
    fs::rename(log.file("error.log"), log.file("error.log.1")).unwrap();
    write(&log.writer("error.log"), "gone");
    fs::remove_file(log.file("error.log")).unwrap();
    write(&log.writer("error.log"), "there");
    assert_eq!(log.finish(), ["there"]);
    assert_eq!(log.follower.counts.missed, 1);
}

#[test]
fn a_rotation_behind_a_link_is_seen_where_the_file_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("data/var")).unwrap();
    fs::write(directory.path().join("data/var/e.log"), "").unwrap();
    symlink("data/e.log", directory.path().join("error.log")).unwrap();
    symlink("/data/var/e.log", directory.path().join("data/e.log")).unwrap();
    let mut log = Log::of(directory);
    log.poll();
    for number in 0..3 {
        write(&log.writer("data/var/e.log"), &number.to_string());
        let old = log.file(&format!("data/var/e.log.{number}"));
        fs::rename(log.file("data/var/e.log"), old).unwrap();
    }
    assert_eq!(log.finish(), ["0", "1", "2"]);
}

#[test]
fn a_renamed_file_that_nginx_still_holds_open_is_followed() {
    let mut log = Log::new("");
    let held = log.writer("error.log");
    write(&held, "before");
    fs::rename(log.file("error.log"), log.file("error.log.1")).unwrap();
    let own = std::process::id();
    let path = log.file("error.log");
    log.follower = Follower::open(path.to_str().unwrap(), Path::new("/"), own, None).unwrap();
    log.poll();
    write(&held, "one");
    log.poll();
    write(&log.writer("error.log"), "two");
    log.poll();
    log.now_ns += 2 * OLD_FILE_QUIET_NS;
    log.poll();
    assert_eq!(log.follower.old.len(), 1, "it is held open");
    write(&held, "three");
    drop(held);
    log.poll();
    log.now_ns += 2 * OLD_FILE_QUIET_NS;
    log.poll();
    assert_eq!(log.follower.old.len(), 0);
    assert_eq!(log.finish(), ["one", "two", "three"]);
}
