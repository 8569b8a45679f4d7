//! Bodies that nginx keeps in a file and hands to the kernel with sendfile(2), before a
//! backend that closes when it has read all of one: every byte has to be counted, by
//! whichever way the kernel sends files (before Linux 6.5 not the one of other sends:
//! `tcp_sendpage`, removed by commit dc97391e6610).

use anyhow::Result;

use crate::act::{Expected, Value};
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind, Means};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upload",
    description: "a megabyte sent by sendfile, read to its end and closed without an answer",
    alone: false,
    prepare,
};

/// Of each body.
const BYTES: usize = 1 << 20;

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let upstream = Upstream::new("upload", backend.address())
        .keepalive(8)
        .with("client_max_body_size 0; client_body_in_file_only clean; sendfile on;");
    let mut asks = vec![Ask::good().with_body(BYTES)];
    for _ in 0..draw.count(2..=3) {
        let (means, word) = draw.one_of(&[(Means::Fin, "fin"), (Means::Rst, "rst")]);
        // Different times, so that no constant time of work can be inferred.
        let behaviour =
            Behaviour::of(Kind::CloseWithoutAnswer(means)).after(draw.milliseconds(20..=300));
        let expected = Expected::new("backend", word, "closed-without-answer");
        asks.push(Ask::failing(behaviour, expected).with_body(BYTES));
        asks.push(Ask::good());
    }
    let told = Told::new(upstream, backend, asks);
    let bytes = u64::try_from(BYTES)?;
    Ok(Box::new(told.inferable(Value::FailedBodyBytes(bytes))))
}
