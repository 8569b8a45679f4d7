//! What a backend does with a request, and how a request asks for it.
//!
//! A request names its behaviour in the header [`HEADER`], which nginx passes on:
//! `X-Lab: close after=50 once`. Without it the backend's own default holds.

mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Header that chooses the behaviour for one request.
pub const HEADER: &str = "X-Lab";

/// How a backend ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Means {
    /// close(2) with nothing unread: the kernel sends a FIN.
    Fin,
    /// close(2) with SO_LINGER 0: the kernel sends an RST.
    Rst,
    /// shutdown(2) for writing, then what comes is read and thrown away until the other
    /// end goes, as servers with a lingering close do: a FIN, and no RST in answer to
    /// what crosses it.
    HalfClose,
    /// shutdown(2) for writing and at once a close with SO_LINGER 0: a FIN, then an RST.
    FinThenRst,
}

impl Means {
    /// What nginx's end sees first, as reports spell it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rst => "rst",
            Self::Fin | Self::HalfClose | Self::FinThenRst => "fin",
        }
    }

    /// An RST follows, or is all: nginx finds an error on the socket before it sends.
    #[must_use]
    pub const fn resets(self) -> bool {
        matches!(self, Self::Rst | Self::FinThenRst)
    }
}

/// How a response body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What to do with a request once it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer with a body of so many bytes.
    Answer {
        /// Length of the body.
        body: usize,
        /// How it is delimited.
        framing: Framing,
    },
    /// Answer, promising to keep the connection, and close it at once.
    AnswerThenClose,
    /// Answer `Connection: close` and do so.
    AnswerClosing,
    /// Answer without a byte, not even a header. Only FastCGI can say so much.
    AnswerNothing,
    /// Work on the request to its end whether or not nginx is still there, then answer.
    AnswerLate,
    /// Answer once so many requests that ask the same are waiting on this backend:
    /// they are then known to be on as many connections.
    AnswerTogether {
        /// How many.
        requests: usize,
    },
    /// End the connection without a byte of response.
    CloseWithoutAnswer(Means),
    /// End it after half of the response body.
    CloseInBody {
        /// Length of the whole body.
        body: usize,
        /// How it is delimited.
        framing: Framing,
        /// How it ends.
        means: Means,
    },
    /// End it in the middle of the response header.
    CloseInHeader(Means),
    /// Half of the response body, then nothing until nginx goes.
    StallInBody {
        /// Length of the whole body.
        body: usize,
    },
    /// A body in so many pieces, [`PIECE_EVERY`] apart, on and on.
    Stream {
        /// Pieces of [`PIECE`] bytes.
        pieces: usize,
        /// How it is delimited.
        framing: Framing,
        /// Ends it so before it is complete; none: it comes to its end.
        broken_by: Option<Means>,
    },
    /// Switch protocols and send every byte back that comes.
    Upgrade {
        /// Ends it so after the first bytes; none: the other end has to.
        ended_by: Option<Means>,
    },
    /// A response header of at least so many bytes.
    BigHeader {
        /// Bytes.
        bytes: usize,
    },
    /// A response header with a control character in a field's name.
    InvalidHeader,
    /// A chunked body whose second chunk has no size.
    InvalidChunk,
    /// Close with the request's body unread and no answer: the kernel sends an RST.
    RefuseBody,
    /// Answer 413 and close with the request's body unread, so that the kernel
    /// sends an RST.
    LeaveBodyUnread,
    /// Read no byte of the request's body and say nothing until nginx goes.
    StopReading,
    /// End the whole process. Only a backend in a process of its own does so.
    EndProcess {
        /// How it ends.
        death: Death,
        /// How far the answer has come.
        phase: Phase,
    },
}

/// How a process ends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// exit(2) with this status.
    Exit(u8),
    /// abort(3): SIGABRT.
    Abort,
    /// SIGSEGV with its default action.
    Segfault,
    /// This signal from the process to itself.
    Signal(u8),
    /// It takes memory until the kernel kills it, which needs a memory cgroup.
    OutOfMemory,
}

/// How far an exchange has come when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request's head is read, its body is not: with one, the kernel sends an RST.
    Unread,
    /// The request is read, no byte of the answer written.
    Waiting,
    /// In the middle of the response header.
    Header,
    /// After half of the response body.
    Body,
}

/// Bytes in a piece of a stream.
pub const PIECE: usize = 100;
/// Between two pieces of a stream.
pub const PIECE_EVERY: Duration = Duration::from_millis(25);

/// A behaviour and when it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Behaviour {
    /// What to do.
    pub kind: Kind,
    /// How long to work on the request first.
    pub after: Duration,
    /// Only for the first request to this target: the next, such as nginx's retry,
    /// gets an ordinary answer.
    pub once: bool,
}

impl Behaviour {
    /// An ordinary answer.
    pub const ANSWER: Self = Self::of(Kind::Answer {
        body: 64,
        framing: Framing::Length,
    });

    /// This kind, at once and every time.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            after: Duration::ZERO,
            once: false,
        }
    }

    /// The same after working on the request for this long.
    #[must_use]
    pub const fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// The same, only for the first request to a target.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.once = true;
        self
    }
}
