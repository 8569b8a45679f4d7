//! Reports made by hand, for tests.

use std::collections::BTreeMap;

use crate::report::model::{
    Advice, CaptureSummary, Cause, Closes, Confidence, ConnectionSummary, Incident, InferredLimit,
    InferredSize, InferredTimeout, LineSummary, Match, MatchCounts, Means, Percentiles, Phase,
    Report, SCHEMA, Side, Summary, UpstreamSummary,
};

const HEADER: &str = "reading response header from upstream";
const CLOSED: &str = "upstream prematurely closed connection";

pub(in crate::report) fn nothing() -> Report {
    Report {
        schema: SCHEMA.into(),
        capture: CaptureSummary {
            host: "web-1".into(),
            kernel: "6.12.4 x86_64".into(),
            nginx: vec!["nginx/1.22.1".into()],
            start: "2026-11-22T18:00:00.123456789Z".into(),
            end: "2026-11-22T18:01:00.125456789Z".into(),
            duration_s: 60.002,
            lost: BTreeMap::new(),
            complete: true,
            hooks: Vec::new(),
        },
        summary: Summary::default(),
        incidents: Vec::new(),
        upstreams: vec![
            upstream("127.0.0.1:9101", 0),
            upstream("[2001:db8::12]:8080", 0),
        ],
        advice: Vec::new(),
        joined: Vec::new(),
        notes: Vec::new(),
    }
}

/// A report of these incidents, its counts made from them.
pub(in crate::report) fn report(mut incidents: Vec<Incident>) -> Report {
    let mut report = nothing();
    let summary = &mut report.summary;
    for (index, incident) in incidents.iter_mut().enumerate() {
        incident.id = index as u64 + 1;
        incident.request_group = incident.id;
        incident.time = format!(
            "2026-11-22T18:00:{:02}.{:09}Z",
            index / 10,
            123_456_789 + index
        );
        summary.lines += 1;
        summary.requests += 1;
        match incident.served {
            Some(true) => summary.requests_served += 1,
            Some(false) => summary.requests_failed += 1,
            None => {}
        }
        *summary.by_side.entry(incident.side).or_default() += 1;
        *summary.by_cause.entry(incident.cause).or_default() += 1;
        let MatchCounts {
            exact,
            ordered,
            window,
            none,
        } = &mut summary.matched;
        *match incident.matched {
            Match::Exact => exact,
            Match::Ordered => ordered,
            Match::Window => window,
            Match::None => none,
        } += 1;
    }
    report.upstreams[0].incidents = summary.lines;
    report.incidents = incidents;
    report
}

/// The most common case: nginx keeps connections longer than the backend does.
pub(in crate::report) fn stale(count: u64) -> Report {
    let mut report = report(
        (0..count)
            .map(|_| incident(Cause::StaleKeepalive))
            .collect(),
    );
    report.advice = vec![Advice {
        upstream: "127.0.0.1:9101".into(),
        text: "set `keepalive_timeout 800ms` in `upstream app` (it is 60s by default), or raise \
               the backend's idle timeout above 60 s; a shorter timeout in nginx costs more \
               handshakes, a longer one in the backend holds more descriptors"
            .into(),
        because: "the backend closed 312 idle connections after 1000.1 ms (spread 4.1 ms)".into(),
        incidents: count,
    }];
    report.upstreams[0].idle_timeout = Some(InferredTimeout {
        ms: 1000.1,
        spread_ms: 4.1,
        samples: 312,
    });
    report
}

/// One incident of each cause, with advice, notes and losses.
pub(in crate::report) fn all_causes() -> Report {
    let mut report = report(Cause::ALL.iter().map(|cause| incident(*cause)).collect());
    report.advice = stale(3).advice;
    report.advice.push(Advice {
        upstream: "app".into(),
        text: "start a backend on 127.0.0.1:9101".into(),
        because: "nothing listened there".into(),
        incidents: 1,
    });
    report.capture.lost = BTreeMap::from([("connection".to_owned(), 12)]);
    report.capture.complete = false;
    report.notes =
        vec!["tcp_send_reset was not attached: whether this host sent an RST is not known".into()];
    let first = &mut report.upstreams[0];
    first.idle_timeout = Some(InferredTimeout {
        ms: 5000.3,
        spread_ms: 4.0,
        samples: 1312,
    });
    first.request_limit = Some(InferredLimit {
        requests: 100,
        samples: 9,
    });
    first.work_timeout = Some(InferredTimeout {
        ms: 30_000.1,
        spread_ms: 12.0,
        samples: 4,
    });
    first.size_threshold = Some(InferredSize {
        bytes: 1_310_720,
        answered_bytes: 917_503,
        samples: 5,
    });
    report
}

fn upstream(address: &str, incidents: u64) -> UpstreamSummary {
    UpstreamSummary {
        address: address.into(),
        name: Some("app".into()),
        connections: 1234,
        requests: Some(45_678),
        reused_ratio: Some(0.973),
        incidents,
        closes: Closes {
            backend_idle: 312,
            backend_in_flight: 8,
            nginx_idle: 17,
            nginx_after_response: 801,
            ..Closes::default()
        },
        idle_timeout: None,
        request_limit: None,
        work_timeout: None,
        size_threshold: None,
        connect_ms: Some(Percentiles {
            p50: 0.21,
            p95: 0.84,
            p99: 3.36,
        }),
        first_byte_ms: Some(Percentiles {
            p50: 12.5,
            p95: 167.8,
            p99: 1342.2,
        }),
    }
}

