//! What a backend does with a request, and how a request asks for it.
//!
//! A request names its behaviour in the header [`HEADER`], which nginx passes on:
//! `X-Lab: close after=50 once`. Without it the backend's own default holds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
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
}

/// How a response body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
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
    /// A response header of at least so many bytes.
    BigHeader {
        /// Bytes.
        bytes: usize,
    },
    /// A response header with a control character in a field's name.
    InvalidHeader,
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

impl Phase {
    const ALL: [(Self, &str); 4] = [
        (Self::Unread, "-unread"),
        (Self::Waiting, ""),
        (Self::Header, "-in-header"),
        (Self::Body, "-in-body"),
    ];

    fn suffix(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find_map(|(phase, suffix)| (phase == self).then_some(suffix))
            .unwrap_or_default()
    }
}

/// `exit-in-body` with the number after its `=`, if it is the end of a process.
fn end_of_process(name: &str, number: Option<usize>) -> Option<Result<Kind>> {
    let (death, rest) = ["exit", "abort", "segfault", "signal", "out-of-memory"]
        .into_iter()
        .find_map(|death| Some((death, name.strip_prefix(death)?)))?;
    let (phase, _) = Phase::ALL.into_iter().find(|(_, suffix)| *suffix == rest)?;
    let small = match u8::try_from(number.unwrap_or(0)) {
        Ok(small) => small,
        Err(error) => return Some(Err(error).context("no exit status or signal")),
    };
    let death = match death {
        "exit" => Death::Exit(small),
        "signal" => Death::Signal(small),
        "abort" => Death::Abort,
        "out-of-memory" => Death::OutOfMemory,
        _ => Death::Segfault,
    };
    Some(Ok(Kind::EndProcess { death, phase }))
}

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

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let means = |means: Means| match means {
            Means::Fin => "close",
            Means::Rst => "reset",
        };
        let chunked = |framing: Framing| match framing {
            Framing::Length => "",
            Framing::Chunked => " chunked",
        };
        match self.kind {
            Kind::Answer { body, framing } => write!(f, "answer={body}{}", chunked(framing))?,
            Kind::AnswerThenClose => f.write_str("answer-then-close")?,
            Kind::AnswerTogether { requests } => write!(f, "together={requests}")?,
            Kind::CloseWithoutAnswer(how) => f.write_str(means(how))?,
            Kind::CloseInBody {
                body,
                framing,
                means: how,
            } => {
                write!(f, "{}-in-body={body}{}", means(how), chunked(framing))?;
            }
            Kind::CloseInHeader(how) => write!(f, "{}-in-header", means(how))?,
            Kind::StallInBody { body } => write!(f, "stall-in-body={body}")?,
            Kind::BigHeader { bytes } => write!(f, "big-header={bytes}")?,
            Kind::InvalidHeader => f.write_str("invalid-header")?,
            Kind::LeaveBodyUnread => f.write_str("leave-body-unread")?,
            Kind::StopReading => f.write_str("stop-reading")?,
            Kind::EndProcess { death, phase } => match death {
                Death::Exit(status) => write!(f, "exit{}={status}", phase.suffix())?,
                Death::Abort => write!(f, "abort{}", phase.suffix())?,
                Death::Segfault => write!(f, "segfault{}", phase.suffix())?,
                Death::Signal(number) => write!(f, "signal{}={number}", phase.suffix())?,
                Death::OutOfMemory => write!(f, "out-of-memory{}", phase.suffix())?,
            },
        }
        if !self.after.is_zero() {
            write!(f, " after={}", self.after.as_millis())?;
        }
        if self.once {
            f.write_str(" once")?;
        }
        Ok(())
    }
}

