//! Numbers, times and verdicts in words.

use super::escape::escape;
use super::model::{Cause, Incident, Match, Means, Phase, Side};

/// Longest name, address or path shown.
pub(super) const NAME: usize = 100;

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(number: u64, singular: &str, plural: &str) -> String {
    format!(
        "{} {}",
        count(number),
        if number == 1 { singular } else { plural }
    )
}

/// A duration with a unit that suits it: `0.213 ms`, `1000.2 ms`, `30.00 s`, `12.5 min`.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms.abs() {
        size if size < 10.0 => format!("{ms:.3} ms"),
        size if size < 10_000.0 => format!("{ms:.1} ms"),
        size if size < 600_000.0 => format!("{:.2} s", ms / 1e3),
        _ => format!("{:.1} min", ms / 60e3),
    }
}

/// A short duration for tables: `0.21`, `3.4`, `1342`, in milliseconds.
pub(super) fn short_ms(ms: f64) -> String {
    match ms.abs() {
        size if size < 1.0 => format!("{ms:.2}"),
        size if size < 10.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// What is known roughly: `0.21`, `3.4`, `1300`, milliseconds in two digits.
pub(super) fn rough_ms(ms: f64) -> String {
    match ms.abs() {
        size if size < 0.01 => format!("{ms:.3}"),
        size if size < 0.995 => format!("{ms:.2}"),
        size if size < 9.95 => format!("{ms:.1}"),
        size if !size.is_finite() => ms.to_string(),
        size => {
            // The digits after the first two.
            let mut unit = 1.0;
            while size / unit >= 99.5 {
                unit *= 10.0;
            }
            format!("{:.0}", (ms / unit).round() * unit)
        }
    }
}

/// Date and time of an RFC 3339 string, cut to milliseconds. What is no such
/// string is shown escaped.
pub(super) fn date_time(time: &str) -> String {
    match split_time(time) {
        Some((date, clock)) => format!("{date} {clock}"),
        None => escape(time, 40),
    }
}

/// The time of day alone.
pub(super) fn clock(time: &str) -> String {
    split_time(time).map_or_else(|| escape(time, 40), |(_, clock)| clock.to_owned())
}

fn split_time(time: &str) -> Option<(&str, &str)> {
    let (date, clock) = time.split_once('T')?;
    let clock = clock.strip_suffix('Z')?;
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || b"-:.".contains(&b))
    };
    (digits(date) && digits(clock)).then(|| (date, &clock[..clock.len().min(12)]))
}

/// `backend FIN`, `nginx close`, `not established`.
pub(super) fn who_and_how(side: Side, means: Means) -> String {
    let how = match means {
        Means::Fin => "FIN",
        Means::Rst => "RST",
        Means::Close => "close",
        Means::Refused => "refused",
        Means::Timeout => "timeout",
        Means::Unreachable => "unreachable",
        Means::None => "",
    };
    let who = if side == Side::Unknown {
        "unknown"
    } else {
        side.word()
    };
    format!("{who} {how}").trim_end().to_owned()
}

/// How a line is tied to its connection, in words.
pub(super) fn tie(matched: Match) -> String {
    let words = match matched {
        Match::Exact => "the line was seen being written, its socket identified",
        Match::Ordered => "lines and sockets of the worker align in order",
        Match::Window => "its socket is one of several candidates",
        Match::None => "no socket is known for this line",
    };
    format!("{matched}: {words}")
}

/// Where in the attempt, as the end of a sentence; empty if it adds nothing.
fn when(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "while nginx was connecting",
        Phase::Tls => "in the TLS handshake",
        Phase::Send => "while the request was being sent",
        Phase::Wait => "before the first byte of its response",
        Phase::Header => "in the middle of the response header",
        Phase::Body => "in the middle of the response body",
        Phase::Idle => "while it was idle",
        Phase::Upgraded => "after it was upgraded",
    }
}

