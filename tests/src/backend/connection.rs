//! One connection of a backend: read, do as told, close; each act is recorded first.

mod handshake;
mod reading;
mod waiting;

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::worker::{Worker, Working};
use super::{Answer, Connection, End, Ended, Request, Shared, Why, lock};
use crate::behaviour::{Behaviour, HEADER, Kind, Means, Phase};
use crate::clock::{PATIENCE, now_ns, timespec};
use crate::fastcgi::{self, Record};
use crate::http::{Head, head_length};
use crate::processes;
use crate::sockets::{self, State};
use crate::tls_backend::Transport;

/// Serves one connection to its end.
pub(super) fn serve(stream: TcpStream, shared: &Shared) {
    let accepted_ns = now_ns();
    let taken = shared.worker.as_ref().map(Worker::taken);
    let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else {
        // Reset before it could be looked at: there is nothing to record.
        return;
    };
    // Answers are written in one piece; without this the second waits for an ACK.
    let _ = stream.set_nodelay(true);
    let Ok(transport) = Transport::new(stream, shared.tls.as_ref()) else {
        eprintln!("backend: no session of TLS for {remote}");
        return;
    };
    let index = {
        let mut records = lock(&shared.records);
        let connection = Connection {
            local: shared.known_as.get().copied().unwrap_or(local),
            remote,
            accepted_ns,
            requests: Vec::new(),
            end: None,
            tls: None,
        };
        shared.note(records.len(), &connection);
        records.push(connection);
        records.len() - 1
    };
    shared.changed.notify_all();
    let mut server = Server {
        transport,
        shared,
        index,
        fastcgi: shared.fastcgi.load(Ordering::Acquire),
    };
    let ending = server.run(taken);
    server.end(ending);
}

/// How a connection is to end.
pub(super) struct Ending {
    how: Ended,
    why: Why,
}

impl Ending {
    pub(super) fn close(means: Means, why: Why) -> Self {
        Self {
            how: Ended::Closed(means),
            why,
        }
    }

    pub(super) fn peer(error: &std::io::Error, why: Why) -> Self {
        let how = match error.kind() {
            ErrorKind::UnexpectedEof => Ended::PeerClosed,
            _ => Ended::PeerReset,
        };
        Self { how, why }
    }
}

/// What a wait ended with.
pub(super) enum Woken {
    Ready,
    Deadline,
    Stopped,
}

pub(super) struct Server<'a> {
    pub(super) transport: Transport,
    pub(super) shared: &'a Shared,
    index: usize,
    fastcgi: bool,
}

