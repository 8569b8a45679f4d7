//! What a backend does with a request that it has read, as the request tells it.

use std::io::ErrorKind;
use std::sync::PoisonError;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::process::{Signal, getpid, kill_process};

use super::connection::{Ending, Server, Woken};
use super::{End, Ended, Why, lock};
use crate::behaviour::{Behaviour, Death, Framing, Kind, Means, PIECE, PIECE_EVERY, Phase};
use crate::clock::{PATIENCE, now_ns};
use crate::http::head_length;

impl Server<'_> {
    /// Does as told; fails if that ends the connection.
    pub(super) fn act(&mut self, behaviour: Behaviour, asked: bool) -> Result<(), Ending> {
        match behaviour.kind {
            Kind::Answer { body, framing } => {
                self.answer(&response(body, framing))?;
                if framing == Framing::UntilClose {
                    return Err(Ending::close(Means::Fin, Why::Announced));
                }
            }
            Kind::AnswerNothing => self.answer(&[])?,
            Kind::AnswerLate => self.answer(&response(64, Framing::Length))?,
            Kind::AnswerClosing => {
                let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\
                                Connection: close\r\n\r\nok";
                self.answer(response.as_bytes())?;
                return Err(Ending::close(Means::Fin, Why::Announced));
            }
            Kind::Stream {
                pieces,
                framing,
                broken_by,
            } => self.stream(pieces, framing, broken_by)?,
            Kind::Upgrade { ended_by } => return Err(self.upgrade(ended_by)?),
            Kind::AnswerTogether { requests } => {
                self.gather(requests);
                self.answer(&response(64, Framing::Length))?;
            }
            Kind::AnswerThenClose => {
                self.answer(&response(64, Framing::Length))?;
                return Err(Ending::close(Means::Fin, Why::AfterAnswer));
            }
            Kind::CloseWithoutAnswer(means) => {
                return Err(Ending::close(means, Why::BeforeAnswer));
            }
            Kind::CloseInBody {
                body,
                framing,
                means,
            } => {
                let response = response(body, framing);
                let head = head_length(&response).ok().flatten().unwrap_or(0);
                self.begin(&response[..head + (response.len() - head) / 2])?;
                return Err(Ending::close(means, Why::InBody));
            }
            Kind::CloseInHeader(means) => {
                self.begin(b"HTTP/1.1 200 OK\r\nContent-Le")?;
                return Err(Ending::close(means, Why::InHeader));
            }
            Kind::StallInBody { body } => {
                let response = response(body, Framing::Length);
                let head = head_length(&response).ok().flatten().unwrap_or(0);
                self.begin(&response[..head + (response.len() - head) / 2])?;
                return Err(self.until_peer_leaves());
            }
            Kind::StopReading => return Err(self.until_peer_closes()),
            Kind::EndProcess { death, phase } => return Err(self.end_process(death, phase)?),
            Kind::InvalidHeader => {
                self.answer(b"HTTP/1.1 200 OK\r\nX-\x01Bad: x\r\nContent-Length: 0\r\n\r\n")?;
                // As below: who refuses such a header is to be the first to go.
                return Ok(());
            }
            Kind::InvalidChunk => {
                self.answer(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                      4\r\ngood\r\nnone\r\n0\r\n\r\n",
                )?;
                return Ok(());
            }
            Kind::BigHeader { bytes } => {
                let filler = "b".repeat(bytes);
                let response =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Filler: {filler}\r\n\r\n");
                self.answer(response.as_bytes())?;
                // Asked to close or not: who refuses such a header is to be the first to go.
                return Ok(());
            }
            Kind::RefuseBody => {
                self.await_bytes()
                    .map_err(|error| Ending::peer(&error, Why::PeerInFlight))?;
                return Err(Ending::close(Means::Rst, Why::BodyUnread));
            }
            Kind::LeaveBodyUnread => {
                let response = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\
                                Connection: close\r\n\r\n";
                self.answer(response.as_bytes())?;
                self.await_bytes()
                    .map_err(|error| Ending::peer(&error, Why::PeerInFlight))?;
                return Err(Ending::close(Means::Rst, Why::BodyUnread));
            }
        }
        if asked {
            return Err(Ending::close(Means::Fin, Why::Asked));
        }
        Ok(())
    }

    /// A body piece by piece, to its end or half of the way to it.
    fn stream(
        &mut self,
        pieces: usize,
        framing: Framing,
        broken_by: Option<Means>,
    ) -> Result<(), Ending> {
        let (head, piece, last) = match framing {
            Framing::Length => (
                format!("Content-Length: {}\r\n", pieces * PIECE),
                "s".repeat(PIECE),
                "",
            ),
            Framing::Chunked => (
                "Transfer-Encoding: chunked\r\n".to_owned(),
                format!("{PIECE:x}\r\n{}\r\n", "s".repeat(PIECE)),
                "0\r\n\r\n",
            ),
            Framing::UntilClose => (String::new(), "s".repeat(PIECE), ""),
        };
        self.begin(format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes())?;
        let sent = broken_by.map_or(pieces, |_| pieces / 2);
        for _ in 0..sent {
            self.more(piece.as_bytes())?;
            match self.wait(PollFlags::RDHUP, Some(Instant::now() + PIECE_EVERY)) {
                Woken::Deadline => {}
                Woken::Stopped => return Err(Ending::close(Means::Fin, Why::Stopped)),
                Woken::Ready => return Err(self.peer_left()),
            }
        }
        if let Some(means) = broken_by {
            return Err(Ending::close(means, Why::InBody));
        }
        self.finish(last.as_bytes())?;
        match framing {
            Framing::UntilClose => Err(Ending::close(Means::Fin, Why::Announced)),
            Framing::Length | Framing::Chunked => Ok(()),
        }
    }

    /// Switches protocols and sends back what comes, until it is told to end or the
    /// other end does.
    fn upgrade(&mut self, ended_by: Option<Means>) -> Result<Ending, Ending> {
        self.answer(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n",
        )?;
        let gone = |error: &std::io::Error| Ending::peer(error, Why::Upgraded);
        let mut buffer = [0; 4096];
        loop {
            match self.wait(PollFlags::IN, None) {
                Woken::Ready => {}
                Woken::Deadline | Woken::Stopped => {
                    return Ok(Ending::close(Means::Fin, Why::Stopped));
                }
            }
            let read = self
                .transport
                .read(&mut buffer)
                .map_err(|error| gone(&error))?;
            let Some(read) = read else { continue };
            if read == 0 {
                return Ok(gone(&ErrorKind::UnexpectedEof.into()));
            }
            self.transport
                .write_all(&buffer[..read])
                .map_err(|error| gone(&error))?;
            if let Some(means) = ended_by {
                return Ok(Ending::close(means, Why::Upgraded));
            }
        }
    }

    /// Ends the process, if it is the backend's own.
    fn end_process(&mut self, death: Death, phase: Phase) -> Result<Ending, Ending> {
        if self.shared.journal.is_none() {
            // As a thread: the process is not ours to end.
            return Ok(Ending::close(Means::Fin, Why::NotHttp));
        }
        match phase {
            Phase::Unread | Phase::Waiting => {}
            Phase::Header => self.begin(b"HTTP/1.1 200 OK\r\nContent-Le")?,
            Phase::Body => {
                let response = response(9000, Framing::Length);
                self.begin(&response[..response.len() / 2])?;
            }
        }
        // With bytes unread the kernel's close is an RST (net/ipv4/tcp.c `__tcp_close`).
        let unread = rustix::io::ioctl_fionread(self.transport.stream()).unwrap_or(0) > 0;
        let means = if unread { Means::Rst } else { Means::Fin };
        let end = End {
            at_ns: now_ns(),
            how: Ended::Closed(means),
            why: Why::ProcessEnded,
        };
        self.record(|connection| connection.end = Some(end));
        die(death)
    }

    /// Waits until so many requests are here at once.
    fn gather(&self, requests: usize) {
        let mut gathering = lock(&self.shared.gathering);
        gathering.waiting += 1;
        if gathering.waiting >= requests {
            self.shared.next_generation(&mut gathering);
            return;
        }
        let generation = gathering.generation;
        let gathered = self
            .shared
            .gathered
            .wait_timeout_while(gathering, PATIENCE, |gathering| {
                gathering.generation == generation
            });
        let mut gathering = gathered.unwrap_or_else(PoisonError::into_inner).0;
        if gathering.generation == generation {
            gathering.waiting -= 1;
        }
    }
}

