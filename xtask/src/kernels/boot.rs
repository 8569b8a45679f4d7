//! One boot of a kernel under emulation, and what came out of it.
//!
//! The emulator counts instructions and takes the guest's clock from that (`-icount`): time
//! stands still while the host has other things to do, and a guest that waits does not
//! wait. So a busy host bends no time that a verdict rests on, and the guest's timer checks
//! at boot cannot fail for it. qemu's own translation is asked for by name: a host's KVM
//! need not be able to run these kernels.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::emulator::Emulator;
use super::fetch::Kernel;
use super::guest::{End, Guest, Progress};

/// What the guest says when its kernel and system are up, and before its command's status.
const UP: &str = "guest: up";
const ENDED: &str = "guest: ended ";
/// The kernel's command line. After a panic it restarts, which ends the emulator.
const COMMAND_LINE: &str = "quiet panic=-1 mitigations=off no_timer_check";

/// What a guest left.
#[derive(Clone, Debug)]
pub(super) struct Booted {
    /// What its command wrote.
    pub(super) output: String,
    /// The command's exit status; none if the guest did not come to its end.
    pub(super) status: Option<u8>,
    /// What its kernel wrote.
    pub(super) console: String,
    /// How far the output was after how much work.
    pub(super) progress: Progress,
    /// What went wrong with the emulator itself, if anything did.
    fault: Option<String>,
    /// The emulator ended by itself, and not well.
    is_crash: bool,
}

impl Booted {
    /// Why the guest did not come to its end, if so: the kernel's last words.
    pub(super) fn failure(&self) -> Option<String> {
        if self.status.is_some() {
            return None;
        }
        let lines: Vec<&str> = self.console.lines().map(str::trim).collect();
        let telling = lines
            .iter()
            .find(|line| line.contains("panic") || line.contains("BUG:"))
            .copied()
            .or(self.fault.as_deref())
            .or(lines.last().copied())
            .filter(|line| !line.is_empty());
        let telling = telling.unwrap_or("the kernel said nothing");
        let when = match self.output.contains(UP) {
            true => "it stopped while its command ran",
            false => "it never came up",
        };
        Some(format!("{when}: {telling}"))
    }

    /// The same where the guest's command has to end with 0.
    pub(super) fn failure_or_status(&self) -> Option<String> {
        let status = self.status.filter(|status| *status != 0);
        let ended = status.map(|status| format!("its command ended with status {status}"));
        self.failure().or(ended)
    }
}

/// What is booted.
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    /// More of the kernel's command line.
    pub(super) append: &'a str,
    /// Where files go.
    pub(super) folder: &'a Path,
}

/// Boots this kernel with this file system, and once more if the guest never came up or the
/// emulator failed: it does now and then, by itself.
pub(super) fn boot(what: &Boot<'_>) -> Result<Booted> {
    let folder = what.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let booted = once(what)?;
    if booted.output.contains(UP) && !booted.is_crash {
        return Ok(booted);
    }
    eprintln!(
        "kernels: {}; once more",
        booted.failure().unwrap_or_default()
    );
    once(what)
}

fn once(what: &Boot<'_>) -> Result<Booted> {
    let emulator = Emulator::of(what.kernel.machine);
    let [console, output] = ["console", "output"].map(|name| what.folder.join(name));
    for file in [&console, &output] {
        File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    }
    let program = emulator.find()?.context("the emulator is gone")?;
    // However this program ends, the emulator does not outlive it.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .args(emulator.machine)
        .args(["-accel", "tcg", "-m", "1024", "-smp", "1"])
        .args(["-icount", "shift=0,sleep=off"])
        .args(["-display", "none", "-monitor", "none", "-net", "none"])
        .arg("-no-reboot");
    let [console_port, report_port] = emulator.ports;
    command
        .arg("-serial")
        .arg(format!("file:{}", console.display()));
    if emulator.is_second_on_pci {
        // A comma in a path is written twice there.
        let path = output.display().to_string().replace(',', ",,");
        command
            .args(["-device", "pci-serial,chardev=report", "-chardev"])
            .arg(format!("file,id=report,path={path}"));
    } else {
        command
            .arg("-serial")
            .arg(format!("file:{}", output.display()));
    }
    command
        .arg("-kernel")
        .arg(&what.kernel.vmlinux)
        .arg("-initrd")
        .arg(what.image)
        .arg("-append")
        // What the kernel does not know it hands on to the first process.
        .arg(format!(
            "console={console_port} REPORT={report_port} {COMMAND_LINE} {}",
            what.append
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut guest = Guest(command.spawn().context("cannot start the emulator")?);
    let (end, progress) = guest.wait(&console, &output)?;
    let read = |file: &Path| {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).replace('\r', ""))
    };
    let fault = match end {
        End::Deadline(which) => Some(format!("its deadline: {which}")),
        End::Itself(status) if !status.success() => Some(format!("the emulator failed: {status}")),
        End::Itself(_) => None,
    };
    let output = read(&output)?;
    Ok(Booted {
        status: ended(&output),
        output,
        console: read(&console)?,
        progress,
        is_crash: fault.is_some() && matches!(end, End::Itself(_)),
        fault,
    })
}

/// The status in the guest's last line.
fn ended(output: &str) -> Option<u8> {
    let last = output.lines().rev().find(|line| !line.trim().is_empty())?;
    last.trim().strip_prefix(ENDED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(output: &str, console: &str) -> Booted {
        Booted {
            output: output.to_owned(),
            status: ended(output),
            console: console.to_owned(),
            progress: Progress::default(),
            fault: None,
            is_crash: false,
        }
    }

    #[test]
    fn a_guest_has_ended_only_if_its_last_line_says_so() {
        assert_eq!(ended("guest: up\nx\nguest: ended 3\n"), Some(3));
        assert_eq!(ended("guest: ended 0\nmore\n"), None);
        assert_eq!(ended(""), None);
        assert_eq!(booted("guest: up\nguest: ended 1\n", "").failure(), None);
    }

    #[test]
    fn where_the_command_has_to_end_with_0_another_status_is_a_failure() {
        let failure = |output| booted(output, "").failure_or_status();
        assert_eq!(failure("guest: up\nguest: ended 0\n"), None);
        // A shell that was killed.
        let killed = failure("guest: up\nscenario: stale\nguest: ended 137\n");
        assert!(killed.unwrap().ends_with("status 137"));
        assert!(failure("guest: up\n").unwrap().contains("stopped"));
    }

    #[test]
    fn a_guest_that_died_is_told_with_its_kernels_words() {
        let console = "[0.1] fine\n[0.2] Kernel panic - not syncing: x\n[0.3] trace\n";
        let failure = booted("", console).failure().unwrap();
        assert!(
            failure.contains("never came up") && failure.contains("panic"),
            "{failure}"
        );
        let late = Booted {
            fault: Some("its deadline: x".to_owned()),
            ..booted("guest: up\n", "some word\n")
        };
        assert!(late.failure().unwrap().ends_with("ran: its deadline: x"));
        let failure = booted("guest: up\n", "").failure().unwrap();
        assert!(failure.contains("while its command ran") && failure.contains("nothing"));
    }
}
