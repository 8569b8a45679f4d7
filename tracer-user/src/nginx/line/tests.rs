//! Real shapes, forged fields, arbitrary text, and lines assembled by nginx's rules.

use proptest::prelude::*;

use super::*;

const HEAD: &str = "2026/11/22 18:22:06 [error] 13732#13733: ";

#[track_caller]
fn parsed(text: &str) -> LogLine<'_> {
    parse(text).unwrap_or_else(|| panic!("not a record: {text}"))
}

fn with_head(body: &str) -> String {
    format!("{HEAD}{body}")
}

/// A line whose context ends as given, after `, server: app`.
fn with_context(context: &str) -> String {
    with_head(&format!(
        "*4 upstream prematurely closed connection while reading response header from \
         upstream, client: 127.0.0.1, server: app{context}"
    ))
}

#[test]
fn a_whole_line_gives_every_field() {
    let text = with_head(
        "*2 connect() to 127.0.0.1:81 failed (111: Connection refused) while connecting to \
         upstream, client: 2001:db8::7, server: shop.example, request: \"GET /a?b=c \
         HTTP/1.1\", subrequest: \"/auth\", upstream: \"http://127.0.0.1:81/auth\", host: \
         \"shop.example\", referrer: \"http://x/\"",
    );
    let line = parsed(&text);
    assert_eq!(line.stamp, jiff::civil::date(2026, 11, 22).at(18, 22, 6, 0));
    assert_eq!((line.level, line.level.number()), (Level::Error, 4));
    assert_eq!(
        (line.pid, line.tid, line.connection),
        (13732, 13733, Some(2))
    );
    assert_eq!(line.message, "connect() to 127.0.0.1:81 failed");
    assert_eq!(
        (line.errno, line.errno_text),
        (Some(111), Some("Connection refused"))
    );
    assert_eq!(line.action, Some("connecting to upstream"));
    assert_eq!(line.client, Some("2001:db8::7"));
    assert_eq!(line.server, Some("shop.example"));
    assert_eq!(line.request, Some("GET /a?b=c HTTP/1.1"));
    assert_eq!(line.subrequest, Some("/auth"));
    assert_eq!(line.upstream, Some("http://127.0.0.1:81/auth"));
    assert_eq!(line.host, Some("shop.example"));
    assert_eq!(line.referrer, Some("http://x/"));
    assert!(!line.truncated);
}

#[test]
fn tail_fields_are_absent_where_nginx_prints_none() {
    let text = with_head("signal process started");
    let line = parsed(&text);
    assert_eq!(line.message, "signal process started");
    assert_eq!(
        (line.connection, line.action, line.client),
        (None, None, None)
    );
    assert!(!line.truncated);
}

#[test]
fn tls_library_text_is_no_errno_but_one_may_follow_it() {
    let text = with_head(
        "*1 SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version \
         number) while SSL handshaking to upstream, client: 127.0.0.1, server: ",
    );
    let line = parsed(&text);
    assert_eq!(line.errno, None);
    assert!(line.message.ends_with("wrong version number)"));
    assert_eq!(line.server, Some(""));

    let text =
        with_head("*1 SSL_write() failed (SSL:) (32: Broken pipe), client: 127.0.0.1, server: a");
    let line = parsed(&text);
    assert_eq!(line.message, "SSL_write() failed (SSL:)");
    assert_eq!((line.errno, line.action), (Some(32), None));

    let text = with_head(
        "*1 SSL_read() failed (SSL: error:0A000126:SSL routines::unexpected eof while \
         reading) while reading upstream, client: 127.0.0.1, server: a",
    );
    let line = parsed(&text);
    assert_eq!(line.action, Some("reading upstream"));
    assert!(line.message.ends_with("unexpected eof while reading)"));
}

