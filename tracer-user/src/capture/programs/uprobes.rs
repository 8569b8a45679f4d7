//! The programs at functions of nginx's: loaded with the first binary, attached to each.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::uprobe::UProbeScope;
use aya::programs::{ProgramError, UProbe};

use super::{Programs, UprobeLinks, object, why};

const LOG_CALL: &str = "whoclosed_line";
const HANDSHAKE: &str = "whoclosed_tls";
const HANDSHAKE_RETURN: &str = "whoclosed_tls_r";
/// nginx's function behind every line of its logs.
pub const LOG_FUNCTION: &str = "ngx_log_error_core";
/// nginx's function that does each step of a TLS handshake.
pub const HANDSHAKE_FUNCTION: &str = "ngx_ssl_handshake";
/// nginx's function that sends a close_notify.
const SHUTDOWN_FUNCTION: &str = "ngx_ssl_shutdown";

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

    fn attach_uprobe(&mut self, name: &str, function: &str, binary: &Path) -> Result<()> {
        if let Some(links) = &mut self.links {
            return links.attach(name, name == HANDSHAKE_RETURN, function, binary);
        }
        let program = self.ebpf.program_mut(name).context("no such program")?;
        let program: &mut UProbe = program.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| anyhow!(why(&error)))?;
        }
        match program.attach(function, binary, UProbeScope::AllProcesses) {
            Ok(_) => Ok(()),
            Err(error) => self
                .link(&error, name, function, binary)
                .map_err(|instead| anyhow!("{}; nor by a link: {instead:#}", why(&error))),
        }
    }

    /// Attaches by a link what the kernel lets nobody but CAP_SYS_ADMIN attach otherwise.
    fn link(
        &mut self,
        refusal: &ProgramError,
        name: &str,
        function: &str,
        binary: &Path,
    ) -> Result<()> {
        let denied = matches!(refusal, ProgramError::SyscallError(call)
            if call.io_error.kind() == std::io::ErrorKind::PermissionDenied);
        ensure!(denied, "not tried");
        let object = object().context("no programs")?;
        let programs = [LOG_CALL, HANDSHAKE, HANDSHAKE_RETURN];
        let mut links = UprobeLinks::load(object, &self.ebpf, &programs)?;
        links.attach(name, name == HANDSHAKE_RETURN, function, binary)?;
        self.links = Some(links);
        Ok(())
    }

    /// Are uprobes attached by links, which later ones need no capability for?
    #[must_use]
    pub fn attaches_by_links(&self) -> bool {
        self.links.is_some()
    }
}
