//! Pre-forked workers behind one address, and nginx before them: what the scenarios
//! with such a backend share.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::Stage;
use super::demise::{Ended, acts, is_crash};
use super::meet::meet;
use crate::act::Act;
use crate::backend::{Connection, Habits, IPV4, Request as Recorded};
use crate::behaviour::Behaviour;
use crate::clock::{PATIENCE, wait_for};
use crate::load::{Client, Method, Request};
use crate::nginx::{Configuration, Upstream};
use crate::process_backend::{Event, Preforking, Spec, Supervision, program};
use crate::processes;

/// A pre-forking backend and the two blocks before it: one that keeps connections.
#[derive(Debug)]
pub struct Crew {
    name: &'static str,
    supervision: Supervision,
    backend: Preforking,
}

impl Crew {
    /// Starts it; the blocks are `NAME` and `NAME_kept`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(name: &'static str, supervision: Supervision) -> Result<Self> {
        let spec = Spec {
            address: IPV4,
            habits: Habits::default(),
            graceful: false,
        };
        Ok(Self {
            name,
            supervision,
            backend: Preforking::start(&program()?, &spec, supervision)?,
        })
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &Preforking {
        &self.backend
    }

    /// Adds the two blocks.
    pub fn configure(&self, configuration: &mut Configuration) {
        let address = self.backend.address();
        configuration.upstreams.extend([
            Upstream::new(self.block(false), address),
            Upstream::new(self.block(true), address).keepalive(32),
        ]);
    }

    fn block(&self, kept: bool) -> String {
        let suffix = if kept { "_kept" } else { "" };
        format!("{}{suffix}", self.name)
    }

    /// A target of the run's own.
    #[must_use]
    pub fn target(&self, stage: &Stage<'_>, kept: bool) -> String {
        stage.target(&self.block(kept))
    }

    /// A good answer over each block.
    ///
    /// # Errors
    /// If one is not good.
    pub fn serve(&self, stage: &Stage<'_>) -> Result<()> {
        for kept in [false, true] {
            let request = Request::get(self.target(stage, kept));
            let response = Client::connect(stage.nginx.address())?.ask(&request)?;
            ensure!(response.status == 200, "a good request got {response:?}");
        }
        Ok(())
    }

    /// Sends a request that takes so long, and waits until a worker has it. Over the
    /// block that keeps connections it is a POST, which nginx does not repeat; over the
    /// other it has nothing to repeat it on.
    ///
    /// # Errors
    /// If none comes to have it.
    pub fn begin(
        &self,
        stage: &Stage<'_>,
        kept: bool,
        takes: Duration,
    ) -> Result<(Client, String)> {
        let target = self.target(stage, kept);
        let request = if kept {
            Request::post(&target, 10)
        } else {
            Request::get(&target)
        };
        let mut client = Client::connect(stage.nginx.address())?;
        let body = request.body;
        client.send(&request.asking(Behaviour::ANSWER.after(takes)))?;
        // With a part of it unread a worker that is killed would reset.
        self.worker_with(&target, |request| request.body_bytes == body)?;
        Ok((client, target))
    }

    /// The worker that has, or had, the request.
    ///
    /// # Errors
    /// If none comes to have it.
    pub fn holder(&self, target: &str) -> Result<u32> {
        self.worker_with(target, |_| true)
    }

    /// The worker that answered the request, once that is on record: its client may have
    /// the answer a moment before.
    ///
    /// # Errors
    /// If none does.
    pub fn answerer(&self, target: &str) -> Result<u32> {
        self.worker_with(target, |request| request.answered_ns().is_some())
    }

    fn worker_with(&self, target: &str, fact: impl Fn(&Recorded) -> bool) -> Result<u32> {
        let is_it = |request: &Recorded| request.target == target && fact(request);
        wait_for(&format!("a worker to have {target}"), PATIENCE, || {
            let records = self.backend.connections()?;
            let mut records = records.iter().rev();
            let found = records.find(|(_, record)| record.requests.iter().any(is_it));
            Ok(found.map(|(pid, _)| *pid))
        })
    }

