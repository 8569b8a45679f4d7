//! A part whose one backend, a process, dies again and again: with requests in flight
//! that have come so far as each is told, or with idle connections that requests meet
//! at that moment. It is started again each time, unless told otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::demise::{DIRECT, Ended, acts, is_crash, is_direct};
use super::meet::meet;
use super::{Part, Stage};
use crate::act::{Act, Expected};
use crate::backend::Connection;
use crate::behaviour::{Behaviour, Death as Told, Kind, Phase};
use crate::clock::{PATIENCE, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::nginx::{Configuration, Upstream};
use crate::process_backend::{Death, ProcessBackend};
use crate::sockets;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demise {
    /// Somebody sends it a signal.
    Signal(Signal),
    /// A request tells it to end itself.
    Told(Told),
}

/// A request that is in flight when the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// How far it has come.
    pub phase: Phase,
    /// Over the block that keeps connections, as a POST, which nginx does not repeat.
    /// Else over the one that does not, where it has nothing to repeat it on.
    pub kept: bool,
    /// Bytes of body.
    pub body: usize,
}

/// What the process's end meets.
#[derive(Clone, Debug)]
pub enum At {
    /// Requests in flight. Of a process that is told to end, the last tells it.
    Flights(Vec<Flight>),
    /// Kept connections that requests have just been sent to nginx for.
    Idle {
        /// How many.
        requests: usize,
        /// Theirs.
        method: Method,
    },
}

/// One death.
#[derive(Clone, Debug)]
pub struct Step {
    /// How.
    pub demise: Demise,
    /// What it meets.
    pub at: At,
    /// Requests while nobody listens.
    pub refused: usize,
    /// The process is started again.
    pub restart: bool,
}

/// One to three requests in flight, the last in this phase.
pub fn flights(draw: &mut Draw, phase: Phase) -> Vec<Flight> {
    let mut flights = Vec::new();
    for _ in 0..draw.count(0..=2) {
        let phase = draw.one_of(&[Phase::Unread, Phase::Waiting, Phase::Body]);
        flights.push(flight(draw, phase));
    }
    flights.push(flight(draw, phase));
    flights
}

fn flight(draw: &mut Draw, phase: Phase) -> Flight {
    let least = usize::from(phase == Phase::Unread);
    Flight {
        phase,
        kept: draw.coin(),
        body: draw.count(least..=3000),
    }
}

/// See the module.
#[derive(Debug)]
pub struct Dying {
    name: &'static str,
    backend: ProcessBackend,
    steps: Vec<Step>,
    /// Held bytes of nginx's when the process ended: backend's and nginx's end.
    unread: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Deaths by the kernel for want of memory.
    starved: BTreeSet<u32>,
    refused: BTreeMap<String, u64>,
}

