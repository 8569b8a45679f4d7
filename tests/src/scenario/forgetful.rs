//! A part with a middlebox between nginx and the backend that forgets idle connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Part, Stage};
use crate::act::{Act, Constant, Expected, Value};
use crate::backend::{Backend, Connection, Habits, Idle, Why};
use crate::behaviour::Means;
use crate::clock::{PATIENCE, between, now_ns, wait_for};
use crate::draw::Draw;
use crate::load::{Client, Method, Request};
use crate::netns::{Forgotten, Middlebox, Namespace};
use crate::nginx::{Configuration, Upstream};
use crate::sockets::{self, State};
use crate::stale::{Race, pooled_by};

/// Connections of the part, to one backend.
#[derive(Debug)]
pub struct Forgetful {
    name: &'static str,
    backend: Backend,
    middlebox: Middlebox,
    how: Forgotten,
    /// The backend's own idle timeout.
    idle: Duration,
    /// Silence after which the connections are forgotten.
    after: Duration,
    /// Connections that end by the backend's idle timeout, first.
    ordinary: usize,
    plans: Vec<Plan>,
    /// Timers of nginx, milliseconds.
    patience: u64,
    met: Vec<Met>,
}

/// Requests that are to meet forgotten connections, all at once.
#[derive(Clone, Copy, Debug)]
struct Plan {
    method: Method,
    requests: usize,
    /// Body of the last one.
    last_body: usize,
}

/// A forgotten connection.
#[derive(Debug)]
struct Met {
    record: Connection,
    forgotten_ns: u64,
    /// When the last request had its response.
    over_ns: u64,
}

impl Forgetful {
    /// One whose parameters are drawn.
    ///
    /// # Errors
    /// If its backend cannot be started.
    pub fn prepare(name: &'static str, how: Forgotten, draw: &mut Draw) -> Result<Self> {
        let namespace = Arc::new(Namespace::create()?);
        let idle = draw.milliseconds(400..=700);
        let habits = Habits {
            idle: Some(Idle {
                after: idle,
                means: Means::Fin,
            }),
            ..Habits::default()
        };
        let address = draw.one_of(&[namespace.ipv4(), namespace.ipv6()]);
        let backend = if draw.coin() {
            namespace.remote_backend(address, habits)?
        } else {
            namespace.backend(address, habits)?
        };
        let last_body = match how {
            // More than nginx's socket takes without an acknowledgement.
            Forgotten::Dropped => 900_000,
            Forgotten::Reset | Forgotten::Unreachable => 100,
        };
        let plan = |method, last_body, draw: &mut Draw| Plan {
            method,
            requests: draw.count(2..=4),
            last_body,
        };
        Ok(Self {
            name,
            backend,
            middlebox: Middlebox::before(&namespace)?,
            how,
            idle,
            after: draw.milliseconds(20..=120),
            ordinary: draw.count(3..=5),
            plans: vec![
                plan(Method::Get, 0, draw),
                plan(Method::Post, last_body, draw),
            ],
            patience: draw.number(600..=900),
            met: Vec::new(),
        })
    }

    /// Clients, and as many kept connections that have served one request.
    fn clients(&self, stage: &Stage<'_>, requests: usize) -> Result<Vec<Client>> {
        let race = Race {
            location: format!("/{}/", self.name),
            requests,
            method: Method::Get,
            served_before: 1,
        };
        pooled_by(stage.nginx, &race)
    }

    /// Waits until the backend has closed every connection, and nginx has seen that:
    /// its workers may be stopped meanwhile.
    fn all_closed(&self) -> Result<()> {
        let closed = |records: &[Connection]| records.iter().all(|record| !record.is_open());
        self.backend
            .wait_until("the idle closes", PATIENCE, closed)?;
        wait_for("nginx to close its ends", PATIENCE, || {
            let sockets = sockets::towards(self.backend.address())?;
            let mut states = sockets.iter().map(|socket| socket.state);
            let open = states.any(|state| [State::ESTABLISHED, State::CLOSE_WAIT].contains(&state));
            Ok((!open).then_some(()))
        })
    }