#[test]
fn numbers_of_the_resolver_and_of_certificates_are_no_errno() {
    for message in [
        "app.test could not be resolved (3: Host not found)",
        "upstream SSL certificate verify error: (18:self-signed certificate)",
    ] {
        let text = with_head(&format!("*1 {message}, client: 127.0.0.1, server: a"));
        let line = parsed(&text);
        assert_eq!((line.message, line.errno), (message, None));
    }
}

#[test]
fn a_forged_referer_changes_no_other_field() {
    let evil = r#"http://x/", upstream: "http://6.6.6.6:80/", host: "e" while connecting to upstream, client: 6.6.6.6, server: s, request: "GET / HTTP/1.1", upstream: "http://6.6.6.6/"#;
    let text = with_context(&format!(
        ", request: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/\", host: \"h\", \
         referrer: \"{evil}\""
    ));
    let line = parsed(&text);
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/"));
    assert_eq!((line.host, line.client), (Some("h"), Some("127.0.0.1")));
    assert_eq!(line.referrer, Some(evil));
    assert!(!line.truncated);
}

#[test]
fn a_forged_referer_makes_no_upstream_where_there_is_none() {
    let text = with_context(
        ", request: \"GET / HTTP/1.1\", host: \"h\", referrer: \"r\", upstream: \"http://6.6.6.6/\"",
    );
    let line = parsed(&text);
    assert_eq!(line.upstream, None);
    assert_eq!(line.referrer, Some("r\", upstream: \"http://6.6.6.6/"));
}

#[test]
fn a_forged_request_line_of_old_nginx_ends_at_its_version() {
    let request = "GET /\", upstream: \"http://6.6.6.6/\", host: \"e HTTP/1.1";
    let text = with_context(&format!(
        ", request: \"{request}\", upstream: \"http://10.0.0.1:80/\", host: \"h\""
    ));
    let line = parsed(&text);
    assert_eq!(line.request, Some(request));
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/"));
}

#[test]
fn a_forged_request_line_without_version_yields_no_upstream() {
    let text = with_context(
        ", request: \"GET /\", upstream: \"http://6.6.6.6/\", upstream: \
         \"http://10.0.0.1:80/\", upstream: \"http://6.6.6.6/\"",
    );
    assert_eq!(parsed(&text).upstream, None);
}

#[test]
fn a_request_without_version_ends_at_the_next_field() {
    let text = with_context(", request: \"GET /a\", upstream: \"http://10.0.0.1:80/a\"");
    let line = parsed(&text);
    assert_eq!(line.request, Some("GET /a"));
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/a"));
    assert!(!line.truncated);
}

#[test]
fn a_forged_host_stays_in_its_field() {
    let text = with_context(
        ", request: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/\", host: \"a\", \
         upstream: \"http://6.6.6.6/\"",
    );
    let line = parsed(&text);
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/"));
    assert_eq!(line.host, Some("a\", upstream: \"http://6.6.6.6/"));
}

#[test]
fn quotes_in_the_upstream_uri_stay_in_it() {
    let text = with_context(
        ", request: \"GET /\",x HTTP/1.1\", upstream: \"http://10.0.0.1:80/\",x\", host: \"h\"",
    );
    let line = parsed(&text);
    assert_eq!(line.request, Some("GET /\",x HTTP/1.1"));
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/\",x"));
    assert_eq!(line.host, Some("h"));
}

#[test]
fn a_backend_that_names_a_client_in_its_header_does_not_end_the_message() {
    for quoted in [
        "x, client: 6.6.6.6, server: s, request: \"GET / HTTP/1.1\", upstream: \"http://6.6.6.6/\"",
        "X: \", client: 6.6.6.6, server: y",
        "x while connecting to upstream, client: 6.6.6.6, server: s",
    ] {
        let message = format!("upstream sent invalid header: \"{quoted}\\x00...\"");
        let text = with_head(&format!(
            "*1 {message} while reading response header from upstream, client: 127.0.0.1, \
             server: a, request: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/\""
        ));
        let line = parsed(&text);
        assert_eq!(line.message, message);
        assert_eq!(line.client, Some("127.0.0.1"));
        assert_eq!(line.upstream, Some("http://10.0.0.1:80/"));
    }
}