fn connection() -> ConnectionSummary {
    ConnectionSummary {
        cookie: 4711,
        local: "127.0.0.1:40312".into(),
        remote: "127.0.0.1:9101".into(),
        worker_pid: 812,
        age_ms: 1003.4,
        requests: Some(2),
        requests_at_least: None,
        reused: Some(true),
        idle_ms: Some(1000.2),
        in_flight_ms: Some(0.213),
        request_bytes: Some(87),
        response_bytes: Some(0),
        fin_received: true,
        rst_received: false,
        rst_sent: false,
        closed_by_nginx: false,
        first_seen_mid_life: false,
        calls_unseen: false,
        missed_calls: 0,
        filled_in: false,
    }
}

/// An incident as the judge would make it of this cause.
pub(in crate::report) fn incident(cause: Cause) -> Incident {
    use Cause as C;
    let fresh = ConnectionSummary {
        requests: Some(1),
        reused: Some(false),
        idle_ms: None,
        in_flight_ms: Some(2450.0),
        ..connection()
    };
    let (side, means, phase) = match cause {
        C::StaleKeepalive => (Side::Backend, Means::Fin, Phase::Wait),
        C::RequestLimit | C::ClosedWithoutAnswer => (Side::Backend, Means::Rst, Phase::Wait),
        C::BackendKilled | C::BackendOom | C::BackendCrashed | C::BackendExited => {
            (Side::Backend, Means::Rst, Phase::Wait)
        }
        C::BackendRestart => (Side::Backend, Means::Refused, Phase::Connect),
        C::WorkerRecycled | C::WorkerTimeout => (Side::Backend, Means::Fin, Phase::Wait),
        C::ResponseAborted => (Side::Backend, Means::Fin, Phase::Body),
        C::ConnectRefused => (Side::Backend, Means::Refused, Phase::Connect),
        C::ConnectTimeout => (Side::Network, Means::Timeout, Phase::Connect),
        C::Unreachable => (Side::Network, Means::Unreachable, Phase::Connect),
        C::RequestTooLarge => (Side::Backend, Means::Rst, Phase::Send),
        C::ProtocolMismatch | C::TlsFailure => (Side::Nginx, Means::Close, Phase::Tls),
        C::BacklogFull => (Side::Nginx, Means::Timeout, Phase::Connect),
        C::NginxShutdown => (Side::Nginx, Means::Close, Phase::Upgraded),
        C::NginxResources => (Side::Nginx, Means::None, Phase::Connect),
        C::PathReset => (Side::Network, Means::Rst, Phase::Wait),
        C::PathTimeout => (Side::Network, Means::Timeout, Phase::Wait),
        C::ReadTimeout => (Side::Nginx, Means::Timeout, Phase::Wait),
        C::SendTimeout => (Side::Nginx, Means::Timeout, Phase::Send),
        C::ResponseRejected => (Side::Nginx, Means::Close, Phase::Header),
        C::ClientAbort => (Side::Client, Means::Close, Phase::Wait),
        C::NoLiveUpstreams => (Side::Nginx, Means::None, Phase::Connect),
        C::Unexplained => (Side::Unknown, Means::None, Phase::Wait),
    };
    let connection = match cause {
        C::StaleKeepalive => Some(connection()),
        C::RequestLimit => Some(ConnectionSummary {
            requests: Some(101),
            ..connection()
        }),
        C::ResponseAborted => Some(ConnectionSummary {
            response_bytes: Some(40_960),
            ..fresh
        }),
        C::ConnectTimeout | C::BacklogFull => Some(ConnectionSummary {
            age_ms: 5001.0,
            requests: Some(0),
            in_flight_ms: None,
            ..fresh
        }),
        C::ReadTimeout | C::SendTimeout => Some(ConnectionSummary {
            in_flight_ms: Some(60_001.0),
            age_ms: 60_003.0,
            ..fresh
        }),
        C::RequestTooLarge => Some(ConnectionSummary {
            request_bytes: Some(1_310_720),
            ..fresh
        }),
        C::NoLiveUpstreams | C::NginxResources | C::Unexplained => None,
        _ => Some(fresh),
    };
    let served = match cause {
        C::StaleKeepalive | C::ConnectRefused => Some(true),
        C::Unexplained => None,
        _ => Some(false),
    };
    Incident {
        id: 1,
        time: "2026-11-22T18:00:03.123456789Z".into(),
        line: LineSummary {
            file: "/var/log/nginx/error.log".into(),
            offset: 4096,
            level: "error".into(),
            pid: 812,
            connection: Some(55),
            message: CLOSED.into(),
            errno: None,
            action: Some(HEADER.into()),
            client: Some("192.0.2.7".into()),
            server: Some("shop.example".into()),
            request: Some("GET /cart?item=7 HTTP/1.1".into()),
            upstream: Some("http://127.0.0.1:9101/cart?item=7".into()),
            host: Some("shop.example".into()),
        },
        upstream: if cause == C::NoLiveUpstreams {
            "app"
        } else {
            "127.0.0.1:9101"
        }
        .into(),
        side,
        means,
        phase,
        cause,
        confidence: if cause == C::Unexplained {
            Confidence::Possible
        } else {
            Confidence::Certain
        },
        candidates: None,
        matched: if connection.is_some() {
            Match::Exact
        } else {
            Match::None
        },
        retried: served,
        served,
        request_group: 1,
        instance: None,
        connection,
        evidence: vec![
            "the FIN arrived 0.1 ms after the request began and before any byte of a response"
                .into(),
            "the connection had served 1 request and then been silent for 1000.2 ms".into(),
        ],
        advice: (cause == C::StaleKeepalive)
            .then(|| "keep connections for less than 1000 ms in nginx".to_owned()),
    }
}
