//! How a behaviour is written in a header: `close-in-body=9000 chunked after=50 once`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use super::{Behaviour, Death, Framing, Kind, Means, Phase};

/// The word for each means. None is the beginning of a later one.
const MEANS: [(Means, &str); 4] = [
    (Means::FinThenRst, "close-then-reset"),
    (Means::HalfClose, "half-close"),
    (Means::Fin, "close"),
    (Means::Rst, "reset"),
];

fn word(means: Means) -> &'static str {
    MEANS
        .into_iter()
        .find_map(|(one, word)| (one == means).then_some(word))
        .unwrap_or_default()
}

/// The end of a connection as its name and number tell it, if it is one.
fn ending(name: &str, number: Option<usize>, framing: Framing) -> Option<Kind> {
    let (means, rest) = MEANS
        .into_iter()
        .find_map(|(means, word)| Some((means, name.strip_prefix(word)?)))?;
    let number = number.unwrap_or(64);
    Some(match rest {
        "" => Kind::CloseWithoutAnswer(means),
        "-in-header" => Kind::CloseInHeader(means),
        "-in-body" => Kind::CloseInBody {
            body: number,
            framing,
            means,
        },
        "-in-stream" => Kind::Stream {
            pieces: number,
            framing,
            broken_by: Some(means),
        },
        "-upgraded" => Kind::Upgrade {
            ended_by: Some(means),
        },
        _ => return None,
    })
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

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let means = word;
        let chunked = |framing: Framing| match framing {
            Framing::Length => "",
            Framing::Chunked => " chunked",
            Framing::UntilClose => " until-close",
        };
        match self.kind {
            Kind::Answer { body, framing } => write!(f, "answer={body}{}", chunked(framing))?,
            Kind::AnswerThenClose => f.write_str("answer-then-close")?,
            Kind::AnswerClosing => f.write_str("answer-closing")?,
            Kind::AnswerNothing => f.write_str("answer-nothing")?,
            Kind::AnswerLate => f.write_str("answer-late")?,
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
            Kind::Stream {
                pieces,
                framing,
                broken_by: None,
            } => write!(f, "stream={pieces}{}", chunked(framing))?,
            Kind::Stream {
                pieces,
                framing,
                broken_by: Some(how),
            } => write!(f, "{}-in-stream={pieces}{}", means(how), chunked(framing))?,
            Kind::Upgrade { ended_by: None } => f.write_str("upgrade")?,
            Kind::Upgrade {
                ended_by: Some(how),
            } => write!(f, "{}-upgraded", means(how))?,
            Kind::InvalidHeader => f.write_str("invalid-header")?,
            Kind::InvalidChunk => f.write_str("invalid-chunk")?,
            Kind::RefuseBody => f.write_str("refuse-body")?,
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
                None if word == "until-close" => framing = Framing::UntilClose,
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
            "answer-closing" => Kind::AnswerClosing,
            "answer-nothing" => Kind::AnswerNothing,
            "answer-late" => Kind::AnswerLate,
            "stream" => Kind::Stream {
                pieces: body,
                framing,
                broken_by: None,
            },
            "upgrade" => Kind::Upgrade { ended_by: None },
            "invalid-chunk" => Kind::InvalidChunk,
            "refuse-body" => Kind::RefuseBody,
            "big-header" => Kind::BigHeader {
                bytes: number.context("big-header=how many bytes?")?,
            },
            "stall-in-body" => Kind::StallInBody { body },
            "invalid-header" => Kind::InvalidHeader,
            "leave-body-unread" => Kind::LeaveBodyUnread,
            "stop-reading" => Kind::StopReading,
            _ => match (ending(name, number, framing), end_of_process(name, number)) {
                (Some(kind), _) => kind,
                (None, Some(kind)) => kind?,
                (None, None) => bail!("unknown behaviour {name:?}"),
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
            Behaviour::of(Kind::CloseInHeader(Means::FinThenRst)),
            Behaviour::of(Kind::CloseWithoutAnswer(Means::HalfClose)),
            Behaviour::of(Kind::AnswerClosing),
            Behaviour::of(Kind::AnswerNothing),
            Behaviour::of(Kind::AnswerLate).after(Duration::from_millis(900)),
            Behaviour::of(Kind::Stream {
                pieces: 40,
                framing: Framing::UntilClose,
                broken_by: None,
            }),
            Behaviour::of(Kind::Stream {
                pieces: 9,
                framing: Framing::Chunked,
                broken_by: Some(Means::Rst),
            }),
            Behaviour::of(Kind::Upgrade { ended_by: None }),
            Behaviour::of(Kind::Upgrade {
                ended_by: Some(Means::Rst),
            }),
            Behaviour::of(Kind::InvalidChunk),
            Behaviour::of(Kind::RefuseBody),
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
