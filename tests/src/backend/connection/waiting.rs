//! What a connection of a backend waits for.

use super::*;

impl Server<'_> {
    /// Neither reads nor writes until nginx goes.
    pub(in crate::backend) fn until_peer_leaves(&self) -> Ending {
        match self.wait(PollFlags::RDHUP, None) {
            Woken::Ready => self.peer_left(),
            Woken::Deadline | Woken::Stopped => Ending::close(Means::Fin, Why::Stopped),
        }
    }

    /// The same where nginx's FIN cannot come, because it waits behind bytes for which
    /// there is no room here: then the kernel's table tells that nginx closed its end.
    pub(in crate::backend) fn until_peer_closes(&self) -> Ending {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let stream = self.transport.stream();
        let ends = stream.peer_addr().and_then(|remote| {
            let local = stream.local_addr()?;
            Ok([(remote, local)])
        });
        let Ok(ends) = ends else {
            return Ending::peer(&ErrorKind::ConnectionReset.into(), Why::PeerInFlight);
        };
        loop {
            match self.wait(PollFlags::RDHUP, Some(Instant::now() + LOOK_EVERY)) {
                Woken::Ready => return self.peer_left(),
                Woken::Stopped => return Ending::close(Means::Fin, Why::Stopped),
                Woken::Deadline => {}
            }
            let found = sockets::find(&ends).unwrap_or_default();
            let peer = found.first().copied().flatten();
            if peer.is_some_and(|socket| socket.state != State::ESTABLISHED) {
                return Ending::peer(&ErrorKind::UnexpectedEof.into(), Why::PeerInFlight);
            }
        }
    }

    /// How nginx left, once a wait said that it did.
    pub(in crate::backend) fn peer_left(&self) -> Ending {
        let how = match self.transport.stream().peek(&mut [0]) {
            Ok(_) => Ended::PeerClosed,
            Err(_) => Ended::PeerReset,
        };
        Ending {
            how,
            why: Why::PeerInFlight,
        }
    }

    pub(in crate::backend) fn await_bytes(&self) -> std::io::Result<()> {
        match self.wait(PollFlags::IN, Some(Instant::now() + PATIENCE)) {
            Woken::Ready => Ok(()),
            Woken::Deadline => Err(ErrorKind::TimedOut.into()),
            Woken::Stopped => Err(ErrorKind::Interrupted.into()),
        }
    }

    /// Waits without a look at the socket.
    pub(super) fn work_until(&self, deadline: Instant) -> Woken {
        loop {
            let left = timespec(deadline.saturating_duration_since(Instant::now()));
            let mut sources = [PollFd::new(&self.shared.stopped, PollFlags::IN)];
            match poll(&mut sources, Some(&left)) {
                Ok(0) => return Woken::Deadline,
                Err(rustix::io::Errno::INTR) => {}
                _ => return Woken::Stopped,
            }
        }
    }

    /// Waits for `events` on the socket, the deadline (ppoll: to the timer's own
    /// precision, not to a millisecond) or the backend's end.
    pub(in crate::backend) fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> Woken {
        self.wait_beside(events, deadline, None)
    }

    /// The same, or until `other` becomes readable.
    pub(super) fn wait_beside(
        &self,
        events: PollFlags,
        deadline: Option<Instant>,
        other: Option<&UnixStream>,
    ) -> Woken {
        if events == PollFlags::IN && self.transport.has_bytes() {
            return Woken::Ready;
        }
        loop {
            let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            let stopped = &self.shared.stopped;
            let mut sources = [
                PollFd::new(self.transport.stream(), events),
                PollFd::new(stopped, PollFlags::IN),
                PollFd::new(other.unwrap_or(stopped), PollFlags::IN),
            ];
            match poll(&mut sources, left.as_ref()) {
                Ok(0) => return Woken::Deadline,
                Ok(_) if !sources[0].revents().is_empty() => return Woken::Ready,
                Ok(_) => return Woken::Stopped,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    eprintln!("backend: poll() failed: {error}");
                    return Woken::Stopped;
                }
            }
        }
    }
}