#[test]
fn a_message_with_quotes_of_nginx_itself_ends_before_the_action() {
    for message in [
        "upstream sent more data than specified in \"Content-Length\" header",
        "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        "upstream sent duplicate header line: \"A: b\", previous value: \"A: c\", ignored",
        "upstream sent too big header",
    ] {
        let text = with_head(&format!(
            "*1 {message} while reading upstream, client: 127.0.0.1, server: a, request: \
             \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/\", host: \"h\", referrer: \
             \"\" while reading upstream, client: 6.6.6.6, server: b\""
        ));
        let line = parsed(&text);
        assert_eq!(line.message, message);
        assert_eq!(line.client, Some("127.0.0.1"));
    }
}

#[test]
fn physical_lines_of_one_record_are_one_message() {
    let text = with_head(
        "*1 FastCGI sent in stderr: \"PHP message: oops\nStack trace:\n#0 {main}\" while \
         reading response header from upstream, client: 127.0.0.1, server: a, request: \"GET \
         / HTTP/1.1\", upstream: \"fastcgi://127.0.0.1:9000\"",
    );
    let line = parsed(&text);
    assert!(line.message.ends_with("#0 {main}\""));
    assert_eq!(line.upstream, Some("fastcgi://127.0.0.1:9000"));
}

#[test]
fn only_a_head_starts_a_record() {
    assert!(starts_record(with_head("x").as_bytes()));
    assert!(starts_record(b"2026/11/22 18:22:06 [crit] 1#0: \xff"));
    for line in [
        &b""[..],
        b"#0 {main}\" while reading response header from upstream",
        b"2026/11/22 18:22:06 [loud] 1#0: x",
        b"2026/13/22 18:22:06 [error] 1#0: x",
        b"2026/11/22 18:22:06 [error] 1#: x",
        b"2026/11/22 18:22:06 [error] 1#0:",
        b"nginx: [emerg] bind() to 0.0.0.0:80 failed",
    ] {
        assert!(!starts_record(line), "{}", line.escape_ascii());
    }
}

#[test]
fn a_cut_line_says_so_and_keeps_what_it_has() {
    let whole = with_context(&format!(
        ", request: \"GET /{} HTTP/1.1\", upstream: \"http://10.0.0.1:80/\"",
        "q\", upstream: \"http://6.6.6.6/".repeat(80)
    ));
    let line = parsed(&whole[..2047]);
    assert!(line.truncated);
    assert_eq!(line.upstream, None);
    assert!(
        line.request
            .is_some_and(|request| request.starts_with("GET /q"))
    );

    let text = with_context(", request: \"GET / HTTP/1.1\", upstream: \"http://10.0.0.1:80/ab");
    let line = parsed(&text);
    assert!(line.truncated);
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/ab"));

    let text = with_context(", request: \"GET /ab");
    assert!(parsed(&text).truncated);
}

#[test]
fn a_line_cut_before_its_client_keeps_its_action() {
    let text = with_head(&format!(
        "*1 upstream sent invalid header: \"{}\" while reading resp",
        "h".repeat(2047 - HEAD.len() - 54)
    ));
    assert_eq!(text.len(), 2047);
    assert_eq!(parsed(&text).action, Some("reading resp"));
}

#[test]
fn stream_lines_name_their_upstream_without_scheme() {
    let text = with_head(
        "*9 recv() failed (104: Connection reset by peer) while proxying and reading from \
         upstream, udp client: 127.0.0.1, server: 127.0.0.1:53, upstream: \"[::1]:5353\", bytes \
         from/to client:1/0, bytes from/to upstream:0/1",
    );
    let line = parsed(&text);
    assert_eq!(line.server, Some("127.0.0.1:53"));
    let address = line.upstream_address().unwrap();
    assert_eq!(address.scheme, "");
    assert_eq!(
        address.socket_address(),
        Some("[::1]:5353".parse().unwrap())
    );
    assert!(!line.truncated);
}