impl Dying {
    /// A part of this name, which is also that of its upstream blocks, that takes these
    /// steps.
    #[must_use]
    pub fn new(name: &'static str, backend: ProcessBackend, steps: Vec<Step>) -> Self {
        Self {
            name,
            backend,
            steps,
            unread: BTreeSet::new(),
            starved: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    fn block(&self, kept: bool) -> String {
        let suffix = if kept { "_kept" } else { "" };
        format!("{}{suffix}", self.name)
    }

    /// A good answer over each block.
    fn serve(&self, stage: &Stage<'_>) -> Result<()> {
        for kept in [false, true] {
            let request = Request::get(stage.target(&self.block(kept)));
            let response = Client::connect(stage.nginx.address())?.ask(&request)?;
            ensure!(response.status == 200, "a good request got {response:?}");
        }
        Ok(())
    }

    fn take(&mut self, step: &Step, stage: &Stage<'_>) -> Result<()> {
        let killed = self.killed_by_kernel()?;
        let death = match &step.at {
            At::Flights(flights) => self.in_flight(step.demise, flights, stage)?,
            At::Idle { requests, method } => self.idle(step.demise, *requests, *method, stage)?,
        };
        if self.killed_by_kernel()? > killed {
            self.starved.insert(death.pid);
        } else if step.demise == Demise::Told(Told::OutOfMemory) {
            bail!("the kernel's count of kills stayed at {killed}: {death:?}");
        }
        if self.backend.pid() != death.pid {
            return Ok(());
        }
        for _ in 0..step.refused {
            let target = stage.target(&self.block(false));
            let at_ns = now_ns();
            let response = Client::connect(stage.nginx.address())?.ask(&Request::get(&target))?;
            ensure!(response.status == 502, "nobody listens, yet: {response:?}");
            self.refused.insert(target, at_ns);
        }
        if step.restart {
            self.backend.restart()?;
        }
        Ok(())
    }

    fn killed_by_kernel(&self) -> Result<u64> {
        self.backend.group().map_or(Ok(0), |group| group.kills())
    }

    /// The process ends while these are in flight.
    fn in_flight(
        &mut self,
        demise: Demise,
        flights: &[Flight],
        stage: &Stage<'_>,
    ) -> Result<Death> {
        let telling = match demise {
            Demise::Told(death) => flights.last().map(|flight| (death, flight)),
            Demise::Signal(_) => None,
        };
        let stalled = &flights[..flights.len() - usize::from(telling.is_some())];
        let mut clients = Vec::new();
        for flight in stalled {
            let kind = match flight.phase {
                Phase::Unread => Kind::StopReading,
                Phase::Body => Kind::StallInBody { body: 9000 },
                Phase::Waiting | Phase::Header => Behaviour::ANSWER.kind,
            };
            let behaviour = Behaviour::of(kind).after(match flight.phase {
                Phase::Waiting | Phase::Header => Duration::from_secs(600),
                Phase::Unread | Phase::Body => Duration::ZERO,
            });
            let (client, target) = self.send(flight, behaviour, stage)?;
            self.await_phase(&target, flight)?;
            clients.push(client);
        }
        match (demise, telling) {
            (Demise::Signal(signal), _) => self.backend.signal(signal)?,
            (Demise::Told(_), None) => bail!("no request to tell the process to end"),
            (_, Some((death, flight))) => {
                let phase = flight.phase;
                let behaviour = Behaviour::of(Kind::EndProcess { death, phase });
                clients.push(self.send(flight, behaviour, stage)?.0);
            }
        }
        let death = self.backend.wait(PATIENCE)?;
        for mut client in clients {
            // What it gets, if anything, is not the point: that it is over is.
            let _ = client.receive();
        }
        Ok(death)
    }

    fn send(
        &self,
        flight: &Flight,
        behaviour: Behaviour,
        stage: &Stage<'_>,
    ) -> Result<(Client, String)> {
        let target = stage.target(&self.block(flight.kept));
        let request = if flight.kept || flight.phase == Phase::Unread {
            Request::post(&target, flight.body)
        } else {
            Request::get(&target)
        };
        let mut client = Client::connect(stage.nginx.address())?;
        client.send(&request.asking(behaviour))?;
        Ok((client, target))
    }

    /// Waits until the request has come as far as it shall.
    fn await_phase(&mut self, target: &str, flight: &Flight) -> Result<()> {
        let what = format!("{target} to come to {:?}", flight.phase);
        let ends = wait_for(&what, PATIENCE, || {
            let records = self.backend.connections()?;
            let found = records.iter().rev().find_map(|(_, record)| {
                let last = record.requests.last()?;
                (last.target == target).then_some((record, last))
            });
            let Some((record, request)) = found else {
                return Ok(None);
            };
            let ends = (record.local, record.remote);
            Ok(match flight.phase {
                Phase::Waiting | Phase::Header => {
                    let whole = request.method == "GET" || request.body_bytes == flight.body;
                    whole.then_some((ends, false))
                }
                Phase::Body => request.answer.is_some().then_some((ends, false)),
                Phase::Unread => {
                    let socket = sockets::find(&[ends])?[0];
                    let unread = socket.is_some_and(|socket| socket.unread > 0);
                    unread.then_some((ends, true))
                }
            })
        })?;
        if let (ends, true) = ends {
            self.unread.insert(ends);
        }
        Ok(())
    }

    /// The process ends while connections to it are idle, just after requests for them
    /// have reached nginx.
    fn idle(
        &mut self,
        demise: Demise,
        requests: usize,
        method: Method,
        stage: &Stage<'_>,
    ) -> Result<Death> {
        let together = Behaviour::of(Kind::AnswerTogether { requests });
        let block = self.block(true);
        let mut clients = Vec::new();
        for _ in 0..requests {
            let mut client = Client::connect(stage.nginx.address())?;
            client.send(&Request::get(stage.target(&block)).asking(together))?;
            clients.push(client);
        }
        for client in &mut clients {
            let response = client.receive()?;
            ensure!(response.status == 200, "a request before got {response:?}");
        }
        let pid = self.backend.pid();
        let idle = wait_for("the answers to be recorded", PATIENCE, || {
            let records = self.backend.connections()?.into_iter();
            let kept: Vec<Connection> = records
                .filter(|(owner, record)| *owner == pid && record.is_open())
                .map(|(_, record)| record)
                .collect();
            let answered = |record: &Connection| record.answered() == record.requests.len();
            Ok(kept.iter().all(answered).then_some(kept))
        })?;
        let dead: Vec<_> = idle
            .iter()
            .map(|record| (record.remote, record.local))
            .collect();
        let body = if method == Method::Post { 10 } else { 0 };
        let request = || Request {
            method,
            target: stage.target(&block),
            behaviour: None,
            body,
        };
        let mut sent: Vec<_> = clients
            .into_iter()
            .map(|client| (client, request()))
            .collect();
        let backend = &mut self.backend;
        meet(stage, &mut sent, &dead, || {
            match demise {
                Demise::Signal(signal) => backend.signal(signal)?,
                Demise::Told(death) => {
                    let phase = Phase::Waiting;
                    let behaviour = Behaviour::of(Kind::EndProcess { death, phase });
                    let mut client = Client::connect(backend.address())?;
                    client.send(&Request::get(DIRECT).asking(behaviour))?;
                }
            }
            let death = backend.wait(PATIENCE)?;
            // Else requests that nginx repeats would be refused.
            backend.restart()?;
            Ok(death)
        })
    }

    /// How a process ended: what its status says, and whether another took its place.
    fn ended(&self, death: &Death, records: &[(u32, Connection)]) -> Ended {
        let again = serves(records, |accepted_ns| accepted_ns > death.seen_ns);
        let cause = match (death.status.signal(), death.status.code()) {
            _ if self.starved.contains(&death.pid) => "backend-oom",
            (Some(signal), _) if is_crash(signal) => "backend-crashed",
            (Some(_), _) => "backend-killed",
            (None, Some(0)) if again => "backend-restart",
            (None, _) => "backend-exited",
        };
        Ended {
            pid: death.pid,
            seen_ns: death.seen_ns,
            what: format!("process {} ended: {}", death.pid, death.status),
            causes: vec![cause],
        }
    }
}

/// Was a connection answered that was accepted at such a time?
fn serves(records: &[(u32, Connection)], at: impl Fn(u64) -> bool) -> bool {
    records
        .iter()
        .any(|(_, record)| !is_direct(record) && record.answered() > 0 && at(record.accepted_ns))
}

impl Part for Dying {
    fn configure(&self, configuration: &mut Configuration) {
        let address = self.backend.address();
        configuration.upstreams.extend([
            Upstream::new(self.block(false), address),
            Upstream::new(self.block(true), address).keepalive(16),
        ]);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for step in self.steps.clone() {
            self.serve(stage)?;
            self.take(&step, stage)
                .with_context(|| format!("in the step {step:?}"))?;
        }
        if self.steps.last().is_none_or(|step| step.restart) {
            self.serve(stage)?;
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let records = self.backend.connections()?;
        let mut found = acts(&records, &self.unread, |pid, _| {
            let mut deaths = self.backend.deaths().iter();
            let death = deaths.find(|death| death.pid == pid)?;
            Some(self.ended(death, &records))
        });
        for (target, at_ns) in &self.refused {
            let again = serves(&records, |accepted_ns| accepted_ns > *at_ns)
                && serves(&records, |accepted_ns| accepted_ns < *at_ns);
            let cause = if again {
                "backend-restart"
            } else {
                "connect-refused"
            };
            found.push(Act {
                upstream: self.backend.address().to_string(),
                nginx_end: None,
                target: Some(target.clone()),
                at_ns: *at_ns,
                what: "nobody listened".to_owned(),
                expected: Some(Expected::new("backend", "refused", cause)),
            });
        }
        Ok(found)
    }
}