/// Ends this process.
fn die(death: Death) -> ! {
    match death {
        Death::Exit(status) => std::process::exit(i32::from(status)),
        Death::Abort => std::process::abort(),
        Death::Segfault => loop {
            // The first only resets the handler that the standard library sets for
            // stack overflows.
            let _ = kill_process(getpid(), Signal::SEGV);
        },
        Death::Signal(number) => {
            if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                let _ = kill_process(getpid(), signal);
            }
            // It may reach another thread first, which takes this one along.
            std::thread::sleep(PATIENCE);
            eprintln!("backend: signal {number} did not end the process");
            std::process::exit(70)
        }
        Death::OutOfMemory => exhaust(),
    }
}

/// Takes memory until the kernel ends this process, or gives up where it never would.
fn exhaust() -> ! {
    const PIECE: usize = 1 << 20;
    const MOST: usize = 1 << 10;
    let mut taken = Vec::new();
    while taken.len() < MOST {
        taken.push(std::hint::black_box(vec![1_u8; PIECE]));
    }
    eprintln!("backend: the kernel gave it {MOST} MiB: it has no memory cgroup");
    std::process::exit(70)
}

/// A whole response.
fn response(body: usize, framing: Framing) -> Vec<u8> {
    let mut response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n".to_vec();
    match framing {
        Framing::Length => {
            response.extend_from_slice(format!("Content-Length: {body}\r\n\r\n").as_bytes());
            response.resize(response.len() + body, b'a');
        }
        Framing::Chunked => {
            response.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut left = body;
            while left > 0 {
                let chunk = left.min(1000);
                response.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
                response.resize(response.len() + chunk, b'c');
                response.extend_from_slice(b"\r\n");
                left -= chunk;
            }
            response.extend_from_slice(b"0\r\n\r\n");
        }
        Framing::UntilClose => {
            response.extend_from_slice(b"\r\n");
            response.resize(response.len() + body, b'u');
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Chunks, chunks};

    #[test]
    fn a_chunked_response_carries_its_whole_body() {
        let response = response(2500, Framing::Chunked);
        let head = head_length(&response).unwrap().unwrap();
        assert_eq!(
            chunks(&response[head..]).unwrap(),
            Chunks {
                payload: 2500,
                complete: true
            }
        );
    }
}
