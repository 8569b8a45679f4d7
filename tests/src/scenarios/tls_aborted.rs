//! As `aborted`, over TLS.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Framing, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};
use crate::tls_backend::{Authority, BOTH_VERSIONS, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_aborted",
    description: "closed or reset in the header or the body, over TLS",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let farewell = draw.coin();
    let tls = Tls::new(&identity, &[draw.one_of(&Version::ALL)])?.farewell(farewell);
    let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
    let mut upstream = Upstream::new("tls_aborted", backend.address())
        .over_tls()
        .with(BOTH_VERSIONS);
    if draw.coin() {
        upstream = upstream.keepalive(4);
    }
    let mut asks = vec![Ask::good()];
    for (means, word) in [(Means::Fin, "fin"), (Means::Rst, "rst")] {
        let in_body = |framing, body| Kind::CloseInBody {
            body,
            framing,
            means,
        };
        for kind in [
            Kind::CloseInHeader(means),
            in_body(Framing::Length, draw.count(2_000..=40_000)),
            in_body(Framing::Chunked, draw.count(2_000..=40_000)),
        ] {
            // Once: where a kept connection was used, nginx tries another.
            let behaviour = Behaviour::of(kind).after(draw.milliseconds(0..=60)).once();
            let mut expected = Expected::new("backend", word, "response-aborted");
            if kind == Kind::CloseInHeader(means) {
                // Some twenty bytes, encrypted: from outside they may as well be a session
                // ticket, of which TLS 1.3 sends two, or a farewell.
                expected = expected.or_cause("closed-without-answer");
            }
            if farewell && means == Means::Fin {
                // nginx may close at the close_notify, before the FIN has come.
                expected = expected.or_means("close");
            }
            asks.push(Ask::failing(behaviour, expected));
            asks.push(Ask::good());
        }
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