    /// Clients whose requests were all under way at once, so that nginx keeps about as
    /// many connections to the workers.
    ///
    /// # Errors
    /// If one gets no good answer.
    pub fn pool(&self, stage: &Stage<'_>, clients: usize) -> Result<Vec<Client>> {
        const TOGETHER: Duration = Duration::from_millis(40);
        let behaviour = Behaviour::ANSWER.after(TOGETHER);
        let mut pooled = Vec::new();
        for _ in 0..clients {
            let mut client = Client::connect(stage.nginx.address())?;
            client.send(&Request::get(self.target(stage, true)).asking(behaviour))?;
            pooled.push(client);
        }
        for client in &mut pooled {
            let response = client.receive()?;
            ensure!(response.status == 200, "a request before got {response:?}");
        }
        Ok(pooled)
    }

    /// Connections that are open and idle, by worker.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn idle(&self) -> Result<BTreeMap<u32, Vec<Connection>>> {
        let gone: BTreeSet<u32> = self.gone()?;
        let mut idle: BTreeMap<u32, Vec<Connection>> = BTreeMap::new();
        for (pid, record) in self.backend.connections()? {
            let quiet = record.answered() == record.requests.len();
            if record.is_open() && quiet && !gone.contains(&pid) {
                idle.entry(pid).or_default().push(record);
            }
        }
        Ok(idle)
    }

    /// Requests that are being worked on, by worker.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn working(&self) -> Result<BTreeMap<u32, usize>> {
        let gone = self.gone()?;
        let mut working = BTreeMap::new();
        for (pid, record) in self.backend.connections()? {
            if record.is_open() && record.answered() < record.requests.len() && !gone.contains(&pid)
            {
                *working.entry(pid).or_default() += 1;
            }
        }
        Ok(working)
    }

    fn gone(&self) -> Result<BTreeSet<u32>> {
        let deaths = self.backend.deaths()?;
        Ok(deaths.iter().map(|death| death.pid).collect())
    }

    /// These clients' requests meet the idle connections of this worker, which goes as
    /// `end` makes it.
    ///
    /// # Errors
    /// If it does not go, or a client gets no answer.
    pub fn meet(
        &self,
        stage: &Stage<'_>,
        clients: Vec<Client>,
        method: Method,
        worker: u32,
        end: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let idle = self.idle()?;
        let dead: Vec<_> = idle.get(&worker).into_iter().flatten().collect();
        let dead: Vec<_> = dead
            .iter()
            .map(|record| (record.remote, record.local))
            .collect();
        let mut sent = Vec::new();
        for client in clients {
            let target = self.target(stage, true);
            let request = match method {
                Method::Get => Request::get(target),
                Method::Post => Request::post(target, 10),
            };
            sent.push((client, request));
        }
        meet(stage, &mut sent, &dead, || {
            end()?;
            self.backend.await_death(worker)?;
            Ok(())
        })
    }

    /// Kills this worker and waits until its parent knows.
    ///
    /// # Errors
    /// If it has gone before, or does not go.
    pub fn kill(&self, worker: u32) -> Result<()> {
        processes::signal(worker, Signal::KILL).context("the worker is to be killed")?;
        self.backend.await_death(worker)?;
        Ok(())
    }

    /// What happened, from the workers' journal and the supervisor's.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn truth(&self) -> Result<Vec<Act>> {
        let records = self.backend.connections()?;
        let deaths = self.backend.deaths()?;
        let events = self.backend.events()?;
        Ok(acts(&records, &BTreeSet::new(), |pid, record| {
            let death = deaths.iter().find(|death| death.pid == pid)?;
            let last = record.requests.last().map(|last| last.target.as_str());
            let overdue = events.iter().any(|event| match event {
                Event::Killed {
                    pid: killed,
                    overdue,
                    ..
                } => *killed == pid && overdue.iter().any(|target| Some(target.as_str()) == last),
                _ => false,
            });
            let cause = match (death.status.signal(), death.status.code()) {
                (Some(_), _) if overdue => "worker-timeout",
                (Some(signal), _) if is_crash(signal) => "backend-crashed",
                (Some(_), _) => "backend-killed",
                (None, _) => "worker-recycled",
            };
            Some(Ended {
                pid,
                seen_ns: death.seen_ns,
                what: format!("worker {pid} ended: {}", death.status),
                causes: vec![cause],
            })
        }))
    }

    /// How it is supervised.
    #[must_use]
    pub fn supervision(&self) -> Supervision {
        self.supervision
    }
}
