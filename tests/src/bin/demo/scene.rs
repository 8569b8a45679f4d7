//! What happens in the demo: one nginx, one upstream for each misbehaviour, and light
//! good traffic beside them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::backend::{Backend, Connection, Habits, IPV4, IPV6, Idle, Refusing, Why};
use lab::behaviour::{Behaviour, Framing, Kind, Means};
use lab::clock::{PATIENCE, between};
use lab::load::{Client, Method, Request};
use lab::nginx::{Configuration, Nginx, Upstream};
use lab::stale::{Race, race};
use lab::truth::{self, Happened};

/// The stale upstream's idle timeout: what a capture has to find out.
const IDLE: Duration = Duration::from_secs(1);
/// Time between two faults of the same kind.
const PAUSE: Duration = Duration::from_millis(1400);

/// One misbehaving upstream.
struct Faulty {
    name: &'static str,
    does: &'static str,
    directive: &'static str,
    backend: Backend,
}

/// nginx and its backends.
pub(crate) struct Scene {
    // Dropped first, so that nginx does not outlive its backends.
    nginx: Nginx,
    good: Backend,
    stale: Backend,
    faulty: Vec<Faulty>,
    refused: Refusing,
}

/// Rung when the demo is to end early.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    /// Ends all waits, present and future.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring.notify_all();
    }

    /// Waits; true if it was rung.
    fn wait(&self, duration: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ring.wait_timeout_while(rung, duration, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Scene {
    /// Starts everything; nothing happens yet.
    pub(crate) fn start() -> Result<Self> {
        let idle = Some(Idle {
            after: IDLE,
            means: Means::Fin,
        });
        let stale = Backend::start(
            IPV4,
            Habits {
                idle,
                ..Habits::default()
            },
        )?;
        let good = Backend::start(IPV6, Habits::default())?;
        let refused = Refusing::start(IPV4)?;
        let work = Duration::from_millis(40);
        let cut = |framing| {
            Behaviour::of(Kind::CloseInBody {
                body: 60_000,
                framing,
                means: Means::Fin,
            })
        };
        let faulty = [
            (
                "abrupt",
                "closes after 40 ms of work, without an answer",
                "",
                Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)).after(work),
            ),
            (
                "reset",
                "resets after 40 ms of work, without an answer",
                "",
                Behaviour::of(Kind::CloseWithoutAnswer(Means::Rst)).after(work),
            ),
            (
                "cut",
                "closes in the middle of its response",
                "",
                cut(Framing::Length),
            ),
            (
                "cut_chunked",
                "the same in a chunked response",
                "",
                cut(Framing::Chunked),
            ),
            (
                "slow",
                "answers after 3 s; nginx waits for 1 s",
                "proxy_read_timeout 1s;",
                Behaviour::ANSWER.after(Duration::from_secs(3)),
            ),
            (
                "big_header",
                "sends a header of 16 KB; nginx takes 4 KB",
                "proxy_buffer_size 4k; proxy_buffers 8 4k; proxy_busy_buffers_size 8k;",
                Behaviour::of(Kind::BigHeader { bytes: 16_384 }),
            ),
        ]
        .into_iter()
        .map(|(name, does, directive, behaviour)| {
            let backend = Backend::start(
                IPV4,
                Habits {
                    behaviour,
                    ..Habits::default()
                },
            )?;
            Ok(Faulty {
                name,
                does,
                directive,
                backend,
            })
        })
        .collect::<Result<Vec<_>>>()?;

        let mut upstreams = vec![
            Upstream::new("good", good.address()).keepalive(8),
            Upstream::new("stale", stale.address()).keepalive(16),
            Upstream::new("refused", refused.address()),
        ];
        upstreams.extend(faulty.iter().map(|faulty| {
            Upstream::new(faulty.name, faulty.backend.address()).with(faulty.directive)
        }));
        let nginx = Nginx::start(&Configuration::new(upstreams))?;
        Ok(Self {
            nginx,
            good,
            stale,
            faulty,
            refused,
        })
    }

    /// The nginx.
    pub(crate) fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The upstream that does nothing wrong.
    pub(crate) fn good(&self) -> SocketAddr {
        self.good.address()
    }

    /// The upstream that closes idle connections after [`IDLE`].
    pub(crate) fn stale(&self) -> SocketAddr {
        self.stale.address()
    }

    /// Its backend.
    pub(crate) fn stale_backend(&self) -> &Backend {
        &self.stale
    }

    /// The stale upstream's idle closes as its backend recorded them: silence before each.
    pub(crate) fn idle_closes(&self) -> Vec<Duration> {
        let silence = |record: Connection| {
            let end = record.end.filter(|end| end.why == Why::Idle)?;
            Some(between(record.last_answered_ns()?, end.at_ns))
        };
        self.stale
            .connections()
            .into_iter()
            .filter_map(silence)
            .collect()
    }

    /// Makes faults for so long, or until the bell; returns what happened.
    pub(crate) fn play(&self, duration: Duration, bell: &Bell) -> Result<Vec<Happened>> {
        let end = Instant::now() + duration;
        let goes_on = |pause| !bell.wait(pause) && Instant::now() < end;
        let mut truth = thread::scope(|scope| {
            let parts = [
                scope.spawn(|| self.races(&goes_on)),
                scope.spawn(|| self.refusals(&goes_on)),
                scope.spawn(|| self.good_traffic(&goes_on)),
            ];
            for faulty in &self.faulty {
                scope.spawn(|| {
                    while goes_on(PAUSE) {
                        // What the client gets is not the point; the backend's record is.
                        let _ = self.get(faulty.name, "");
                    }
                });
            }
            let mut truth = Vec::new();
            for part in parts {
                let Ok(part) = part.join() else {
                    bail!("a part of the demo panicked")
                };
                truth.extend(part?);
            }
            anyhow::Ok(truth)
        })?;
        for faulty in &self.faulty {
            let settled = |records: &[Connection]| records.iter().all(|record| !record.is_open());
            let records = faulty
                .backend
                .wait_until("its connections to end", PATIENCE, settled)?;
            truth.extend(truth::recorded(&records));
        }
        Ok(truth)
    }

    /// Requests that race the stale upstream's idle closes, see [`lab::stale`]; one in
    /// three rounds with POST, which nginx may not try again.
    fn races(&self, goes_on: &(impl Fn(Duration) -> bool + Sync)) -> Result<Vec<Happened>> {
        let mut truth = Vec::new();
        let mut round = 0;
        while goes_on(Duration::ZERO) {
            let method = if round % 3 == 1 {
                Method::Post
            } else {
                Method::Get
            };
            let location = "/stale/".to_owned();
            let plan = Race {
                location,
                requests: 3,
                method,
                served_before: 2 + round % 3,
            };
            let raced = race(&self.nginx, &self.stale, &plan).context("a stale race failed")?;
            truth.extend(truth::stale(&raced.stale));
            round += 1;
        }
        Ok(truth)
    }

    /// Requests to the port where nobody listens.
    fn refusals(&self, goes_on: &(impl Fn(Duration) -> bool + Sync)) -> Result<Vec<Happened>> {
        let mut truth = Vec::new();
        while goes_on(PAUSE) {
            let target = format!("/refused/{}", truth.len());
            let response = Client::connect(self.nginx.address())?.ask(&Request::get(&target))?;
            anyhow::ensure!(response.status == 502, "a refused request got {response:?}");
            truth.push(truth::refused(self.refused.address(), &target));
        }
        Ok(truth)
    }

    /// Requests that all go well.
    fn good_traffic(&self, goes_on: &(impl Fn(Duration) -> bool + Sync)) -> Result<Vec<Happened>> {
        let mut client = Client::connect(self.nginx.address())?;
        while goes_on(Duration::from_millis(50)) {
            let response = client.ask(&Request::get("/good/"))?;
            anyhow::ensure!(response.status == 200, "a good request got {response:?}");
        }
        Ok(Vec::new())
    }

    fn get(&self, name: &str, rest: &str) -> Result<u16> {
        let mut client = Client::connect(self.nginx.address())?;
        Ok(client.ask(&Request::get(format!("/{name}/{rest}")))?.status)
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, address: SocketAddr, does: &str| {
            write!(f, "\n  {name:<12} {:<16} {does}", address.to_string())
        };
        line("good", self.good(), "answers")?;
        line(
            "stale",
            self.stale(),
            "closes idle connections after 1 s, as requests arrive",
        )?;
        line("refused", self.refused.address(), "does not listen")?;
        for faulty in &self.faulty {
            line(faulty.name, faulty.backend.address(), faulty.does)?;
        }
        let (address, pid) = (self.nginx.address(), self.nginx.master_pid());
        write!(
            f,
            "\nnginx {pid} with two workers listens on {address} before these backends.\n"
        )
    }
}
