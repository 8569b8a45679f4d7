//! How long a connection was silent before its last request, or before its end if none
//! was in flight: by what the lab recorded, and a report's `idle_ms` held against it.
//!
//! The silence begins when nginx has the end of the answer before, and ends with nginx's
//! send. Neither moment is on record, but what comes before and after each: the backend
//! notes the time before it writes, a client the time before it asks and after it was
//! told, and nginx does its part in between. So a machine that is busy makes the bounds
//! wider, and never wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::{self, Ended};
use crate::verdicts;

/// The longest of the kernel's ticks (`CONFIG_HZ` is 100 or more).
const TICK_MS: f64 = 10.0;
/// Reports round to microseconds.
const ROUNDED_MS: f64 = 0.001;

/// A moment that is not on record itself, only that it was not before the one and not
/// after the other. A side that nobody recorded is open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// CLOCK_MONOTONIC.
    pub earliest_ns: Option<u64>,
    /// The same.
    pub latest_ns: Option<u64>,
}

/// What a client noted of a request of its own.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its target; no other request has it.
    pub target: String,
    /// Before it was sent.
    pub asked_ns: u64,
    /// After the whole answer was read; none if none came, or not to its end.
    pub told_ns: Option<u64>,
}

/// The length of a silence, least and most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// No request came before: there was none.
    Never,
    /// It lasted so long.
    Lasted {
        /// At least; zero if that is not on record.
        least_ns: u64,
        /// At most, if that is on record.
        most_ns: Option<u64>,
    },
}

impl Silence {
    /// From one moment to the other.
    #[must_use]
    pub fn between(began: Moment, ended: Moment) -> Self {
        let apart = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        Self::Lasted {
            least_ns: apart(began.latest_ns, ended.earliest_ns).unwrap_or(0),
            most_ns: apart(began.earliest_ns, ended.latest_ns),
        }
    }

    /// The silence before the last request that arrived on this connection.
    #[must_use]
    pub fn before_last_request(connection: &backend::Connection, asked: &[Asked]) -> Self {
        let [.., before, last] = connection.requests.as_slice() else {
            return Self::Never;
        };
        let by_client =
            |request: &backend::Request| asked.iter().find(|asked| asked.target == request.target);
        let began = Moment {
            earliest_ns: before.answer.map(|answer| answer.began_ns),
            // nginx has read what it has passed on.
            latest_ns: by_client(before).and_then(|asked| asked.told_ns),
        };
        // nginx may be kept from returning from its send until long after the request has
        // arrived: that it has is certain only when it has done something else.
        let left_ns = connection
            .end
            .filter(|end| matches!(end.how, Ended::PeerClosed | Ended::PeerReset))
            .map(|end| end.at_ns);
        let told_ns = by_client(last).and_then(|asked| asked.told_ns);
        let ended = Moment {
            earliest_ns: by_client(last).map(|asked| asked.asked_ns),
            latest_ns: left_ns.into_iter().chain(told_ns).min(),
        };
        Self::between(began, ended)
    }

    /// What is wrong with the `idle_ms` of a report's connection, if anything is.
    #[must_use]
    pub fn problem(self, found: &verdicts::Connection) -> Option<String> {
        let problem = |said: String| Some(format!("idle time is {said}, not {self}"));
        let (least_ms, most_ms) = match self {
            // Where requests are not counted, a handshake's flights are not told apart.
            Self::Never if found.requests.is_none() => return None,
            Self::Never => return found.idle_ms.and_then(|idle| problem(said(idle))),
            Self::Lasted { least_ns, most_ns } => (
                milliseconds(least_ns),
                most_ns.map_or(f64::INFINITY, milliseconds),
            ),
        };
        let ticks = ticks(found);
        match found.idle_ms {
            None if ticks > 0.0 => None,
            None => problem("not known".to_owned()),
            Some(idle) => {
                // An answer that nginx read more than two ticks after it came counts from
                // its coming, which the kernel knows to a tick.
                let read_late = (most_ms - least_ms).min(TICK_MS);
                let slack = ticks * TICK_MS + ROUNDED_MS;
                let range = least_ms - slack..=most_ms + slack.max(read_late);
                (!range.contains(&idle)).then(|| problem(said(idle)))?
            }
        }
    }
}

/// How many of its ends are known to one of the kernel's ticks only.
fn ticks(found: &verdicts::Connection) -> f64 {
    if found.calls_unseen || found.filled_in {
        2.0
    } else {
        f64::from(u8::from(found.first_seen_mid_life))
    }
}

fn said(idle_ms: f64) -> String {
    format!("{idle_ms:.3} ms")
}

