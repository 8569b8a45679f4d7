//! Long responses, piece by piece. They end as their framing says: no line. One that the
//! connection's end delimits is whole at a FIN, wherever that comes; an RST breaks it.

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Framing, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "streaming",
    description: "long responses in pieces, ended as announced or broken off",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let mut upstream = Upstream::new("streaming", backend.address());
    if draw.coin() {
        upstream = upstream.with("proxy_buffering off;");
    }
    let mut asks = Vec::new();
    for (framing, broken_by) in [
        (Framing::Chunked, None),
        (Framing::Chunked, Some(Means::Rst)),
        (Framing::UntilClose, None),
        (Framing::Chunked, Some(Means::Fin)),
        (Framing::UntilClose, Some(Means::Fin)),
        (Framing::UntilClose, Some(Means::Rst)),
        (
            Framing::Length,
            Some(draw.one_of(&[Means::Fin, Means::Rst])),
        ),
    ] {
        let pieces = draw.count(6..=20);
        let expected = broken_by
            .filter(|means| framing != Framing::UntilClose || means.resets())
            .map(|means| Expected::new("backend", means.word(), "response-aborted"));
        asks.push(Ask {
            behaviour: Behaviour::of(Kind::Stream {
                pieces,
                framing,
                broken_by,
            }),
            body: 0,
            expected,
        });
    }
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
