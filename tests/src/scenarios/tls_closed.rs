//! As `closed`, over TLS: FIN, close_notify and FIN, or RST give the same line of nginx's.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};
use crate::tls_backend::{Authority, BOTH_VERSIONS, Tls, Validity, Version};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "tls_closed",
    description: "closed or reset without an answer, over TLS",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let identity = Authority::new("lab authority")?.issue("lab.test", Validity::Now)?;
    let farewell = draw.coin();
    let tls = Tls::new(&identity, &[draw.one_of(&Version::ALL)])?.farewell(farewell);
    let backend = Backend::start_tls(IPV4, Habits::default(), tls)?;
    let upstream = Upstream::new("tls_closed", backend.address())
        .over_tls()
        .with(BOTH_VERSIONS);
    let mut asks = vec![Ask::good()];
    for _ in 0..draw.count(3..=6) {
        let (means, word) = draw.one_of(&[(Means::Fin, "fin"), (Means::Rst, "rst")]);
        // Different times, so that no constant time of work can be inferred.
        let behaviour =
            Behaviour::of(Kind::CloseWithoutAnswer(means)).after(draw.milliseconds(20..=300));
        let mut expected = Expected::new("backend", word, "closed-without-answer");
        if farewell && means == Means::Fin {
            // nginx may close at the close_notify, before the FIN has come.
            expected = expected.or_means("close");
        }
        let ask = Ask::failing(behaviour, expected);
        asks.push(if draw.coin() { ask } else { ask.with_body(100) });
    }
    asks.push(Ask::good());
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
