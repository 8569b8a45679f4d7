//! The emulators: what they are called, what machine each is to be, and where they come
//! from. One that the system has is taken; else one is unpacked into the cache, where it is
//! in nobody's way: Debian 12's qemu cannot be installed beside a newer `qemu-utils`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::{AARCH64, Machine};
use crate::unpacked::Unpacked;
use crate::{step, workspace};

/// An emulator.
pub(super) struct Emulator {
    /// The program and the packages of its own.
    unpacked: Unpacked,
    /// The machine and the processor that it is to be.
    pub(super) machine: &'static [&'static str],
    /// The device that the kernel has its console on, and the one for the guest's report.
    pub(super) ports: [&'static str; 2],
    /// Whether the second hangs on the PCI bus, for want of another in the machine.
    pub(super) is_second_on_pci: bool,
}

/// That of this machine. The firmware reads the kernel and starts it.
const NATIVE: Emulator = Emulator {
    unpacked: Unpacked {
        name: "the emulator",
        folder: "qemu-x86",
        packages: &["qemu-system-x86"],
        beside: &["qemu-system-common", "qemu-system-data", "seabios"],
        within: "usr/bin",
        program: "qemu-system-x86_64",
        version: "--version",
    },
    machine: &["-cpu", "max"],
    ports: ["ttyS0", "ttyS1"],
    is_second_on_pci: false,
};
/// That of 64-bit ARM. The processor is that of many servers, and quicker to emulate than
/// one with all there is.
const ARM: Emulator = Emulator {
    unpacked: Unpacked {
        name: "the emulator for aarch64",
        folder: "qemu-arm",
        packages: &["qemu-system-arm"],
        beside: &["qemu-system-common", "qemu-system-data"],
        within: "usr/bin",
        program: "qemu-system-aarch64",
        version: "--version",
    },
    machine: &["-machine", "virt", "-cpu", "neoverse-n1"],
    ports: ["ttyAMA0", "ttyS0"],
    is_second_on_pci: true,
};

impl Emulator {
    /// That of a machine; none for one as this.
    pub(super) fn of(machine: Option<Machine>) -> &'static Self {
        match machine {
            Some(AARCH64) => &ARM,
            _ => &NATIVE,
        }
    }

    /// Its program, if it is there.
    ///
    /// # Errors
    /// If there is no place for the cache.
    pub(super) fn find(&self) -> Result<Option<PathBuf>> {
        match workspace::find_program(self.unpacked.program) {
            Some(program) if self.unpacked.runs(&program) => Ok(Some(program)),
            _ => self.unpacked.find(),
        }
    }

    /// Its program; had first if it is missing.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) fn need(&self) -> Result<PathBuf> {
        if !cfg!(target_arch = "x86_64") {
            bail!("other kernels are booted on x86-64 only, so far");
        }
        match self.find()? {
            Some(program) => Ok(program),
            None if crate::apt::is_here() => self.unpacked.install(),
            None => bail!(
                "{} is missing, which booting other kernels needs; install it",
                self.unpacked.program
            ),
        }
    }
}

/// The emulator of this machine and its version, for the record.
pub(super) fn version() -> Option<String> {
    let program = NATIVE.find().ok()??;
    let said = step::ask(Command::new(program).arg("--version"))?;
    Some(said.lines().next()?.to_owned())
}
