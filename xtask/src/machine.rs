//! Machines that whoclosed is built for on another one: their names, as Rust, Debian, the
//! compilers of C and the kernel programs have them.

use anyhow::{Result, bail};

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// As the kernel programs are told which registers there are.
    pub(crate) name: &'static str,
    /// As Rust names it.
    pub(crate) triple: &'static str,
    /// As Debian names it.
    pub(crate) debian: &'static str,
    /// What the names of its C compiler and of its folders of libraries begin with.
    pub(crate) prefix: &'static str,
}

/// 64-bit ARM.
pub(crate) const AARCH64: Machine = Machine {
    name: "aarch64",
    triple: "aarch64-unknown-linux-gnu",
    debian: "arm64",
    prefix: "aarch64-linux-gnu",
};

impl Machine {
    /// The machine of this target, unless that is the host's own.
    ///
    /// # Errors
    /// If it is another that is not known here.
    pub(crate) fn other(triple: &str, host: &str) -> Result<Option<Self>> {
        if triple == host {
            return Ok(None);
        }
        if triple == AARCH64.triple {
            return Ok(Some(AARCH64));
        }
        bail!(
            "cannot build for {triple:?} here; there are {host} and {}",
            AARCH64.triple
        );
    }

    /// A variable with which cargo is told something about this target alone.
    pub(crate) fn cargo_variable(self, what: &str) -> String {
        let triple = self.triple.to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{triple}_{what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    #[test]
    fn the_hosts_own_target_is_no_other_machine_and_an_unknown_one_is_an_error() {
        assert_eq!(Machine::other(HOST, HOST).unwrap(), None);
        let arm = "aarch64-unknown-linux-gnu";
        assert_eq!(Machine::other(arm, HOST).unwrap(), Some(AARCH64));
        assert_eq!(Machine::other(arm, arm).unwrap(), None);
        let error = Machine::other("aarch64", HOST).unwrap_err().to_string();
        assert!(error.contains(arm), "{error}");
    }

    #[test]
    fn cargos_variable_has_the_target_in_capitals() {
        let variable = AARCH64.cargo_variable("LINKER");
        assert_eq!(variable, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
    }
}
