//! What cannot work is refused at once, by a status and a message that names it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lab::backend::{Backend, Habits, IPV4};
use lab::load::{self, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::tool::{self, Finished};
use lab::{clock, processes};
use rustix::process::Signal;

use crate::bench::{Bench, alone, report};
use crate::doctor::quiet_nginx;
use crate::unprivileged::{as_nobody, copied_command};

/// Failed with this status, saying each of these words, without a panic.
#[track_caller]
fn refused(finished: &Finished, status: i32, words: &[&str]) {
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(status), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in {said:?}"
        );
    }
}

fn capture(output: &Path, more: &[&str]) -> Finished {
    let mut arguments = vec!["capture", "--output", output.to_str().unwrap()];
    arguments.extend(more);
    tool::run(arguments).unwrap()
}

#[test]
fn a_duration_of_nothing_less_or_nonsense_is_a_usage_error() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    for duration in [
        "0",
        "0s",
        "-5s",
        "soon",
        "99999999999999999999d",
        "1e400s",
        "",
    ] {
        let finished = capture(&output, &[&format!("--duration={duration}")]);
        refused(&finished, 2, &["duration"]);
        assert!(!output.exists(), "{duration:?} left a file");
    }
}

#[test]
fn what_does_not_go_together_or_is_nothing_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo.trace");
    let copy = folder.path().join("copy.trace");
    fs::copy(trace, &copy).unwrap();
    let copied = copy.to_str().unwrap();
    for (line, words) in [
        ("capture --port 80", "--role backend"),
        ("capture --role backend --port 80 --nginx 1", "--nginx"),
        ("capture --nginx 0", "--nginx"),
        (
            "capture --process-name my-nginx-for-tests",
            "my-nginx-for-te",
        ),
        ("capture --format html", "html"),
        ("doctor --port 80", "--role backend"),
        ("doctor --role backend --nginx 1", "--nginx"),
        ("doctor --format html", "html"),
        ("doctor --duration 1s", "--duration"),
        (&format!("show {copied} 0"), "incident"),
        (&format!("show 1 {copied}"), "after the trace"),
        (&format!("report {copied} --output {copied}"), copied),
        (
            &format!("report {copied} --fail-on nothing"),
            "stale-keepalive",
        ),
    ] {
        let mut command = Command::new(tool::binary().unwrap());
        command.current_dir(folder.path());
        let finished = tool::finish(command.args(line.split_whitespace())).unwrap();
        refused(&finished, 2, &[words]);
        assert!(finished.stdout.is_empty(), "{line}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "{line} left a file");
    }
    assert_eq!(fs::read(&copy).unwrap(), fs::read(trace).unwrap());
    let also = ["report", copied, "--output", report.to_str().unwrap()];
    tool::run(also).unwrap().succeeded().unwrap();
    assert!(
        fs::read_to_string(&report)
            .unwrap()
            .starts_with("whoclosed")
    );
}

#[test]
fn a_pid_that_is_no_nginx_is_named() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = other.id().to_string();
    let alive = capture(&output, &["--duration", "1s", "--nginx", &pid]);
    processes::end(&mut other, Signal::TERM, clock::PATIENCE);
    let gone = capture(&output, &["--duration", "1s", "--nginx", &pid]);
    for finished in [alive, gone] {
        refused(&finished, 1, &["nginx", &pid]);
    }
    refused(
        &capture(&output, &["--duration", "1s", "--nginx", "1"]),
        1,
        &["nginx", "1"],
    );
    assert!(!output.exists());
}

#[test]
fn a_host_without_nginx_is_told_so() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    // In a pid namespace of its own the command sees no other process.
    let unshare = processes::which("unshare").expect("unshare of util-linux");
    let mut command = Command::new(unshare);
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(tool::binary().unwrap());
    command
        .args(["capture", "--duration", "1s", "--output"])
        .arg(&output);
    refused(&tool::finish(&mut command).unwrap(), 1, &["no", "nginx"]);
    assert!(!output.exists());
}

#[test]
fn a_user_without_root_is_told_what_is_missing() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let command = copied_command(&folder);
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let mut capture = as_nobody(&command);
    capture.args([
        "capture",
        "--duration",
        "1s",
        "--nginx",
        &nginx.master_pid().to_string(),
    ]);
    capture.arg("--output").arg(folder.path().join("trace"));
    let finished = tool::finish(&mut capture).unwrap();
    refused(&finished, 1, &[]);
    let said = finished.stderr.to_lowercase();
    assert!(said.contains("root") || said.contains("cap_"), "{said}");
}

