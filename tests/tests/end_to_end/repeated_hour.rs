//! An nginx whose local time repeats the present hour: its stamps stand for two moments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::backend::{Backend, Habits, IPV4};
use lab::behaviour::{Behaviour, Kind, Means};
use lab::load::{Client, Request};
use lab::nginx::{Configuration, Upstream};

use crate::bench::{Bench, alone};

const DAY_S: u64 = 86_400;

/// A zone without offset whose summer time, one hour, ended `ago` before now; as a POSIX
/// rule in days from the year's first, times counting from there (RFC 9636, 3.3.1: hours
/// may be as many as 167, and negative).
fn summer_ended(ago: Duration) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    // The rule's times are local: of summer, an hour ahead.
    let end = now - ago.as_secs() + 3600;
    let (mut year, mut days) = (1970, end / DAY_S);
    let length = |year: u64| {
        let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        365 + u64::from(leap)
    };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let (hour, minute, second) = (end % DAY_S / 3600, end % 3600 / 60, end % 60);
    // It began long before: in the southern half of the year's rule if need be.
    let begin = (days + 180) % 360;
    format!("WIN0SUM-1,{begin}/0,{days}/{hour}:{minute}:{second}")
}

#[test]
fn a_line_of_the_hour_that_comes_twice_is_of_the_time_at_which_it_was_read() {
    let _alone = alone();
    let habits = Habits {
        behaviour: Behaviour::of(Kind::CloseWithoutAnswer(Means::Fin)),
        ..Habits::default()
    };
    let backend = Backend::start(IPV4, habits).unwrap();
    let configuration = Configuration {
        workers: 1,
        main: format!("env TZ={};\n", summer_ended(Duration::from_secs(1200))),
        ..Configuration::new(vec![Upstream::new("app", backend.address())])
    };
    // Without the sight of nginx's calls the stamp is all that tells the time.
    let mut bench = Bench::start(&configuration, &["--no-uprobe"]);
    let mut client = Client::connect(bench.nginx.address()).unwrap();
    assert_eq!(client.ask(&Request::get("/app/x")).unwrap().status, 502);
    let report = bench.report();
    let [incident] = report.incidents.as_slice() else {
        panic!("{:#?}", report.incidents);
    };
    // A line of an hour ago would fit no connection.
    assert_eq!(incident.matched, "ordered", "{incident:#?}");
    let connection = incident.connection.as_ref().unwrap();
    assert_eq!(connection.local, backend.connections()[0].remote);
}
