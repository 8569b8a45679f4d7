//! The backend demands a certificate and nginx has none. In TLS 1.3 nginx learns that
//! only after it has sent its request (RFC 8446, 2: the client's side is done first).

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Part, Scenario, Unserved, Unserving};
use crate::tls_backend::{Authority, BOTH_VERSIONS, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_client_certificate",
    description: "the backend demands a certificate of nginx's and says so by an alert",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let authority = Authority::new("lab authority")?;
    let identity = authority.issue("lab.test", Validity::Now)?;
    let mut all = Vec::new();
    for version in Version::ALL {
        let tls = Tls::demanding(&identity, &[version], &authority)?;
        let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
        let name = format!("tls_client_certificate_{version:?}");
        all.push(Unserving {
            upstream: Upstream::new(name, backend.address())
                .over_tls()
                .with(BOTH_VERSIONS),
            backend,
            requests: draw.count(1..=3),
            // Which came first, nginx's close at the alert or the FIN behind it, is chance.
            expected: Expected::new("backend", "fin", "tls-failure").or_means("close"),
        });
    }
    Ok(Box::new(Unserved::new(all, None)))
}
