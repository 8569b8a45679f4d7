//! `tls-failure`: the TLS connection to the backend failed, in the handshake or by an
//! alert after it. Requires: nginx's line that says so. Where it quotes OpenSSL or names
//! the certificate's fault, nothing else could have caused it; a handshake that just
//! ended or was never finished has a cause that is not in it.

use super::{Case, Remedy, Verdict, how_it_ended, sentences};
use crate::judge::case::alert_number;
use crate::nginx::message::MessageKind;
use crate::report::model::{Cause, Confidence, Phase};

/// Why, as far as nginx's line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Expired,
    NotYetValid,
    Untrusted,
    NameMismatch,
    OtherCertificate,
    /// The backend sent this alert.
    Alert(u32),
    /// nginx's own OpenSSL would not have the backend's version.
    Version,
    /// Another error of nginx's own OpenSSL.
    Other,
    /// The backend ended the connection without a word.
    Closed,
    /// nginx's timer ran out.
    TimedOut,
}

/// What nginx's line says by itself.
pub(super) fn decide(case: &Case<'_>) -> Option<Verdict> {
    Some(verdict(case, reason(case)?))
}

/// A handshake that just ended; asked after all that may have ended it.
pub(super) fn by_close(case: &Case<'_>) -> Option<Verdict> {
    (case.line.kind == MessageKind::PeerClosedInTlsHandshake).then(|| verdict(case, Reason::Closed))
}

fn verdict(case: &Case<'_>, reason: Reason) -> Verdict {
    let confidence = match (reason, case.connection()) {
        (Reason::Closed, _) | (Reason::TimedOut, None) => Confidence::Likely,
        // The backend had gone on; the worker had not read it.
        (Reason::TimedOut, Some(connection)) if connection.unread_at_close > Some(0) => {
            Confidence::Likely
        }
        _ => Confidence::Certain,
    };
    let what = words(case, reason);
    Verdict {
        cause: Cause::TlsFailure,
        confidence,
        evidence: sentences([
            Some(what.clone()),
            (reason == Reason::Closed)
                .then(|| how_it_ended(case))
                .flatten(),
        ]),
        advice: remedy(case, reason).map(|text| Remedy {
            text,
            because: what,
        }),
    }
}

fn reason(case: &Case<'_>) -> Option<Reason> {
    let message = case.line.summary.message.as_str();
    Some(match case.line.kind {
        MessageKind::TlsCertificate => certificate(message),
        MessageKind::TlsHandshakeFailed | MessageKind::TlsReceiveFailed => {
            let version = [
                "unsupported protocol",
                "version too low",
                "no protocols available",
            ];
            match alert_number(message) {
                Some(alert) => Reason::Alert(alert),
                None if version.iter().any(|reason| message.contains(reason)) => Reason::Version,
                None => Reason::Other,
            }
        }
        MessageKind::TimedOut if case.ended_before_timer() => Reason::Closed,
        MessageKind::TimedOut if case.phase() == Phase::Tls => Reason::TimedOut,
        _ => return None,
    })
}

/// `upstream SSL certificate verify error: (10:certificate has expired)`: the number is
/// OpenSSL's (X509_V_ERR in x509_vfy.h).
fn certificate(message: &str) -> Reason {
    if message.contains("does not match") {
        return Reason::NameMismatch;
    }
    let number = message
        .split_once(" verify error: (")
        .and_then(|(_, rest)| rest.split_once(':'))
        .and_then(|(number, _)| number.parse::<u32>().ok());
    match number {
        Some(10) => Reason::Expired,
        Some(9) => Reason::NotYetValid,
        Some(2 | 18..=22 | 27) => Reason::Untrusted,
        Some(62) => Reason::NameMismatch,
        _ => Reason::OtherCertificate,
    }
}

/// Alerts by number (RFC 8446, 6; older ones RFC 5246).
fn alert_name(number: u32) -> &'static str {
    match number {
        10 => "unexpected_message",
        20 => "bad_record_mac",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        109 => "missing_extension",
        112 => "unrecognized_name",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "another alert",
    }
}

