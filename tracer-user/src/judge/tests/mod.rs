//! Tests of the whole judge on traces built record by record, and the kit they are
//! built with.

mod attempts;
mod by_functions;
mod causes;
mod findings;
mod foreign;
mod http2;
mod killed;
mod lay_unread;
mod legible;
mod limits;
mod matching;
mod mid_life;
mod missed_calls;
mod namespaces;
mod owners;
mod path;
mod properties;
mod protocol;
mod records;
mod reloads;
mod resources;
mod restarts;
mod sizes;
mod stale;
mod tls;
mod unseen;
mod without_calls;
mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::ProptestConfig;

use self::records::*;
use super::{Judge, Judged, judge};
use crate::report::model::{Cause, Confidence, Incident, Match, Means, Side};
use crate::trace::record::{
    Anchor, Call, Capture, Configuration, Connection, End, EndReason, Exit, IdleEnd, Next, Nginx,
    PeerClose, ProxyLocation, Record, UpstreamBlock, Worker,
};

pub(super) const MS: u64 = 1_000_000;
pub(super) const S: u64 = 1_000_000_000;
/// Where the traces begin on the monotonic clock; on the wall clock it is [`WALL_S`].
pub(super) const START: u64 = 1_000 * S;
/// 2026-11-22 18:00:00 UTC.
const WALL_S: u64 = 1_795_370_400;
pub(super) const PID: u32 = 901;
pub(super) const MASTER: u32 = 900;
pub(super) const PEER: &str = "127.0.0.1:9101";

pub(super) const HEADER: &str = "reading response header from upstream";
pub(super) const SENDING: &str = "sending request to upstream";
pub(super) const CONNECTING: &str = "connecting to upstream";
pub(super) const BODY: &str = "reading upstream";
pub(super) const PREMATURE: &str = "upstream prematurely closed connection";

/// So many cases, unless `PROPTEST_CASES` asks for another number.
pub(super) fn cases(ordinarily: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.map_or(ordinarily, |number| number.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(super) fn at(ms: u64) -> u64 {
    START + ms * MS
}

pub(super) fn nginx() -> Nginx {
    Nginx {
        master_pid: MASTER,
        version: Some("nginx/1.22.1".to_owned()),
        workers: vec![
            Worker {
                pid: PID,
                inner_pid: PID,
            },
            Worker {
                pid: PID + 1,
                inner_pid: PID + 1,
            },
        ],
        configuration: Some(Configuration {
            upstreams: vec![UpstreamBlock {
                name: "app".to_owned(),
                servers: vec![PEER.to_owned(), "127.0.0.1:9102".to_owned()],
                keepalive: Some(16),
                ..UpstreamBlock::default()
            }],
            ..Configuration::default()
        }),
        log_calls_seen: true,
        ..Nginx::default()
    }
}

pub(super) fn beginning() -> Vec<Record> {
    beginning_with(nginx())
}

pub(super) fn beginning_with(nginx: Nginx) -> Vec<Record> {
    vec![
        Record::Capture(Box::new(Capture {
            host: "web-1".to_owned(),
            kernel: "6.12".to_owned(),
            start_ns: START,
            duration_ns: 60 * S,
            nginx: vec![nginx],
            ..Capture::default()
        })),
        Record::Anchor(Anchor {
            monotonic_ns: START,
            realtime_ns: i64::try_from(WALL_S * S).unwrap(),
        }),
    ]
}

pub(super) fn judged(records: Vec<Record>) -> Judged {
    let mut all = beginning();
    all.extend(records);
    judge(all).finish(Vec::new())
}

/// The same with nginx's settings, as written, at the one place that passes requests on.
pub(super) fn judged_with(settings: &[(&str, &str)], records: Vec<Record>) -> Judged {
    judged_of(nginx(), settings, records)
}

/// The same of an nginx no line of which is seen being written.
pub(super) fn blind_with(settings: &[(&str, &str)], records: Vec<Record>) -> Judged {
    let blind = Nginx {
        log_calls_seen: false,
        ..nginx()
    };
    judged_of(blind, settings, records)
}

fn judged_of(mut nginx: Nginx, settings: &[(&str, &str)], records: Vec<Record>) -> Judged {
    let configuration = nginx.configuration.as_mut().unwrap();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let (main, place): (Vec<_>, Vec<_>) = settings
        .iter()
        .partition(|(name, _)| name.starts_with("worker_"));
    configuration.main = main.into_iter().map(own).collect();
    configuration.locations.push(ProxyLocation {
        server_name: "app".to_owned(),
        location: "/".to_owned(),
        pass: "http://app".to_owned(),
        module: "proxy".to_owned(),
        settings: place.into_iter().map(own).collect(),
    });
    let mut all = beginning_with(nginx);
    all.extend(records);
    judge(all).finish(Vec::new())
}

/// The advice on the only incident with these settings.
#[track_caller]
pub(super) fn advised(settings: &[(&str, &str)], records: Vec<Record>) -> String {
    only(judged_with(settings, records)).advice.unwrap()
}

/// The only incident of a line and the connection closed after it.
#[track_caller]
pub(super) fn one(connection: Connection, said: &Said) -> Incident {
    only(judged(vec![said.logged(), ended(connection), said.line()]))
}

/// The same of a backend on this host, which closed by a call and has answered others.
#[track_caller]
pub(super) fn one_by_call(connection: Connection, said: &Said) -> Incident {
    let mut close = peer_close(connection.cookie, said.ms, None);
    if let Record::PeerClose(close) = &mut close {
        close.ns = crate::judge::end::peer_end_ns(&connection).unwrap();
    }
    only(judged(vec![
        served(9_000, 10, 5),
        close,
        said.logged(),
        ended(connection),
        said.line(),
        the_end(),
    ]))
}

/// The capture ended in order.
pub(super) fn the_end() -> Record {
    Record::End(End {
        ns: at(3_600_000),
        reason: EndReason::Duration,
        records: BTreeMap::new(),
    })
}

#[track_caller]
pub(super) fn only(judged: Judged) -> Incident {
    let mut incidents = judged.report.incidents;
    assert_eq!(incidents.len(), 1, "{incidents:#?}");
    incidents.remove(0)
}

#[track_caller]
pub(super) fn assert_verdict(incident: &Incident, cause: Cause, confidence: Confidence) {
    assert_eq!(
        (incident.cause, incident.confidence),
        (cause, confidence),
        "{:#?}",
        incident.evidence
    );
}
