//! nginx verifies the backend's certificate, and refuses it.

use anyhow::{Context, Result};

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Part, Scenario, Unserved, Unserving};
use crate::tls_backend::{Authority, BOTH_VERSIONS, Identity, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_certificate",
    description: "expired, not valid yet, for another name, or by the wrong issuer",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let folder = tempfile::tempdir().context("no folder for a certificate")?;
    let trusted = Authority::new("lab authority")?;
    // Another key of the same name, as after an authority was made anew.
    let anew = Authority::new("lab authority")?;
    let stranger = Authority::new("strange authority")?;
    let file = trusted.write(folder.path())?;
    let mut all = Vec::new();
    for (fault, identity) in [
        ("expired", trusted.issue("lab.test", Validity::Past)?),
        ("early", trusted.issue("lab.test", Validity::Future)?),
        ("name", trusted.issue("other.test", Validity::Now)?),
        ("issuer", stranger.issue("lab.test", Validity::Now)?),
        ("issuer_anew", anew.issue("lab.test", Validity::Now)?),
        ("self_signed", Identity::self_signed("lab.test")?),
    ] {
        let version = draw.one_of(&Version::ALL);
        let tls = Tls::new(&identity, &[version])?;
        let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
        let upstream = Upstream::new(format!("tls_certificate_{fault}"), backend.address())
            .over_tls()
            .with(BOTH_VERSIONS)
            .with("proxy_ssl_verify on; proxy_ssl_name lab.test;")
            .with(&format!(
                "proxy_ssl_trusted_certificate {};",
                file.display()
            ));
        all.push(Unserving {
            upstream,
            backend,
            requests: draw.count(1..=2),
            expected: Expected::new("nginx", "close", "tls-failure"),
        });
    }
    Ok(Box::new(Unserved::new(all, Some(folder))))
}
