//! Logs that are none of nginx's.

use super::*;
use crate::trace::record::Line;

fn raw(file: &str, text: &str) -> Record {
    Record::Line(Line {
        file: file.to_owned(),
        master_pid: MASTER,
        read_ns: at(5100),
        text: text.to_owned(),
        offset: 0,
        latin1: false,
        pid: None,
    })
}

#[test]
fn a_log_none_of_whose_lines_can_be_read_is_named() {
    let access = "127.0.0.1 - - [24/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 504 0";
    let report = judged(vec![raw("/a.log", access)]).report;
    assert_eq!(report.summary.unread_lines, 1);
    assert_eq!(report.summary.illegible_logs, ["/a.log"]);
    assert_eq!(
        report.notes,
        [
            "/a.log does not look like an error log of nginx's: its only line in that time could not \
          be read as one"
        ]
    );
    let report = judged(vec![raw("/a.log", access), raw("/a.log", access)]).report;
    assert!(report.notes[0].ends_with("none of its 2 lines in that time could be read as one"));
}

#[test]
fn a_log_with_a_line_of_nginxs_and_others_is_an_error_log() {
    let mut records = cut_off(1, 5000, 100).to_vec();
    let Some(Record::Line(line)) = records.last() else {
        unreachable!("a line comes last");
    };
    records.push(raw(&line.file, "something else"));
    let report = judged(records).report;
    assert_eq!(report.summary.unread_lines, 1);
    assert!(report.summary.illegible_logs.is_empty());
    let said = "1 line of the error log could not be read as nginx's";
    assert_eq!(report.notes, [said]);
}

#[test]
fn a_line_seen_being_written_that_no_log_holds_is_counted() {
    let line = said(5000, PREMATURE, 0, HEADER);
    let report = judged(vec![line.logged()]).report;
    assert_eq!(report.summary.elsewhere_lines, 1);
    assert!(report.notes[0].starts_with("1 error line was seen being written"));
    let report = judged(cut_off(1, 5000, 100).to_vec()).report;
    assert_eq!(report.summary.elsewhere_lines, 0);
}
