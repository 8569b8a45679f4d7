//! What a connection of a backend reads: heads, and bodies as far as it is told to.

use super::*;

impl Server<'_> {
    /// Answers what is no request, as servers do, and goes.
    pub(super) fn not_http(&mut self) -> Ending {
        // nginx may have gone: it is told as far as it hears.
        let _ = self.transport.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        Ending::close(Means::Fin, Why::NotHttp)
    }

    /// The behaviour that the head asks for; an ordinary answer where `once` is over.
    pub(super) fn behaviour(&self, head: &Head, target: &str) -> anyhow::Result<Behaviour> {
        let behaviour = match head.header(HEADER) {
            Some(text) => text.parse()?,
            None => self.shared.habits.behaviour,
        };
        if behaviour.once && !lock(&self.shared.seen).insert(target.to_owned()) {
            return Ok(Behaviour::ANSWER);
        }
        Ok(behaviour)
    }

    /// Reads a head and not a byte more, so that a body can be left unread.
    pub(super) fn read_head(&mut self) -> std::io::Result<Head> {
        if self.fastcgi {
            return fastcgi::read_head(|buffer| self.fill(buffer));
        }
        let invalid = |error: anyhow::Error| std::io::Error::new(ErrorKind::InvalidData, error);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            self.await_bytes()?;
            let Some(peeked) = self.transport.peek(&mut buffer)? else {
                continue;
            };
            if peeked == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if bytes.is_empty() && !buffer[0].is_ascii_alphabetic() {
                self.transport.consume(peeked)?;
                return Err(invalid(anyhow::anyhow!("no method begins so")));
            }
            let before = bytes.len();
            bytes.extend_from_slice(&buffer[..peeked]);
            let length = head_length(&bytes).map_err(invalid)?;
            let take = length.unwrap_or(bytes.len()) - before;
            self.transport.consume(take)?;
            if let Some(length) = length {
                return Head::parse(&bytes[..length]).map_err(invalid);
            }
        }
    }

    /// Reads so many bytes as there is room for.
    fn fill(&self, mut buffer: &mut [u8]) -> std::io::Result<()> {
        while !buffer.is_empty() {
            self.await_bytes()?;
            match self.transport.stream().read(buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => buffer = &mut buffer[read..],
            }
        }
        Ok(())
    }

    /// A body's end comes in a record of its own, even that of an empty one.
    fn read_stdin(&self) -> std::io::Result<()> {
        while let Some(read) = Record::read(|buffer| self.fill(buffer))?.body()? {
            self.record_request(|request| request.body_bytes += read);
        }
        Ok(())
    }

    pub(super) fn read_body(&mut self, length: usize) -> Result<(), Ending> {
        let gone = |error: &std::io::Error| Ending::peer(error, Why::PeerInFlight);
        if self.fastcgi {
            return self.read_stdin().map_err(|error| gone(&error));
        }
        let mut left = length;
        let mut buffer = [0; 64 * 1024];
        while left > 0 {
            let room = left.min(buffer.len());
            let read = self
                .await_bytes()
                .and_then(|()| self.transport.read(&mut buffer[..room]))
                .map_err(|error| gone(&error))?;
            let Some(read) = read else { continue };
            if read == 0 {
                return Err(gone(&ErrorKind::UnexpectedEof.into()));
            }
            left -= read;
            self.record_request(|request| request.body_bytes += read);
        }
        Ok(())
    }
}
