//! The backend ends the connection in the handshake, or says nothing until nginx's timer
//! for the connect, which covers the handshake too, runs out.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::Means;
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Part, Scenario, Unserved, Unserving};
use crate::tls_backend::{Authority, BOTH_VERSIONS, Handshaking, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_handshake_closed",
    description: "closed, reset or silent in the handshake of TLS",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let mut all = Vec::new();
    for (name, handshaking, versions, (side, means)) in [
        (
            "fin",
            Handshaking::EndAfterHello(Means::Fin),
            &Version::ALL[..],
            ("backend", "fin"),
        ),
        (
            "rst",
            Handshaking::EndAfterHello(Means::Rst),
            &Version::ALL,
            ("backend", "rst"),
        ),
        (
            "late_fin",
            Handshaking::EndAfterFlight(Means::Fin),
            &[Version::Tls12],
            ("backend", "fin"),
        ),
        (
            "late_rst",
            Handshaking::EndAfterFlight(Means::Rst),
            &[Version::Tls12],
            ("backend", "rst"),
        ),
        (
            "silent",
            Handshaking::Stall,
            &Version::ALL,
            ("nginx", "timeout"),
        ),
    ] {
        let tls = Tls::new(&identity, versions)?.handshaking(handshaking);
        let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
        let name = format!("tls_handshake_closed_{name}");
        let mut upstream = Upstream::new(name, backend.address())
            .over_tls()
            .with(BOTH_VERSIONS);
        if handshaking == Handshaking::Stall {
            // The others are not to meet it, however busy the machine is.
            let patience = draw.number(500..=900);
            upstream = upstream.with(&format!("proxy_connect_timeout {patience}ms;"));
        }
        all.push(Unserving {
            upstream,
            backend,
            requests: draw.count(1..=2),
            expected: Expected::new(side, means, "tls-failure"),
        });
    }
    Ok(Box::new(Unserved::new(all, None)))
}
