//! nginx's read timer runs out: before any answer, in the body, and just before an
//! answer that comes all the same.

use std::time::Duration;

use anyhow::Result;

use crate::act::Expected;
use crate::backend::{Backend, Habits, IPV4};
use crate::behaviour::{Behaviour, Kind};
use crate::draw::Draw;
use crate::nginx::Upstream;
use crate::scenario::{Ask, Part, Scenario, Told};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "read_timeout",
    description: "the backend is slower than nginx's read timer, stalls, or answers too late",
    alone: false,
    prepare,
};

fn prepare(draw: &mut Draw) -> Result<Box<dyn Part>> {
    let backend = Backend::start(IPV4, Habits::default())?;
    let patience = draw.number(400..=900);
    let mut upstream = Upstream::new("read_timeout", backend.address())
        .with(&format!("proxy_read_timeout {patience}ms;"));
    if draw.coin() {
        upstream = upstream.keepalive(8);
    }
    let slow = Behaviour::ANSWER.after(Duration::from_secs(600));
    let stalling = Behaviour::of(Kind::StallInBody {
        body: draw.count(5_000..=30_000),
    });
    let late = Duration::from_millis(patience + draw.number(20..=200));
    let too_late = Behaviour::of(Kind::AnswerLate).after(late);
    let expected = || Expected::new("nginx", "timeout", "read-timeout");
    let asks = vec![
        Ask::good(),
        Ask::failing(slow, expected()),
        Ask::failing(slow, expected()).with_body(draw.count(1..=3000)),
        Ask::failing(too_late, expected()),
        Ask::good(),
        Ask::failing(stalling, expected()),
    ];
    Ok(Box::new(Told::new(upstream, backend, asks)))
}
