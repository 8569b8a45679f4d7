//! The client leaves, by FIN or RST, in its request's body, which nginx hands on as it
//! comes, while nginx waits for the backend, and while it hands the response on; and, as
//! a control, where nginx is told not to mind.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Connection, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::clock::PATIENCE;
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Part, Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "client_abort",
    description: "the client leaves while nginx waits or hands on the response, by FIN or RST",
    alone: false,
    prepare,
};

const MINDED: &str = "client_abort";
const IGNORED: &str = "client_abort_ignored";
const UPLOAD: &str = "client_abort_upload";

/// One client.
#[derive(Clone, Copy)]
struct Leaving {
    behaviour: Behaviour,
    /// Bytes of its request's body, of which it sends the half.
    sends: usize,
    /// Bytes of the response that it takes first.
    receives: usize,
    means: Means,
}

struct Left {
    backend: Backend,
    minded: Vec<Leaving>,
    ignored: Vec<Leaving>,
    uploading: Vec<Leaving>,
    left: Vec<String>,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let mut minded = Vec::new();
    let mut ignored = Vec::new();
    let mut uploading = Vec::new();
    for means in [Means::Fin, Means::Rst] {
        let body = draw.count(2_000..=60_000);
        minded.push(Leaving {
            behaviour: Behaviour::ANSWER.after(Duration::from_secs(600)),
            sends: 0,
            receives: 0,
            means,
        });
        // All that the backend sent: what is unread would make an RST of a FIN.
        minded.push(Leaving {
            behaviour: Behaviour::of(Kind::StallInBody { body }),
            sends: 0,
            receives: body / 2 + 100,
            means,
        });
        ignored.push(Leaving {
            behaviour: Behaviour::ANSWER.after(draw.milliseconds(50..=150)),
            sends: 0,
            receives: 0,
            means,
        });
        uploading.push(Leaving {
            behaviour: Behaviour::ANSWER,
            sends: draw.count(2..=200_000),
            receives: 0,
            means,
        });
    }
    Ok(Box::new(Left {
        backend: Backend::start(IPV4, Habits::default())?,
        minded,
        ignored,
        uploading,
        left: Vec::new(),
    }))
}

impl Part for Left {
    fn configure(&self, configuration: &mut Configuration) {
        let address = self.backend.address();
        let minded = Upstream::new(MINDED, address).with("proxy_buffering off;");
        let ignored = Upstream::new(IGNORED, address).with("proxy_ignore_client_abort on;");
        let upload = Upstream::new(UPLOAD, address).with("proxy_request_buffering off;");
        configuration.upstreams.extend([minded, ignored, upload]);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        let good =
            Client::connect(stage.nginx.address())?.ask(&Request::get(stage.target(MINDED)))?;
        if good.status != 200 {
            bail!("a good request got {good:?}");
        }
        for leaving in &self.minded {
            self.left
                .push(leave(stage, MINDED, &self.backend, *leaving)?);
        }
        for leaving in &self.uploading {
            self.left
                .push(leave(stage, UPLOAD, &self.backend, *leaving)?);
        }
        for leaving in &self.ignored {
            leave(stage, IGNORED, &self.backend, *leaving)?;
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let act = |connection: &Connection| {
            let request = connection.requests.last()?;
            let left = self.left.contains(&request.target);
            Some(Act {
                upstream: connection.local.to_string(),
                nginx_end: Some(connection.remote),
                target: Some(request.target.clone()),
                at_ns: connection.end.map_or(request.read_ns, |end| end.at_ns),
                what: request.behaviour.to_string(),
                expected: left.then(|| Expected::new("client", "close", "client-abort")),
            })
        };
        Ok(self.backend.connections().iter().filter_map(act).collect())
    }
}

/// Sends a request, leaves, and waits until the backend knows: by nginx's close, or by
/// the answer's end. Returns the target.
fn leave(stage: &Stage<'_>, block: &str, backend: &Backend, leaving: Leaving) -> Result<String> {
    let target = stage.target(block);
    let mut client = Client::connect(stage.nginx.address())?;
    let half = leaving.sends / 2;
    let request = match leaving.sends {
        0 => Request::get(&target),
        body => Request::post(&target, body),
    };
    client.send_part(&request.asking(leaving.behaviour), half)?;
    let of_target = |record: &&Connection| {
        let last = record.requests.last();
        last.is_some_and(|last| last.target == target && last.body_bytes >= half)
    };
    backend.wait_until("the request", PATIENCE, |records| {
        records.iter().any(|record| of_target(&record))
    })?;
    client.receive_part(leaving.receives)?;
    client.abort(leaving.means)?;
    backend.wait_until("nginx to leave too", PATIENCE, |records| {
        let mut records = records.iter().filter(of_target);
        records.all(|record| !record.is_open())
    })?;
    Ok(target)
}
