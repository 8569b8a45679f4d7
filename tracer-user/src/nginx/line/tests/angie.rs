//! Angie's own formats, as its source writes them (1.12.0 and newer).

use super::*;

const JSON: &str = r#"{"time":"2026-11-22T17:22:06.123Z","level":"error","pid":13732,"tid":13733,"connection":4,"src":"src/http/ngx_http_upstream.c:2701","message":"connect() failed","error":{"code":111,"message":"Connection refused"},"http":{"action":"connecting to upstream","client":"127.0.0.1","request":{"server":"app","request_line":"GET /a\"b HTTP/1.1","subrequest":"/s\n","upstream":"http://10.0.0.1:80/a","host":"h","referrer":"\", upstream: \"http://6.6.6.6/\u001B"}},"tags":["http","upstream"]}"#;

#[test]
fn quoted_clients_and_request_lines_of_angie_give_every_field() {
    let text = with_head(
        "*2 connect() failed (111: Connection refused) while connecting to upstream, client: \
         \"127.0.0.1\", server: \"shop.example\", request_line: \"GET /a HTTP/1.1\", \
         subrequest: \"/auth\", upstream: \"http://127.0.0.1:81/auth\", host: \"h\", referrer: \
         \"\", upstream: \"http://6.6.6.6/\"",
    );
    let line = parsed(&text);
    assert_eq!((line.message, line.errno), ("connect() failed", Some(111)));
    assert_eq!(line.action, Some("connecting to upstream"));
    assert_eq!(
        (line.client, line.server),
        (Some("127.0.0.1"), Some("shop.example"))
    );
    assert_eq!(line.request, Some("GET /a HTTP/1.1"));
    assert_eq!(line.subrequest, Some("/auth"));
    assert_eq!(line.upstream, Some("http://127.0.0.1:81/auth"));
    assert_eq!(line.host, Some("h"));
    assert_eq!(line.referrer, Some("\", upstream: \"http://6.6.6.6/"));
    assert!(!line.truncated);
}

#[test]
fn stream_lines_of_angie_name_their_upstream() {
    let text = with_head(
        "*9 recv() failed (104: Connection reset by peer) while proxying and reading from \
         upstream, client: \"127.0.0.1:4711\", server: \"127.0.0.1:53\", protocol: \"tcp\", \
         upstream: \"[::1]:5353\", bytes_from_client: 1, bytes_to_client: 0, \
         bytes_from_upstream: 0, bytes_to_upstream: 1",
    );
    let line = parsed(&text);
    assert_eq!(
        (line.client, line.server),
        (Some("127.0.0.1:4711"), Some("127.0.0.1:53"))
    );
    assert_eq!(line.upstream, Some("[::1]:5353"));
    assert!(!line.truncated);
}

#[test]
fn a_json_line_gives_every_field_unescaped() {
    assert!(starts_record(JSON.as_bytes()));
    let seen = read(JSON, |line| {
        assert_eq!(line.stamp, jiff::civil::date(2026, 11, 22).at(17, 22, 6, 0));
        assert!(line.utc && !line.truncated);
        assert_eq!(
            (line.level, line.pid, line.tid),
            (Level::Error, 13732, 13733)
        );
        assert_eq!((line.connection, line.errno), (Some(4), Some(111)));
        assert_eq!(line.errno_text, Some("Connection refused"));
        assert_eq!(line.message, "connect() failed");
        assert_eq!(line.action, Some("connecting to upstream"));
        assert_eq!((line.client, line.server), (Some("127.0.0.1"), Some("app")));
        assert_eq!(line.request, Some("GET /a\"b HTTP/1.1"));
        assert_eq!(line.subrequest, Some("/s\n"));
        assert_eq!(line.upstream, Some("http://10.0.0.1:80/a"));
        assert_eq!(line.host, Some("h"));
        assert_eq!(line.referrer, Some("\", upstream: \"http://6.6.6.6/\u{1b}"));
    });
    assert!(seen.is_some());
}

#[test]
fn json_lines_of_other_modules_and_cut_ones_are_read() {
    let stream = r#"{"time":"2026-11-22T17:22:06Z","level":"error","pid":1,"tid":1,"connection":4,"message":"recv() failed","error":{"code":104,"message":"Connection reset by peer"},"stream":{"action":"proxying and reading from upstream","client":"127.0.0.1","server":"127.0.0.1:53","protocol":"tcp","session":{"upstream":"10.0.0.1:53","bytes_from_client":1}}}"#;
    let upstream = |text: &str| read(text, |line| line.upstream.map(str::to_owned)).flatten();
    assert_eq!(upstream(stream).as_deref(), Some("10.0.0.1:53"));
    let resolver = r#"{"time":"2026-11-22T17:22:06Z","level":"error","pid":1,"tid":1,"message":"x","context":" while resolving, resolver: 127.0.0.1:53"}"#;
    assert_eq!(read(resolver, |line| line.client.is_none()), Some(true));
    let cut = r#"{"time":"2026-11-22T17:22:06Z","level":"error","pid":1,"tid":1,"message":"x","http":{"client":"127.0.0.1","request":{"server":"a","request_line":"GET /x"}},"truncated":true}"#;
    assert_eq!(read(cut, |line| line.truncated), Some(true));
}

#[test]
fn an_object_that_is_none_of_angies_is_no_line() {
    for text in [
        "{}",
        r#"{"time":"2026-11-22T17:22:06Z"}"#,
        r#"{"time":"yesterday","level":"error","pid":1,"tid":1,"message":"x"}"#,
        r#"{"time":"2026-11-22T17:22:06Z","level":"loud","pid":1,"tid":1,"message":"x"}"#,
        r#"{"time":"2026-11-22T17:22:06Z","level":"error","pid":-1,"tid":1,"message":"x"}"#,
        &JSON[..JSON.len() - 1],
    ] {
        assert_eq!(read(text, |_| ()), None, "{text}");
    }
}
