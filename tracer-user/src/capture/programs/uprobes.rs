//! The programs at functions of nginx's: loaded with the first binary, attached to each.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::uprobe::UProbeScope;
use aya::programs::{ProgramError, UProbe};

use super::{Programs, object, why};
use crate::capture::Withheld;
use crate::capture::uprobe_links::UprobeLinks;

const LOG_CALL: &str = "whoclosed_line";
const HANDSHAKE: &str = "whoclosed_tls";
const HANDSHAKE_RETURN: &str = "whoclosed_tls_r";
const PROGRAMS: [&str; 3] = [LOG_CALL, HANDSHAKE, HANDSHAKE_RETURN];
/// nginx's function behind every line of its logs.
pub const LOG_FUNCTION: &str = "ngx_log_error_core";
/// nginx's function that does each step of a TLS handshake.
pub const HANDSHAKE_FUNCTION: &str = "ngx_ssl_handshake";
/// nginx's function that sends a close_notify.
const SHUTDOWN_FUNCTION: &str = "ngx_ssl_shutdown";
/// What they are attached by where there are no links.
const PERF_EVENTS: &str = "perf_event_open";

/// How they are attached; found once, when they are loaded.
pub(super) enum Uprobes {
    /// Nobody wanted one so far.
    Unloaded(Withheld),
    /// By links.
    ByLinks(UprobeLinks),
    /// By perf_event_open(), because this kernel gives no links.
    ByPerfEvents {
        /// Why not.
        no_links: String,
        /// This process may not.
        refused: bool,
    },
}

impl Uprobes {
    /// Their programs and links, if it has any.
    pub(super) const fn links(&self) -> Option<&UprobeLinks> {
        match self {
            Self::ByLinks(links) => Some(links),
            _ => None,
        }
    }
}

impl Programs {
    /// Attaches the uprobe to nginx's log function in a binary; all processes that
    /// run it are seen, workers of later reloads included.
    ///
    /// # Errors
    /// If the binary exports no such function or the kernel refuses.
    pub fn attach_log_call(&mut self, binary: &Path) -> Result<()> {
        self.attach_uprobe(LOG_CALL, LOG_FUNCTION, binary)
    }

    /// Attaches to nginx's TLS handshakes and shutdowns in a binary, likewise.
    ///
    /// # Errors
    /// If the binary exports no such function or the kernel refuses.
    pub fn attach_handshake(&mut self, binary: &Path) -> Result<()> {
        // A call whose end is not seen would swallow requests: so its end is attached
        // first, and without it the beginning is not.
        for function in [HANDSHAKE_FUNCTION, SHUTDOWN_FUNCTION] {
            self.attach_uprobe(HANDSHAKE_RETURN, function, binary)?;
            self.attach_uprobe(HANDSHAKE, function, binary)?;
        }
        Ok(())
    }

    /// Loads them, for binaries that come later too: then it may not be allowed any more.
    pub fn load_uprobes(&mut self) {
        let Uprobes::Unloaded(withheld) = self.uprobes else {
            return;
        };
        self.uprobes = match self.load_links(withheld) {
            Ok(links) => Uprobes::ByLinks(links),
            Err(error) => {
                for name in PROGRAMS {
                    // A refusal is told of each binary.
                    drop(self.load_uprobe(name));
                }
                Uprobes::ByPerfEvents {
                    no_links: format!("{error:#}"),
                    refused: false,
                }
            }
        };
    }

    fn load_links(&self, withheld: Withheld) -> Result<UprobeLinks> {
        ensure!(!withheld.uprobe_links, "withheld on request");
        UprobeLinks::load(object().context("no programs")?, &self.ebpf, &PROGRAMS)
    }

    fn load_uprobe(&mut self, name: &str) -> Result<&mut UProbe> {
        let program = self.ebpf.program_mut(name).context("no such program")?;
        let program: &mut UProbe = program.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| anyhow!(why(&error)))?;
        }
        Ok(program)
    }

    fn attach_uprobe(&mut self, name: &str, function: &str, binary: &Path) -> Result<()> {
        self.load_uprobes();
        if let Uprobes::ByLinks(links) = &mut self.uprobes {
            return links.attach(name, name == HANDSHAKE_RETURN, function, binary);
        }
        let attached = self
            .load_uprobe(name)?
            .attach(function, binary, UProbeScope::AllProcesses);
        let Err(error) = attached else {
            return Ok(());
        };
        if let Uprobes::ByPerfEvents { no_links, refused } = &mut self.uprobes {
            *refused |= matches!(&error, ProgramError::SyscallError(call)
                if call.io_error.kind() == std::io::ErrorKind::PermissionDenied);
            bail!("{}; nor by a link: {no_links}", why(&error));
        }
        bail!(why(&error))
    }

    /// What takes the place of links, and why there are none; none where they are used.
    #[must_use]
    pub fn instead_of_links(&self) -> Option<(&'static str, &str)> {
        match &self.uprobes {
            Uprobes::ByPerfEvents { no_links, .. } => Some((PERF_EVENTS, no_links)),
            _ => None,
        }
    }

    /// Do binaries that come later need a capability for their uprobes? One that did not
    /// do for the first does not for them.
    #[must_use]
    pub const fn uprobes_need_capabilities(&self) -> bool {
        matches!(self.uprobes, Uprobes::ByPerfEvents { refused: false, .. })
    }
}
