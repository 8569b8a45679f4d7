//! nginx and the backend have no version of TLS in common: the backend says so by an
//! alert.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Part, Scenario, Unserved, Unserving};
use crate::tls_backend::{Authority, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_version",
    description: "no version of TLS in common, older in nginx or in the backend",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let mut all = Vec::new();
    for (name, ours, nginxs) in [
        ("tls_version_old", Version::Tls13, Version::Tls12),
        ("tls_version_new", Version::Tls12, Version::Tls13),
    ] {
        let tls = Tls::new(&identity, &[ours])?;
        let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
        let upstream = Upstream::new(name, backend.address())
            .over_tls()
            .with(&format!("proxy_ssl_protocols {};", nginxs.name()));
        all.push(Unserving {
            upstream,
            backend,
            requests: draw.count(1..=3),
            // Which came first, nginx's close at the alert or the FIN behind it, is chance.
            expected: Expected::new("backend", "fin", "tls-failure").or_means("close"),
        });
    }
    Ok(Box::new(Unserved::new(all, None)))
}
