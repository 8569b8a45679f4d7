//! Text of clients and backends that tries to pass for nginx's own.

use super::*;

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
fn a_subrequests_decoded_path_makes_no_upstream() {
    let forged = r#"/a", upstream: "http://6.6.6.6:80/"#;
    let tail = ", upstream: \"http://10.0.0.1:80/a\", host: \"h\"";
    // A slice or an update of the cache: its path is the request's, decoded.
    let text = with_context(&format!(
        ", request: \"GET /a%22,%20upstream:%20%22http://6.6.6.6:80/?q HTTP/1.1\", subrequest: \
         \"{forged}\"{tail}"
    ));
    let line = parsed(&text);
    assert_eq!(line.subrequest, Some(forged));
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/a"));

    // Of another path nobody can tell whose words they are.
    let text = with_context(&format!(
        ", request: \"GET /b?x=%22 HTTP/1.1\", subrequest: \"{forged}\"{tail}"
    ));
    assert_eq!(parsed(&text).upstream, None);

    // A request without quotes has none to give; the Referer takes nothing away.
    let text = with_context(&format!(
        ", request: \"GET /b HTTP/1.1\", subrequest: \"/auth\"{tail}, referrer: \"{forged}\""
    ));
    let line = parsed(&text);
    assert_eq!(line.upstream, Some("http://10.0.0.1:80/a"));
    assert_eq!(line.referrer, Some(forged));
}

#[test]
fn a_variable_in_proxy_pass_does_not_end_the_message() {
    for message in [
        r#"invalid port in upstream "x:1, client: 6.6.6.6, server: s, request: "GET / HTTP/1.1", upstream: "http://6.6.6.6:80/""#,
        r#"invalid URL prefix in "x, client: 6.6.6.6, server: s, upstream: "http://6.6.6.6:80/""#,
    ] {
        let text = with_head(&format!(
            "*1 {message}, client: 127.0.0.1, server: a, request: \"GET / HTTP/1.1\", host: \"h\""
        ));
        let line = parsed(&text);
        assert_eq!(line.message, message);
        assert_eq!((line.client, line.upstream), (Some("127.0.0.1"), None));
    }
}
