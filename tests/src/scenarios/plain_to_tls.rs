//! nginx speaks plain HTTP to ports that speak TLS. The lab's own backend (rustls)
//! answers with an alert, openssl's server just closes, and nginx answers with a page of
//! status 400: no failed attempt, of which no line may come.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::act::{Act, Expected};
use crate::backend::{Backend, Habits, IPV4};
use crate::clock::{between, now_ns};
use crate::draw::Draw;
use crate::load::{Client, Request};
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Asked, Part, Scenario, Stage, Unconnected, Unserved, Unserving};
use crate::tls_backend::{Authority, SServer, Tls, TlsNginx, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "plain_to_tls",
    description: "http:// to ports that speak TLS: an alert, a close, a page of status 400",
    alone: false,
    prepare,
};

const TO_OPENSSL: &str = "plain_to_tls_openssl";
/// A server that closes at the first byte closes within this; one that takes longer may
/// have worked.
const AT_ONCE: Duration = Duration::from_millis(10);

struct Mismatched {
    own: Unserved,
    openssl: SServer,
    requests: usize,
    sent: Vec<Sent>,
    nginx: Unconnected,
}

/// A request to openssl's server, which keeps no records.
struct Sent {
    target: String,
    at_ns: u64,
    /// When nginx had given it up.
    over_ns: u64,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let tls = Tls::new(&identity, &Version::ALL)?;
    let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
    let own = Unserving {
        upstream: Upstream::new("plain_to_tls", backend.address()),
        backend,
        requests: draw.count(3..=5),
        // nginx passes the alert on as HTTP/0.9, up to the backend's FIN.
        expected: Expected::new("backend", "fin", "protocol-mismatch"),
    };
    let nginx = TlsNginx::start(&identity)?;
    let page = Asked {
        upstream: Upstream::new("plain_to_tls_nginx", nginx.address()),
        requests: draw.count(3..=5),
        status: 400,
        what: "plain HTTP to nginx's port for TLS",
        expected: None,
    };
    Ok(Box::new(Mismatched {
        own: Unserved::new(vec![own], None),
        openssl: SServer::start(&identity)?,
        requests: draw.count(3..=5),
        sent: Vec::new(),
        nginx: Unconnected::new(vec![page]).keeping(nginx),
    }))
}

impl Part for Mismatched {
    fn configure(&self, configuration: &mut Configuration) {
        self.own.configure(configuration);
        self.nginx.configure(configuration);
        let upstream = Upstream::new(TO_OPENSSL, self.openssl.address());
        configuration.upstreams.push(upstream);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.own.drive(stage)?;
        self.nginx.drive(stage)?;
        // One after the other: that server has one thread.
        for _ in 0..self.requests {
            let target = stage.target(TO_OPENSSL);
            let mut client = Client::connect(stage.nginx.address())?;
            let at_ns = now_ns();
            let response = client.ask(&Request::get(&target))?;
            ensure!(response.status == 502, "{target} got {response:?}");
            let over_ns = now_ns();
            self.sent.push(Sent {
                target,
                at_ns,
                over_ns,
            });
        }
        Ok(())
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = self.own.truth()?;
        acts.extend(self.nginx.truth()?);
        // Whether it left bytes unread is not on record.
        let mut expected = Expected::new("backend", "fin", "protocol-mismatch").or_means("rst");
        let at_once = |sent: &Sent| between(sent.at_ns, sent.over_ns) < AT_ONCE;
        if !self.sent.iter().all(at_once) {
            // Only that it closes at once tells it from a backend that fails.
            expected = expected.or_cause("closed-without-answer");
        }
        acts.extend(self.sent.iter().map(|sent| Act {
            upstream: self.openssl.address().to_string(),
            nginx_end: None,
            target: Some(sent.target.clone()),
            at_ns: sent.at_ns,
            what: "plain HTTP to openssl's server".to_owned(),
            expected: Some(expected.clone()),
        }));
        Ok(acts)
    }
}