#[track_caller]
fn address<'a>(value: &'a str, request: &'a str) -> UpstreamAddress<'a> {
    UpstreamAddress::parse(value, Some(request)).unwrap()
}

#[test]
fn upstream_values_of_all_modules_are_read() {
    let peer = |text: &str| UpstreamPeer::Peer(text.parse().unwrap());
    let get = "GET /a:b/c HTTP/1.1";
    for (value, scheme, expected, tls) in [
        ("http://127.0.0.1:80/x", "http", peer("127.0.0.1:80"), false),
        (
            "https://[2001:db8::1]:443/",
            "https",
            peer("[2001:db8::1]:443"),
            true,
        ),
        (
            "grpcs://127.0.0.1:50051",
            "grpcs",
            peer("127.0.0.1:50051"),
            true,
        ),
        (
            "suwsgi://127.0.0.1:3031",
            "suwsgi",
            peer("127.0.0.1:3031"),
            true,
        ),
        ("http://two/next", "http", UpstreamPeer::Name("two"), false),
        (
            "http://unix:/p/s.sock:/a:b/c",
            "http",
            UpstreamPeer::Unix("/p/s.sock"),
            false,
        ),
        (
            "http://unix:/p/s.sock/a:b/c",
            "http",
            UpstreamPeer::Unix("/p/s.sock"),
            false,
        ),
        (
            "http://unix:/p/s.sock/rewritten",
            "http",
            UpstreamPeer::Unix("/p/s.sock"),
            false,
        ),
        (
            "http://unix:/p/s:/rewritten",
            "http",
            UpstreamPeer::Unix("/p/s"),
            false,
        ),
        (
            "fastcgi://unix:/p/php",
            "fastcgi",
            UpstreamPeer::Unix("/p/php"),
            false,
        ),
        (
            "fastcgi://unix:/p/php:",
            "fastcgi",
            UpstreamPeer::Unix("/p/php"),
            false,
        ),
    ] {
        let read = address(value, get);
        assert_eq!((read.scheme, read.peer), (scheme, expected), "{value}");
        assert_eq!(read.is_tls(), tls, "{value}");
    }
    assert_eq!(UpstreamAddress::parse("http:///x", None), None);
}

/// The parts of a line, to be put together as nginx does.
#[derive(Clone, Debug)]
struct Parts {
    level: Level,
    connection: Option<u64>,
    message: String,
    errno: Option<u32>,
    action: Option<&'static str>,
    client: &'static str,
    server: &'static str,
    request: String,
    subrequest: Option<&'static str>,
    upstream: Option<String>,
    host: Option<String>,
    referrer: Option<String>,
}

impl Parts {
    fn assemble(&self) -> String {
        let mut text = format!("2026/11/22 18:22:06 [{}] 7#8: ", self.level.word());
        let mut push = |part: String| text.push_str(&part);
        if let Some(connection) = self.connection {
            push(format!("*{connection} "));
        }
        push(self.message.clone());
        if let Some(errno) = self.errno {
            push(format!(" ({errno}: Some error)"));
        }
        if let Some(action) = self.action {
            push(format!(" while {action}"));
        }
        push(format!(
            ", client: {}, server: {}",
            self.client, self.server
        ));
        push(format!(", request: \"{}\"", self.request));
        if let Some(subrequest) = self.subrequest {
            push(format!(", subrequest: \"{subrequest}\""));
        }
        if let Some(upstream) = &self.upstream {
            push(format!(", upstream: \"{upstream}\""));
        }
        if let Some(host) = &self.host {
            push(format!(", host: \"{host}\""));
        }
        if let Some(referrer) = &self.referrer {
            push(format!(", referrer: \"{referrer}\""));
        }
        text
    }
}