fn words(case: &Case<'_>, reason: Reason) -> String {
    match reason {
        Reason::Expired => "the backend's certificate has expired".to_owned(),
        Reason::NotYetValid => "the backend's certificate is not valid yet".to_owned(),
        Reason::Untrusted => {
            "the backend's certificate is not signed by anyone whom nginx trusts".to_owned()
        }
        Reason::NameMismatch => {
            "the backend's certificate is for another name than the one nginx asked for".to_owned()
        }
        Reason::OtherCertificate => "nginx refused the backend's certificate".to_owned(),
        Reason::Alert(number) => format!(
            "the backend refused it with alert {number} ({})",
            alert_name(number)
        ),
        Reason::Version => {
            "nginx and the backend have no version of TLS in common that nginx allows".to_owned()
        }
        Reason::Other => {
            "nginx's OpenSSL gave the connection up for what the backend sent".to_owned()
        }
        Reason::Closed => {
            "the backend ended the connection in the TLS handshake, without an alert".to_owned()
        }
        Reason::TimedOut => format!(
            "the TLS handshake was not done in time; {} bounds it together with the connect ({})",
            case.directive("connect_timeout"),
            case.limit("connect_timeout")
        ),
    }
}

fn remedy(case: &Case<'_>, reason: Reason) -> Option<String> {
    let directive = |name: &str| case.directive(name);
    let named = case.settings.ssl_server_name.as_deref() == Some("on");
    let name = case.settings.ssl_name.as_deref();
    let tell_name = || {
        if named {
            format!(
                "look whether the backend knows the name that nginx asks for ({}{})",
                directive("ssl_name"),
                name.map_or_else(String::new, |name| format!(", now {name}"))
            )
        } else {
            format!(
                "set `{} on`, so that nginx tells the backend which name it asks for; a backend \
                 with several certificates needs it",
                directive("ssl_server_name")
            )
        }
    };
    let protocols = case.settings.ssl_protocols.as_deref();
    let client_certificate = || {
        format!(
            "give nginx a certificate that the backend trusts ({}, {}), or let the backend do \
             without",
            directive("ssl_certificate"),
            directive("ssl_certificate_key")
        )
    };
    Some(match reason {
        Reason::Expired => {
            "renew the backend's certificate; not to verify it would let anyone pose as the \
             backend"
                .to_owned()
        }
        Reason::NotYetValid => {
            "set the clocks of both hosts right, or correct the certificate".to_owned()
        }
        Reason::Untrusted => format!(
            "name the issuer in {}, or let the backend send the whole chain; not to verify \
             would let anyone pose as the backend",
            directive("ssl_trusted_certificate")
        ),
        Reason::NameMismatch => format!(
            "set {} to a name that stands in the certificate{}, or correct the certificate{}",
            directive("ssl_name"),
            name.map_or_else(
                || " (not set: the host in the pass directive)".to_owned(),
                |name| format!(" (now {name})")
            ),
            if named {
                String::new()
            } else {
                format!(
                    "; with several certificates on the backend, `{} on` lets it choose",
                    directive("ssl_server_name")
                )
            }
        ),
        Reason::Version | Reason::Alert(70) => format!(
            "allow a version that both know in {}{}; versions before TLS 1.2 are weak",
            directive("ssl_protocols"),
            protocols.map_or_else(String::new, |set| format!(" (now {set})"))
        ),
        Reason::Alert(40 | 71) => format!(
            "{}; if that is not it, they have no cipher in common ({}{}), or the backend wants a \
             client certificate",
            tell_name(),
            directive("ssl_protocols"),
            protocols.map_or_else(String::new, |set| format!(", now {set}"))
        ),
        Reason::Alert(80 | 112) => tell_name(),
        Reason::Alert(42..=46 | 48 | 116) => client_certificate(),
        Reason::Closed => format!(
            "look at the backend's own log for that moment, and whether that port speaks TLS; {}",
            tell_name()
        ),
        Reason::TimedOut => {
            "look whether that port speaks TLS, and whether the backend is too busy for handshakes"
                .to_owned()
        }
        Reason::Alert(_) | Reason::OtherCertificate | Reason::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_refused_for_what_openssl_names() {
        let verify =
            |inner: &str| certificate(&format!("upstream SSL certificate verify error: ({inner})"));
        assert_eq!(verify("10:certificate has expired"), Reason::Expired);
        assert_eq!(verify("18:self-signed certificate"), Reason::Untrusted);
        let local = "20:unable to get local issuer certificate";
        assert_eq!(verify(local), Reason::Untrusted);
        assert_eq!(
            verify("24:invalid CA certificate"),
            Reason::OtherCertificate
        );
        let other = certificate("upstream SSL certificate does not match \"wrong.example\"");
        assert_eq!(other, Reason::NameMismatch);
    }
}
