//! FastCGI as far as a responder needs it (FastCGI Specification 1.0, sections 3 and 8):
//! its records, and the names and values of its parameters.

use std::io::{Error, ErrorKind, Result};

use crate::http::Head;

/// Types of records.
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

const VERSION: u8 = 1;
/// nginx never has two requests on a connection: it numbers each 1.
const REQUEST: u8 = 1;
/// Flag of BEGIN_REQUEST: the connection is to stay open.
const KEEP_CONN: u8 = 1;
const HEADER: usize = 8;
/// Content of a record at most.
const MOST: usize = 0xffff;
/// Parameters of a request at most.
const MOST_PARAMETERS: usize = 64 * 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    kind: u8,
    content: Vec<u8>,
}

impl Record {
    /// Reads one by means of `read`, which fills a buffer.
    ///
    /// # Errors
    /// If `read` fails, or what comes is no record.
    pub fn read(mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Self> {
        let mut header = [0; HEADER];
        read(&mut header)?;
        let [version, kind, _, _, high, low, padding, _] = header;
        if version != VERSION {
            return Err(invalid("another version of FastCGI"));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut content = vec![0; length + usize::from(padding)];
        read(&mut content)?;
        content.truncate(length);
        Ok(Self { kind, content })
    }

    /// What it holds of the request's body; none at the body's end.
    ///
    /// # Errors
    /// If it is of another kind.
    pub fn body(&self) -> Result<Option<usize>> {
        match self.kind {
            STDIN => Ok(Some(self.content.len()).filter(|length| *length > 0)),
            _ => Err(invalid("a record that is not of the body")),
        }
    }
}

/// Reads a request's head: BEGIN_REQUEST and the parameters, given as an HTTP head.
///
/// # Errors
/// If `read` fails, or what comes is no request.
pub fn read_head(mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Head> {
    let begin = Record::read(&mut read)?;
    let keeps = match (begin.kind, begin.content.get(2)) {
        (BEGIN_REQUEST, Some(flags)) => flags & KEEP_CONN != 0,
        _ => return Err(invalid("not the beginning of a request")),
    };
    let mut parameters = Vec::new();
    loop {
        let record = Record::read(&mut read)?;
        match record.kind {
            PARAMS if record.content.is_empty() => break,
            PARAMS if parameters.len() < MOST_PARAMETERS => parameters.extend(record.content),
            _ => return Err(invalid("no parameters, or no end of them")),
        }
    }
    head(&parameters, keeps).ok_or_else(|| invalid("parameters cut short"))
}

fn head(mut parameters: &[u8], keeps: bool) -> Option<Head> {
    let mut method = String::new();
    let mut target = String::new();
    let mut headers = Vec::new();
    // Ends: each turn takes two lengths away.
    while !parameters.is_empty() {
        let name = length(&mut parameters)?;
        let value = length(&mut parameters)?;
        let name = String::from_utf8_lossy(take(&mut parameters, name)?).into_owned();
        let value = String::from_utf8_lossy(take(&mut parameters, value)?).into_owned();
        match name.as_str() {
            "REQUEST_METHOD" => method = value,
            "REQUEST_URI" => target = value,
            "CONTENT_LENGTH" if value.is_empty() => {}
            "CONTENT_LENGTH" => headers.push(("Content-Length".to_owned(), value)),
            "HTTP_CONNECTION" | "HTTP_CONTENT_LENGTH" => {}
            name => {
                if let Some(name) = name.strip_prefix("HTTP_") {
                    headers.push((name.replace('_', "-"), value));
                }
            }
        }
    }
    if !keeps {
        headers.push(("Connection".to_owned(), "close".to_owned()));
    }
    Some(Head {
        first_line: format!("{method} {target} FastCGI"),
        headers,
    })
}

/// A length: one byte, or four with the first one's high bit set.
fn length(bytes: &mut &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    if first < 0x80 {
        take(bytes, 1)?;
        return Some(usize::from(first));
    }
    let four: [u8; 4] = take(bytes, 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(four) & 0x7fff_ffff).ok()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// A part of a response, given as of HTTP, in records. Its status line, if it begins
/// with one, becomes a field, as of CGI.
#[must_use]
pub fn part(bytes: &[u8]) -> Vec<u8> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ");
    let bytes = match status {
        Some(rest) => [b"Status: ", rest].concat(),
        None => bytes.to_vec(),
    };
    let mut records = Vec::new();
    for content in bytes.chunks(MOST) {
        record(&mut records, STDOUT, content);
    }
    records
}

/// What a program says on its stderr, which nginx logs as it is.
#[must_use]
pub fn stderr(text: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for content in text.chunks(MOST) {
        record(&mut records, STDERR, content);
    }
    records
}

/// The end of a response.
#[must_use]
pub fn end() -> Vec<u8> {
    let mut records = Vec::new();
    record(&mut records, STDOUT, &[]);
    record(&mut records, END_REQUEST, &[0; 8]);
    records
}

fn record(records: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    records.extend_from_slice(&[VERSION, kind, 0, REQUEST]);
    records.extend_from_slice(&length.to_be_bytes());
    records.extend_from_slice(&[0, 0]);
    records.extend_from_slice(content);
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn reader(mut bytes: &[u8]) -> impl FnMut(&mut [u8]) -> Result<()> {
        move |buffer| bytes.read_exact(buffer)
    }

    #[test]
    fn a_request_is_read_as_the_head_that_it_stands_for() {
        let mut parameters = Vec::new();
        let long = "v".repeat(300);
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/fastcgi/1"),
            ("CONTENT_LENGTH", "12"),
            ("HTTP_X_LAB", "close after=5"),
            ("HTTP_LONG", long.as_str()),
        ] {
            parameters.push(u8::try_from(name.len()).unwrap());
            match u8::try_from(value.len()) {
                Ok(short) if short < 128 => parameters.push(short),
                _ => {
                    let length = u32::try_from(value.len()).unwrap() | 0x8000_0000;
                    parameters.extend(length.to_be_bytes());
                }
            }
            parameters.extend(name.bytes().chain(value.bytes()));
        }
        let mut bytes = Vec::new();
        record(&mut bytes, BEGIN_REQUEST, &[0, 1, KEEP_CONN, 0, 0, 0, 0, 0]);
        record(&mut bytes, PARAMS, &parameters);
        record(&mut bytes, PARAMS, &[]);
        let head = read_head(reader(&bytes)).unwrap();
        assert_eq!(head.first_line, "POST /fastcgi/1 FastCGI");
        assert_eq!(head.header("x-lab"), Some("close after=5"));
        assert_eq!(head.header("long"), Some(long.as_str()));
        assert_eq!(head.content_length().unwrap(), Some(12));
        assert!(!head.closes());
        assert!(read_head(reader(&bytes[..bytes.len() - 1])).is_err());
    }

    #[test]
    fn a_response_is_split_into_records_and_its_status_becomes_a_field() {
        let response = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'a'; MOST]].concat();
        let records = part(&response);
        let mut read = reader(&records);
        let first = Record::read(&mut read).unwrap();
        assert!(first.content.starts_with(b"Status: 200 OK\r\n\r\naaa"));
        assert_eq!(first.content.len(), MOST);
        let second = Record::read(&mut read).unwrap();
        assert_eq!(second.content.len(), response.len() - 1 - MOST);
        assert!(Record::read(&mut read).is_err());
    }
}
