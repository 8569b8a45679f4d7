//! Reads a trace, record by record, in bounded memory.
//!
//! A trace may be cut off (the capture was killed), damaged, decompressed
//! already, of a newer version, or no trace at all. What can be read is read;
//! what cannot is counted and said. Nothing in a file makes the reader panic.
//! Judges nothing: records come in the file's order, as they stand there.

mod frames;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use self::frames::{Frames, Step};
use super::record::{FORMAT, Header, Record, VERSION};

/// Longest line that a trace may hold, in bytes.
pub const MAX_LINE: usize = 16 << 20;

/// Why a trace cannot be read, or no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot open trace {name}")]
    Open {
        /// The trace.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read trace {name}")]
    Read {
        /// The trace.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{name} is empty: no capture wrote to it")]
    Empty {
        /// The file.
        name: String,
    },
    /// Something else.
    #[error("{name} is not a whoclosed trace: {why}")]
    NotATrace {
        /// The file.
        name: String,
        /// What gives it away.
        why: String,
    },
    /// Written by a newer program.
    #[error(
        "{name} is a trace of version {found}, this program reads versions up to {VERSION}: use a newer whoclosed"
    )]
    Newer {
        /// The trace.
        name: String,
        /// Its version.
        found: u64,
    },
    /// A line that no capture writes.
    #[error("{name} holds a line of more than {MAX_LINE} bytes: it is damaged or no trace")]
    LineTooLong {
        /// The trace.
        name: String,
    },
}

/// A trace being read: an iterator over its records, the header first.
///
/// After an error the iterator is at its end.
#[derive(Debug)]
pub struct Trace<R> {
    name: String,
    frames: Frames<R>,
    /// Decoded text; lines before `at` are done.
    text: Vec<u8>,
    at: usize,
    /// Up to here `text` holds no line end after `at`.
    scanned: usize,
    header: Header,
    header_due: bool,
    undecodable: u64,
    unknown: u64,
    cut_line: bool,
    done: bool,
}

impl Trace<File> {
    /// Opens a trace file and reads its header.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is empty, is no trace or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::new(file, &name),
            Err(source) => Err(ReadError::Open { name, source }),
        }
    }
}

impl<R: Read> Trace<R> {
    /// Reads the header of a trace from any source; `name` stands for it in errors.
    ///
    /// # Errors
    ///
    /// As [`Trace::open`].
    pub fn new(source: R, name: &str) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Read {
            name: name.to_owned(),
            source,
        };
        let frames = Frames::new(source).map_err(failed)?;
        if frames.is_empty() {
            return Err(ReadError::Empty {
                name: name.to_owned(),
            });
        }
        let mut trace = Self {
            name: name.to_owned(),
            frames,
            text: Vec::new(),
            at: 0,
            scanned: 0,
            header: Header {
                format: String::new(),
                version: 0,
                writer: String::new(),
            },
            header_due: true,
            undecodable: 0,
            unknown: 0,
            cut_line: false,
            done: false,
        };
        trace.read_header()?;
        Ok(trace)
    }

    /// What the file says it is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where and how the trace ends before its writer meant it to, or parts of
    /// it were skipped; known once the iterator has ended.
    #[must_use]
    pub fn cut_off(&self) -> Option<String> {
        let line = self.cut_line.then(|| "the last line is cut off".to_owned());
        match (self.frames.damage(), line) {
            (Some(damage), Some(line)) => Some(format!("{damage}; {line}")),
            (damage, line) => damage.or(line),
        }
    }

    /// Lines so far that are no records this program can decode.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Records so far of kinds that this version does not know; they are
    /// yielded as [`Record::Unknown`].
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn read_header(&mut self) -> Result<(), ReadError> {
        let not_a_trace = |name: &str, why: &str| ReadError::NotATrace {
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let Some((start, end)) = self.next_line()? else {
            let why = self
                .frames
                .damage()
                .unwrap_or_else(|| "it holds no line".to_owned());
            return Err(not_a_trace(&self.name, &why));
        };
        if self.frames.skipped() > 0 {
            return Err(not_a_trace(
                &self.name,
                "its beginning is damaged, so its version is not known",
            ));
        }
        match check_header(&self.text[start..end]) {
            HeaderCheck::Good(header) => {
                self.header = header;
                Ok(())
            }
            HeaderCheck::Newer(found) => Err(ReadError::Newer {
                name: self.name.clone(),
                found,
            }),
            HeaderCheck::Bad => Err(not_a_trace(
                &self.name,
                "it is neither a zstd file nor lines that begin with a trace header",
            )),
        }
    }

    /// The next line that is not empty, as a range of `text`.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, ReadError> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.text[self.scanned..]) {
                let (start, end) = (self.at, self.scanned + found);
                self.at = end + 1;
                self.scanned = self.at;
                if end - start > MAX_LINE {
                    return Err(ReadError::LineTooLong {
                        name: self.name.clone(),
                    });
                }
                if end > start {
                    return Ok(Some((start, end)));
                }
                continue;
            }
            self.text.drain(..self.at);
            self.at = 0;
            self.scanned = self.text.len();
            if self.text.len() > MAX_LINE {
                return Err(ReadError::LineTooLong {
                    name: self.name.clone(),
                });
            }
            let step = self.frames.step(&mut self.text);
            match step.map_err(|source| ReadError::Read {
                name: self.name.clone(),
                source,
            })? {
                Step::Text => {}
                Step::Broken => {
                    // The unfinished line's other half went down with the frame.
                    self.text.clear();
                    self.scanned = 0;
                }
                Step::End if self.text.is_empty() => return Ok(None),
                Step::End => {
                    // A last line without its end counts if it is whole all the same.
                    let whole = serde_json::from_slice::<IgnoredAny>(&self.text).is_ok();
                    if !whole {
                        self.cut_line = true;
                        self.text.clear();
                        self.scanned = 0;
                        return Ok(None);
                    }
                    self.text.push(b'\n');
                }
            }
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            let Some((start, end)) = self.next_line()? else {
                return Ok(None);
            };
            match serde_json::from_slice(&self.text[start..end]) {
                // Traces can be concatenated; the second may be newer than the first.
                Ok(Record::Trace(header)) if header.version > VERSION => {
                    let found = header.version.into();
                    return Err(ReadError::Newer {
                        name: self.name.clone(),
                        found,
                    });
                }
                Ok(record) => {
                    self.unknown += u64::from(matches!(record, Record::Unknown));
                    return Ok(Some(record));
                }
                Err(_) => self.undecodable += 1,
            }
        }
    }
}

impl<R: Read> Iterator for Trace<R> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.header_due {
            self.header_due = false;
            return Some(Ok(Record::Trace(self.header.clone())));
        }
        if self.done {
            return None;
        }
        let next = self.next_record().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

enum HeaderCheck {
    Good(Header),
    Newer(u64),
    Bad,
}

/// Looks at the version before anything else, since a newer header may hold
/// what this program cannot decode.
fn check_header(line: &[u8]) -> HeaderCheck {
    #[derive(Deserialize)]
    struct Claim {
        kind: String,
        format: String,
        version: u64,
    }
    let Ok(claim) = serde_json::from_slice::<Claim>(line) else {
        return HeaderCheck::Bad;
    };
    if claim.kind != "trace" || claim.format != FORMAT {
        return HeaderCheck::Bad;
    }
    if claim.version > u64::from(VERSION) {
        return HeaderCheck::Newer(claim.version);
    }
    match serde_json::from_slice(line) {
        Ok(Record::Trace(header)) => HeaderCheck::Good(header),
        _ => HeaderCheck::Bad,
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
