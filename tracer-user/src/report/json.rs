//! The report as JSON (schema `whoclosed.report/1`).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::escape::is_plain;

/// Writes a report, indented if `pretty`, and a line end.
///
/// Characters that a terminal would act on or not show stand as `\uXXXX`, which
/// any JSON reader turns back.
///
/// # Errors
///
/// If `out` fails.
pub fn render(report: &impl Serialize, pretty: bool, out: &mut impl Write) -> io::Result<()> {
    if pretty {
        let formatter = Visible(PrettyFormatter::new());
        report.serialize(&mut Serializer::with_formatter(&mut *out, formatter))?;
    } else {
        let formatter = Visible(CompactFormatter);
        report.serialize(&mut Serializer::with_formatter(&mut *out, formatter))?;
    }
    out.write_all(b"\n")
}

/// A formatter that escapes more than JSON demands.
struct Visible<F>(F);

/// Passes calls on to the inner formatter.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name<W: ?Sized + Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for Visible<F> {
    pass_on! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|character| !is_plain(character)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut characters = rest[at..].chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Confidence, Match, Means, Phase, Report, Side};
    use crate::report::text::samples;

    fn rendered(report: &Report, pretty: bool) -> String {
        let mut bytes = Vec::new();
        render(report, pretty, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_report_comes_back_unchanged() {
        let report = samples::all_causes();
        for pretty in [false, true] {
            let text = rendered(&report, pretty);
            assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
            assert_eq!(text.lines().count() == 1, !pretty);
        }
    }

    #[test]
    fn no_character_that_a_terminal_acts_on_is_written() {
        let mut report = samples::all_causes();
        let hostile = "a\u{9b}b\u{7f}c\u{202e}d\u{e0041}e\u{1b}f\\g\nh";
        report.incidents[0].line.request = Some(hostile.into());
        let text = rendered(&report, false);
        assert!(text.trim_end().chars().all(|c| c == '\\' || is_plain(c)));
        assert!(text.contains(r"a\u009bb\u007fc\u202ed\udb40\udc41e\u001bf\\g\nh"));
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.incidents[0].line.request.as_deref(), Some(hostile));
    }

    #[track_caller]
    fn assert_keys(value: &serde_json::Value, expected: &[&str]) {
        let object = value.as_object().unwrap();
        for key in expected {
            assert!(object.contains_key(*key), "{key} is missing in {value}");
        }
    }

    #[test]
    fn every_field_and_every_word_of_it_is_documented() {
        let read = |path: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            std::fs::read_to_string(path).unwrap()
        };
        let page = read("../docs/report-json.md");
        let [model, accepting] = ["model", "accepting"].map(|file| {
            let source = read(&format!("src/report/{file}.rs"));
            // After the types comes what gathers them.
            let types = source.split("\n/// Gathers ").next().unwrap_or_default();
            types.to_owned()
        });
        let fields = (model.lines().chain(accepting.lines()))
            .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "))
            .map(|(name, _)| if name == "matched" { "match" } else { name });
        let words = [
            Side::ALL.iter().map(|word| word.word()).collect::<Vec<_>>(),
            Means::ALL.iter().map(|word| word.word()).collect(),
            Phase::ALL.iter().map(|word| word.word()).collect(),
            Confidence::ALL.iter().map(|word| word.word()).collect(),
            Match::ALL.iter().map(|word| word.word()).collect(),
        ]
        .concat();
        let mut count = 0;
        for name in fields.chain(words) {
            let named = [format!("`{name}`"), format!("`{name}[]`")];
            assert!(
                named.iter().any(|name| page.contains(name)),
                "docs/report-json.md lacks {name}"
            );
            count += 1;
        }
        assert!(count > 130, "{count}");
    }

    /// Fields may be added, none may go: programs read this.
    #[test]
    fn the_shape_is_the_documented_one() {
        let report: serde_json::Value =
            serde_json::from_str(&rendered(&samples::all_causes(), true)).unwrap();
        assert_eq!(report["schema"], "whoclosed.report/1");
        assert_keys(
            &report,
            &[
                "schema",
                "capture",
                "summary",
                "incidents",
                "upstreams",
                "advice",
                "notes",
            ],
        );
        assert_keys(
            &report["capture"],
            &[
                "host",
                "kernel",
                "nginx",
                "start",
                "end",
                "duration_s",
                "lost",
                "complete",
            ],
        );
        assert_keys(
            &report["summary"],
            &["lines", "matched", "by_side", "by_cause"],
        );
        assert_keys(
            &report["summary"]["matched"],
            &["exact", "ordered", "window", "none"],
        );
        let incident = &report["incidents"][0];
        assert_keys(
            incident,
            &[
                "id",
                "time",
                "line",
                "upstream",
                "side",
                "means",
                "phase",
                "cause",
                "confidence",
                "match",
                "retried",
                "served",
                "connection",
                "evidence",
                "advice",
            ],
        );
        assert_keys(
            &incident["line"],
            &[
                "file",
                "offset",
                "level",
                "pid",
                "connection",
                "message",
                "errno",
                "action",
                "client",
                "server",
                "request",
                "upstream",
                "host",
            ],
        );
        assert_keys(
            &incident["connection"],
            &[
                "local",
                "remote",
                "worker_pid",
                "age_ms",
                "requests",
                "reused",
                "idle_ms",
                "in_flight_ms",
                "request_bytes",
                "response_bytes",
                "fin_received",
                "rst_received",
                "rst_sent",
                "closed_by_nginx",
                "first_seen_mid_life",
            ],
        );
        let upstream = &report["upstreams"][0];
        assert_keys(
            upstream,
            &[
                "address",
                "name",
                "connections",
                "requests",
                "reused_ratio",
                "closes",
                "idle_timeout",
                "request_limit",
                "work_timeout",
                "size_threshold",
                "connect_ms",
                "first_byte_ms",
            ],
        );
        assert_keys(
            &upstream["closes"],
            &[
                "backend_idle",
                "backend_in_flight",
                "nginx_idle",
                "nginx_in_flight",
                "refused",
            ],
        );
        assert_keys(&upstream["idle_timeout"], &["ms", "spread_ms", "samples"]);
        assert_keys(&upstream["connect_ms"], &["p50", "p95", "p99"]);
        assert_keys(&report["advice"][0], &["upstream", "text", "because"]);
        let causes: Vec<_> = report["incidents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["cause"])
            .collect();
        assert!(causes.iter().any(|cause| *cause == "stale-keepalive"));
    }
}
