//! What is printed comes apart again, for every kind of message in every dialect; cut
//! lines claim nothing that was not printed; no text panics.

use proptest::prelude::*;
use proptest::sample::select;

use super::cases::{Case, cases};
use super::printed::{DIALECTS, Dialect, Of, Printed};
use super::*;
use crate::nginx::message::classify;

/// Text that tries to pass for the grammar's own.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\", upstream: \"http://6.6.6.6:80/".to_owned()),
        Just("\", host: \"evil".to_owned()),
        Just("\", subrequest: \"/evil".to_owned()),
        Just(" while connecting to upstream, client: 6.6.6.6, server: evil".to_owned()),
        Just(", client: \"6.6.6.6\", server: \"evil\", request_line: \"GET / ".to_owned()),
        Just(", request: \"GET / ".to_owned()),
        Just(" (104: Connection reset by peer)".to_owned()),
        Just("\\".to_owned()),
        Just("\"".to_owned()),
        Just("\u{1b}[31m\u{7}\t".to_owned()),
        "\\PC{0,12}",
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// A request line and the subrequest's decoded URI beside it. Old nginx let spaces into a
/// request line, no nginx a second version. A subrequest's URI is a constant, or its
/// request's own path.
fn request() -> impl Strategy<Value = (String, Option<String>)> {
    let line = |target: &str| format!("GET /{target} HTTP/1.1");
    let path = hostile().prop_filter("no path", |path| !path.contains('?'));
    prop_oneof![
        hostile()
            .prop_filter("ambiguous", |text| !text.contains(" HTTP/"))
            .prop_map(move |target| (line(&target), None)),
        Just((line("plain?a=b"), Some("/auth".to_owned()))),
        path.prop_map(move |path| (line(&encoded(&path)), Some(format!("/{path}")))),
    ]
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

/// Fields for a case; what others write into messages ends at a quote, `Host` names no
/// referrer, URIs that nginx sends hold no space.
fn line_of(case: Case) -> impl Strategy<Value = Printed> {
    let (level, message, errno, action, scheme, _) = case;
    let host = hostile().prop_filter("ambiguous", |text| !text.contains("\", referrer: \""));
    let rest = (
        proptest::option::of(any::<u64>()),
        "[^\"\\\\]{0,20}",
        select(vec!["127.0.0.1", "2001:db8::1", "unix:"]),
        select(vec!["", "app", "~^(?<n>.{1, 3})$"]),
        request(),
        select(vec![
            "10.0.0.1:80",
            "[2001:db8::1]:443",
            "unix:/run/app.sock:",
            "two",
        ]),
        "[!-~]{0,20}",
        proptest::option::of(host),
        proptest::option::of(hostile()),
        any::<bool>(),
    );
    rest.prop_map(
        move |(
            connection,
            words,
            client,
            server,
            (request, subrequest),
            peer,
            uri,
            host,
            referrer,
            udp,
        )| {
            let of = match scheme {
                Some("") => Of::Stream {
                    udp,
                    upstream: Some(peer.to_owned()),
                },
                scheme => Of::Http {
                    request,
                    subrequest,
                    upstream: scheme.map(|scheme| match scheme {
                        "http" | "https" => format!("{scheme}://{peer}/{uri}"),
                        scheme => format!("{scheme}://{peer}"),
                    }),
                    host,
                    referrer,
                },
            };
            Printed {
                level,
                connection,
                message: message.replace("{}", &words),
                errno,
                action,
                client,
                server,
                of,
            }
        },
    )
}

fn any_line() -> impl Strategy<Value = (Case, Printed)> {
    select(cases()).prop_flat_map(|case| (Just(case), line_of(case)))
}

fn same(line: &LogLine<'_>, printed: &Printed) -> Result<(), TestCaseError> {
    prop_assert_eq!((line.pid, line.tid), (7, 8));
    prop_assert_eq!(line.level, printed.level);
    prop_assert_eq!(line.connection, printed.connection);
    prop_assert_eq!(line.message, &printed.message);
    prop_assert_eq!(line.errno, printed.errno);
    prop_assert_eq!(line.action, printed.action);
    prop_assert_eq!(line.client, Some(printed.client));
    prop_assert_eq!(line.server, Some(printed.server));
    match &printed.of {
        Of::Http {
            request,
            subrequest,
            upstream,
            host,
            referrer,
        } => {
            prop_assert_eq!(line.request, Some(request.as_str()));
            prop_assert_eq!(line.subrequest, subrequest.as_deref());
            prop_assert_eq!(line.upstream, upstream.as_deref());
            prop_assert_eq!(line.host, host.as_deref());
            prop_assert_eq!(line.referrer, referrer.as_deref());
        }
        Of::Stream { upstream, .. } => {
            prop_assert_eq!(line.request, None);
            prop_assert_eq!(line.upstream, upstream.as_deref());
            prop_assert_eq!(line.host, None);
        }
    }
    Ok(())
}

/// Of a field that was cut its beginning is left.
fn begins(found: Option<&str>, printed: Option<&str>) -> bool {
    found.is_none_or(|found| printed.is_some_and(|printed| printed.starts_with(found)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_printed_line_of_every_kind_comes_apart_again(
        (case, printed) in any_line(),
        dialect in select(DIALECTS.to_vec()),
    ) {
        let text = printed.print(dialect);
        prop_assert!(starts_record(text.as_bytes()));
        let kind = case.5;
        let outcome = read(&text, |line| {
            same(line, &printed)?;
            prop_assert_eq!(classify(line), kind);
            prop_assert_eq!(line.utc, dialect == Dialect::Json);
            prop_assert!(!line.truncated || text.len() >= 2047);
            Ok(())
        });
        prop_assert!(outcome.is_some(), "not read: {}", text);
        outcome.unwrap_or(Ok(()))?;
    }

    #[test]
    fn a_cut_line_claims_nothing_that_was_not_printed(
        (_, printed) in any_line(),
        dialect in select(vec![Dialect::Nginx, Dialect::Angie]),
        excess in 1_usize..400,
    ) {
        let mut long = printed;
        let short = long.print(dialect).len();
        if let Of::Http { request, subrequest, .. } = &mut long.of {
            let filling = 2047_usize.saturating_sub(short) + excess;
            *request = format!("GET /{} HTTP/1.1", "q".repeat(filling));
            *subrequest = None;
        }
        let text = long.print(dialect);
        if text.len() <= 2047 || !text.is_char_boundary(2047) {
            return Ok(());
        }
        let cut = &text[..2047];
        let line = parsed(cut);
        prop_assert!(line.truncated);
        prop_assert_eq!(line.level, long.level);
        if let Of::Http { request, upstream, .. } = &long.of {
            prop_assert!(begins(line.request, Some(request)), "{:?}", line.request);
            prop_assert!(begins(line.upstream, upstream.as_deref()), "{:?}", line.upstream);
        }
    }

    #[test]
    fn arbitrary_text_never_panics_the_parser(text in any::<String>()) {
        let _ = read(&text, |_| ());
        let _ = starts_record(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_record_test(bytes in any::<Vec<u8>>()) {
        let _ = starts_record(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic_the_parser(body in hostile(), value in any::<String>()) {
        let text = format!("{HEAD}*1 {body}, client: 1.2.3.4, server: {value}{body}");
        let line = parsed(&text);
        let _ = line.upstream_address();
        let text = format!("{HEAD}{value}{body}");
        prop_assert!(parse(&text).is_some());
        let text = format!("{}{value}\",{body}", json::OPENING);
        let _ = read(&text, |_| ());
    }

    #[test]
    fn arbitrary_upstream_values_never_panic(value in any::<String>(), body in hostile()) {
        let _ = UpstreamAddress::parse(&value, Some(&body));
        let value = format!("http://unix:{value}");
        let _ = UpstreamAddress::parse(&value, Some(&body));
    }
}
