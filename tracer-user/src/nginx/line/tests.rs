//! Real shapes; in the modules below forged fields, Angie's formats, and lines of every
//! kind printed by nginx's rules.

use super::*;

mod angie;
mod cases;
mod forged;
mod printed;
mod properties;

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
fn a_request_without_version_ends_at_the_next_field() {
    let text = with_context(", request: \"GET /a\", upstream: \"http://10.0.0.1:80/a\"");
    let line = parsed(&text);
    assert_eq!(line.request, Some("GET /a"));
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/a"));
    assert!(!line.truncated);
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