impl Server<'_> {
    fn run(&mut self, mut taken: Option<Working<'_>>) -> Ending {
        if let Err(ending) = self.handshake() {
            return ending;
        }
        let mut served = 0;
        let mut idle_since = None;
        loop {
            if let Err(ending) = self.await_request(idle_since) {
                return ending;
            }
            match self.request(served) {
                Ok(()) => idle_since = Some(Instant::now()),
                Err(ending) => return ending,
            }
            drop(taken.take());
            served += 1;
        }
    }

    /// Records the end, then commits it.
    fn end(mut self, ending: Ending) {
        let end = End {
            at_ns: now_ns(),
            how: ending.how,
            why: ending.why,
        };
        let says_farewell = self.says_farewell(ending.how);
        self.record(|connection| {
            connection.end = Some(end);
            if let Some(session) = &mut connection.tls {
                session.farewell = says_farewell;
            }
        });
        let Ended::Closed(means) = ending.how else {
            return;
        };
        if says_farewell {
            // nginx may have gone meanwhile: then there is nobody to hear it.
            let _ = self.transport.farewell();
        }
        if ending.why == Why::HandshakeFailed {
            self.linger();
        }
        if matches!(means, Means::HalfClose | Means::FinThenRst)
            && let Err(error) = self.transport.stream().shutdown(Shutdown::Write)
        {
            // The other end was quicker: its reset is on record with it.
            eprintln!("backend: no FIN went out: {error}");
        }
        if means == Means::HalfClose {
            self.discard();
        }
        // With bytes unread the kernel sends the RST by itself, and for that reason.
        if means.resets() && ending.why != Why::BodyUnread {
            let linger = Some(Duration::ZERO);
            if let Err(error) =
                rustix::net::sockopt::set_socket_linger(self.transport.stream(), linger)
            {
                eprintln!("backend: SO_LINGER failed, a FIN goes out instead of an RST: {error}");
            }
        }
        let _closing = processes::closing();
        drop(self.transport);
    }

    /// Reads and throws away until the other end goes.
    fn discard(&mut self) {
        while let Woken::Ready = self.wait(PollFlags::IN, Some(Instant::now() + PATIENCE)) {
            if !matches!(self.transport.discard(), Ok(read) if read > 0) {
                return;
            }
        }
    }

    /// Waits for the next request's first byte, or ends the connection as idle. Before the
    /// first one it has all the time it needs: on a busy machine nginx may take longer
    /// from its connect to its request than the idle time.
    fn await_request(&self, since: Option<Instant>) -> Result<(), Ending> {
        let idle = self.shared.habits.idle.filter(|_| since.is_some());
        let deadline = since.zip(idle).map(|(since, idle)| since + idle.after);
        let worker = self.shared.worker.as_ref();
        match self.wait_beside(PollFlags::IN, deadline, worker.map(Worker::draining)) {
            Woken::Ready => return Ok(()),
            Woken::Stopped => {
                let recycled = worker.is_some_and(Worker::is_draining);
                let why = if recycled {
                    Why::Recycled
                } else {
                    Why::Stopped
                };
                return Err(Ending::close(Means::Fin, why));
            }
            Woken::Deadline => {}
        }
        if self.while_held() {
            // Like any server: what arrived before the close is served after all.
            if let Woken::Ready = self.wait(PollFlags::IN, Some(Instant::now())) {
                return Ok(());
            }
        }
        Err(Ending::close(
            idle.map_or(Means::Fin, |idle| idle.means),
            Why::Idle,
        ))
    }

    /// Waits as long as closes are held; whether they were.
    fn while_held(&self) -> bool {
        let held = lock(&self.shared.held);
        let was_held = *held;
        let released = self
            .shared
            .released
            .wait_timeout_while(held, PATIENCE, |held| *held);
        drop(released.unwrap_or_else(PoisonError::into_inner));
        was_held
    }

    /// Reads one request and does with it as told.
    fn request(&mut self, served: usize) -> Result<(), Ending> {
        let arrived_ns = now_ns();
        let head = match self.read_head() {
            Ok(head) => head,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(self.not_http());
            }
            Err(error) => return Err(Ending::peer(&error, Why::PeerWhileIdle)),
        };
        let read_ns = now_ns();
        let worker = self.shared.worker.as_ref();
        let _working = worker.map(Worker::work);
        let mut words = head.first_line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let Ok(behaviour) = self.behaviour(&head, &target) else {
            return Err(self.not_http());
        };
        let Ok(body_length) = head.content_length() else {
            return Err(self.not_http());
        };
        let body_length = body_length.unwrap_or(0);
        let leave_body = matches!(
            behaviour.kind,
            Kind::LeaveBodyUnread
                | Kind::RefuseBody
                | Kind::StopReading
                | Kind::EndProcess {
                    phase: Phase::Unread,
                    ..
                }
        );
        self.record(|connection| {
            connection.requests.push(Request {
                arrived_ns,
                read_ns,
                method,
                target,
                body_bytes: 0,
                behaviour,
                answer: None,
            });
        });
        if !leave_body {
            self.read_body(body_length)?;
        }
        if leave_body && body_length > 0 && matches!(behaviour.kind, Kind::EndProcess { .. }) {
            // What is to stay unread has to be there.
            self.await_bytes()
                .map_err(|error| Ending::peer(&error, Why::PeerInFlight))?;
        }
        if behaviour.kind == Kind::AnswerLate {
            if let Woken::Stopped = self.work_until(Instant::now() + behaviour.after) {
                return Err(Ending::close(Means::Fin, Why::Stopped));
            }
        } else if !behaviour.after.is_zero() {
            // nginx may tire of waiting: its close shows as RDHUP, an RST as ERR.
            match self.wait(PollFlags::RDHUP, Some(Instant::now() + behaviour.after)) {
                Woken::Deadline => {}
                Woken::Stopped => return Err(Ending::close(Means::Fin, Why::Stopped)),
                Woken::Ready => return Err(self.peer_left()),
            }
        }
        self.act(behaviour, head.closes())?;
        if let Some(worker) = worker {
            worker.answered();
        }
        let limit = self.shared.habits.request_limit;
        if limit.is_some_and(|limit| served + 1 >= limit) {
            self.while_held();
            return Err(Ending::close(Means::Fin, Why::RequestLimit));
        }
        Ok(())
    }

    /// Writes a whole answer, at once; an answer that the peer did not take has no end.
    pub(super) fn answer(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        self.begun();
        self.finish(bytes)
    }

    /// Writes the beginning of an answer.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        self.begun();
        self.more(bytes)
    }

    /// Writes on.
    pub(super) fn more(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        if self.fastcgi {
            return self.write(&fastcgi::part(bytes));
        }
        self.write(bytes)
    }

    /// Writes the rest of what was begun.
    pub(super) fn finish(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        if self.fastcgi {
            self.write(&[fastcgi::part(bytes), fastcgi::end()].concat())?;
        } else {
            self.write(bytes)?;
        }
        self.record_request(|request| {
            if let Some(answer) = &mut request.answer {
                answer.finished_ns = Some(now_ns());
            }
        });
        Ok(())
    }

    fn begun(&self) {
        self.record_request(|request| {
            request.answer = Some(Answer {
                began_ns: now_ns(),
                finished_ns: None,
            });
        });
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        self.transport
            .write_all(bytes)
            .map_err(|error| Ending::peer(&error, Why::PeerInFlight))
    }

    pub(super) fn record(&self, change: impl FnOnce(&mut Connection)) {
        let mut records = lock(&self.shared.records);
        let connection = &mut records[self.index];
        change(connection);
        self.shared.note(self.index, connection);
        drop(records);
        self.shared.changed.notify_all();
    }

    fn record_request(&self, change: impl FnOnce(&mut Request)) {
        self.record(|connection| {
            if let Some(request) = connection.requests.last_mut() {
                change(request);
            }
        });
    }
}