#[test]
fn root_without_a_capability_is_told_which_and_what_for() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let setpriv = processes::which("setpriv").expect("setpriv of util-linux");
    // CAP_SYS_ADMIN (21) includes CAP_PERFMON (38).
    for (dropped, words) in [
        ("-cap_38,-cap_21", &["CAP_PERFMON", "tracepoints"][..]),
        ("-cap_39,-cap_21", &["CAP_BPF", "load programs"]),
        ("-cap_19", &["CAP_SYS_PTRACE", "/proc"]),
    ] {
        let mut command = Command::new(&setpriv);
        command
            .args(["--bounding-set", dropped, "--inh-caps", dropped])
            .arg(tool::binary().unwrap());
        command.args(["capture", "--duration", "1s", "--nginx"]);
        command.arg(nginx.master_pid().to_string());
        command.arg("--output").arg(&output);
        let finished = tool::finish(&mut command).unwrap();
        refused(&finished, 1, words);
        for other in ["CAP_PERFMON", "CAP_BPF", "CAP_SYS_PTRACE"] {
            let named = finished.stderr.contains(other);
            assert_eq!(named, words.contains(&other), "{}", finished.stderr);
        }
        assert!(!output.exists());
    }
}

#[test]
fn an_output_that_exists_is_kept_unless_forced() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    fs::write(&output, "precious").unwrap();
    let pid = nginx.master_pid().to_string();
    let arguments = ["--duration", "1s", "--nginx", &pid];
    refused(
        &capture(&output, &arguments),
        1,
        &[output.to_str().unwrap(), "--force"],
    );
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    capture(&output, &[&arguments[..], &["--force"]].concat())
        .succeeded()
        .unwrap();
    assert!(report(&output).capture.complete);
}

#[test]
fn an_output_that_cannot_be_created_is_named() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let pid = nginx.master_pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no-such-folder/trace");
    for output in [Path::new("/proc/no-such-folder/trace"), &missing] {
        let finished = capture(output, &["--duration", "1s", "--nginx", &pid]);
        refused(&finished, 1, &[output.to_str().unwrap()]);
    }
    assert!(!missing.parent().unwrap().exists());
}

#[test]
fn an_error_log_that_is_not_there_or_no_file_is_named() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let pid = nginx.master_pid().to_string();
    for log in [folder.path().join("missing.log"), folder.path().to_owned()] {
        let log = log.to_str().unwrap();
        let arguments = ["--duration", "1s", "--nginx", &pid, "--error-log", log];
        refused(&capture(&output, &arguments), 1, &[log]);
    }
}

#[test]
fn a_full_disk_leaves_what_was_written_readable() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let nginx = Nginx::start(&Configuration::new(vec![upstream])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // A small file system of its own, gone with the mount namespace however this ends.
    let script = "mount -t tmpfs -o size=32k tmpfs \"$2\" || exit 99
        \"$1\" capture --duration 600s --quiet --nginx \"$3\" --output \"$2/trace\"
        echo \"status $?\" >&2
        exec \"$1\" report \"$2/trace\" --format json";
    let unshare = processes::which("unshare").expect("unshare of util-linux");
    let mut command = Command::new(unshare);
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(tool::binary().unwrap());
    command.arg(&disk).arg(nginx.master_pid().to_string());
    let address = nginx.address();
    let done = std::sync::atomic::AtomicBool::new(false);
    let finished = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Load until the disk is full: the capture ends by itself then.
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let requests: Vec<_> = (0..100)
                    .map(|n| Request::get(format!("/app/{n}")))
                    .collect();
                let _ = load::run(address, &requests, 4, true);
            }
        });
        let finished = tool::finish(&mut command);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        finished
    })
    .unwrap();
    assert!(finished.stderr.contains("status 1"), "{}", finished.stderr);
    assert!(
        finished.stderr.to_lowercase().contains("no space"),
        "{}",
        finished.stderr
    );
    let report = lab::verdicts::Report::parse(&finished.succeeded().unwrap().stdout).unwrap();
    assert!(
        report.upstream(backend.address()).is_some(),
        "nothing of the load is in the trace"
    );
}

#[test]
fn a_reader_of_messages_that_leaves_ends_no_capture() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(tool::binary().unwrap())
        .args(["capture", "--duration", "1s", "--nginx"])
        .arg(nginx.master_pid().to_string())
        .arg("--output")
        .arg(&output)
        .stdout(Stdio::null())
        .stderr(writer)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(report(&output).capture.complete);
}

#[test]
fn a_reader_that_leaves_early_makes_no_noise() {
    let _alone = alone();
    let backend = Backend::start(IPV4, Habits::default()).unwrap();
    let upstream = Upstream::new("app", backend.address());
    let mut bench = Bench::start(&Configuration::new(vec![upstream]), &[]);
    let _ = load::run(bench.nginx.address(), &[Request::get("/app/")], 1, false);
    bench.finish();
    for format in ["text", "json"] {
        // The reading end is closed before the command starts.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(tool::binary().unwrap());
        command
            .arg("report")
            .arg(bench.trace())
            .args(["--format", format]);
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped());
        let finished = command.output().unwrap();
        let said = String::from_utf8_lossy(&finished.stderr);
        assert!(!said.contains("panicked"), "{said}");
        // 0, or ended by SIGPIPE as most commands are: what the reader wanted, it has.
        assert!(
            matches!(finished.status.code(), Some(0) | None),
            "{}: {said}",
            finished.status
        );
    }
}
