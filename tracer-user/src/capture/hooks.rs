//! What of the kernel's the programs are attached to, and what takes the place of what a
//! kernel has not: the one table of both. Each is tried; no kernel's version decides.

use super::btf::Argument;
use crate::trace::record::{SECOND_PROGRAM, THIRD_PROGRAM};

/// A program on a tracepoint and what a capture loses without it.
pub(super) struct Tracepoint {
    pub(super) program: &'static str,
    pub(super) tracepoint: &'static str,
    pub(super) required: bool,
    pub(super) without: &'static str,
    /// Another program to try for the same tracepoint where this one does not load, and
    /// what it is, in words.
    pub(super) instead: Option<(&'static str, &'static str)>,
}

impl Tracepoint {
    /// Name of the hook in traces and messages.
    pub(super) fn hook(&self) -> String {
        match self.program {
            STATE_TWIN | ACCEPTING_TWIN => format!("{} {SECOND_PROGRAM}", self.tracepoint),
            STATE_THIRD | ACCEPTING_THIRD => format!("{} {THIRD_PROGRAM}", self.tracepoint),
            _ => self.tracepoint.to_owned(),
        }
    }
}

/// nginx's sends, by the name of their tracepoint.
pub(super) const SENDS: &str = "sock_send_length";
/// Its receives.
pub(super) const RECEIVES: &str = "sock_recv_length";
/// What a capture loses where nothing sees both.
pub(super) const WITHOUT_CALLS: &str = "requests cannot be counted, nor their sizes measured, \
     and when nginx sent and received is known to one of the kernel's ticks only";

/// A way to see nginx's sends and receives: all of it, or none.
pub(super) struct Way {
    /// The kind of program.
    pub(super) by: By,
    /// Of those for one function the one that fits is taken; of those for one hook one is
    /// needed.
    pub(super) programs: &'static [Call],
}

/// What a program on nginx's calls is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Tracepoints (Linux 6.3 and later).
    Tracepoints,
    /// The ends of functions; some hosts refuse that.
    Functions,
}

/// A program that sees sends or receives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// [`SENDS`] or [`RECEIVES`].
    pub(super) hook: &'static str,
    pub(super) program: &'static str,
    /// Tracepoint or function.
    pub(super) target: &'static str,
    /// The names of the function's parameters as far as the program relies on them: `""` is
    /// any.
    pub(super) parameters: &'static [&'static str],
    /// What the program takes of them.
    pub(super) takes: &'static [Argument],
}

/// A program on a tracepoint, whose arguments stand with those of all others.
const fn call(hook: &'static str, program: &'static str) -> Call {
    function(hook, program, hook, &[], &[])
}

/// A program at the end of a function.
const fn function(
    hook: &'static str,
    program: &'static str,
    target: &'static str,
    parameters: &'static [&'static str],
    takes: &'static [Argument],
) -> Call {
    Call {
        hook,
        program,
        target,
        parameters,
        takes,
    }
}

const SOCK: Argument = Argument::Pointer("sock");
const INT: Argument = Argument::Integer(4);

/// Ways to see nginx's sends and receives, the best first.
pub(super) const WAYS: [Way; 2] = [
    Way {
        by: By::Tracepoints,
        programs: &[
            call(SENDS, "whoclosed_send"),
            call(RECEIVES, "whoclosed_recv"),
        ],
    },
    Way {
        by: By::Functions,
        programs: &[
            function(
                SENDS,
                "whoclosed_f_s",
                "tcp_sendmsg",
                &["sk", "", ""],
                &[SOCK],
            ),
            // Until 6.4; later kernels send files through the other.
            function(
                SENDS,
                "whoclosed_f_p",
                "tcp_sendpage",
                &["sk", "", "", "", ""],
                &[SOCK],
            ),
            function(
                RECEIVES,
                "whoclosed_f_r4",
                "tcp_recvmsg",
                &["sk", "", "", "flags"],
                &[SOCK, Argument::Any, Argument::Any, INT],
            ),
            function(
                RECEIVES,
                "whoclosed_f_r5",
                "tcp_recvmsg",
                &["sk", "", "", "flags", ""],
                &[SOCK, Argument::Any, Argument::Any, INT],
            ),
            function(
                RECEIVES,
                "whoclosed_f_r6",
                "tcp_recvmsg",
                &["sk", "", "", "nonblock", "flags", ""],
                &[SOCK, Argument::Any, Argument::Any, INT, INT],
            ),
        ],
    },
];

