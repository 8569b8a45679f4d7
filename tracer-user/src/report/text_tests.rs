//! Tests of the report as text.
//!
//! Whole outputs stand in `tests/expected/report`; `WHOCLOSED_BLESS=1` writes
//! them anew.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::report::escape::is_plain;
use crate::report::model::Cause;

const HOSTILE: &str = "GET /\u{1b}[2J\u{1b}]0;x\u{7}\nforged line\r\u{202e}evil\u{9b}31m HTTP/1.1";

fn text(report: &Report) -> String {
    let mut out = String::new();
    render(report, &TextOptions::default(), &mut out).unwrap();
    out
}

#[track_caller]
fn assert_expected(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/expected/report")
        .join(name);
    if std::env::var_os("WHOCLOSED_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(actual == expected, "{name} differs; actual:\n{actual}");
}

#[track_caller]
fn assert_fits(text: &str, width: usize) {
    for line in text.lines() {
        assert!(line.chars().count() <= width, "too wide: {line}");
        assert_eq!(line, line.trim_end(), "blanks at its end");
    }
}

#[test]
fn a_report_of_stale_connections_reads_as_expected() {
    let text = text(&samples::stale(23));
    assert_fits(&text, 80);
    assert_expected("stale.txt", &text);
}

#[test]
fn a_report_of_every_cause_reads_as_expected() {
    let text = text(&samples::all_causes());
    assert_fits(&text, 80);
    assert_expected("all-causes.txt", &text);
}

#[test]
fn a_report_without_incidents_says_what_was_watched() {
    let text = text(&samples::nothing());
    assert_fits(&text, 80);
    assert!(text.contains("No upstream error was logged in 60.0 s on web-1."));
    assert!(text.contains("91,356 requests"));
    assert_expected("nothing.txt", &text);
}

#[test]
fn every_report_fits_every_width_and_breaks_no_number() {
    let mut many = samples::all_causes();
    for (number, incident) in many.incidents.iter_mut().enumerate() {
        incident.id = 12_300 + number as u64;
    }
    many.upstreams[0].connections = 1_234_567;
    many.upstreams[0].closes.nginx_idle = 1_234_567;
    for report in [samples::stale(23), samples::nothing(), many] {
        for width in (0..=120).step_by(4) {
            let mut shown = String::new();
            let colour = false;
            render(&report, &TextOptions { colour, width }, &mut shown).unwrap();
            assert_fits(&shown, usize::from(width).max(60));
            let upstreams = &shown[shown.find("Upstreams\n").unwrap()..];
            for figure in upstreams.split_whitespace() {
                let figure = figure.trim_matches([',', ';', '(', ')']);
                assert!(
                    !figure.starts_with('/') && !figure.ends_with("0."),
                    "{figure} at {width}:\n{upstreams}"
                );
            }
            for figures in ["0.21/", "0.84/", "3.4", "13/", "170/", "1300"] {
                assert!(
                    upstreams.contains(figures),
                    "{figures} at {width}:\n{upstreams}"
                );
            }
        }
    }
}

#[test]
fn a_report_without_incidents_denies_no_error_that_it_cannot_know() {
    let mut report = samples::nothing();
    report.summary.elsewhere_lines = 1;
    let shown = text(&report).replace('\n', " ");
    let said = "No upstream error was found in 60.0 s on web-1 in the logs that were followed, but \
                nginx was seen writing 1 error line elsewhere (see below).";
    assert!(shown.contains(said), "{shown}");
    assert!(!shown.contains("was logged"), "{shown}");

    let mut report = samples::nothing();
    report.summary.illegible_logs = vec!["/a.log".to_owned()];
    let shown = text(&report).replace('\n', " ");
    let said = "but /a.log does not look like an error log of nginx's (see below).";
    assert!(shown.contains(said), "{shown}");
    assert!(!shown.contains("was logged"), "{shown}");
}

#[test]
fn a_trace_without_its_beginning_names_no_host() {
    let mut report = samples::nothing();
    (report.capture.host, report.capture.kernel) = (String::new(), String::new());
    let shown = text(&report);
    assert!(shown.starts_with("whoclosed  the beginning of this trace is missing"));
    assert!(shown.contains("was logged in 60.0 s.\n"), "{shown}");
}

#[test]
fn the_answer_stands_on_the_first_screen() {
    let text = text(&samples::stale(23));
    let first: Vec<_> = text.lines().take(24).collect();
    let first = first.join("\n");
    for part in [
        "23 upstream errors",
        "backend 23",
        "stale-keepalive",
        "What to change",
        "Because:",
    ] {
        assert!(
            first.contains(part),
            "{part} is not on the first screen:\n{first}"
        );
    }
}

#[test]
fn live_lines_say_who_how_and_why() {
    assert_eq!(
        one_line(&samples::incident(Cause::StaleKeepalive)),
        "18:00:03.123 #1 stale-keepalive: backend 127.0.0.1:9101 closed (FIN) a kept-alive \
         connection, which nginx reused after 1000.2 ms of silence (certain, served on retry)"
    );
    let lines: Vec<_> = Cause::ALL
        .iter()
        .map(|c| one_line(&samples::incident(*c)))
        .collect();
    assert_expected("lines.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn every_combination_of_side_and_means_has_a_sentence() {
    for cause in Cause::ALL {
        for side in Side::ALL {
            for means in Means::ALL {
                let mut incident = samples::incident(*cause);
                (incident.side, incident.means) = (*side, *means);
                for connection in [incident.connection.clone(), None] {
                    incident.connection = connection;
                    let sentence = verdict_sentence(&incident);
                    assert!(
                        sentence.len() > 20 && !sentence.contains("  "),
                        "{sentence}"
                    );
                }
            }
        }
    }
}

/// Puts a text wherever one comes from outside.
fn poisoned(hostile: &str) -> Report {
    let mut report = samples::all_causes();
    let hostile = || hostile.to_owned();
    for incident in &mut report.incidents {
        let line = &mut incident.line;
        for text in [&mut line.file, &mut line.level, &mut line.message] {
            *text = hostile();
        }
        for text in [
            &mut line.action,
            &mut line.client,
            &mut line.server,
            &mut line.request,
            &mut line.upstream,
            &mut line.host,
        ] {
            *text = Some(hostile());
        }
        incident.upstream = hostile();
        incident.time = hostile();
        incident.evidence = vec![hostile()];
        incident.advice = Some(hostile());
        if let Some(connection) = &mut incident.connection {
            connection.local = hostile();
            connection.remote = hostile();
        }
    }
    for upstream in &mut report.upstreams {
        upstream.address = hostile();
        upstream.name = Some(hostile());
    }
    for advice in &mut report.advice {
        advice.upstream = hostile();
        advice.text = hostile();
        advice.because = hostile();
    }
    report.notes = vec![hostile()];
    let capture = &mut report.capture;
    for text in [
        &mut capture.host,
        &mut capture.kernel,
        &mut capture.start,
        &mut capture.end,
    ] {
        *text = hostile();
    }
    capture.nginx = vec![hostile()];
    capture.lost.insert(hostile(), 1);
    report
}

#[track_caller]
fn assert_harmless(text: &str) {
    assert!(
        text.chars().all(|c| c == '\n' || c == '\\' || is_plain(c)),
        "{text:?}"
    );
}

#[test]
fn hostile_text_reaches_no_terminal_raw() {
    let report = poisoned(HOSTILE);
    let shown = text(&report);
    assert_harmless(&shown);
    assert!(!shown.lines().any(|line| line.starts_with("forged")));
    for incident in &report.incidents {
        let line = one_line(incident);
        assert_harmless(&line);
        assert!(!line.contains('\n'));
    }
}

#[test]
fn long_text_is_capped() {
    let plain = text(&samples::all_causes()).len();
    let long = text(&poisoned(&"x".repeat(100_000))).len();
    assert!(long < plain * 10, "{long} bytes");
}

#[test]
fn colours_appear_only_when_asked_and_change_no_word() {
    let report = samples::all_causes();
    let plain = text(&report);
    assert!(!plain.contains('\u{1b}'));
    let mut coloured = String::new();
    render(
        &report,
        &TextOptions {
            colour: true,
            width: 80,
        },
        &mut coloured,
    )
    .unwrap();
    assert!(coloured.contains("\u{1b}[1m"));
    let stripped = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(stripped, plain);
}

#[test]
fn many_groups_and_incidents_are_cut_short_with_a_hint() {
    let mut incidents = Vec::new();
    for number in 0..500 {
        let mut incident = samples::incident(Cause::ConnectRefused);
        incident.upstream = format!("10.0.0.{}:80", number % 100);
        incidents.push(incident);
    }
    let text = text(&samples::report(incidents));
    assert!(text.lines().count() < 300, "{}", text.lines().count());
    assert!(text.contains("smaller groups; --format json"));
    assert!(text.contains("10.0.0.0:80 +99"));
}

#[test]
fn every_cause_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/causes.md");
    let page = fs::read_to_string(path).unwrap();
    for cause in Cause::ALL {
        assert!(
            page.contains(&format!("## `{cause}`\n")),
            "docs/causes.md lacks {cause}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_at_any_width_is_harmless(hostile in any::<String>(), width in 0u16..200) {
        let mut out = String::new();
        render(&poisoned(&hostile), &TextOptions { colour: false, width }, &mut out).unwrap();
        prop_assert!(out.chars().all(|c| c == '\n' || c == '\\' || is_plain(c)));
    }
}
