//! Who ended an attempt, by what means and in which phase of its connection's life: what
//! the line and the socket say together.

use super::case::{Case, Ending, alert_number, errno};
use super::end::peer_end_ns;
use super::staleness::Stale;
use crate::nginx::message::MessageKind;
use crate::report::model::{Means, Phase, Side};

impl Case<'_> {
    /// Who ended the attempt, and by what means: what the line and the socket say
    /// together. A socket's facts outrank the line's.
    pub(super) fn side_and_means(&self) -> (Side, Means) {
        match self.line.kind {
            MessageKind::ConnectFailed | MessageKind::ConnectFailedAtOnce => self.failed_connect(),
            MessageKind::TimedOut if self.ended_before_timer() => self.peers_end(),
            MessageKind::TimedOut => (Side::Nginx, Means::Timeout),
            // An alert is the backend's word, whatever it did to the connection then.
            MessageKind::TlsHandshakeFailed | MessageKind::TlsReceiveFailed
                if alert_number(&self.line.summary.message).is_some() =>
            {
                (Side::Backend, Means::Close)
            }
            // So is the end of a stream.
            MessageKind::ResponseRejected if self.http2_ending().is_some() => {
                (Side::Backend, Means::Close)
            }
            MessageKind::ResponseRejected
            | MessageKind::ShutdownTimeout
            | MessageKind::TlsCertificate
            | MessageKind::TlsHandshakeFailed
            | MessageKind::TlsReceiveFailed => (Side::Nginx, Means::Close),
            MessageKind::ClientClosed => (Side::Client, Means::Close),
            // What is no HTTP is passed on until somebody ends it.
            MessageKind::NotHttp
                if self
                    .connection()
                    .is_none_or(|connection| peer_end_ns(connection).is_none()) =>
            {
                (Side::Nginx, Means::Close)
            }
            MessageKind::NoLiveUpstreams | MessageKind::NotResolved | MessageKind::Resources => {
                (Side::Nginx, Means::None)
            }
            _ => self.peers_end(),
        }
    }

    fn failed_connect(&self) -> (Side, Means) {
        match self.errno() {
            errno::ECONNREFUSED => (Side::Backend, Means::Refused),
            // Of unix sockets: no such socket, or its queue is full.
            errno::ENOENT | errno::EAGAIN if self.line.unix => (Side::Backend, Means::Refused),
            errno::ETIMEDOUT => (Side::Network, Means::Timeout),
            errno::ENETUNREACH | errno::EHOSTDOWN | errno::EHOSTUNREACH => {
                (Side::Network, Means::Unreachable)
            }
            errno::ECONNRESET | errno::EPIPE => self.peers_end(),
            _ => (Side::Nginx, Means::None),
        }
    }

    fn peers_end(&self) -> (Side, Means) {
        if self.errno() == errno::ETIMEDOUT && self.line.kind != MessageKind::TimedOut {
            return (Side::Network, Means::Timeout);
        }
        let Some(connection) = self.connection() else {
            let means = match self.errno() {
                errno::ECONNRESET => Means::Rst,
                // Over TLS nginx logs FIN, RST and close_notify alike.
                0 if !self.line.tls => Means::Fin,
                _ => Means::Close,
            };
            return (Side::Backend, means);
        };
        match (connection.fin_received_ns, connection.rst_received_ns) {
            (Some(fin), Some(rst)) if rst < fin => (Side::Backend, Means::Rst),
            (Some(_), _) => (Side::Backend, Means::Fin),
            (None, Some(_)) => (Side::Backend, Means::Rst),
            // nginx read an end that the kernel did not show: close_notify over TLS.
            (None, None) if self.line.tls => (Side::Backend, Means::Close),
            (None, None) => (Side::Unknown, Means::None),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.action() {
            "SSL handshaking to upstream" => return Phase::Tls,
            "proxying upgraded connection" => return Phase::Upgraded,
            _ => {}
        }
        let connection = self.connection();
        match self.line.kind {
            MessageKind::ConnectFailed if self.reused() == Some(true) => return Phase::Idle,
            MessageKind::ConnectFailed
            | MessageKind::ConnectFailedAtOnce
            | MessageKind::NoLiveUpstreams
            | MessageKind::NotResolved
            | MessageKind::Resources => return Phase::Connect,
            _ => {}
        }
        let goodbye = self.http2_ending() == Some(Ending::GoAway(0)) && !self.in_body();
        if self.was_stale() == Some(Stale::Idle) || goodbye && self.reused_by_silence() {
            return Phase::Idle;
        }
        match self.action() {
            "connecting to upstream" => Phase::Connect,
            "reading upstream" | "sending to client" => Phase::Body,
            "reading response header from upstream" => match self.answered() {
                Some(true) => Phase::Header,
                _ if self.http2_ending().is_some() => Phase::Wait,
                _ if self.line.kind == MessageKind::ResponseRejected => Phase::Header,
                _ => Phase::Wait,
            },
            // nginx keeps this action while it waits for the first header byte; only a
            // failed or blocked send is the sending itself.
            "sending request to upstream" => match self.line.kind {
                MessageKind::SendFailed | MessageKind::TlsSendFailed | MessageKind::TimedOut => {
                    Phase::Send
                }
                _ if self.line.in_upload() => Phase::Send,
                _ if self.answered() == Some(true) => Phase::Header,
                _ => Phase::Wait,
            },
            _ => match connection {
                Some(connection) if connection.established_ns.is_none() => Phase::Connect,
                Some(connection) if connection.first_byte_ns.is_some() => Phase::Body,
                Some(connection) if connection.exchanges == 0 => Phase::Connect,
                _ => Phase::Wait,
            },
        }
    }
}
