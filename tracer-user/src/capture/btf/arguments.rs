//! The arguments of the kernel's functions and tracepoints.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use super::Types;
use super::types::Parameter;

/// What a program takes at a place of its tracepoint's or function's argument list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum Argument {
    /// A pointer to this struct.
    Pointer(&'static str),
    /// An integer of so many bytes.
    Integer(u32),
    /// This enumeration.
    Enum(&'static str),
    /// Not looked at.
    Any,
}

use Argument::{Any, Enum, Integer, Pointer};

/// Bytes of the place that each argument of a function has on its way to a program.
const PLACE_BYTES: u32 = 8;

/// Each program, its tracepoint, and the arguments that it takes from there; further ones
/// do not matter. `tracer-ebpf/src/main.rs` has the programs.
pub(super) const TAKES: &[(&str, &str, &[Argument])] = &[
    ("whoclosed_state", "inet_sock_set_state", STATE),
    ("whoclosed_twin", "inet_sock_set_state", STATE),
    ("whoclosed_third", "inet_sock_set_state", STATE),
    ("whoclosed_4th", "inet_sock_set_state", STATE),
    ("whoclosed_send", "sock_send_length", SENT),
    ("whoclosed_sendt", "sock_send_length", SENT),
    ("whoclosed_recv", "sock_recv_length", RECEIVED),
    ("whoclosed_recvt", "sock_recv_length", RECEIVED),
    ("whoclosed_rst_i", "tcp_receive_reset", &[SOCK]),
    ("whoclosed_rst_it", "tcp_receive_reset", &[SOCK]),
    ("whoclosed_rst_o", "tcp_send_reset", &[SOCK]),
    ("whoclosed_rst_r", "tcp_send_reset", RESET_REASON),
    ("whoclosed_again", "tcp_retransmit_skb", &[SOCK]),
    ("whoclosed_gone", "tcp_destroy_sock", &[SOCK]),
    ("whoclosed_gonet", "tcp_destroy_sock", &[SOCK]),
    ("whoclosed_exit", "sched_process_exit", &[]),
    ("whoclosed_exitt", "sched_process_exit", &[]),
    (
        "whoclosed_write",
        "sys_enter",
        &[Pointer("pt_regs"), Integer(8)],
    ),
    ("whoclosed_b_set", "inet_sock_set_state", STATE),
    ("whoclosed_b_two", "inet_sock_set_state", STATE),
    ("whoclosed_b_3", "inet_sock_set_state", STATE),
    ("whoclosed_b_4", "inet_sock_set_state", STATE),
    ("whoclosed_b_end", "tcp_destroy_sock", &[SOCK]),
    ("whoclosed_b_endt", "tcp_destroy_sock", &[SOCK]),
    ("whoclosed_b_ri", "tcp_receive_reset", &[SOCK]),
    ("whoclosed_b_rit", "tcp_receive_reset", &[SOCK]),
    ("whoclosed_b_ro", "tcp_send_reset", &[SOCK]),
    ("whoclosed_b_rr", "tcp_send_reset", RESET_REASON),
];

const SOCK: Argument = Pointer("sock");
const SENT: &[Argument] = &[SOCK, Integer(4)];
const RECEIVED: &[Argument] = &[SOCK, Integer(4), Integer(4)];
const STATE: &[Argument] = &[SOCK, Integer(4), Integer(4)];
const RESET_REASON: &[Argument] = &[SOCK, Any, Enum("sk_rst_reason")];

impl Types<'_> {
    /// Names of a function's parameters, in their order; none if this kernel has no such
    /// function.
    ///
    /// # Errors
    /// If it has several that disagree.
    pub fn parameters(&self, function: &str) -> Result<Option<Vec<String>>> {
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let names =
            |parameters: Vec<Parameter<'_>>| parameters.iter().map(|it| name(it.name)).collect();
        Ok(self.function(function)?.map(names))
    }

    /// Whether a function has these arguments, each in a place of its own, so that what it
    /// returns stands where it is looked for.
    ///
    /// # Errors
    /// If not: the error names the argument.
    pub(in crate::capture) fn check_function(
        &self,
        function: &str,
        takes: &[Argument],
    ) -> Result<()> {
        let parameters = self
            .function(function)?
            .with_context(|| format!("this kernel has no function {function}"))?;
        for (index, parameter) in parameters.iter().enumerate() {
            let place = || format!("argument {} of {function}", index + 1);
            ensure!(
                self.size(parameter.target)
                    .is_some_and(|bytes| bytes <= PLACE_BYTES),
                "{} is not of one place in this kernel",
                place()
            );
            if let Some(argument) = takes.get(index) {
                self.check_argument(parameter.target, *argument, &place())?;
            }
        }
        Ok(())
    }

    /// Whether a tracepoint has these arguments.
    ///
    /// # Errors
    /// If this kernel has no such tracepoint, or one of them is absent or of another type:
    /// the error names it.
    pub(super) fn check(&self, tracepoint: &str, takes: &[Argument]) -> Result<()> {
        // The kernel's verifier goes by the same typedef (BTF_TRACE_PREFIX); the first
        // parameter of that function is the probe's own.
        let parameters = self
            .function_type(&format!("btf_trace_{tracepoint}"))
            .with_context(|| format!("this kernel has no tracepoint {tracepoint}"))?;
        for (index, argument) in takes.iter().enumerate() {
            let place = format!("argument {} of the tracepoint {tracepoint}", index + 1);
            let id = parameters
                .get(index + 1)
                .with_context(|| format!("this kernel has no {place}"))?
                .target;
            self.check_argument(id, *argument, &place)?;
        }
        Ok(())
    }

    fn check_argument(&self, id: u32, argument: Argument, place: &str) -> Result<()> {
        let (is_so, what) = match argument {
            Any => return Ok(()),
            Pointer(name) => {
                let target = self.pointee(id).map(|target| self.struct_name(target));
                (
                    target == Some(name.as_bytes()),
                    format!("pointer to {name}"),
                )
            }
            Integer(bytes) => {
                let is_so = self.is_integer(id) && self.size(id) == Some(bytes);
                (is_so, format!("integer of {bytes} bytes"))
            }
            Enum(name) => (
                self.enum_name(id) == name.as_bytes(),
                format!("enum {name}"),
            ),
        };
        ensure!(is_so, "{place} is no {what} in this kernel");
        Ok(())
    }

    /// Whether a program's tracepoint, if it is there, has what the program takes from it.
    ///
    /// # Errors
    /// If not: the error names the argument.
    pub(in crate::capture) fn suits(&self, program: &str) -> Result<()> {
        match self.unsuited().remove(program) {
            Some(reason) => bail!(reason),
            None => Ok(()),
        }
    }

    /// Programs whose tracepoint exists but lacks what they take from it.
    pub(super) fn unsuited(&self) -> BTreeMap<&'static str, String> {
        TAKES
            .iter()
            .filter(|(_, tracepoint, _)| {
                self.function_type(&format!("btf_trace_{tracepoint}"))
                    .is_some()
            })
            .filter_map(|(program, tracepoint, takes)| {
                let error = self.check(tracepoint, takes).err()?;
                Some((*program, error.to_string()))
            })
            .collect()
    }
}