impl FromStr for Behaviour {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let first = words.next().context("no behaviour named")?;
        let (name, number) = match first.split_once('=') {
            Some((name, number)) => {
                let number = number
                    .parse::<usize>()
                    .with_context(|| format!("{first}: not a number after ="))?;
                (name, Some(number))
            }
            None => (first, None),
        };
        let mut framing = Framing::Length;
        let mut after = Duration::ZERO;
        let mut once = false;
        for word in words {
            match word.split_once('=') {
                None if word == "chunked" => framing = Framing::Chunked,
                None if word == "once" => once = true,
                Some(("after", ms)) => {
                    let ms = ms
                        .parse()
                        .with_context(|| format!("{word}: not milliseconds"))?;
                    after = Duration::from_millis(ms);
                }
                _ => bail!("unknown word {word:?} in behaviour {text:?}"),
            }
        }
        let body = number.unwrap_or(64);
        let kind = match name {
            "answer" => Kind::Answer { body, framing },
            "answer-then-close" => Kind::AnswerThenClose,
            "together" => Kind::AnswerTogether {
                requests: number.context("together=how many?")?,
            },
            "close" => Kind::CloseWithoutAnswer(Means::Fin),
            "reset" => Kind::CloseWithoutAnswer(Means::Rst),
            "close-in-body" => Kind::CloseInBody {
                body,
                framing,
                means: Means::Fin,
            },
            "reset-in-body" => Kind::CloseInBody {
                body,
                framing,
                means: Means::Rst,
            },
            "close-in-header" => Kind::CloseInHeader(Means::Fin),
            "reset-in-header" => Kind::CloseInHeader(Means::Rst),
            "big-header" => Kind::BigHeader {
                bytes: number.context("big-header=how many bytes?")?,
            },
            "stall-in-body" => Kind::StallInBody { body },
            "invalid-header" => Kind::InvalidHeader,
            "leave-body-unread" => Kind::LeaveBodyUnread,
            "stop-reading" => Kind::StopReading,
            _ => match end_of_process(name, number) {
                Some(kind) => kind?,
                None => bail!("unknown behaviour {name:?}"),
            },
        };
        Ok(Self { kind, after, once })
    }
}

impl From<Behaviour> for String {
    fn from(behaviour: Behaviour) -> Self {
        behaviour.to_string()
    }
}

impl TryFrom<String> for Behaviour {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_behaviour_is_read_back_as_it_was_written() {
        for behaviour in [
            Behaviour::ANSWER,
            Behaviour::of(Kind::Answer {
                body: 5,
                framing: Framing::Chunked,
            }),
            Behaviour::of(Kind::AnswerThenClose).once(),
            Behaviour::of(Kind::AnswerTogether { requests: 4 }),
            Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).after(Duration::from_millis(50)),
            Behaviour::of(Kind::CloseWithoutAnswer(Means::Rst)).once(),
            Behaviour::of(Kind::CloseInBody {
                body: 9000,
                framing: Framing::Chunked,
                means: Means::Rst,
            }),
            Behaviour::of(Kind::CloseInHeader(Means::Fin)),
            Behaviour::of(Kind::BigHeader { bytes: 20_000 }),
            Behaviour::of(Kind::StallInBody { body: 9000 }),
            Behaviour::of(Kind::InvalidHeader),
            Behaviour::of(Kind::LeaveBodyUnread),
            Behaviour::of(Kind::StopReading),
            Behaviour::of(Kind::EndProcess {
                death: Death::Exit(3),
                phase: Phase::Unread,
            }),
            Behaviour::of(Kind::EndProcess {
                death: Death::Abort,
                phase: Phase::Waiting,
            }),
            Behaviour::of(Kind::EndProcess {
                death: Death::Segfault,
                phase: Phase::Body,
            }),
            Behaviour::of(Kind::EndProcess {
                death: Death::Signal(9),
                phase: Phase::Header,
            }),
            Behaviour::of(Kind::EndProcess {
                death: Death::OutOfMemory,
                phase: Phase::Header,
            }),
        ] {
            assert_eq!(
                behaviour.to_string().parse::<Behaviour>().unwrap(),
                behaviour
            );
        }
    }

    #[test]
    fn an_unknown_behaviour_is_named_and_not_guessed() {
        for text in [
            "",
            "explode",
            "close twice",
            "together",
            "answer=x",
            "close after=soon",
            "exit=256",
            "exit-never",
        ] {
            assert!(text.parse::<Behaviour>().is_err(), "{text:?} was accepted");
        }
    }
}
