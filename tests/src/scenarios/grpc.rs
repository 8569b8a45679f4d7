//! gRPC backends, HTTP/2 in the clear: connections that end under a call, before or in its
//! answer; streams that are reset, calls that a GOAWAY turns away, calls without an answer;
//! connections that end while they are idle, with a GOAWAY or without, raced by calls;
//! nobody who listens.
//!
//! A backend does not decode which call comes: each block has one of its own, and its
//! calls come one after another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{IPV4, Refusing};
use crate::behaviour::Means;
use crate::clock::{PATIENCE, now_ns, sleep_until, wait_for};
use crate::draw::Draw;
use crate::grpc_backend::{Call, Done, GrpcBackend};
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};
use crate::sockets::{self, State};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "grpc",
    description: "gRPC: closed, reset, turned away by GOAWAY, aborted, too slow, stale, refused",
    alone: false,
    prepare,
};

const KEPT: &str = "grpc_kept";
const REFUSED: &str = "grpc_refused";
/// Bytes of a call's body.
const BODY: usize = 64;
/// Silence that no message of HTTP/2's own explains.
const IDLE: Duration = Duration::from_millis(1100);

struct Grpc {
    sides: Vec<Side>,
    kept: GrpcBackend,
    /// Ends of its idle connections: with a GOAWAY?
    goodbyes: Vec<bool>,
    /// Its calls, in their order, and of those that raced an end whether that had a GOAWAY.
    raced: Vec<(String, Option<bool>)>,
    refused: Refusing,
    refusals: Vec<(String, u64)>,
}

/// A backend that does one thing after some good answers.
struct Side {
    upstream: Upstream,
    backend: GrpcBackend,
    calls: usize,
    /// Targets, in the order in which they were asked for.
    sent: Vec<String>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let means = |draw: &mut Draw| draw.one_of(&[Means::Fin, Means::Rst]);
    let endings = [
        ("grpc_closed", Call::Close(means(draw))),
        ("grpc_aborted", Call::CloseInAnswer(means(draw))),
        // INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM (RFC 9113, 7).
        ("grpc_reset", Call::Reset(draw.one_of(&[2, 7, 8, 11]))),
        ("grpc_turned_away", Call::GoAway),
        ("grpc_slow", Call::Stall),
    ];
    let mut sides = Vec::new();
    for (name, ending) in endings {
        let pings = u32::try_from(draw.number(0..=2))?;
        let good = draw.count(0..=2);
        let mut script = vec![Call::Answer { pings }; good];
        script.push(ending);
        let backend = GrpcBackend::start(&script)?;
        let mut upstream = Upstream::new(name, backend.address())
            .over_grpc()
            .keepalive(4);
        if ending == Call::Stall {
            let patience = draw.number(400..=700);
            upstream = upstream.with(&format!("grpc_read_timeout {patience}ms;"));
        }
        sides.push(Side {
            upstream,
            backend,
            calls: draw.count(1..=2) * script.len(),
            sent: Vec::new(),
        });
    }
    let pings = u32::try_from(draw.number(0..=2))?;
    let mut goodbyes = vec![true, false];
    if draw.coin() {
        goodbyes.push(draw.coin());
    }
    Ok(Box::new(Grpc {
        sides,
        kept: GrpcBackend::start(&[Call::Answer { pings }])?,
        goodbyes,
        raced: Vec::new(),
        refused: Refusing::start(IPV4)?,
        refusals: Vec::new(),
    }))
}

impl Part for Grpc {
    fn configure(&self, configuration: &mut Configuration) {
        let sides = self.sides.iter().map(|side| side.upstream.clone());
        configuration.upstreams.extend(sides);
        let kept = Upstream::new(KEPT, self.kept.address());
        configuration.upstreams.push(kept.over_grpc().keepalive(4));
        let refused = Upstream::new(REFUSED, self.refused.address());
        configuration.upstreams.push(refused.over_grpc());
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        for side in &mut self.sides {
            side.drive(stage)?;
        }
        for goodbye in self.goodbyes.clone() {
            self.race(stage, goodbye)?;
        }
        let target = stage.target(REFUSED);
        self.refusals.push((target.clone(), now_ns()));
        let response =
            Client::connect(stage.nginx.address())?.ask(&Request::post(&target, BODY))?;
        ensure!(response.status == 502, "a refused call got {response:?}");
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = Vec::new();
        for side in &self.sides {
            acts.extend(told(&side.backend, &side.sent)?);
        }
        acts.extend(self.idle_ends()?);
        acts.extend(self.refusals.iter().map(|(target, at_ns)| Act {
            upstream: self.refused.address().to_string(),
            nginx_end: None,
            target: Some(target.clone()),
            at_ns: *at_ns,
            what: "nobody listens".to_owned(),
            expected: Some(Expected::new("backend", "refused", "connect-refused")),
        }));
        Ok(acts)
    }
}

