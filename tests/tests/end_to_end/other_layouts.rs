//! A kernel whose types are not as the programs need them is refused by name. The host's
//! own description of its types is changed and laid over the real one, where only the
//! command sees it.

use std::fs;
use std::process::Command;

use lab::nginx::{Configuration, Nginx, Upstream};
use lab::processes;
use lab::tool::{self, Finished};

use crate::bench::alone;

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Runs a capture that finds these bytes where the kernel's types are described.
fn capture_on(types: &[u8]) -> Finished {
    let nowhere = "127.0.0.1:1";
    let nginx = Nginx::start(&Configuration::new(vec![Upstream::new("app", nowhere)])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (described, output) = (folder.path().join("types"), folder.path().join("trace"));
    fs::write(&described, types).unwrap();
    let unshare = processes::which("unshare").expect("unshare of util-linux");
    let mut command = Command::new(unshare);
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!(
        "mount --bind '{}' {KERNEL_BTF}; exec \"$@\"",
        described.display()
    ));
    command.arg("sh").arg(tool::binary().unwrap());
    command.args(["capture", "--duration", "1s", "--nginx"]);
    command.arg(nginx.master_pid().to_string());
    command.arg("--output").arg(&output);
    let finished = tool::finish(&mut command).unwrap();
    assert_eq!(finished.status.success(), output.exists());
    finished
}

/// The host's types with one name changed in all places.
fn renamed(name: &str) -> Vec<u8> {
    let mut types = fs::read(KERNEL_BTF).unwrap();
    let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
    let at = types
        .windows(wanted.len())
        .position(|window| window == wanted)
        .unwrap();
    types[at + 1] = b'_';
    types
}

#[test]
fn a_capture_whose_fields_are_not_there_names_the_field() {
    let _alone = alone();
    for (name, field) in [
        ("skc_family", "sock_common.skc_family"),
        ("lrcvtime", "inet_connection_sock.icsk_ack.lrcvtime"),
        ("real_parent", "task_struct.real_parent"),
        ("signal_struct", "signal_struct"),
    ] {
        let finished = capture_on(&renamed(name));
        let said = &finished.stderr;
        assert_eq!(finished.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(field), "{name}: {said}");
        assert!(said.contains(KERNEL_BTF), "{name}: {said}");
    }
}

#[test]
fn types_that_are_cut_off_or_none_are_refused() {
    let _alone = alone();
    let types = fs::read(KERNEL_BTF).unwrap();
    for described in [&types[..types.len() / 2], b"no types at all", b""] {
        let finished = capture_on(described);
        let said = &finished.stderr;
        assert_eq!(finished.status.code(), Some(1), "{said}");
        assert!(said.contains("BTF"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn the_hosts_own_types_laid_over_themselves_change_nothing() {
    let _alone = alone();
    let finished = capture_on(&fs::read(KERNEL_BTF).unwrap());
    assert!(finished.status.success(), "{}", finished.stderr);
}
