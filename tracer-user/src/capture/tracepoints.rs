//! The kernel's tracepoints that the programs are attached to.

/// A program on a tracepoint and what a capture loses without it.
pub(super) struct Tracepoint {
    pub(super) program: &'static str,
    pub(super) tracepoint: &'static str,
    pub(super) required: bool,
    pub(super) without: &'static str,
    /// Another program to try for the same tracepoint where this one does not load.
    pub(super) instead: Option<&'static str>,
}

impl Tracepoint {
    /// Name of the hook in traces and messages.
    pub(super) fn hook(&self) -> String {
        if TWINS.iter().any(|(_, twin)| self.program == *twin) {
            format!("{} (second program)", self.tracepoint)
        } else {
            self.tracepoint.to_owned()
        }
    }
}

/// Sees each change of a TCP socket's state.
pub(super) const STATE: &str = "whoclosed_state";
/// So does this, for the changes at which the kernel skips the first.
pub(super) const STATE_TWIN: &str = "whoclosed_twin";
/// The same in a capture on a backend's host.
const ACCEPTING: &str = "whoclosed_b_set";
const ACCEPTING_TWIN: &str = "whoclosed_b_two";
/// Programs of which the second takes what the first misses.
pub(super) const TWINS: [(&str, &str); 2] = [(STATE, STATE_TWIN), (ACCEPTING, ACCEPTING_TWIN)];

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
        program: "whoclosed_gone",
        tracepoint: "tcp_destroy_sock",
        required: true,
        without: "the end of reset and failed connections cannot be seen",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_send",
        tracepoint: "sock_send_length",
        required: true,
        without: "requests cannot be counted or timed (Linux 6.3 and later have this tracepoint)",
        instead: None,
    },
    Tracepoint {
        program: "whoclosed_recv",
        tracepoint: "sock_recv_length",
        required: true,
        without: "responses cannot be counted or timed (Linux 6.3 and later have this tracepoint)",
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
        instead: Some("whoclosed_rst_o"),
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
        instead: Some("whoclosed_b_ro"),
    },
    Tracepoint {
        program: "whoclosed_exit",
        tracepoint: "sched_process_exit",
        required: false,
        without: "a process that closes its connections before it ends is not known to have ended",
        instead: None,
    },
];