    fn forget(&mut self, stage: &Stage<'_>, plan: Plan) -> Result<()> {
        self.all_closed()?;
        let held = self.backend.hold_closes();
        let clients = self.clients(stage, plan.requests)?;
        let answered = |records: &[Connection]| {
            let mut open = records.iter().filter(|record| record.is_open());
            open.all(|record| record.answered() == 1)
        };
        let what = "the answers before";
        let records = self.backend.wait_until(what, PATIENCE, answered)?;
        let idle: Vec<_> = records.into_iter().filter(Connection::is_open).collect();
        ensure!(idle.len() == plan.requests, "nginx keeps {idle:?}");
        std::thread::sleep(self.after);
        let ends: Vec<_> = idle.iter().map(|record| record.remote).collect();
        self.middlebox.forget(&ends, self.how)?;
        let forgotten_ns = now_ns();
        self.ask(stage, clients, plan)?;
        let over_ns = now_ns();
        drop(held);
        let met = idle.into_iter().map(|record| Met {
            record,
            forgotten_ns,
            over_ns,
        });
        self.met.extend(met);
        Ok(())
    }

    /// Sends the requests and waits for what nginx answers.
    fn ask(&self, stage: &Stage<'_>, mut clients: Vec<Client>, plan: Plan) -> Result<()> {
        let status = match (self.how, plan.method) {
            (Forgotten::Dropped | Forgotten::Unreachable, _) => 504,
            // nginx tries it again, on another connection.
            (Forgotten::Reset, Method::Get) => 200,
            (Forgotten::Reset, Method::Post) => 502,
        };
        let last = clients.len() - 1;
        for (at, client) in clients.iter_mut().enumerate() {
            let body = match plan.method {
                Method::Get => 0,
                Method::Post if at == last => plan.last_body,
                Method::Post => 100,
            };
            client.send(&Request {
                method: plan.method,
                target: stage.target(self.name),
                behaviour: None,
                body,
            })?;
        }
        for client in &mut clients {
            let response = client.receive()?;
            ensure!(
                response.status == status,
                "a request on a forgotten connection got {response:?}"
            );
        }
        Ok(())
    }

    fn expected(&self, met: &Met) -> Expected {
        match self.how {
            Forgotten::Dropped | Forgotten::Unreachable => {
                // The timer is nginx's, the silence is not.
                Expected::new("network", "timeout", "path-timeout").or_side("nginx")
            }
            Forgotten::Reset => {
                let reset = Expected::new("network", "rst", "path-reset");
                let answered_ns = met.record.last_answered_ns().unwrap_or(met.forgotten_ns);
                // On a machine that was stalled for so long that the backend's own
                // time had come, either host may have reset it.
                if between(answered_ns, met.over_ns) > self.idle.mul_f64(0.8) {
                    reset.or_side("backend").or_cause("stale-keepalive")
                } else {
                    reset
                }
            }
        }
    }
}

impl Part for Forgetful {
    fn configure(&self, configuration: &mut Configuration) {
        let patience = self.patience;
        let upstream = Upstream::new(self.name, self.backend.address())
            .keepalive(16)
            .with(&format!(
                "proxy_read_timeout {patience}ms; proxy_send_timeout {patience}ms;"
            ));
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        drop(self.clients(stage, self.ordinary)?);
        for plan in self.plans.clone() {
            self.forget(stage, plan)?;
        }
        self.all_closed()
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let ends = |record: &Connection| (record.local, record.remote, record.accepted_ns);
        let acts = self.backend.connections().into_iter().filter_map(|record| {
            let met = self
                .met
                .iter()
                .find(|met| ends(&met.record) == ends(&record));
            let (at_ns, what) = match met {
                Some(met) => (met.forgotten_ns, format!("forgotten and {}", self.how)),
                None => {
                    let end = record.end.filter(|end| end.why == Why::Idle)?;
                    (end.at_ns, "closed as idle".to_owned())
                }
            };
            Some(Act {
                upstream: record.local.to_string(),
                nginx_end: Some(record.remote),
                target: None,
                at_ns,
                what,
                expected: met.map(|met| self.expected(met)),
            })
        });
        Ok(acts.collect())
    }

    fn constants(&self) -> Vec<Constant> {
        vec![Constant {
            upstream: self.backend.address().to_string(),
            value: Value::IdleTimeoutMs(self.idle.as_secs_f64() * 1000.0),
        }]
    }
}
