//! What `doctor` says of this host and of hosts made of it, and its exit status; and that
//! it leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use lab::clock::{PATIENCE, wait_for};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::{attached, processes, tool};
use serde_json::Value;

use crate::bench::alone;

/// Exit status and answer of `COMMAND doctor --format json MORE`.
#[track_caller]
pub(crate) fn doctor(mut command: Command, more: &[&str]) -> (i32, Value) {
    command.args(["doctor", "--format", "json"]).args(more);
    let finished = tool::finish(&mut command).unwrap();
    assert_eq!(finished.stderr, "");
    let found: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(found["schema"], "whoclosed.doctor/1");
    (finished.status.code().unwrap(), found)
}

/// A statement as `capture` says it.
pub(crate) fn remedy_and_text(said: &Value) -> String {
    let text = said["text"].as_str().unwrap();
    match said["do"].as_str() {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text.to_owned(),
    }
}

fn here() -> Command {
    Command::new(tool::binary().unwrap())
}

/// An nginx to which nothing happens.
#[track_caller]
pub(crate) fn quiet_nginx(more: impl FnOnce(&mut Configuration)) -> Nginx {
    let mut configuration = Configuration::new(vec![Upstream::new("app", "127.0.0.1:1")]);
    more(&mut configuration);
    Nginx::start(&configuration).unwrap()
}

/// The only statement of this weight.
#[track_caller]
fn only<'a>(found: &'a Value, weight: &str) -> &'a Value {
    let all = found["statements"].as_array().unwrap();
    let of_it: Vec<_> = all.iter().filter(|said| said["weight"] == weight).collect();
    assert_eq!(of_it.len(), 1, "{found:#}");
    of_it[0]
}

/// A capture in its place ends with the same sentence.
#[track_caller]
fn capture_says_so_too(mut command: Command, more: &[&str], said: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("trace");
    command.args(["capture", "--duration", "1s", "--output"]);
    command.arg(&output).args(more);
    let finished = tool::finish(&mut command).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert_eq!(
        finished.stderr,
        format!("whoclosed: {}\n", remedy_and_text(said))
    );
    assert!(!output.exists());
}

/// A capture in its place runs, and warns of what limits it in the same sentences, of each
/// once.
#[track_caller]
fn capture_warns_of_it_too(more: &[&str], found: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = here();
    command.args(["capture", "--duration", "1s", "--output"]);
    command.arg(folder.path().join("trace")).args(more);
    let finished = tool::finish(&mut command).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let all = found["statements"].as_array().unwrap();
    let expected: BTreeSet<String> = (all.iter())
        .filter(|said| said["weight"] == "limits")
        .map(remedy_and_text)
        .collect();
    assert!(!expected.is_empty(), "{found:#}");
    let lines = finished.stderr.lines();
    let warned: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("warning: "))
        .collect();
    let as_set: BTreeSet<String> = warned.iter().map(|&line| line.to_owned()).collect();
    assert_eq!(as_set, expected, "{}", finished.stderr);
    assert_eq!(warned.len(), expected.len(), "{}", finished.stderr);
    command.arg("--quiet").arg("--force");
    let finished = tool::finish(&mut command).unwrap();
    assert_eq!(finished.stderr, "");
}

/// The command in namespaces of its own, after this has been done there.
fn after(namespaces: &[&str], script: &str) -> Command {
    let unshare = processes::which("unshare").expect("unshare of util-linux");
    let mut command = Command::new(unshare);
    let script = format!("{script} || exit 99; exec \"$@\"");
    command.args(namespaces).args(["sh", "-c", &script, "sh"]);
    command.arg(tool::binary().unwrap());
    command
}

/// Programs that a process of this host holds.
fn held_by_anybody() -> BTreeSet<u64> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    // One that has ended holds nothing.
    pids.filter_map(|pid| attached::held_by(pid).ok())
        .flat_map(|held| held.programs)
        .collect()
}