impl Side {
    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let mut client = Client::connect(stage.nginx.address())?;
        for _ in 0..self.calls {
            let target = stage.target(&self.upstream.name);
            self.sent.push(target.clone());
            // What the client gets is not the point: that it is over is.
            let kept = client
                .ask(&Request::post(&target, BODY))
                .is_ok_and(|response| response.kept);
            if !kept {
                client = Client::connect(stage.nginx.address())?;
            }
        }
        Ok(())
    }
}

impl Grpc {
    /// A call that finds the only kept connection ended: both wait for the worker, the call
    /// first (see [`crate::stale`]).
    fn race(&mut self, stage: &Stage<'_>, goodbye: bool) -> Result<()> {
        let mut client = Client::connect(stage.nginx.address())?;
        let first = stage.target(KEPT);
        let response = client.ask(&Request::post(&first, BODY))?;
        ensure!(response.status == 200, "a good call got {response:?}");
        self.raced.push((first, None));
        sleep_until(Instant::now() + IDLE);
        let pooled = sockets::towards(self.kept.address())?;
        let mut pooled = pooled
            .into_iter()
            .filter(|socket| socket.state == State::ESTABLISHED);
        let pooled = pooled.next().context("no connection was kept")?;
        let stopped = stage.stop_workers()?;
        let target = stage.target(KEPT);
        client.send(&Request::post(&target, BODY))?;
        let end = [(client.remote(), client.local())];
        wait_for("the call to arrive at nginx", PATIENCE, || {
            let socket = sockets::find(&end)?.into_iter().flatten().next();
            Ok(socket.filter(|socket| socket.unread > 0))
        })?;
        self.kept.end_all(goodbye)?;
        wait_for("the FIN to arrive at nginx", PATIENCE, || {
            let ends = [(pooled.local, pooled.remote)];
            let socket = sockets::find(&ends)?.into_iter().flatten().next();
            Ok(socket.filter(|socket| socket.state == State::CLOSE_WAIT))
        })?;
        drop(stopped);
        let response = client.receive()?;
        ensure!(response.status == 502, "a stale call got {response:?}");
        self.raced.push((target, Some(goodbye)));
        Ok(())
    }

    /// The connections that it ended while they were idle, with the calls that met that, and
    /// the good calls before.
    fn idle_ends(&self) -> Result<Vec<Act>> {
        let good: Vec<String> = self
            .raced
            .iter()
            .filter(|(_, goodbye)| goodbye.is_none())
            .map(|(target, _)| target.clone())
            .collect();
        let mut acts = told(&self.kept, &good)?;
        let connections = self.kept.connections();
        let met = self
            .raced
            .iter()
            .filter_map(|(target, goodbye)| Some((target, (*goodbye)?)));
        for ((target, goodbye), connection) in met.zip(&connections) {
            let ended_ns = connection.ended_ns.context("not ended")?;
            // A GOAWAY comes before the FIN, and nginx acts on it.
            let means = if goodbye { "close" } else { "fin" };
            acts.push(Act {
                upstream: self.kept.address().to_string(),
                nginx_end: Some(connection.nginx),
                target: Some(target.clone()),
                at_ns: ended_ns,
                what: format!("ended idle, GOAWAY: {goodbye}"),
                expected: Some(Expected::new("backend", means, "stale-keepalive")),
            });
        }
        Ok(acts)
    }
}

/// What a backend recorded of the calls to these targets, which came in this order.
fn told(backend: &GrpcBackend, sent: &[String]) -> Result<Vec<Act>> {
    let mut done: Vec<_> = Vec::new();
    for connection in backend.connections() {
        let nginx = connection.nginx;
        done.extend(connection.done.into_iter().map(|call| (nginx, call)));
    }
    done.sort_by_key(|(_, done)| done.at_ns);
    ensure!(
        done.len() == sent.len(),
        "{} calls were sent, and these came: {done:?}",
        sent.len()
    );
    let act = |((nginx, done), target): ((_, Done), &String)| Act {
        upstream: backend.address().to_string(),
        nginx_end: Some(nginx),
        target: Some(target.clone()),
        at_ns: done.at_ns,
        what: format!("{:?}", done.call),
        expected: expected(done.call),
    };
    Ok(done.into_iter().zip(sent).map(act).collect())
}

fn expected(call: Call) -> Option<Expected> {
    Some(match call {
        Call::Answer { .. } => return None,
        Call::Close(means) => Expected::new("backend", means.word(), "closed-without-answer"),
        Call::Vanish => Expected::new("backend", "fin", "closed-without-answer").or_means("rst"),
        Call::CloseInAnswer(means) => Expected::new("backend", means.word(), "response-aborted"),
        Call::GoAway | Call::Reset(_) => Expected::new("backend", "close", "closed-without-answer"),
        Call::Stall => Expected::new("nginx", "timeout", "read-timeout"),
    })
}
