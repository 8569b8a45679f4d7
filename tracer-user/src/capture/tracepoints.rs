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

/// Those of a capture of nginx.
pub(super) const OF_NGINX: &[Tracepoint] = &[
    Tracepoint {
        program: "whoclosed_state",
        tracepoint: "inet_sock_set_state",
        required: true,
        without: "no connection can be seen",
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
        program: "whoclosed_b_set",
        tracepoint: "inet_sock_set_state",
        required: true,
        without: "no connection can be seen",
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