#[test]
fn on_a_host_that_tells_all_it_says_so_and_leaves_nothing() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(here(), &["--nginx", &pid]);
    assert_eq!(status, 0, "{found:#}");
    assert_eq!(found["full"], true);
    // Other captures of this host may come and go.
    let ours = |one: &Value| {
        one["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("whoclosed"))
    };
    let listed = || attached::listed("prog").unwrap();
    let none_is_left = || {
        let there = listed();
        let held = held_by_anybody();
        let still = listed();
        let mut left = there
            .iter()
            .filter(|(id, one)| ours(one) && !held.contains(*id) && still.contains_key(*id));
        Ok(left.next().is_none().then_some(()))
    };
    // The kernel frees what nobody holds a moment later.
    wait_for("no program to be left", PATIENCE, none_is_left).unwrap();
    let instance = &found["found"]["nginx"][0];
    assert_eq!(instance["master_pid"], nginx.master_pid());
    assert_eq!(instance["workers"], nginx.workers().unwrap().len());
    assert_eq!(instance["exports_log_function"], true);
    assert_eq!(instance["log_calls_seen"], true);
    assert_eq!(instance["configuration_read"], true);
    let log = nginx.error_log();
    let logs = instance["error_logs"].as_array().unwrap();
    assert!(
        logs.iter()
            .any(|known| known["path"] == log.to_str().unwrap()),
        "{instance:#}"
    );
    let hooks = found["found"]["hooks"].as_array().unwrap();
    assert!(hooks.len() > 8 && hooks.iter().all(|hook| hook["attached"] == true));
    let mut text = here();
    let text = tool::finish(text.args(["doctor", "--nginx", &pid])).unwrap();
    assert_eq!(text.status.code(), Some(0));
    assert!(
        text.text()
            .starts_with("A capture here gives full verdicts.\n")
    );
}

#[test]
fn on_a_host_without_nginx_it_says_so_as_capture_does() {
    let _alone = alone();
    let own = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let (status, found) = doctor(after(&own, "true"), &[]);
    assert_eq!(status, 1);
    let said = only(&found, "prevents");
    assert!(
        said["text"]
            .as_str()
            .unwrap()
            .starts_with("no nginx is running here"),
        "{said}"
    );
    capture_says_so_too(after(&own, "true"), &[], said);
    // And that pids differ there.
    let limits = only(&found, "limits")["text"].as_str().unwrap();
    assert!(limits.contains("pid namespace"), "{limits}");
}

/// Hides the kernel's description of its types: behind nothing, or behind a file.
fn without_types(folder: &Path) -> [(String, &'static str); 3] {
    let behind = |contents: &str, name: &str| {
        let file = folder.join(name);
        fs::write(&file, contents).unwrap();
        format!("mount --bind {} /sys/kernel/btf/vmlinux", file.display())
    };
    [
        (behind("", "empty"), "not BTF"),
        (behind("no type information", "alien"), "not BTF"),
        (
            "mount -t tmpfs tmpfs /sys/kernel/btf".to_owned(),
            "No such file",
        ),
    ]
}

#[test]
fn without_type_information_it_says_so_as_capture_does() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let pid = nginx.master_pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (hide, says) in without_types(folder.path()) {
        let (status, found) = doctor(after(&["--mount"], &hide), &["--nginx", &pid]);
        assert_eq!(status, 1);
        assert_eq!(found["possible"], false);
        assert_eq!(found["found"]["kernel"]["type_information"], false);
        let said = only(&found, "prevents");
        let text = said["text"].as_str().unwrap();
        assert!(
            text.contains(says) && text.contains("/sys/kernel/btf/vmlinux"),
            "{text}"
        );
        assert!(
            said["do"]
                .as_str()
                .unwrap()
                .contains("CONFIG_DEBUG_INFO_BTF")
        );
        // What can be looked at all the same is.
        assert_eq!(found["found"]["nginx"][0]["master_pid"], nginx.master_pid());
        capture_says_so_too(after(&["--mount"], &hide), &["--nginx", &pid], said);
    }
}

#[test]
fn all_that_is_wrong_is_named_and_not_the_first_alone() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let own = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let [(hide, says), ..] = without_types(folder.path());
    let (status, found) = doctor(after(&own, &hide), &[]);
    assert_eq!(status, 1);
    let all = found["statements"].as_array().unwrap();
    let prevents: Vec<_> = (all.iter())
        .filter(|said| said["weight"] == "prevents")
        .map(|said| said["text"].as_str().unwrap())
        .collect();
    assert_eq!(prevents.len(), 2, "{prevents:?}");
    assert!(prevents[0].contains("no nginx"), "{prevents:?}");
    assert!(prevents[1].contains(says), "{prevents:?}");
}