/// The verdict as one sentence without its full stop.
#[must_use]
pub fn verdict_sentence(incident: &Incident) -> String {
    let peer = escape(&incident.upstream, NAME);
    let connection = incident.connection.as_ref();
    let closed = match incident.means {
        Means::Fin => "closed (FIN)",
        Means::Rst => "reset (RST)",
        _ => "closed",
    };
    let in_flight = connection.and_then(|c| c.in_flight_ms).map(milliseconds);
    let after = in_flight
        .as_ref()
        .map_or_else(String::new, |time| format!(" after {time}"));
    let into = in_flight
        .as_ref()
        .map_or_else(String::new, |time| format!(", {time} into the request"));
    match incident.cause {
        Cause::StaleKeepalive => {
            let silence = connection
                .and_then(|c| c.idle_ms)
                .map_or_else(String::new, |ms| {
                    format!(" after {} of silence", milliseconds(ms))
                });
            format!("backend {peer} {closed} a kept-alive connection, which nginx reused{silence}")
        }
        Cause::RequestLimit => {
            // The failed request counts as one of the connection's.
            let served = connection.and_then(|c| c.requests).map_or_else(
                || "its limit of requests".to_owned(),
                |all| counted(u64::from(all.saturating_sub(1)), "request", "requests"),
            );
            format!("backend {peer} {closed} the connection after {served} on it")
        }
        Cause::BackendKilled | Cause::BackendOom | Cause::BackendCrashed | Cause::BackendExited => {
            let fate = match incident.cause {
                Cause::BackendKilled => "was killed by a signal",
                Cause::BackendOom => "was killed by the kernel for want of memory",
                Cause::BackendCrashed => "crashed",
                _ => "exited",
            };
            if incident.phase == Phase::Idle {
                format!("the process of backend {peer} {fate} while the connection was idle")
            } else {
                format!(
                    "the process of backend {peer} {fate} {}{into}",
                    when(incident.phase)
                )
            }
        }
        Cause::BackendRestart if incident.means == Means::Refused => {
            format!("backend {peer} was restarting: for a time nothing listened there")
        }
        Cause::BackendRestart => format!(
            "backend {peer} was restarting and {closed} the connection {}",
            when(incident.phase)
        ),
        Cause::WorkerRecycled => format!(
            "a worker of backend {peer} exited and {closed} the connection {}; others served on",
            when(incident.phase)
        ),
        Cause::WorkerTimeout => format!(
            "backend {peer} gave up on the request{after}: its own limit on a request's time ran \
             out {}",
            when(incident.phase)
        ),
        Cause::RequestTooLarge => {
            let bytes = connection
                .and_then(|c| c.request_bytes)
                .map_or_else(String::new, |sent| {
                    format!(" after {} of it", counted(sent, "byte", "bytes"))
                });
            format!("backend {peer} {closed} the connection on a request too large for it{bytes}")
        }
        Cause::ProtocolMismatch => {
            let spoken = if incident.phase == Phase::Tls {
                "nginx spoke TLS to backend"
            } else {
                "nginx spoke without TLS to backend"
            };
            let other = if incident.phase == Phase::Tls {
                "does not speak it on that port"
            } else {
                "expects TLS on that port"
            };
            format!("{spoken} {peer}, which {other}")
        }
        Cause::TlsFailure => match (incident.side, incident.means) {
            (Side::Backend, _) => format!("backend {peer} ended the TLS connection with nginx"),
            (_, Means::Timeout) => {
                format!("nginx gave up on the TLS handshake with backend {peer}")
            }
            _ => format!("nginx refused the TLS connection to backend {peer}"),
        },
        Cause::ClosedWithoutAnswer => {
            format!(
                "backend {peer} {closed} the connection {}{into}",
                when(incident.phase)
            )
        }
        Cause::ResponseAborted => {
            let bytes = connection
                .and_then(|c| c.response_bytes)
                .map_or_else(String::new, |came| {
                    format!(", after {} of it", counted(came, "byte", "bytes"))
                });
            format!(
                "backend {peer} {closed} the connection {}{bytes}",
                when(incident.phase)
            )
        }
        Cause::ConnectRefused => {
            format!("the host of backend {peer} refused the connection: nothing listens there")
        }
        Cause::ConnectTimeout => {
            let age = connection.map_or_else(String::new, |c| {
                format!(" after {}", milliseconds(c.age_ms))
            });
            format!("no answer to the connect came from {peer}; nginx gave up{age}")
        }
        Cause::Unreachable => format!("this host found no way to backend {peer}"),
        Cause::BacklogFull => {
            format!("backend {peer} did not take new connections: its queue of them was full")
        }
        Cause::ReadTimeout => format!(
            "nginx gave up on backend {peer}{after}: its read timeout ran out {}",
            when(incident.phase)
        ),
        Cause::SendTimeout => format!(
            "nginx gave up on backend {peer}{after}: its send timeout ran out {}",
            when(incident.phase)
        ),
        Cause::ResponseRejected => {
            format!("nginx refused the response of backend {peer} and closed the connection")
        }
        Cause::ClientAbort => {
            format!(
                "the client left first; nginx then closed its connection to backend {peer}{after}"
            )
        }
        Cause::NoLiveUpstreams => {
            format!("nginx tried no backend of {peer}: all of them were disabled after failures")
        }
        Cause::NginxShutdown => {
            format!("nginx's worker shut down and closed its connection to backend {peer}{after}")
        }
        Cause::NginxResources => {
            format!("nginx's own host could not open a connection to backend {peer}")
        }
        Cause::PathReset => format!(
            "something between nginx and backend {peer} reset the connection {}",
            when(incident.phase)
        ),
        Cause::PathTimeout => {
            format!("the path to backend {peer} went silent; nginx gave up{after}")
        }
        Cause::Unexplained => match (incident.side, incident.means) {
            (Side::Unknown, Means::None) => {
                format!("who ended this attempt at {peer} is not established")
            }
            (Side::Unknown, means) => format!(
                "the connection to {peer} ended ({means}) {}; who ended it is not established",
                when(incident.phase)
            ),
            (side, _) => {
                let whose = if side == Side::Backend {
                    ""
                } else {
                    " to backend"
                };
                let (who, what) = if side == Side::Backend {
                    (format!("backend {peer}"), "the connection".to_owned())
                } else {
                    (
                        side.word().to_owned(),
                        format!("the connection{whose} {peer}"),
                    )
                };
                format!(
                    "{who} {closed} {what} {}; why is not established",
                    when(incident.phase)
                )
            }
        },
    }
}

