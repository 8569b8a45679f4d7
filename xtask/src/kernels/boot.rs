//! One boot of a kernel under emulation, and what came out of it.
//!
//! The emulator counts instructions and takes the guest's clock from that (`-icount`): time
//! stands still while the host has other things to do, and a guest that waits does not
//! wait. So a busy host bends no time that a verdict rests on, and the guest's timer checks
//! at boot cannot fail for it. qemu's own translation is asked for by name: a host's KVM
//! need not be able to run these kernels.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::guest::{End, Guest, Progress};
use crate::{step, workspace};

/// The emulator, and the package that holds it.
const EMULATOR: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// What the guest says when its kernel and system are up, and before its command's status.
const UP: &str = "guest: up";
const ENDED: &str = "guest: ended ";
/// The kernel's command line. After a panic it restarts, which ends the emulator.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check";

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
}

/// Installs the emulator if it is missing; its path.
pub(super) fn need_emulator() -> Result<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        bail!("other kernels are booted on x86-64 only, so far");
    }
    let (program, package) = EMULATOR;
    super::need(program, package)
}

/// Boots this kernel with this file system, and once more if the guest never came up or the
/// emulator failed: it does now and then, by itself. Files go below `folder`.
pub(super) fn boot(vmlinux: &Path, image: &Path, append: &str, folder: &Path) -> Result<Booted> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let booted = once(vmlinux, image, append, folder)?;
    if booted.output.contains(UP) && !booted.is_crash {
        return Ok(booted);
    }
    eprintln!(
        "kernels: {}; once more",
        booted.failure().unwrap_or_default()
    );
    once(vmlinux, image, append, folder)
}

fn once(vmlinux: &Path, image: &Path, append: &str, folder: &Path) -> Result<Booted> {
    let console = folder.join("console");
    let output = folder.join("output");
    for file in [&console, &output] {
        File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    }
    let program = workspace::find_program(EMULATOR.0).context("the emulator is gone")?;
    // However this program ends, the emulator does not outlive it.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .args(["-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "1"])
        .args(["-icount", "shift=0,sleep=off"])
        .args(["-display", "none", "-monitor", "none", "-net", "none"])
        .arg("-no-reboot");
    for serial in [&console, &output] {
        command
            .arg("-serial")
            .arg(format!("file:{}", serial.display()));
    }
    command
        .arg("-kernel")
        .arg(vmlinux)
        .arg("-initrd")
        .arg(image)
        .arg("-append")
        .arg(format!("{COMMAND_LINE} {append}"))
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

/// The emulator and its version, for the record.
pub(super) fn emulator() -> Option<String> {
    let said = step::ask(Command::new(EMULATOR.0).arg("--version"))?;
    Some(said.lines().next()?.to_owned())
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
