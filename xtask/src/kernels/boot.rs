//! One boot of a kernel under emulation, and what came out of it.
//!
//! The emulator counts instructions and takes the guest's clock from that (`-icount`): time
//! stands still while the host has other things to do, and a guest that waits does not
//! wait. So a busy host bends no time that a verdict rests on, and the guest's timer checks
//! at boot cannot fail for it. qemu's own translation is asked for by name: a host's KVM
//! need not be able to run these kernels.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;
use crate::machine::{AARCH64, Machine};
use crate::{step, workspace};

/// An emulator.
struct Emulator {
    program: &'static str,
    /// The package that holds it.
    package: &'static str,
    /// The machine and the processor that it is to be.
    machine: &'static [&'static str],
    /// The device that the kernel has its console on, and the one for the guest's report.
    ports: [&'static str; 2],
    /// Whether the second hangs on the PCI bus, for want of another in the machine.
    is_second_on_pci: bool,
}

/// That of this machine.
const NATIVE: Emulator = Emulator {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    machine: &["-cpu", "max"],
    ports: ["ttyS0", "ttyS1"],
    is_second_on_pci: false,
};
/// That of 64-bit ARM. The processor is that of many servers, and quicker to emulate than
/// one with all there is.
const ARM: Emulator = Emulator {
    program: "qemu-system-aarch64",
    package: "qemu-system-arm",
    machine: &["-machine", "virt", "-cpu", "neoverse-n1"],
    ports: ["ttyAMA0", "ttyS0"],
    is_second_on_pci: true,
};

fn emulator_of(machine: Option<Machine>) -> &'static Emulator {
    match machine {
        Some(AARCH64) => &ARM,
        _ => &NATIVE,
    }
}

/// Processor time of the emulator's in which a guest may say nothing before it counts as
/// hung: ten times what the longest silence takes. Of the clock on the wall a busy host
/// gives a guest as little as it likes.
const SILENCE: Duration = Duration::from_secs(60);
/// The same of time on the wall, for a guest that hangs without work.
const STILLNESS: Duration = Duration::from_secs(900);
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
            .or(lines.last())
            .filter(|line| !line.is_empty());
        let telling = telling.copied().unwrap_or("the kernel said nothing");
        let when = match self.output.contains(UP) {
            true => "it stopped while its command ran",
            false => "it never came up",
        };
        Some(format!("{when}: {telling}"))
    }
}

/// Installs the emulator if it is missing; its path.
pub(super) fn need_emulator(machine: Option<Machine>) -> Result<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        bail!("other kernels are booted on x86-64 only, so far");
    }
    let emulator = emulator_of(machine);
    super::need(emulator.program, emulator.package)
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

/// Boots this kernel with this file system, and once more if the guest never came up: the
/// emulator itself fails at that now and then.
pub(super) fn boot(what: &Boot<'_>) -> Result<Booted> {
    let folder = what.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let booted = once(what)?;
    if booted.output.contains(UP) {
        return Ok(booted);
    }
    eprintln!(
        "kernels: {}; once more",
        booted.failure().unwrap_or_default()
    );
    once(what)
}

fn once(what: &Boot<'_>) -> Result<Booted> {
    let emulator = emulator_of(what.kernel.machine);
    let [console, output] = ["console", "output"].map(|name| what.folder.join(name));
    for file in [&console, &output] {
        File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    }
    let program = workspace::find_program(emulator.program).context("the emulator is gone")?;
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
    let status = guest.wait(&[&console, &output])?;
    let read = |file: &Path| {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).replace('\r', ""))
    };
    let mut console = read(&console)?;
    match status {
        None => console += "\nit hung: it worked on and said nothing",
        Some(status) if !status.success() => console += &format!("\nthe emulator ended: {status}"),
        Some(_) => {}
    }
    let output = read(&output)?;
    Ok(Booted {
        status: ended(&output),
        output,
        console,
    })
}

/// The status in the guest's last line.
fn ended(output: &str) -> Option<u8> {
    let last = output.lines().rev().find(|line| !line.trim().is_empty())?;
    last.trim().strip_prefix(ENDED)?.parse().ok()
}

/// A running emulator; dropping it ends it.
struct Guest(Child);

impl Guest {
    /// Waits for its end; none if it said nothing for too long and was ended.
    fn wait(&mut self, files: &[&Path]) -> Result<Option<ExitStatus>> {
        let size = || files.iter().map(|file| size(file)).sum::<u64>();
        let mut said = (size(), self.worked(), Instant::now());
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for the emulator")? {
                return Ok(Some(status));
            }
            let now = size();
            if now != said.0 {
                said = (now, self.worked(), Instant::now());
            } else if self.worked().saturating_sub(said.1) > SILENCE || said.2.elapsed() > STILLNESS
            {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Guest {
    /// Processor time that it has used.
    fn worked(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        stat.ok()
            .and_then(|stat| parse_worked(&stat))
            .unwrap_or_default()
    }
}

/// User's and system's time in `/proc/PID/stat` (proc(5)): fields 14 and 15, in hundredths
/// of a second on every Linux; the name in field 2 may hold anything.
fn parse_worked(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut hundredths = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (hundredths()? + hundredths()?)))
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// The emulator and its version, for the record.
pub(super) fn emulator() -> Option<String> {
    let said = step::ask(Command::new(NATIVE.program).arg("--version"))?;
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
    fn the_processor_time_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 39 19 3 0 77 1 1\n";
        assert_eq!(parse_worked(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_worked("7 (x"), None);
        let own = Guest(Command::new("true").spawn().unwrap());
        assert!(own.worked() < Duration::from_secs(1));
    }

    #[test]
    fn a_guest_that_died_is_told_with_its_kernels_words() {
        let console = "[0.1] fine\n[0.2] Kernel panic - not syncing: x\n[0.3] trace\n";
        let failure = booted("", console).failure().unwrap();
        assert!(
            failure.contains("never came up") && failure.contains("panic"),
            "{failure}"
        );
        let failure = booted("guest: up\n", "").failure().unwrap();
        assert!(failure.contains("while its command ran") && failure.contains("nothing"));
    }
}