/// Sees each change of a TCP socket's state.
pub(super) const STATE: &str = "whoclosed_state";
/// So does this, for the changes at which the kernel skips the first.
pub(super) const STATE_TWIN: &str = "whoclosed_twin";
/// The same in a capture on a backend's host.
const ACCEPTING: &str = "whoclosed_b_set";
const ACCEPTING_TWIN: &str = "whoclosed_b_two";
/// And these, for the changes at which it skips both: seldom, but a change that none sees
/// may take a whole connection with it, and where a task interrupted the first program the
/// second may be interrupted before anybody has noticed.
pub(super) const STATE_THIRD: &str = "whoclosed_third";
const ACCEPTING_THIRD: &str = "whoclosed_b_3";
/// Programs that take what the first misses, and are attached from the start: there is
/// always something that interrupts it.
pub(super) const TWINS: [(&str, &str); 4] = [
    (STATE, STATE_TWIN),
    (STATE, STATE_THIRD),
    (ACCEPTING, ACCEPTING_TWIN),
    (ACCEPTING, ACCEPTING_THIRD),
];
/// Fourth ones, attached when the first has missed a run.
pub(super) const OF_STATES: [(&str, &str); 2] =
    [(STATE, "whoclosed_4th"), (ACCEPTING, "whoclosed_b_4")];
/// Those of which another one is attached when the first has missed a run: only where tasks
/// interrupt programs, and it costs each of nginx's calls.
pub(super) const LATER_TWINS: [(&str, &str); 14] = [
    OF_STATES[0],
    OF_STATES[1],
    ("whoclosed_send", "whoclosed_sendt"),
    ("whoclosed_recv", "whoclosed_recvt"),
    ("whoclosed_f_s", "whoclosed_f_st"),
    ("whoclosed_f_p", "whoclosed_f_pt"),
    ("whoclosed_f_r4", "whoclosed_f_r4t"),
    ("whoclosed_f_r5", "whoclosed_f_r5t"),
    ("whoclosed_f_r6", "whoclosed_f_r6t"),
    ("whoclosed_gone", "whoclosed_gonet"),
    ("whoclosed_rst_i", "whoclosed_rst_it"),
    ("whoclosed_exit", "whoclosed_exitt"),
    ("whoclosed_b_end", "whoclosed_b_endt"),
    ("whoclosed_b_ri", "whoclosed_b_rit"),
];

/// `tcp_send_reset` before 6.10.
const WITHOUT_REASON: &str = "tcp_send_reset without the reason of an RST";

/// Those of a capture of nginx.
pub(super) const OF_NGINX: &[Tracepoint] = &[
    Tracepoint {
        program: STATE,
        tracepoint: "inet_sock_set_state",
        required: true,
        without: "no connection can be seen",
        instead: None,
    },
    Tracepoint {
        program: STATE_TWIN,
        tracepoint: "inet_sock_set_state",
        required: false,
        without: "a change of state that comes in the middle of another is lost",
        instead: None,
    },
    Tracepoint {
        program: STATE_THIRD,
        tracepoint: "inet_sock_set_state",
        required: false,
        without: "a change of state that comes in the middle of two others is lost",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_gone",
        tracepoint: "tcp_destroy_sock",
        required: true,
        without: "the end of reset and failed connections cannot be seen",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_rst_i",
        tracepoint: "tcp_receive_reset",
        required: false,
        without: "the time at which an RST arrived is not known",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_rst_r",
        tracepoint: "tcp_send_reset",
        required: false,
        without: "RSTs that this host sends are not seen",
        instead: Some(("whoclosed_rst_o", WITHOUT_REASON)),
    },
    Tracepoint {
        program: "whoclosed_again",
        tracepoint: "tcp_retransmit_skb",
        required: false,
        without: "retransmissions are not counted",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_exit",
        tracepoint: "sched_process_exit",
        required: false,
        without: "a backend's process that closes its connections before it ends is not known \
                  to have ended",
        instead: None,
    },
];

/// Those of a capture on a backend's host.
pub(super) const OF_BACKEND: &[Tracepoint] = &[
    Tracepoint {
        program: ACCEPTING,
        tracepoint: "inet_sock_set_state",
        required: true,
        without: "no connection can be seen",
        instead: None,
    },
    Tracepoint {
        program: ACCEPTING_TWIN,
        tracepoint: "inet_sock_set_state",
        required: false,
        without: "a change of state that comes in the middle of another is lost",
        instead: None,
    },
    Tracepoint {
        program: ACCEPTING_THIRD,
        tracepoint: "inet_sock_set_state",
        required: false,
        without: "a change of state that comes in the middle of two others is lost",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_b_end",
        tracepoint: "tcp_destroy_sock",
        required: true,
        without: "the end of reset connections cannot be seen",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_b_ri",
        tracepoint: "tcp_receive_reset",
        required: false,
        without: "the time at which an RST arrived is not known",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_b_rr",
        tracepoint: "tcp_send_reset",
        required: false,
        without: "RSTs that this host sends are not seen",
        instead: Some(("whoclosed_b_ro", WITHOUT_REASON)),
    },
    Tracepoint {
        program: "whoclosed_exit",
        tracepoint: "sched_process_exit",
        required: false,
        without: "a process that closes its connections before it ends is not known to have ended",
        instead: None,
    },
];