/// Text that tries to pass for the grammar's own.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\", upstream: \"http://6.6.6.6:80/".to_owned()),
        Just("\", host: \"evil".to_owned()),
        Just("\", subrequest: \"/evil".to_owned()),
        Just(" while connecting to upstream, client: 6.6.6.6, server: evil".to_owned()),
        Just(", request: \"GET / ".to_owned()),
        Just(" (104: Connection reset by peer)".to_owned()),
        Just("\"".to_owned()),
        Just("\n".to_owned()),
        "\\PC{0,12}",
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// Parts whose split the grammar decides: the request line has its version and holds no
/// other, URIs hold no space, `Host` names no referrer.
fn parts() -> impl Strategy<Value = Parts> {
    let message = prop_oneof![
        Just("upstream prematurely closed connection".to_owned()),
        Just("upstream sent invalid header".to_owned()),
        Just("no live upstreams".to_owned()),
        "[a-z() :\"/.*]{1,40}".prop_filter("ambiguous", |text| {
            !text.starts_with('*') && !text.contains(" while ")
        }),
        "[^\"]{0,20}".prop_map(|name| format!("upstream sent invalid header: \"{name}\\x0a...\"")),
    ];
    let host = hostile().prop_filter("ambiguous", |text| !text.contains("\", referrer: \""));
    let head = (
        proptest::sample::select(Level::ALL.to_vec()),
        proptest::option::of(any::<u64>()),
        message,
        proptest::option::of(any::<u32>()),
        proptest::sample::select(vec![
            "reading upstream",
            "sending to client",
            "SSL handshaking",
        ]),
    );
    let tail = (
        proptest::sample::select(vec!["127.0.0.1", "2001:db8::1", "unix:"]),
        proptest::sample::select(vec!["", "app", "~^(?<n>.{1, 3})$"]),
        hostile().prop_filter("ambiguous", |text| !text.contains(" HTTP/")),
        proptest::option::of(Just("/sub/\"x")),
        proptest::option::of("[!-~]{0,20}".prop_map(|uri| format!("http://10.0.0.1:80/{uri}"))),
        proptest::option::of(host),
        proptest::option::of(hostile()),
    );
    (head, tail).prop_map(|(head, tail)| Parts {
        level: head.0,
        connection: head.1,
        message: head.2,
        errno: head.3,
        action: Some(head.4),
        client: tail.0,
        server: tail.1,
        request: format!("GET /{} HTTP/1.1", tail.2),
        subrequest: tail.3,
        upstream: tail.4,
        host: tail.5,
        referrer: tail.6,
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_the_parser(text in any::<String>()) {
        let _ = parse(&text);
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
    }

    #[test]
    fn arbitrary_upstream_values_never_panic(value in any::<String>(), body in hostile()) {
        let _ = UpstreamAddress::parse(&value, Some(&body));
        let value = format!("http://unix:{value}");
        let _ = UpstreamAddress::parse(&value, Some(&body));
    }

    #[test]
    fn an_assembled_line_comes_apart_again(parts in parts()) {
        let text = parts.assemble();
        let line = parsed(&text);
        prop_assert_eq!(line.level, parts.level);
        prop_assert_eq!(line.connection, parts.connection);
        prop_assert_eq!(line.message, parts.message);
        prop_assert_eq!(line.errno, parts.errno);
        prop_assert_eq!(line.action, parts.action);
        prop_assert_eq!(line.client, Some(parts.client));
        prop_assert_eq!(line.server, Some(parts.server));
        prop_assert_eq!(line.request, Some(parts.request.as_str()));
        prop_assert_eq!(line.subrequest, parts.subrequest);
        prop_assert_eq!(line.upstream, parts.upstream.as_deref());
        prop_assert_eq!(line.host, parts.host.as_deref());
        prop_assert_eq!(line.referrer, parts.referrer.as_deref());
    }
}
