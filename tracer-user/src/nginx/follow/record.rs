//! Cuts bytes into physical lines and joins those of one record.

use super::{Sink, starts_record};

/// A record or a line without end grows no longer than this.
pub(super) const LONGEST: usize = 64 << 10;

/// Holds what is not complete yet: at most one record and one line.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    held: Option<Held>,
    /// Bytes after the last LF.
    partial: Vec<u8>,
    /// The line that `partial` belongs to was begun by pieces already given out.
    cut: bool,
}

#[derive(Debug)]
struct Held {
    offset: u64,
    read_ns: u64,
    bytes: Vec<u8>,
}

impl Assembler {
    /// Takes the bytes that begin at `offset` of the file.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8], now_ns: u64, sink: &mut Sink<'_>) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.extend(offset + start as u64, &bytes[start..end], now_ns, sink);
            let line = std::mem::take(&mut self.partial);
            let at = (offset + end as u64).saturating_sub(line.len() as u64);
            self.line(at, line, now_ns, sink);
            self.cut = false;
            start = end + 1;
        }
        self.extend(offset + start as u64, &bytes[start..], now_ns, sink);
    }

    /// A poll brought nothing: the record held back is complete.
    pub(super) fn quiet(&mut self, sink: &mut Sink<'_>) {
        if let Some(held) = self.held.take() {
            sink.line(held.offset, held.read_ns, held.bytes);
        }
    }

    /// Gives out everything; the file was read up to `end`.
    pub(super) fn finish(&mut self, end: u64, now_ns: u64, sink: &mut Sink<'_>) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() {
            self.line(
                end.saturating_sub(partial.len() as u64),
                partial,
                now_ns,
                sink,
            );
        }
        self.cut = false;
        self.quiet(sink);
    }

    /// Adds to the line without end, in pieces if it gets too long.
    fn extend(&mut self, offset: u64, bytes: &[u8], now_ns: u64, sink: &mut Sink<'_>) {
        let mut rest = bytes;
        while self.partial.len() + rest.len() > LONGEST {
            let (fits, more) = rest.split_at(LONGEST - self.partial.len());
            self.partial.extend_from_slice(fits);
            rest = more;
            self.quiet(sink);
            sink.counts.cut += u64::from(!self.cut);
            self.cut = true;
            let read_to = offset + (bytes.len() - rest.len()) as u64;
            let piece = std::mem::take(&mut self.partial);
            sink.line(read_to.saturating_sub(piece.len() as u64), now_ns, piece);
        }
        self.partial.extend_from_slice(rest);
    }

    fn line(&mut self, offset: u64, line: Vec<u8>, now_ns: u64, sink: &mut Sink<'_>) {
        match &mut self.held {
            Some(held) if !self.cut && !starts_record(&line) => {
                if held.bytes.len() + 1 + line.len() <= LONGEST {
                    held.bytes.push(b'\n');
                    held.bytes.extend_from_slice(&line);
                    return;
                }
                sink.counts.cut += 1;
            }
            _ => {}
        }
        self.quiet(sink);
        self.held = Some(Held {
            offset,
            read_ns: now_ns,
            bytes: line,
        });
    }
}