#[test]
fn a_log_that_is_not_there_is_named_as_capture_names_it() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let pid = nginx.master_pid().to_string();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("missing.log");
    let more = ["--nginx", &pid, "--error-log", log.to_str().unwrap()];
    let (status, found) = doctor(here(), &more);
    assert_eq!(status, 1);
    let said = only(&found, "prevents");
    assert!(said["text"].as_str().unwrap().contains(more[3]), "{said}");
    capture_says_so_too(here(), &more, said);
}

#[test]
fn an_error_log_that_leaves_out_errors_is_no_full_verdict() {
    let _alone = alone();
    let nginx = quiet_nginx(|configuration| configuration.log_level = Some("crit"));
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(here(), &["--nginx", &pid]);
    assert_eq!(status, 1);
    assert_eq!(found["possible"], true);
    let limits = only(&found, "limits");
    assert!(
        limits["text"].as_str().unwrap().contains("at crit"),
        "{limits}"
    );
    capture_warns_of_it_too(&["--nginx", &pid], &found);
}

#[test]
fn a_server_whose_log_leaves_out_errors_is_no_full_verdict_whatever_other_logs_show() {
    let _alone = alone();
    let nginx = quiet_nginx(|configuration| {
        configuration.more = "error_log logs/server.log crit;".to_owned();
    });
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(here(), &["--nginx", &pid]);
    assert_eq!((status, &found["possible"]), (1, &true.into()), "{found:#}");
    let limits = only(&found, "limits");
    let text = limits["text"].as_str().unwrap();
    assert!(
        text.contains("logs/server.log") && text.contains("at crit"),
        "{text}"
    );
    let remedy = limits["do"].as_str().unwrap();
    assert!(remedy.contains("logs/server.log error;"), "{remedy}");
    let narrowest = &found["found"]["nginx"][0]["narrowest_log"];
    assert_eq!(narrowest["level"], "crit");
    capture_warns_of_it_too(&["--nginx", &pid], &found);
}

#[test]
fn beside_a_log_of_errors_one_that_leaves_them_out_hides_nothing() {
    let _alone = alone();
    let nginx = quiet_nginx(|configuration| {
        configuration.main = "error_log logs/crit.log crit;\n".to_owned();
    });
    let pid = nginx.master_pid().to_string();
    let (status, found) = doctor(here(), &["--nginx", &pid]);
    assert_eq!((status, &found["full"]), (0, &true.into()), "{found:#}");
}

#[test]
fn without_the_hooks_of_sends_and_receives_a_capture_runs_and_what_it_lacks_is_said() {
    let _alone = alone();
    let nginx = quiet_nginx(|_| {});
    let pid = nginx.master_pid().to_string();
    let more = ["--nginx", &pid, "--no-io-tracepoints", "--no-fentry"];
    let (status, found) = doctor(here(), &more);
    assert_eq!((status, &found["possible"]), (1, &true.into()));
    let limits = only(&found, "limits")["text"].as_str().unwrap();
    assert!(limits.starts_with("Requests cannot be counted"), "{limits}");
    let can = found["can"].to_string();
    assert!(
        can.contains("who closed") && !can.contains("how many requests"),
        "{can}"
    );
    capture_warns_of_it_too(&more, &found);
}

#[test]
fn a_capture_warns_as_doctor_does_where_pids_are_not_the_hosts() {
    let _alone = alone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let own = ["--pid", "--fork", "--kill-child"];
    let more = ["--role", "backend", "--port", &port];
    let (status, found) = doctor(after(&own, "true"), &more);
    assert_eq!((status, &found["possible"]), (1, &true.into()), "{found:#}");
    let folder = tempfile::tempdir().unwrap();
    let mut capture = after(&own, "true");
    capture.args(["capture", "--duration", "1s", "--output"]);
    capture.arg(folder.path().join("trace")).args(more);
    let finished = tool::finish(&mut capture).unwrap();
    let warned = format!("warning: {}\n", remedy_and_text(only(&found, "limits")));
    assert_eq!(
        finished.stderr.matches(&warned).count(),
        1,
        "{}",
        finished.stderr
    );
}

#[test]
fn a_backends_host_is_looked_at_without_nginx() {
    let _alone = alone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let more = ["--role", "backend", "--port", &port];
    let (status, found) = doctor(here(), &more);
    assert_eq!(status, 0, "{found:#}");
    assert_eq!(found["found"]["role"], "backend");
    let listening = found["found"]["listening"].as_str().unwrap();
    assert!(listening.starts_with(&port), "{listening}");
}
