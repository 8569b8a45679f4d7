//! A FIN that nginx's worker had not looked at, and the RST that answered the request.

use super::*;

const RESET_ANSWERED: &str = "the RST answered it";
const UNLOOKED: &str = "its worker had not looked for";

/// Answered, then idle until a FIN, which nginx had not seen so many ms later.
fn unlooked(ms: u64) -> Connection {
    connection(1, 3900)
        .request(3900)
        .answer(3901)
        .fin(4990 - ms, 0)
        .request(4990)
}

fn reset(mut connection: Connection, us_before: u64, unacked: u32) -> Connection {
    connection = connection.rst(4990, unacked);
    connection.rst_received_ns = Some(at(4990) - us_before * 1000);
    connection
}

#[track_caller]
fn told(connection: Connection) -> String {
    let incident = one(connection.eof(5000).closed(5000), &premature());
    assert_eq!(incident.cause, Cause::StaleKeepalive);
    incident.evidence.join("\n")
}

fn premature() -> Said {
    said(5000, PREMATURE, 0, HEADER)
}

#[test]
fn the_reset_that_answers_the_request_did_not_come_before_it() {
    for us_before in [0, 2] {
        let told = told(reset(unlooked(62), us_before, 80));
        let whole = "the FIN came 62.0 ms before nginx sent the request; the RST answered it";
        assert!(told.contains(whole), "{told}");
    }
    // What the RST answered is not known.
    for (us_before, unacked) in [(2, 0), (2, 40), (5000, 80)] {
        let told = told(reset(unlooked(62), us_before, unacked));
        assert!(told.contains("the FIN came 62.0 ms before"), "{told}");
        assert!(!told.contains(RESET_ANSWERED), "{told}");
    }
    let told = told(unlooked(62));
    assert!(told.contains("that was 62.0 ms before"), "{told}");
    assert!(!told.contains(RESET_ANSWERED), "{told}");
}

#[test]
fn a_fin_that_nobody_looked_at_for_long_is_told_of_the_worker() {
    let long = told(unlooked(62));
    assert!(long.contains("had not looked for 62.0 ms"), "{long}");
    assert!(!told(unlooked(4)).contains(UNLOOKED));
    // It came with the answer, which nginx read late: until then it was in an exchange.
    let with_the_answer = connection(1, 3900)
        .request(3900)
        .fin(4000, 0)
        .answer(4988)
        .request(4990);
    let with_the_answer = Connection {
        exchanges_at_end: 1,
        awaiting_at_end: false,
        ..with_the_answer
    };
    assert!(!told(with_the_answer).contains(UNLOOKED));
}

#[test]
fn where_times_or_calls_are_not_known_nothing_is_said_of_the_worker() {
    let missed = Connection {
        missed_calls: 1,
        ..unlooked(62)
    };
    let unseen = Connection {
        calls_unseen: true,
        ..unlooked(62)
    };
    let taken_over = Connection {
        first_seen_mid_life: true,
        opened_ns: at(4940),
        established_ns: Some(at(4940)),
        ..unlooked(62)
    };
    for connection in [missed, unseen, taken_over] {
        let told = told(connection);
        assert!(!told.contains(UNLOOKED), "{told}");
    }
    // Crossed on the wire.
    let crossed = connection(1, 3900).request(3900).answer(3901).request(4990);
    assert!(!told(crossed.fin(4995, 80)).contains(UNLOOKED));
}