fn milliseconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1000.0
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("absent before a first request"),
            Self::Lasted { least_ns, most_ns } => {
                write!(f, "{:.3}", milliseconds(*least_ns))?;
                match most_ns {
                    Some(most_ns) => write!(f, " to {:.3} ms", milliseconds(*most_ns)),
                    None => write!(f, " ms or more"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::{Backend, Habits, IPV4};
    use crate::behaviour::{Behaviour, Kind, Means};
    use crate::clock::{PATIENCE, now_ns};
    use crate::load::{Client, Request};

    const MS: u64 = 1_000_000;

    fn found(idle_ms: Option<f64>, more: &[&str]) -> verdicts::Connection {
        let mut connection = json!({
            "local": "127.0.0.1:1", "remote": "127.0.0.1:2", "worker_pid": 7,
            "requests": 2, "reused": true, "idle_ms": idle_ms,
        });
        for flag in more {
            connection[flag] = json!(true);
        }
        serde_json::from_value(connection).unwrap()
    }

    fn lasted(least: u64, most: Option<u64>) -> Silence {
        Silence::Lasted {
            least_ns: least * MS,
            most_ns: most.map(|most| most * MS),
        }
    }

    #[test]
    fn an_idle_time_outside_its_bounds_is_wrong_and_one_within_is_right() {
        let silence = lasted(1000, Some(1002));
        let right = |idle: f64| silence.problem(&found(Some(idle), &[])).is_none();
        assert!(right(1000.0) && right(1002.0));
        assert!(!right(999.9));
        // As wide as the bounds are may the answer have been read late.
        assert!(right(1003.9) && !right(1004.1));
        let wide = lasted(1000, Some(1500)).problem(&found(Some(1511.0), &[]));
        assert_eq!(
            wide.as_deref(),
            Some("idle time is 1511.000 ms, not 1000.000 to 1500.000 ms")
        );
        assert!(silence.problem(&found(None, &[])).is_some());
    }

    #[test]
    fn ticks_are_allowed_for_only_where_the_report_says_that_they_count() {
        let silence = lasted(1000, Some(1000));
        for (flag, ticks) in [
            ("first_seen_mid_life", 1.0),
            ("calls_unseen", 2.0),
            ("filled_in", 2.0),
        ] {
            let right = |idle| silence.problem(&found(Some(idle), &[flag])).is_none();
            assert!(right(1000.0 + ticks * TICK_MS) && right(1000.0 - ticks * TICK_MS));
            assert!(!right(1000.1 + ticks * TICK_MS) && !right(999.9 - ticks * TICK_MS));
            assert!(silence.problem(&found(None, &[flag])).is_none());
        }
        assert!(silence.problem(&found(Some(1001.0), &[])).is_some());
    }

    #[test]
    fn a_side_that_nobody_recorded_is_open() {
        let at = |earliest_ns, latest_ns| Moment {
            earliest_ns,
            latest_ns,
        };
        let both = at(Some(5 * MS), Some(6 * MS));
        let ended = at(Some(10 * MS), Some(12 * MS));
        assert_eq!(Silence::between(both, ended), lasted(4, Some(7)));
        let later = at(Some(5 * MS), None);
        assert_eq!(Silence::between(later, ended), lasted(0, Some(7)));
        let never_ended = at(Some(10 * MS), None);
        assert_eq!(Silence::between(both, never_ended), lasted(4, None));
    }

    #[test]
    fn before_a_first_request_an_idle_time_is_wrong() {
        assert!(Silence::Never.problem(&found(Some(0.1), &[])).is_some());
        assert!(Silence::Never.problem(&found(None, &[])).is_none());
    }

    #[test]
    fn the_clients_notes_close_the_sides_that_a_backends_record_leaves_open() {
        let backend = Backend::start(IPV4, Habits::default()).unwrap();
        let mut client = Client::connect(backend.address()).unwrap();
        let before_ns = now_ns();
        client.ask(&Request::get("/before")).unwrap();
        let passed_on_ns = now_ns();
        let asked_ns = now_ns();
        let refusal = Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin));
        let request = Request::get("/refused").asking(refusal);
        client.send(&request).unwrap();
        // Here the client stands in nginx's place: it has no answer, but knows the end.
        client.drain().unwrap();
        let told_ns = now_ns();
        let records = backend
            .wait_until("the end", PATIENCE, |records| !records[0].is_open())
            .unwrap();
        let alone = Silence::before_last_request(&records[0], &[]);
        assert_eq!(alone, lasted(0, None));
        let asked = |target: &str, asked_ns, told_ns| Asked {
            target: target.to_owned(),
            asked_ns,
            told_ns: Some(told_ns),
        };
        let notes = [
            asked("/before", before_ns, passed_on_ns),
            asked("/refused", asked_ns, told_ns),
        ];
        let began_ns = records[0].requests[0].answer.unwrap().began_ns;
        let silence = Silence::before_last_request(&records[0], &notes);
        let expected = Silence::Lasted {
            least_ns: asked_ns - passed_on_ns,
            most_ns: Some(told_ns - began_ns),
        };
        assert_eq!(silence, expected);
        let mut first = records[0].clone();
        first.requests.truncate(1);
        assert_eq!(Silence::before_last_request(&first, &[]), Silence::Never);
    }
}
