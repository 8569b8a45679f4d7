//! nginx speaks plain HTTP to ports that speak TLS. The lab's own backend (rustls)
//! answers with an alert, openssl's server just closes, and nginx answers with a page of
//! status 400: no failed attempt, of which no line may come.

use anyhow::Result;

use crate::act::{Act, Expected};
use crate::backend::{Backend, Habits, IPV4};
use crate::draw::Draw;
use crate::nginx::{Configuration, Upstream};
use crate::scenario::{Asked, Part, Scenario, Stage, Unconnected, Unserved, Unserving};
use crate::tls_backend::{Authority, SServer, Tls, TlsNginx, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "plain_to_tls",
    description: "http:// to ports that speak TLS: an alert, a close, a page of status 400",
    alone: false,
    prepare,
};

struct Mismatched {
    own: Unserved,
    real: Unconnected,
}

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let tls = Tls::new(&identity, &Version::ALL)?;
    let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
    // nginx passes the alert on as HTTP/0.9, up to the backend's FIN.
    let expected = Expected::new("backend", "fin", "protocol-mismatch");
    let own = Unserving {
        upstream: Upstream::new("plain_to_tls", backend.address()),
        backend,
        requests: draw.count(3..=5),
        expected: expected.clone(),
    };
    let openssl = SServer::start(&identity)?;
    let nginx = TlsNginx::start(&identity)?;
    let real = [
        Asked {
            upstream: Upstream::new("plain_to_tls_openssl", openssl.address()),
            requests: draw.count(3..=5),
            status: 502,
            what: "plain HTTP to openssl's server",
            // Whether it left bytes unread is not on record.
            expected: Some(expected.or_means("rst")),
        },
        Asked {
            upstream: Upstream::new("plain_to_tls_nginx", nginx.address()),
            requests: draw.count(3..=5),
            status: 400,
            what: "plain HTTP to nginx's port for TLS",
            expected: None,
        },
    ];
    let real = Unconnected::new(real.to_vec()).keeping(openssl);
    Ok(Box::new(Mismatched {
        own: Unserved::new(vec![own], None),
        real: real.keeping(nginx),
    }))
}

impl Part for Mismatched {
    fn configure(&self, configuration: &mut Configuration) {
        self.own.configure(configuration);
        self.real.configure(configuration);
    }

    fn drive(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.own.drive(stage)?;
        self.real.drive(stage)
    }

    fn truth(&self) -> Result<Vec<Act>> {
        let mut acts = self.own.truth()?;
        acts.extend(self.real.truth()?);
        Ok(acts)
    }
}