/// What became of the client's request.
pub(super) fn outcome(retried: Option<bool>, served: Option<bool>) -> &'static str {
    match (retried, served) {
        (Some(true), Some(true)) => "retried, and the client was served",
        (Some(true), Some(false)) => "retried, but failed for the client",
        (Some(true), None) => "retried; whether the client was served is not known",
        (Some(false), Some(true)) => "not retried; the client got an answer",
        (Some(false), Some(false)) => "not retried: it failed for the client",
        (Some(false), None) => "not retried; whether the client was served is not known",
        (None, Some(true)) => "the client was served",
        (None, Some(false)) => "it failed for the client",
        (None, None) => "whether it was retried or served is not known",
    }
}

/// One line for one incident, as it is printed while a capture runs.
#[must_use]
pub fn one_line(incident: &Incident) -> String {
    let fate = match (incident.retried, incident.served) {
        (Some(true), Some(true)) => ", served on retry",
        (_, Some(true)) => ", client served",
        (_, Some(false)) => ", client failed",
        (_, None) => "",
    };
    format!(
        "{} #{} {}: {} ({}{fate})",
        clock(&incident.time),
        incident.id,
        incident.cause,
        verdict_sentence(incident),
        incident.confidence,
    )
}

/// A signal's name on x86-64 and aarch64 (asm-generic/signal.h), if it is one of those that
/// commonly end processes.
pub(crate) const fn signal_name(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_units_that_suit_them() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        let times = [0.2134, 1000.24, 30_000.0, 900_000.0].map(milliseconds);
        assert_eq!(times, ["0.213 ms", "1000.2 ms", "30.00 s", "15.0 min"]);
    }

    #[test]
    fn rough_times_have_two_digits() {
        let times = [
            0.004, 0.213, 0.999, 3.44, 9.96, 12.4, 99.4, 99.6, 1966.1, 2064.4,
        ];
        let rough = [
            "0.004", "0.21", "1.0", "3.4", "10", "12", "99", "100", "2000", "2100",
        ];
        assert_eq!(times.map(rough_ms), rough);
        assert_eq!(rough_ms(f64::INFINITY), "inf");
    }

    #[test]
    fn times_are_cut_to_milliseconds_and_strange_ones_escaped() {
        assert_eq!(
            date_time("2026-11-22T18:00:03.123456789Z"),
            "2026-11-22 18:00:03.123"
        );
        assert_eq!(clock("2026-11-22T18:00:03Z"), "18:00:03");
        assert_eq!(clock("T\u{1b}Z"), r"T\u{1b}Z");
    }
}
