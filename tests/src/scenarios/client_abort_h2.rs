//! An HTTP/2 client gives up a request, or the whole connection, while nginx waits for
//! the backend and while it hands the response on. nginx closes the upstream connection
//! and says so in no line that names it: nothing is an incident (control).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;

use crate::act::Act;
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::load::{Http2Client, Progress, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "client_abort_h2",
    description: "an HTTP/2 client cancels requests or leaves: no line, no incident (control)",
    alone: false,
    prepare,
};

const BLOCK: &str = "client_abort_h2";

/// How a client leaves.
#[derive(Clone, Copy)]
enum Leave {
    Cancel,
    Close(Means),
}

struct Left {
    backend: Backend,
    address: SocketAddr,
    body: usize,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    // No outgoing connection takes a port of this address, nor does another process of
    // the lab.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, 77, high, low), 20_080));
    Ok(Box::new(Left {
        backend: Backend::start(IPV4, Habits::default())?,
        address,
        body: draw.count(2_000..=60_000),
    }))
}

impl Part for Left {
    fn configure(&self, configuration: &mut Configuration) {
        let upstream = Upstream::new(BLOCK, self.backend.address());
        configuration.upstreams.push(upstream);
        configuration.http += &format!(
            "    server {{
        listen {} http2;
        location /{BLOCK}/ {{
            proxy_pass http://{BLOCK};
            proxy_buffering off;
        }}
    }}
",
            self.address
        );
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let waiting = Behaviour::ANSWER.after(Duration::from_secs(600));
        let stalling = Behaviour::of(Kind::StallInBody { body: self.body });
        let nothing = Progress::default();
        let half = Progress {
            head: true,
            body: self.body / 2,
            complete: false,
        };
        for leave in [
            Leave::Cancel,
            Leave::Close(Means::Fin),
            Leave::Close(Means::Rst),
        ] {
            for (behaviour, enough) in [(waiting, nothing), (stalling, half)] {
                self.leave(stage, behaviour, enough, leave)?;
            }
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |connection: &Connection| {
            let request = connection.requests.last()?;
            Some(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: Some(request.target.clone()),
                at_ns: request.read_ns,
                what: format!("HTTP/2 client: {}", request.behaviour),
                expected: None,
            })
        };
        Ok(self.backend.connections().iter().filter_map(act).collect())
    }
}

impl Left {
    /// Beside a good request on the same connection.
    fn leave(
        &self,
        stage: &Stage<'_>,
        behaviour: Behaviour,
        enough: Progress,
        leave: Leave,
    ) -> Result<()> {
        let mut client = Http2Client::connect(self.address)?;
        let good = client.send(&Request::get(stage.target(BLOCK)))?;
        client.receive(good, |progress| progress.complete)?;
        let target = stage.target(BLOCK);
        let stream = client.send(&Request::get(&target).asking(behaviour))?;
        let of_target = |record: &&Connection| {
            let last = record.requests.last();
            last.is_some_and(|request| request.target == target)
        };
        self.backend
            .wait_until("the request", PATIENCE, |records| {
                records.iter().any(|record| of_target(&record))
            })?;
        client.receive(stream, |progress| {
            progress.head >= enough.head && progress.body >= enough.body
        })?;
        match leave {
            Leave::Cancel => {
                client.cancel(stream)?;
                let after = client.send(&Request::get(stage.target(BLOCK)))?;
                client.receive(after, |progress| progress.complete)?;
            }
            Leave::Close(means) => client.abort(means)?,
        }
        self.backend
            .wait_until("nginx to leave too", PATIENCE, |records| {
                let mut records = records.iter().filter(of_target);
                records.all(|record| !record.is_open())
            })?;
        Ok(())
    }
}
