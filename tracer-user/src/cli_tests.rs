//! Tests of the command line.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[track_caller]
fn check(line: &str) -> Result<(), String> {
    let words = std::iter::once("whoclosed").chain(line.split_whitespace());
    match Arguments::try_parse_from(words).unwrap().verb {
        Verb::Capture(capture) => capture.check(),
        Verb::Doctor(doctor) => doctor.check(),
        Verb::Report(report) => report.check(),
        Verb::Show(show) => show.check(),
    }
}

#[test]
fn options_of_the_other_role_are_refused() {
    assert_eq!(check("capture --role backend --no-uprobe").unwrap_err(), {
        "--no-uprobe goes with --role nginx only"
    });
    for verb in ["capture", "doctor"] {
        let check = |line: &str| check(&format!("{verb} {line}"));
        assert_eq!(check("--role backend --port 80,81"), Ok(()));
        assert_eq!(check("--nginx 1"), Ok(()));
        assert!(check("--port 80").unwrap_err().contains("--role backend"));
        assert!(check("--role backend --nginx 1").is_err());
        assert!(check("--role backend --error-log /x").is_err());
    }
}

#[test]
fn names_that_no_process_has_are_refused() {
    assert_eq!(check("capture --process-name nginx,angie"), Ok(()));
    let long = check("capture --process-name my-nginx-for-tests").unwrap_err();
    assert!(long.contains("\"my-nginx-for-te\""), "{long}");
    assert!(check("doctor --process-name nginx,").is_err());
    assert!(check("capture --process-name a,b,c,d,e,f,g,h,i").is_err());
    // A backend's is looked for among the names of binaries, too.
    let backend = "capture --role backend --process-name my-gunicorn-of-tests";
    assert_eq!(check(backend), Ok(()));
}

#[test]
fn numbers_that_nothing_has_are_refused() {
    for line in ["capture --nginx 0", "doctor --port 0", "show a.trace 0"] {
        let words = std::iter::once("whoclosed").chain(line.split_whitespace());
        assert!(Arguments::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn what_clap_cannot_see_is_said_as_clap_says_its_own() {
    let error = misused("doctor", "no");
    assert_eq!(error.exit_code(), 2);
    let said = error.to_string();
    assert!(said.starts_with("error: no\n"), "{said}");
    assert!(said.contains("Usage: whoclosed doctor [OPTIONS]"), "{said}");
}

#[test]
fn durations_are_read_and_bounded() {
    assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("15"), Ok(Duration::from_secs(15)));
    for wrong in [
        "0", "0s", "-5s", "-5", "25h", "1e30", "NaN", "inf", "soon", "",
    ] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_number_is_said_in_our_words() {
    for (line, said) in [
        ("capture --nginx abc", "give the pid of a process"),
        ("capture --nginx 0", "give the pid of a process"),
        ("doctor --nginx -1", "give the pid of a process"),
        ("capture --role backend --port http", "give a port"),
        ("capture --role backend --port 65536", "give a port"),
    ] {
        let words = std::iter::once("whoclosed").chain(line.split_whitespace());
        let error = Arguments::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains(said), "{line}: {error}");
        assert!(!error.contains("digit"), "{line}: {error}");
    }
}

#[test]
fn a_trace_is_a_file() {
    for (line, said) in [
        ("capture --output -", "a trace is no text"),
        (
            "capture --role backend --port 80 -o -",
            "a trace is no text",
        ),
        ("report -", "traces are read from files"),
        ("report a.trace -", "traces are read from files"),
        ("show - 1", "traces are read from files"),
        ("show a.trace 1 --backend -", "traces are read from files"),
    ] {
        let problem = check(line).unwrap_err();
        assert!(problem.contains(said), "{line}: {problem}");
    }
    assert_eq!(check("report a.trace --output -"), Ok(()));
    assert_eq!(check("capture --output ./-"), Ok(()));
}
